"""A clip's masks accepted together in a real browser at a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labeling.label_studio.client import LabelStudio
from labeling.projects.connect import connect
from labeling.projects.mask_project import MASKS
from labeling.projects.pages import frames_of
from labeling.sync.project_status import project_statuses
from labeling.sync.pull import Pulled, pull
from labeling.sync.push import push
from pipeline.records.schema import Mask, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.annotator import CHROMIUM, Annotator
from tests.labeling.conftest import Studio
from tests.labeling.desk import beside, seat, send_masks
from tests.labeling.drawn_workspace import MULTI, SINGLE, Drawn, fill_drawn_clips

pytestmark = [pytest.mark.labelstudio, pytest.mark.browser, pytest.mark.slow]

_LOADED = """() => {
  const shown = [...document.querySelectorAll('.small img')]
  return shown.length && shown.every(one => one.complete && one.naturalWidth > 0)
}"""
_OUTLINED = """() => [...document.querySelectorAll('.small div')]
  .map(one => getComputedStyle(one).clipPath.split('(')[0])"""


@dataclass
class Clips:
    """A workspace whose boxes are decided, its masks at the server by clip, and a person."""

    person: Annotator
    workspace: Workspace
    api: LabelStudio
    project: int
    world: dict[str, list[Drawn]]

    def task(self, video: str) -> dict[str, Any]:
        """The newest task of a video's clip."""
        of_video = [
            task
            for task in self.api.tasks(self.project)
            if task["data"]["frame_id"].startswith(video)
        ]
        return max(of_video, key=lambda task: int(task["id"]))

    def pull(self) -> Pulled:
        return pull(self.workspace, self.api, MASKS, [])

    def masks(self, video: str) -> list[Mask]:
        return [row for row in self.workspace.rows(Mask) if row.frame_id.startswith(video)]


@pytest.fixture(scope="module")
def clips(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clips]:
    if not CHROMIUM.exists():
        pytest.skip("no Chromium; 'make test-labelstudio' says how to get one")
    workspace = beside(studio.workspace, studio.api, "mask_clips", "clip")
    world = fill_drawn_clips(workspace)
    api = connect(workspace)
    project = send_masks(workspace, api, world)
    with seat(studio.workspace, studio.api, tmp_path_factory.mktemp("profile")) as person:
        yield Clips(person, workspace, api, project, world)


def test_one_key_accepts_what_is_shown_of_a_clip(clips: Clips, tmp_path: Path) -> None:
    person, task = clips.person, clips.task(SINGLE)
    frames = frames_of(task)
    assert len(frames) >= 3
    person.open(clips.project, int(task["id"]))
    person.page.wait_for_function(_LOADED)
    person.expect_text("Masks done (7) holds for these too.")
    small = person.page.locator(".small")
    assert small.count() == len(frames) - 1
    picture = small.first.locator("img").first.bounding_box()
    painted = small.first.locator("div").last.bounding_box()
    assert person.page.evaluate(_OUTLINED) == ["polygon"] * (len(frames) - 1)
    assert picture is not None
    assert painted == pytest.approx(picture, abs=1.0), "the mask lies over its picture"
    assert picture["y"] + picture["height"] < 768, "to see without scrolling"
    small.first.hover()
    large = small.first.locator("img").first.bounding_box()
    assert large is not None
    assert large["width"] > 2.5 * picture["width"]
    person.photograph(tmp_path / "large.png")
    person.page.mouse.move(5, 5)
    before = clips.masks(SINGLE)
    person.submit()
    assert clips.pull().new == len(frames)
    after = [row for row in clips.masks(SINGLE) if row.frame_id in frames]
    assert after == [
        row.model_copy(update={"verified": True}) for row in before if row.frame_id in frames
    ]
    times = {row.lead_time_s for row in clips.workspace.rows(Review) if row.kind == "masks"}
    assert len(times) == 1
    assert clips.pull().new == 0
    assert person.outside == []


def test_done_here_only_brings_the_others_again(clips: Clips) -> None:
    person, task = clips.person, clips.task(MULTI)
    frames = frames_of(task)
    assert len(frames) >= 3
    person.open(clips.project, int(task["id"]))
    person.decide("0", "Done here only")
    number = person.submit()
    assert clips.pull().new == 1
    pushed = push(clips.workspace, clips.api, MASKS, [])
    assert (pushed.new, pushed.renewed) == (len(frames) - 1, 0)
    assert push(clips.workspace, clips.api, MASKS, []).new == 0
    again = clips.task(MULTI)
    assert frames_of(again) == frames[1:]
    person.open(clips.project, int(again["id"]))
    person.submit()
    assert clips.pull().new == len(frames) - 1
    assert all(row.verified for row in clips.masks(MULTI) if row.frame_id in frames)
    clips.api.delete_annotation(number)
    assert clips.pull().taken_back == 1
    open_now = [row.frame_id for row in clips.masks(MULTI) if not row.verified]
    assert open_now == frames[:1]
    standing = [row for row in project_statuses(clips.workspace, clips.api) if row.tasks]
    assert [(row.kind, row.to_mend) for row in standing] == [("mask clips", 0)]
