"""People decide in a real browser at a real Label Studio, and the tables say what they did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labeling.projects import connect, open_project
from labeling.pull import pull_boxes
from labeling.push import push_boxes
from labeling.serve import USER
from labeling.settle import settle
from pipeline.schema import Instance, Review
from pipeline.workspace import Workspace
from tests.labeling.annotator import CHROMIUM, Annotator, browser
from tests.labeling.conftest import Studio
from tests.labeling.drawn_workspace import (
    HALF_SEEN,
    MIXED,
    MULTI,
    MUSIC,
    OFF_SCREEN,
    SINGLE,
    VIDEOS,
    VOCABULARY,
    Drawn,
    fill_drawn,
)

pytestmark = [pytest.mark.labelstudio, pytest.mark.browser, pytest.mark.slow]


@dataclass
class Desk:
    """A person at the page, the workspace behind it, and what is true of its frames."""

    person: Annotator
    workspace: Workspace
    world: dict[str, Drawn]
    project: int
    tasks: dict[str, int]
    """Numbers of the box tasks, by video."""

    def frame_id(self, video: str) -> str:
        return self.world[video].frame.frame_id

    def open(self, video: str) -> None:
        self.person.open(self.project, self.tasks[video])

    def pulled(self, video: str) -> Review:
        """The frame's only review, once pulled."""
        pull_boxes(self.workspace, connect(self.workspace), VOCABULARY)
        settle(self.workspace)
        name = self.frame_id(video)
        (review,) = [row for row in self.workspace.rows(Review) if row.frame_id == name]
        return review

    def instances(self, video: str) -> list[Instance]:
        name = self.frame_id(video)
        return [row for row in self.workspace.rows(Instance) if row.frame_id == name]


@pytest.fixture(scope="module")
def opened(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The drawn frames pushed to the session's server, and a person logged in."""
    if not CHROMIUM.exists():
        pytest.skip("no Chromium; 'make test-labelstudio' says how to get one")
    # Inside of the folder whose files the server may show.
    root = studio.workspace.storage.path("drawn")
    Workspace.create(root)
    token = studio.workspace.storage.path("label-studio") / "token"
    settings = [
        f"label.url='{studio.api.url}'",
        f"label.token_file='{token}'",
        "label.project='drawn'",
        "label.media_url='/data/local-files/?d=drawn/'",
    ]
    workspace = Workspace(root, settings)
    world = fill_drawn(workspace)
    pushed = push_boxes(workspace, studio.api, VOCABULARY)
    assert (pushed.new, pushed.skipped) == (len(VIDEOS), [])
    project = open_project(studio.api, "drawn", "boxes").number
    studio.api.add_local_files(project, str(workspace.storage.path("media")))
    names = {one.frame.frame_id: name for name, one in world.items()}
    tasks = {names[task["data"]["frame_id"]]: int(task["id"]) for task in studio.api.tasks(project)}
    password = token.with_name("password").read_text(encoding="utf-8")
    with browser(tmp_path_factory.mktemp("profile"), studio.api.url) as person:
        person.log_in(USER, password)
        yield Desk(person, workspace, world, project, tasks)


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
    person.press("7", "1")
    person.drag((box[0], box[1]), (box[0] + box[2], box[1] + box[3]))
    person.wait_for_regions(1)
    person.press("Control+Enter")
    person.expect_text("Every box needs a scenario: q, w or e")
    person.press("Escape", "Control+Backspace")
    person.wait_for_regions(0)


def test_what_sounds_out_of_sight_is_chosen_from_what_was_heard(desk: Desk) -> None:
    person = desk.person
    desk.open(OFF_SCREEN)
    person.press("8")
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
    person.press("9")
    person.expect_text("WHY REJECT")
    person.press("Shift+M")
    person.submit()
    review = desk.pulled(MUSIC)
    assert (review.decision, review.reject_reasons) == ("rejected", ["Background music"])
    assert desk.instances(MUSIC) == []


def test_the_page_asks_nobody_outside(desk: Desk) -> None:
    assert desk.person.outside == []
