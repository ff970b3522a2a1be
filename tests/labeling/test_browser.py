"""People decide in a real browser at a real Label Studio, and the tables say what they did."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labeling.label_studio import brush
from labeling.projects.backend import Backend, Prompts, connect_backend
from labeling.projects.connect import connect, open_project
from labeling.projects.mask_project import MASKS
from labeling.review.verified_masks import bring_masks_up_to_date
from labeling.sync.pull import pull
from labeling.sync.reopen import reopen_boxes
from pipeline.config import SegmentConfig
from pipeline.records import rle
from pipeline.records.schema import Mask, Review
from stages.segment.refine import FrameRefiner
from tests.labeling.annotator import CHROMIUM
from tests.labeling.conftest import Studio, label_studio_command
from tests.labeling.desk import Desk, open_desk, with_masks
from tests.labeling.drawn_workspace import HALF_SEEN, MIXED, MULTI, MUSIC, OFF_SCREEN, SINGLE

pytestmark = [pytest.mark.labelstudio, pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def opened(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The drawn frames pushed to the session's server, and a person logged in."""
    if not CHROMIUM.exists():
        pytest.skip("no Chromium; 'make test-labelstudio' says how to get one")
    with open_desk(studio.workspace, studio.api, tmp_path_factory.mktemp("profile")) as desk:
        yield desk


@pytest.fixture
def desk(opened: Desk, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """The same; a test that fails leaves a picture of what the person saw."""
    before = request.session.testsfailed
    yield opened
    if request.session.testsfailed > before:
        picture = opened.person.photograph(tmp_path / "page.png")
        request.node.add_report_section("teardown", "what the person saw", str(picture))


def said(review: Review) -> list[tuple[Any, ...]]:
    return [(one.category, one.scenario, one.origin, one.proposal_id) for one in review.instances]


def test_frames_are_accepted_with_the_keyboard_alone(desk: Desk) -> None:
    person = desk.person
    first = person.begin(desk.project)
    assert first == desk.tasks[HALF_SEEN]
    person.submit()
    second = person.wait_for_another_task(first)
    assert second == desk.tasks[SINGLE]
    person.submit()
    assert person.wait_for_another_task(second) == desk.tasks[OFF_SCREEN]
    review = desk.pulled(HALF_SEEN)
    assert said(review) == [("bird", "Mixed-sound", "kept", f"p_{HALF_SEEN}_1")]
    review = desk.pulled(SINGLE)
    assert (review.kind, review.decision, review.verified) == ("boxes", "labelled", True)
    assert review.lead_time_s is not None
    assert review.lead_time_s > 0
    assert said(review) == [("dog", "Single-sound", "kept", f"p_{SINGLE}_1")]
    (instance,) = desk.instances(SINGLE)
    assert instance.bbox == desk.world[SINGLE].box("dog")
    assert instance.verified
    assert instance.review_ids == [review.review_id]


def test_the_wrong_one_of_two_look_alikes_is_deleted(desk: Desk) -> None:
    person = desk.person
    desk.open(MULTI)
    silent, loud = f"p_{MULTI}_0", f"p_{MULTI}_1"
    assert set(person.regions()) == {silent, loud}
    person.select(silent)
    person.press("d")
    person.wait_for_regions(1)
    person.submit()
    review = desk.pulled(MULTI)
    assert said(review) == [("dog", "Multi-entity", "kept", loud)]
    (instance,) = desk.instances(MULTI)
    assert instance.bbox == desk.world[MULTI].box("dog")


def test_a_missing_box_is_drawn_with_its_category_and_scenario(desk: Desk) -> None:
    person, box = desk.person, desk.world[MIXED].box("violin")
    desk.open(MIXED)
    person.wait_for_regions(1)
    person.press("2")  # heard second
    person.drag((box[0], box[1]), (box[0] + box[2], box[1] + box[3]))
    person.wait_for_regions(2)
    person.expect_text("Single-sound")
    person.press("w")
    person.submit()
    review = desk.pulled(MIXED)
    assert said(review) == [
        ("guitar", "Mixed-sound", "kept", f"p_{MIXED}_0"),
        ("violin", "Mixed-sound", "added", None),
    ]
    drawn = review.instances[1].bbox
    assert drawn == pytest.approx(box, abs=1.0)  # a pixel of the screen
    assert sorted(one.bbox for one in desk.instances(MIXED)) == sorted(
        [desk.world[MIXED].box("guitar"), drawn]
    )


def test_a_box_without_a_scenario_is_not_submitted(desk: Desk) -> None:
    person, box = desk.person, desk.world[OFF_SCREEN].box("cat")
    desk.open(OFF_SCREEN)
    person.decide("7", "Visible")
    person.press("1")
    person.drag((box[0], box[1]), (box[0] + box[2], box[1] + box[3]))
    person.wait_for_regions(1)
    person.press("Control+Enter")
    person.expect_text("Every box needs a scenario: q, w or e")
    person.press("Escape", "Control+Backspace")
    person.wait_for_regions(0)


def test_what_sounds_out_of_sight_is_chosen_from_what_was_heard(desk: Desk) -> None:
    person = desk.person
    desk.open(OFF_SCREEN)
    person.decide("8", "Off-screen")
    person.expect_text("WHAT SOUNDS OFF SCREEN")
    person.choose("car")
    person.submit()
    review = desk.pulled(OFF_SCREEN)
    assert (review.decision, review.off_screen_category) == ("off_screen", "car")
    assert (review.instances, review.reject_reasons) == ([], [])
    assert desk.instances(OFF_SCREEN) == []


def test_a_frame_is_rejected_for_its_reasons_with_the_proposals_still_there(desk: Desk) -> None:
    person = desk.person
    desk.open(MUSIC)
    person.wait_for_regions(1)
    person.decide("9", "Reject")
    person.expect_text("WHY REJECT")
    person.press("Shift+M")
    person.submit()
    review = desk.pulled(MUSIC)
    assert (review.decision, review.reject_reasons) == ("rejected", ["Background music"])
    assert desk.instances(MUSIC) == []


@pytest.fixture(scope="module")
def masks(opened: Desk) -> Desk:
    """The same person at the masks of the accepted boxes; each lacks its left quarter."""
    return with_masks(opened)


def shown(desk: Desk, video: str) -> Mask:
    """The frame's only mask."""
    name = desk.frame_id(video)
    (found,) = [row for row in desk.workspace.rows(Mask) if row.frame_id == name]
    return found


def pull_the_masks(desk: Desk, video: str) -> Review:
    pull(desk.workspace, connect(desk.workspace), MASKS, [])
    bring_masks_up_to_date(desk.workspace)
    name = desk.frame_id(video)
    rows = [row for row in desk.workspace.rows(Review) if row.kind == "masks"]
    (review,) = [row for row in rows if row.frame_id == name]
    return review


def test_a_mask_is_accepted_with_the_keyboard_and_stays_bit_by_bit(masks: Desk, desk: Desk) -> None:
    before = shown(masks, HALF_SEEN)
    assert masks.person.begin(masks.project) == masks.tasks[HALF_SEEN]
    masks.person.submit()
    review = pull_the_masks(masks, HALF_SEEN)
    (one,) = review.instances
    assert (review.decision, one.origin, one.instance_id) == (
        "labelled",
        "kept",
        before.instance_id,
    )
    assert one.rle == before.rle
    assert shown(masks, HALF_SEEN) == before.model_copy(update={"verified": True})


def test_a_stroke_of_the_brush_adds_what_it_covers_and_not_its_soft_rim(
    masks: Desk, desk: Desk
) -> None:
    person, before = masks.person, shown(masks, SINGLE)
    masks.open(SINGLE)
    x, y, _, height = masks.world[SINGLE].box("dog")
    top, bottom = (x + 5, y + 20), (x + 5, y + height - 20)
    person.press("1")
    person.drag(top, bottom)
    person.wait_for_regions(2)
    number = person.submit()
    review = pull_the_masks(masks, SINGLE)
    assert [one.origin for one in review.instances] == ["moved"]
    after = shown(masks, SINGLE)
    assert (after.source, after.verified) == ("annotator", True)
    was, now = rle.decode(before.rle), rle.decode(after.rle)
    assert now[was].all(), "what was there stays"
    rows, columns = np.nonzero(now & ~was)
    half = (columns.max() - columns.min()) / 2
    assert abs(columns.mean() - top[0]) < 1.5
    assert rows.min() == pytest.approx(top[1] - half, abs=2)
    assert rows.max() == pytest.approx(bottom[1] + half, abs=2)
    # The slow definition: every alpha value of every stroke, by Label Studio's own package.
    alpha = np.zeros_like(was, np.uint8)
    for item in annotation(masks, number)["result"]:
        if item["type"] == "brushlabels":
            alpha = np.maximum(alpha, theirs(item["value"]["rle"], *was.shape))
    assert set(np.unique(alpha)) - {0, 255}, "a browser's stroke has a soft rim"
    assert np.array_equal(now, alpha > 127)


def annotation(desk: Desk, number: int) -> dict[str, Any]:
    found: dict[str, Any] = connect(desk.workspace).call("GET", f"/api/annotations/{number}/")
    return found


def theirs(data: list[int], height: int, width: int) -> NDArray[np.uint8]:
    """The alpha values of a brush region as label_studio_sdk reads them, ``(height, width)``."""
    script = (
        "import json, sys; from label_studio_sdk.converter.brush import decode_rle;"
        "sys.stdout.buffer.write(bytes(decode_rle(json.load(sys.stdin))))"
    )
    python = label_studio_command().with_name("python")
    ended = subprocess.run(
        [python, "-c", script], input=json.dumps(data).encode(), capture_output=True, check=True
    )
    return np.frombuffer(ended.stdout, np.uint8).reshape(height, width, 4)[..., 3]


def test_a_point_through_label_backend_makes_the_mask_whole(masks: Desk, desk: Desk) -> None:
    person, before = masks.person, shown(masks, MULTI)
    server, said = connect(masks.workspace), list[str]()
    refiner = FrameRefiner(masks.workspace.storage, SegmentConfig(), kept=4)
    with Backend(Prompts(masks.workspace, refiner), 0, said.append) as backend:
        connect_backend(server, open_project(server, "drawn", MASKS), backend)
        masks.open(MULTI)
        person.switch_on_suggestions()
        x, y, width, height = masks.world[MULTI].box("dog")
        person.prompt("a", x + width / 2, y + height / 2)
        person.accept_suggestion()
        number = person.submit()
    assert said == []
    drawn = [item for item in annotation(masks, number)["result"] if item["from_name"] == "mask"]
    assert [item["id"] for item in drawn] == [before.instance_id], "replaced, not stacked"
    review = pull_the_masks(masks, MULTI)
    assert [one.origin for one in review.instances] == ["moved"]
    after = shown(masks, MULTI)
    assert (after.source, after.verified) == ("annotator", True)
    assert after.rle == rle.encode(brush.decode(drawn[0]["value"]["rle"], 360, 640))
    truth = masks.world[MULTI].silhouette("dog")
    assert overlap(after, truth) > 0.9 > overlap(before, truth)


def overlap(mask: Mask, truth: NDArray[np.bool_]) -> float:
    pixels = rle.decode(mask.rle)
    return float((pixels & truth).sum() / (pixels | truth).sum())


def test_back_to_boxes_opens_the_boxes_again_with_what_was_drawn(masks: Desk, desk: Desk) -> None:
    person = masks.person
    masks.open(MIXED)
    person.wait_for_regions(2)
    person.decide("8", "Back to boxes")
    person.write("the guitar is silent")
    person.submit()
    review = pull_the_masks(masks, MIXED)
    assert (review.decision, review.reject_reasons) == ("back_to_boxes", ["the guitar is silent"])
    server = connect(masks.workspace)
    assert reopen_boxes(masks.workspace, server).frames == [masks.frame_id(MIXED)]
    assert person.begin(desk.project) == desk.tasks[MIXED]
    person.wait_for_regions(2)
    assert f"p_{MIXED}_0" in person.regions()


def test_the_page_asks_nobody_outside(desk: Desk) -> None:
    assert desk.person.outside == []
