"""Frames become tasks that their labeling config can show."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.projects.annotator_clips import make_clips
from labeling.projects.box_project import box_task, heard_first
from labeling.projects.box_results import read_boxes
from labeling.projects.labeling_config import NO_KEY, BadTaskError, check_task, layout
from pipeline.config import LabelConfig
from pipeline.media import Media, read_timeline
from pipeline.records.schema import Frame, Proposal, SoundCategory, Sounds
from pipeline.workspace.storage import Storage
from tests.labeling.exchange import accepted
from tests.rows import clip, frame, proposal, sounds, video
from tests.video_factory import bursts, make_video

VOCABULARY = ["cat", "dog", "lion", "car", "violin", "piano", "drum", "bell"]


def heard(*names: tuple[str, float, bool]) -> Sounds:
    categories = [SoundCategory(category=n, score=s, active=a) for n, s, a in names]
    return sounds(categories=categories)


def make(proposals: list[Proposal], listened: Sounds | None = None, **changes: Any) -> Any:
    return box_task(frame(**changes), proposals, listened, VOCABULARY, "/img?d=a&b", "<b>x</b>")


def said(task: Any, name: str) -> list[Any]:
    items = [i for p in task["predictions"] for i in p["result"] if i["from_name"] == name]
    return [next(iter(v for v in i["value"].values() if isinstance(v, list)))[0] for i in items]


def test_what_is_heard_comes_first_with_keys_and_the_rest_gets_no_letter() -> None:
    task = make([], heard(("lion", 0.4, True), ("dog", 0.9, True)))
    names = [item["value"] for item in task["data"]["categories"]]
    assert names == ["dog", "lion", "cat", "car", "violin", "piano", "drum", "bell"]
    keys = [item["hotkey"] for item in task["data"]["categories"]]
    assert keys == ["1", "2", *[NO_KEY] * 6]
    check_task(task, "boxes")


def test_a_category_heard_below_zero_still_comes_before_one_not_heard() -> None:
    assert heard_first([SoundCategory(category="b", score=-1, active=False)], ["a", "b"])[0] == "b"


def test_audible_proposals_become_regions_with_their_ids_and_the_rest_stays_out() -> None:
    boxes = [proposal("p_1"), proposal("p_2", audible=False)]
    result = make(boxes, sounds())["predictions"][0]["result"]
    assert {item["id"] for item in result} == {"p_1", "status"}
    assert result[0]["score"] == boxes[0].detector_score


@pytest.mark.parametrize(
    ("categories", "active", "expected"),
    [
        (["dog"], ["dog"], ["Single-sound"]),
        (["dog", "dog"], ["dog"], ["Multi-entity", "Multi-entity"]),
        (["dog", "cat"], ["dog", "cat"], ["Mixed-sound", "Mixed-sound"]),
        (["dog"], ["dog", "violin"], ["Mixed-sound"]),
    ],
)
def test_the_scenario_is_prefilled_by_the_rule(
    categories: list[str], active: list[str], expected: list[str]
) -> None:
    boxes = [proposal(f"p_{n}", categories=[name]) for n, name in enumerate(categories)]
    task = make(boxes, heard(*[(name, 0.9, True) for name in active]))
    assert said(task, "scenario") == expected


def test_an_ambiguous_box_takes_the_category_heard_best() -> None:
    listened = heard(("lion", 0.8, True), ("cat", 0.2, True))
    assert said(make([proposal(categories=["cat", "lion"])], listened), "category") == ["lion"]


def test_a_category_the_list_no_longer_has_can_still_be_shown() -> None:
    check_task(make([proposal(categories=["theremin"])]), "boxes")


def test_a_frame_without_a_box_has_no_prediction_and_its_status_is_left_to_the_person() -> None:
    assert make([])["predictions"] == []


@pytest.mark.parametrize(
    ("where", "value", "text"),
    [
        (("value", "rectanglelabels"), ["unicorn"], "unicorn"),
        (("value", "x"), 95.0, "not in percent"),
        (("value", "width"), 0.0, "not in percent"),
        (("value", "x"), float("nan"), "not in percent"),
        (("from_name",), "nobody", "nobody"),
        (("to_name",), "clips", "no control"),
    ],
)
def test_a_region_the_config_cannot_show_is_never_sent(
    where: tuple[str, ...], value: Any, text: str
) -> None:
    task = copy.deepcopy(make([proposal()], sounds()))
    place = task["predictions"][0]["result"][0]
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(BadTaskError, match=text):
        check_task(task, "boxes")


def test_a_task_without_what_the_config_shows_or_with_a_key_twice_is_never_sent() -> None:
    task = make([], sounds())
    task["data"]["categories"][0]["hotkey"] = "q"
    with pytest.raises(BadTaskError, match="hotkey"):
        check_task(task, "boxes")
    del task["data"]["clips_html"]
    with pytest.raises(BadTaskError, match="clips_html"):
        check_task(task, "boxes")


def test_every_choice_of_the_config_has_a_key_of_its_own() -> None:
    # Label Studio gives letters to choices without one, and then letters change labels.
    tags = list(ElementTree.fromstring(layout("boxes").xml).iter())
    keys = [tag.get("hotkey") for tag in tags if tag.tag in ("Choice", "Label")]
    assert None not in keys
    assert len(set(keys)) == len(keys) == 12


boxes = st.tuples(
    st.floats(0, 1900), st.floats(0, 1060), st.floats(0.5, 1920), st.floats(0.5, 1080)
)


@given(boxes, st.sampled_from([(1920, 1080), (640, 360), (333, 217)]))
def test_a_box_accepted_as_it_was_sent_comes_back_as_the_same_numbers(
    box: tuple[float, ...], size: tuple[int, int]
) -> None:
    width, height = size
    x, y = min(box[0], width - 0.5), min(box[1], height - 0.5)
    bbox = [x, y, min(box[2], width - x), min(box[3], height - y)]
    shown: Frame = frame(width=width, height=height)
    mine = proposal(bbox=bbox)
    task = box_task(shown, [mine], sounds(), VOCABULARY, "i", "c")
    check_task(task, "boxes")
    answer = {"result": accepted(task), "updated_at": "2026-01-01T00:00:00Z", "completed_by": 1}
    found = read_boxes(answer, shown, [mine], VOCABULARY, "a").instances
    assert [(i.bbox, i.origin, i.proposal_id) for i in found] == [(bbox, "kept", "p_1")]


def test_the_loop_shows_the_frame_and_its_neighbours_and_is_made_once(tmp_path: Path) -> None:
    make_video(tmp_path / "v.mp4", frames=100, fps=25, sound=bursts(4.0, [2.0]), b_frames=2)
    storage = Storage(tmp_path)
    row, span = video(path="v.mp4"), clip(end_s=4.0)
    loop, context = make_clips(storage, frame(50), span, row, LabelConfig())
    assert len(read_timeline(Media(tmp_path / loop)).pts) == 3, "0.05 s around, at 25 frames a s"
    assert 75 <= len(read_timeline(Media(tmp_path / context)).pts) <= 103
    before = (tmp_path / loop).stat().st_mtime_ns
    (tmp_path / "v.mp4").unlink()
    assert make_clips(storage, frame(50), span, row, LabelConfig()) == (loop, context)
    assert (tmp_path / loop).stat().st_mtime_ns == before
    assert {p.suffix for p in (tmp_path / "media" / "clips").iterdir()} == {".mp4"}


def test_a_picture_that_may_be_broken_is_shown_with_a_word_of_it() -> None:
    whole, broken = (
        box_task(one, [], sounds(), VOCABULARY, "i", "<b>x</b>")["data"]["clips_html"]
        for one in (frame(), frame(suspect="blocks"))
    )
    assert whole == "<b>x</b>"
    assert broken.endswith(whole)
    assert "may be broken" in broken
