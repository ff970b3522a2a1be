"""Answers become reviews, or say what to mend."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.projects.box_results import read_boxes, withdrawn
from labeling.quality.matching import moved_iou
from pipeline.errors import InputError
from pipeline.records.reviews import is_withdrawn
from pipeline.records.schema import Review
from tests.labeling.exchange import VISIBLE, choice, rectangle, scenario
from tests.rows import frame, proposal

VOCABULARY = ["dog", "cat"]


def box(name: str = "p_1", label: str = "dog", origin: str = "prediction", **changes: Any) -> Any:
    """A box of 40x40 at 10, 10, as its proposal has it."""
    place = {"x": 3.125, "y": 100 / 18, "width": 12.5, "height": 400 / 18}
    return rectangle(name, place, label, origin, **changes)


def answer(*items: Any, **changes: Any) -> dict[str, Any]:
    values = {
        "result": list(items),
        "completed_by": 7,
        "lead_time": 12.5,
        "updated_at": "2026-11-21T01:02:03.456789Z",
    }
    return values | changes


def read(*items: Any, **changes: Any) -> Review:
    return read_boxes(answer(*items, **changes), frame(), [proposal()], VOCABULARY, "k/u1")


def test_a_kept_box_has_who_when_how_long_and_its_proposal() -> None:
    review = read(VISIBLE, box(), scenario())
    assert review.decision == "labelled"
    assert (review.annotator, review.lead_time_s, review.verified) == ("7", 12.5, True)
    assert review.updated_at == "2026-11-21T01:02:03.456789+00:00"
    assert review.annotation_id == "k/u1"
    (found,) = review.instances
    assert found.model_dump(exclude={"instance_id", "rle", "drawn_by"}) == {
        "bbox": [10.0, 10.0, 40.0, 40.0],
        "category": "dog",
        "scenario": "Single-sound",
        "origin": "kept",
        "proposal_id": "p_1",
        "proposal_iou": 1.0,
        "track_id": None,
    }


def test_a_box_kept_or_moved_stays_in_its_proposals_track_and_a_drawn_one_has_none() -> None:
    linked = [proposal(track_id=5)]
    drawn = box("new", origin="manual", x=50.0)
    for kept in (box(), box(width=25.0), box(label="cat", origin="prediction-changed")):
        items = [VISIBLE, kept, scenario(), drawn, scenario("new")]
        review = read_boxes(answer(*items), frame(), linked, VOCABULARY, "k/u1")
        assert [one.track_id for one in review.instances] == [5, None]


def test_only_the_geometry_says_whether_a_box_was_moved() -> None:
    relabelled = box(label="cat", origin="prediction-changed")
    review = read(VISIBLE, relabelled, scenario(value="Multi-entity"))
    assert [i.origin for i in review.instances] == ["kept"]
    moved = read(VISIBLE, box(width=25.0), scenario()).instances[0]
    assert (moved.origin, moved.bbox) == ("moved", [10.0, 10.0, 80.0, 40.0])
    assert moved.proposal_iou == moved_iou(moved, {}) == 0.5, "also when the proposal is gone"
    before = moved.model_copy(update={"proposal_iou": None})
    assert moved_iou(before, {"p_1": proposal()}) == 0.5


def test_a_drawn_box_is_added_and_a_missing_proposal_was_removed() -> None:
    drawn = box("new", origin="manual", x=50.0)
    review = read(VISIBLE, drawn, scenario("new"))
    assert [(i.origin, i.proposal_id) for i in review.instances] == [("added", None)]
    assert moved_iou(review.instances[0], {"p_1": proposal()}) is None


def test_a_box_drawn_over_the_edge_ends_at_it() -> None:
    drawn = box("new", origin="manual", x=95.0, width=20.0)
    review = read(VISIBLE, drawn, scenario("new"))
    assert review.instances[0].bbox == [304.0, 10.0, 16.0, 40.0]


def test_the_text_beside_other_is_the_category() -> None:
    text = choice("category_text", " hurdy  gurdy ", region="p_1", key="text")
    assert read(VISIBLE, box(label="Other"), scenario(), text).instances[0].category == (
        "hurdy gurdy"
    )


def test_off_screen_has_a_category_chosen_or_typed_and_no_instances() -> None:
    off = choice("status", "Off-screen")
    review = read(off, choice("off_screen_category", "dog"), box(), scenario())
    assert (review.decision, review.off_screen_category) == ("off_screen", "dog")
    assert review.instances == [], "a proposal left lying is no instance"
    typed = choice("off_screen_text", "thunder", key="text")
    assert read(off, typed).off_screen_category == "thunder"


def test_a_rejected_frame_has_its_reasons_and_what_other_panels_hold_is_ignored() -> None:
    review = read(
        choice("status", "Reject"),
        choice("reject_reason", "Blurred", "Background music"),
        choice("off_screen_category", "dog"),
        box(),
    )
    assert (review.decision, review.instances) == ("rejected", [])
    assert review.reject_reasons == ["Blurred", "Background music"]
    assert review.off_screen_category is None


@pytest.mark.parametrize(
    ("kind", "items"),
    [
        ("no_status", [box(), scenario()]),
        ("no_status", [choice("status", "Maybe"), box(), scenario()]),
        ("no_box", [VISIBLE]),
        ("no_scenario", [VISIBLE, box()]),
        ("no_scenario", [VISIBLE, box(), scenario("other")]),
        ("no_scenario", [VISIBLE, box(), scenario(value="Loud")]),
        ("unknown_category", [VISIBLE, box(label="unicorn"), scenario()]),
        ("no_category", [VISIBLE, box(label="Other"), scenario()]),
        ("no_category", [VISIBLE, box(rectanglelabels=[]), scenario()]),
        ("zero_area", [VISIBLE, box(width=0.0), scenario()]),
        ("zero_area", [VISIBLE, box(x=130.0), scenario()]),
        ("rotated_box", [VISIBLE, box(rotation=12.0), scenario()]),
        ("other_size", [VISIBLE, box() | {"original_width": 640}, scenario()]),
        ("box_off_screen", [choice("status", "Off-screen"), box("n", origin="manual")]),
        ("no_category", [choice("status", "Off-screen")]),
        (
            "unknown_category",
            [choice("status", "Off-screen"), choice("off_screen_category", "unicorn")],
        ),
    ],
)
def test_an_answer_that_contradicts_itself_is_no_review(kind: str, items: list[Any]) -> None:
    with pytest.raises(InputError) as caught:
        read(*items)
    assert caught.value.kind == kind
    assert "\n" not in caught.value.detail


def test_the_same_answer_is_the_same_review_and_an_edit_is_another() -> None:
    one = read(VISIBLE, box(), scenario())
    assert read(VISIBLE, box(), scenario()) == one
    later = read(VISIBLE, box(), scenario(), updated_at="2026-11-22T00:00:00Z")
    assert later.review_id != one.review_id


def test_taking_back_a_review_reopens_its_frame() -> None:
    review = read(VISIBLE, box(), scenario())
    row = withdrawn(review, "2026-11-22T00:00:00+00:00", "annotation deleted")
    assert (row.decision, row.instances, row.frame_id) == ("back_to_boxes", [], review.frame_id)
    assert is_withdrawn(row)
    assert not is_withdrawn(review)
