"""What is painted becomes a review; what cannot be one says what to mend."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labeling.label_studio import brush
from labeling.label_studio.shapes import Question
from labeling.projects.labeling_config import NO_KEY, BadTaskError, check_task
from labeling.projects.mask_project import asked, mask_task, read_masks
from pipeline.errors import InputError
from pipeline.records import rle
from pipeline.records.schema import Instance, Review
from tests.labeling.exchange import choice
from tests.labeling.labelled_workspace import mask_of, pixels
from tests.rows import frame

HEIGHT, WIDTH = 180, 320
DONE = choice("mask_status", "Masks done")


def instance(name: str = "i_1", left: float = 10.0, category: str = "dog") -> Instance:
    return Instance(
        instance_id=name,
        frame_id=frame().frame_id,
        bbox=[left, 20.0, 40.0, 40.0],
        audio_visual_category=category,
        scenario="Single-sound",
        review_ids=["r"],
        proposal_id="p_1",
        verified=True,
    )


def two_things() -> Any:
    """A task of two instances, the left one's mask there and the right one's missing."""
    left, right = instance(), instance("i_2", 200.0, "cat")
    by = {"source": "sam-vit-h", "model_digest": "abc", "predicted_iou": 0.9, "stability": 0.95}
    mask = mask_of(left, pixels(), **by)
    return mask_task(frame(), [(right, None), (left, mask)], "/i", "<b>c</b>")


def region(label: str, drawn: Any, name: str = "x", **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "from_name": "mask",
        "to_name": "frame",
        "type": "brushlabels",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "origin": "manual",
        "value": {"format": "rle", "rle": brush.encode(drawn), "brushlabels": [label]},
        **changes,
    }


def read(*items: Any, task: Any = None) -> Review:
    rows = {"i_1": instance(), "i_2": instance("i_2", 200.0, "cat")}
    said = (two_things() if task is None else task)["data"]["asked"]
    questions = [Question.model_validate(item) for item in said]
    annotation = {
        "result": list(items),
        "updated_at": "2026-11-21T01:02:03Z",
        "completed_by": {"id": 5},
        "lead_time": 7.5,
    }
    return read_masks(annotation, frame(), questions, rows, "key/1@t")


def test_a_task_has_one_label_per_instance_left_to_right_and_the_masks_as_regions() -> None:
    task = two_things()
    check_task(task, "masks")
    for variable, keys in (("instances", "12"), ("sam_points", "as"), ("sam_boxes", "zx")):
        labels = [(item["value"], item["hotkey"]) for item in task["data"][variable]]
        assert labels == [("1 dog", keys[0]), ("2 cat", keys[1])]
    (prediction,) = task["predictions"]
    mask, status = prediction["result"]
    assert (mask["id"], mask["value"]["brushlabels"], mask["score"]) == ("i_1", ["1 dog"], 0.9)
    assert status["value"]["choices"] == ["Masks done"]


def test_what_a_task_asks_does_not_depend_on_the_order_of_the_tables() -> None:
    left, right = instance(), instance("i_2", 200.0)
    assert asked([(left, None), (right, None)]) == asked([(right, None), (left, None)])


def test_two_instances_in_one_place_have_labels_of_their_own_and_many_get_no_letters() -> None:
    things = [(instance(f"i_{number}"), None) for number in range(12)]
    task = mask_task(frame(), things, "/i", "c")
    check_task(task, "masks")
    assert [item["hotkey"] for item in task["data"]["sam_points"][6:]] == [NO_KEY] * 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda item: item["value"].update(brushlabels=["9 cow"]), "9 cow"),
        (lambda item: item["value"].update(rle=[0, 0]), "ends in the middle"),
        (lambda item: item.update(original_width=10), "a brush of"),
        (lambda item: item["value"].update(rle=brush.encode(~pixels() & pixels())), "empty"),
    ],
)
def test_a_mask_the_config_cannot_show_is_never_sent(change: Any, says: str) -> None:
    task = copy.deepcopy(two_things())
    change(task["predictions"][0]["result"][0])
    with pytest.raises(BadTaskError, match=says):
        check_task(task, "masks")


def test_kept_changed_and_new_masks_are_told_apart() -> None:
    task = two_things()
    accepted = {**task["predictions"][0]["result"][0], "origin": "prediction"}
    review = read(DONE, accepted, region("2 cat", pixels(200)))
    assert (review.kind, review.decision, review.verified) == ("masks", "labelled", True)
    assert (review.annotator, review.lead_time_s) == ("5", 7.5)
    first, second = review.instances
    assert (first.instance_id, first.origin, second.instance_id, second.origin) == (
        "i_1",
        "kept",
        "i_2",
        "added",
    )
    assert first.drawn_by is not None
    assert (first.drawn_by.source, second.drawn_by) == ("sam-vit-h", None)
    assert (first.category, first.scenario, first.bbox, first.proposal_id) == (
        "dog",
        "Single-sound",
        [10.0, 20.0, 40.0, 40.0],
        "p_1",
    )
    moved = read(DONE, region("1 dog", pixels(11)), region("2 cat", pixels(200))).instances[0]
    assert (moved.origin, moved.drawn_by) == ("moved", None)
    assert moved.rle is not None
    assert (rle.decode(moved.rle) == pixels(11)).all()


@settings(max_examples=25)
@given(arrays(np.bool_, (HEIGHT, WIDTH), elements=st.booleans(), fill=st.booleans()))
def test_a_mask_accepted_as_it_was_sent_is_the_same_run_lengths(drawn: Any) -> None:
    drawn[0, 0] = True
    row = instance()
    mask = mask_of(row, drawn)
    task = mask_task(frame(), [(row, mask)], "/i", "c")
    (found,) = read(*task["predictions"][0]["result"], task=task).instances
    assert (found.rle, found.origin) == (mask.rle, "kept")


def test_several_regions_of_one_label_are_one_mask_and_prompts_are_not_read() -> None:
    prompt = {"id": "x", "from_name": "sam_point", "type": "brushlabels", "value": {"rle": "junk"}}
    whole = [region("1 dog", pixels(10), "a"), region("1 dog", pixels(60), "b"), prompt]
    review = read(DONE, *whole, region("2 cat", pixels(200)))
    assert review.instances[0].rle == rle.encode(pixels(10) | pixels(60))


def test_back_to_boxes_and_reject_keep_their_words_and_no_masks() -> None:
    note = choice("boxes_note", " the lion \n is missing ", key="text")
    back = read(choice("mask_status", "Back to boxes"), note, region("1 dog", pixels()))
    assert (back.decision, back.reject_reasons, back.instances) == (
        "back_to_boxes",
        ["the lion is missing"],
        [],
    )
    reasons = choice("reject_reason", "Blurred", "Other reason")
    rejected = read(choice("mask_status", "Reject"), reasons, note)
    assert (rejected.decision, rejected.reject_reasons) == ("rejected", ["Blurred", "Other reason"])


OTHER = region("2 cat", pixels(200))
NOTHING = np.zeros((HEIGHT, WIDTH), dtype=bool)


@pytest.mark.parametrize(
    ("kind", "items"),
    [
        ("no_status", [region("1 dog", pixels()), OTHER]),
        ("no_status", [choice("mask_status", "Perhaps"), region("1 dog", pixels()), OTHER]),
        ("no_mask", [DONE, OTHER]),
        ("no_mask", [DONE, region("1 dog", NOTHING), OTHER]),
        ("unknown_label", [DONE, region("3 cow", pixels()), OTHER]),
        ("no_label", [DONE, region("1 dog", pixels(), value={"rle": [1]}), OTHER]),
        ("other_size", [DONE, region("1 dog", pixels(), original_width=640), OTHER]),
        ("unreadable_answer", [DONE, region("1 dog", pixels(), image_rotation=90), OTHER]),
        (
            "bad_brush",
            [DONE, region("1 dog", pixels(), value={"rle": [9], "brushlabels": ["1 dog"]}), OTHER],
        ),
    ],
)
def test_an_answer_that_contradicts_itself_is_no_review(kind: str, items: list[Any]) -> None:
    with pytest.raises(InputError) as caught:
        read(*items)
    assert caught.value.kind == kind
    assert "\n" not in caught.value.detail
