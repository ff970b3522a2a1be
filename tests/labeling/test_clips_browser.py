"""The same drawn clips labelled frame by frame and clip by clip, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from labeling.projects.box_project import BOXES
from labeling.projects.connect import connect, find_projects
from labeling.projects.pages import frames_of
from labeling.review.instances import bring_instances_up_to_date
from labeling.sync.pull import pull
from pipeline.records.schema import Instance, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.annotator import CHROMIUM, STATUS, Annotator
from tests.labeling.conftest import Studio
from tests.labeling.desk import beside, seat, send
from tests.labeling.drawn_workspace import (
    HALF_SEEN,
    MIXED,
    MULTI,
    MUSIC,
    OFF_SCREEN,
    SINGLE,
    VOCABULARY,
    Drawn,
    fill_drawn_clips,
)
from tests.labeling.scripted import Scripted, Worked, heard_s

pytestmark = [pytest.mark.labelstudio, pytest.mark.browser, pytest.mark.slow]


@dataclass
class Both:
    """The drawn clips in two workspaces, one of each layout, and a person logged in."""

    person: Annotator
    workspaces: dict[str, Workspace]
    projects: dict[str, int]
    world: dict[str, list[Drawn]]

    def tasks(self, layout: str) -> dict[int, list[Drawn]]:
        """The frames of each task."""
        known = {one.frame.frame_id: one for ones in self.world.values() for one in ones}
        api = connect(self.workspaces[layout])
        return {
            int(task["id"]): [known[name] for name in frames_of(task)]
            for task in api.tasks(self.projects[layout])
        }


@pytest.fixture(scope="module")
def both(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    if not CHROMIUM.exists():
        pytest.skip("no Chromium; 'make test-labelstudio' says how to get one")
    workspaces, projects, world = {}, {}, {}
    for layout in ("frame", "clip"):
        workspace = beside(studio.workspace, studio.api, f"{layout}s", layout)
        world = fill_drawn_clips(workspace)
        workspaces[layout] = workspace
        projects[layout] = send(workspace, studio.api, sum(map(len, world.values())))
    with seat(studio.workspace, studio.api, tmp_path_factory.mktemp("profile")) as person:
        yield Both(person, workspaces, projects, world)


@pytest.fixture(scope="module")
def worked(both: Both) -> dict[str, Worked]:
    """What the scripted annotator's work took in each layout; it is pulled."""
    found = {}
    for layout, workspace in both.workspaces.items():
        script = Scripted(both.person, both.tasks(layout), heard_s)
        found[layout] = script.work(both.projects[layout])
        pulled = pull(workspace, connect(workspace), BOXES, VOCABULARY)
        assert (pulled.new, pulled.bad) == (found[layout].frames, [])
        bring_instances_up_to_date(workspace)
    return found


def test_no_decision_differs_between_the_layouts(both: Both, worked: dict[str, Worked]) -> None:
    by_frame, by_clip = (said(both.workspaces[layout]) for layout in ("frame", "clip"))
    assert by_clip.keys() == by_frame.keys()
    assert len(by_clip) == worked["clip"].frames
    for name, ours in by_clip.items():
        theirs = by_frame[name]
        assert ours[0] == theirs[0]
        for (what, box), (expected, other) in zip(ours[1], theirs[1], strict=True):
            assert what == expected
            assert box == (other if what[2] == "kept" else pytest.approx(other, abs=2.0))
    counts = [len(both.workspaces[layout].rows(Instance)) for layout in ("frame", "clip")]
    assert counts[0] == counts[1] > 0


def said(workspace: Workspace) -> dict[str, tuple[Any, list[Any]]]:
    """What was decided about each frame, and about each of its boxes, in the order of ids."""
    return {
        row.frame_id: (
            (row.decision, row.reject_reasons, row.off_screen_category, row.shown, row.verified),
            [
                ((one.category, one.scenario, one.origin, one.proposal_id), one.bbox)
                for one in row.instances
            ],
        )
        for row in workspace.rows(Review)
    }


def test_a_clip_costs_a_third_of_the_page_loads_and_six_tenths_of_the_time(
    worked: dict[str, Worked],
) -> None:
    by_frame, by_clip = worked["frame"], worked["clip"]
    assert by_clip.frames == by_frame.frames
    assert by_clip.tasks * 3 <= by_frame.tasks
    assert by_clip.bytes < by_frame.bytes
    assert by_clip.seconds < 0.6 * by_frame.seconds


@pytest.fixture(scope="module")
def fresh(both: Both, worked: dict[str, Worked], studio: Studio) -> Both:
    """The clips once more, which nobody has answered."""
    workspace = beside(studio.workspace, studio.api, "fresh", "clip")
    world = fill_drawn_clips(workspace)
    number = send(workspace, studio.api, sum(map(len, world.values())))
    return Both(both.person, {"clip": workspace}, {"clip": number}, world)


def test_who_skips_a_picture_is_led_to_it_and_nothing_is_submitted(
    fresh: Both,
) -> None:
    person, number = fresh.person, open_clip(fresh, SINGLE)
    person.decide("7", "Visible")
    person.press("Control+Enter")
    person.expect_text("Look at this picture too")
    person.wait_for_page(1)
    person.press("Escape")
    person.press("Meta+ArrowRight")  # the key that turns a page on a Mac counts as well
    assert person.page.evaluate(_SEEN) == [0, 1]
    frames = fresh.tasks("clip")[number]
    person.turn_page(1)
    assert person.status() == "As before"
    person.press("a")  # what is set already is taken back by its key
    person.page.wait_for_function(f"{STATUS} === undefined")
    person.turn_page(len(frames) - 1)
    person.press("Control+ArrowRight", "Control+Enter")
    person.expect_text("Nobody has said it yet")
    person.wait_for_page(1)
    person.press("Escape")
    pulled = pull(fresh.workspaces["clip"], connect(fresh.workspaces["clip"]), BOXES, VOCABULARY)
    assert (pulled.new, pulled.bad) == (0, [])


def open_clip(both: Both, video: str) -> int:
    """Open the task of a video's clip; its number."""
    tasks = both.tasks("clip")
    number = next(number for number, ones in tasks.items() if video_of(ones) == video)
    both.person.open(both.projects["clip"], number)
    return number


def test_one_key_gives_a_thing_its_category_in_the_later_pictures(fresh: Both) -> None:
    person, frames = fresh.person, fresh.tasks("clip")[open_clip(fresh, HALF_SEEN)]
    boxes = [f"p_{HALF_SEEN}_{one.frame.frame_index}_1" for one in frames]
    assert list(person.labels().values()) == ["bird", *["bird, carried on"] * (len(frames) - 1)]
    person.decide("7", "Visible")
    person.select(boxes[0])
    person.press("2", "f")
    for page in range(1, len(frames)):
        person.turn_page(page)
        assert person.status() == "As before"
    person.press("Control+ArrowRight")
    person.select(boxes[-1])
    person.press("1")
    assert person.labels()[boxes[-1]] == "bird"
    person.submit()
    workspace = fresh.workspaces["clip"]
    assert pull(workspace, connect(workspace), BOXES, VOCABULARY).bad == []
    rows = {row.frame_id: row for row in workspace.rows(Review)}
    found = [rows[one.frame.frame_id].instances[0].category for one in frames]
    assert found == [*["baby crying"] * (len(frames) - 1), "bird"]


def test_each_picture_counts_as_seen_whichever_handler_of_the_key_comes_first(fresh: Both) -> None:
    person, frames = fresh.person, fresh.tasks("clip")[open_clip(fresh, MIXED)]
    # The page binds its keys more than once, and the one that turns may have been bound before.
    person.page.evaluate("Htx.annotationStore.selected.setupHotKeys()")
    for page in range(1, len(frames)):
        person.turn_page(page)
    person.press("Control+ArrowRight")
    assert sorted(person.page.evaluate(_SEEN)) == list(range(len(frames)))


def test_selecting_a_box_does_not_move_the_picture(fresh: Both) -> None:
    person = fresh.person
    person.page.set_viewport_size({"width": 1366, "height": 768})
    try:
        person.begin(fresh.projects["clip"])
        before = person.at(0, 0)
        person.press("Space")
        person.expect_text("Silent from here on")
        assert person.at(0, 0) == before
    finally:
        person.page.set_viewport_size({"width": 1600, "height": 900})


def test_the_list_of_tasks_shows_nothing_that_is_for_the_page_alone(fresh: Both) -> None:
    page = fresh.person.page
    page.goto(f"{fresh.person.url}/projects/{fresh.projects['clip']}/data")
    fresh.person.expect_text("frame_ids")
    for hidden in ("loop_1", "clips_html", "pages", "<b>The moment"):
        assert page.get_by_text(hidden).count() == 0, hidden
    open_clip(fresh, SINGLE)
    for hidden in ("loop_1", "clips_html", "frame_ids", "<b>The moment"):
        assert page.get_by_text(hidden).count() == 0, hidden


def test_each_picture_has_its_own_decision_loop_and_boxes(fresh: Both) -> None:
    person, frames = fresh.person, fresh.tasks("clip")[open_clip(fresh, MULTI)]
    loops = []
    keys = {0: ("7", "Visible"), 1: ("9", "Reject"), 2: ("8", "Off-screen"), 3: ("7", "Visible")}
    for page in range(len(frames)):
        person.turn_page(page)
        person.decide(*keys[page])
        loops.append(person.page.evaluate(_SHOWN_LOOPS))
        if page == 1:
            person.expect_text("WHY REJECT")
            person.press("Shift+B")
        elif page == 2:
            person.choose("dog")
    person.press("Control+ArrowRight")
    assert [len(shown) for shown in loops] == [1] * len(frames)
    assert len({shown[0] for shown in loops}) == len(frames), "each picture has its own loop"
    person.turn_page(0)
    person.select(f"p_{MULTI}_{frames[0].frame.frame_index}_1")
    person.press("2")
    person.turn_page(1)
    assert person.selected() == [], "what is pressed now changes no box of the page before"
    person.submit()
    workspace = fresh.workspaces["clip"]
    assert pull(workspace, connect(workspace), BOXES, VOCABULARY).bad == []
    rows = {row.frame_id: row for row in workspace.rows(Review) if row.lead_time_s is not None}
    found = [rows[one.frame.frame_id] for one in frames]
    assert [row.decision for row in found] == ["labelled", "rejected", "off_screen", "labelled"]
    assert (found[1].reject_reasons, found[2].off_screen_category) == (["Blurred"], "dog")
    assert [one.category for one in found[0].instances] == ["dog", "piano"]
    assert [one.category for one in found[3].instances] == ["dog", "dog"]
    assert len({row.lead_time_s for row in found}) == 1


_SEEN = """Htx.annotationStore.selected.results.filter(one => one.from_name.name === 'seen')
  .map(one => one.area.item_index)"""

_SHOWN_LOOPS = """[...document.querySelectorAll('video[loop]')]
  .filter(video => video.offsetParent !== null).map(video => video.src)"""


def video_of(frames: list[Drawn]) -> str:
    return frames[0].scene.video_id


def test_everything_is_reached_on_a_small_screen(fresh: Both) -> None:
    person = fresh.person
    person.page.set_viewport_size({"width": 1366, "height": 768})
    try:
        for video, key, status, label in (
            (OFF_SCREEN, "8", "Off-screen", "WHAT SOUNDS OFF SCREEN"),
            (MUSIC, "9", "Reject", "WHY REJECT"),
        ):
            open_clip(fresh, video)
            for place in ("1. IS THE SOURCE VISIBLE?", "4. HOW DOES THE SELECTED BOX SOUND?"):
                assert in_sight(person, place)
            assert in_sight(person, "of "), "which picture it is"
            person.decide(key, status)
            there = person.page.get_by_text(label).first
            there.scroll_into_view_if_needed()
            assert in_sight(person, label)
            submit = person.page.get_by_role("button", name="Submit")
            box = submit.bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= 768
    finally:
        person.page.set_viewport_size({"width": 1600, "height": 900})


def in_sight(person: Annotator, text: str) -> bool:
    box = person.page.get_by_text(text).locator("visible=true").first.bounding_box()
    assert box is not None, text
    return box["x"] >= 0 and box["x"] + box["width"] <= 1366 and 0 <= box["y"] <= 768


def test_whoever_starts_on_clips_sees_their_keys(fresh: Both) -> None:
    page = fresh.person.page
    page.goto(f"{fresh.person.url}/projects/{fresh.projects['clip']}/data?labeling=1")
    fresh.person.expect_text("Labeling Instructions")
    fresh.person.expect_text("the next box, of the next picture too")
    fresh.person.begin(fresh.projects["clip"])
    fresh.person.decide("7", "Visible")
    page.get_by_role("button", name="Instructions").click()
    fresh.person.expect_text("the next box, of the next picture too")


def test_both_projects_are_of_the_layouts(both: Both) -> None:
    for layout, workspace in both.workspaces.items():
        (project,) = find_projects(connect(workspace), f"{layout}s", BOXES)
        assert project.by_clip == (layout == "clip")


def test_the_page_asks_nobody_outside(both: Both) -> None:
    assert both.person.outside == []
