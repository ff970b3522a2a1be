"""The drawn world at a running Label Studio, and a person in front of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from labeling.label_studio.client import LabelStudio
from labeling.projects.box_project import BOXES
from labeling.projects.connect import connect, open_project
from labeling.projects.mask_project import MASKS
from labeling.projects.serve import USER
from labeling.review.instances import bring_instances_up_to_date
from labeling.sync.pull import pull
from labeling.sync.push import push
from pipeline.records.schema import Instance, Mask, Proposal, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.annotator import Annotator, browser
from tests.labeling.drawn_workspace import (
    MULTI,
    SINGLE,
    VIDEOS,
    VOCABULARY,
    Drawn,
    fill_drawn,
    segment_drawn,
    true_mask,
)
from tests.labeling.labelled_workspace import add_reviews, commit, mask_of, review


@dataclass
class Desk:
    """A person at one project, the workspace behind it, and what is true of its frames."""

    person: Annotator
    workspace: Workspace
    world: dict[str, Drawn]
    project: int
    tasks: dict[str, int]
    """Numbers of the project's tasks, by video."""

    def frame_id(self, video: str) -> str:
        return self.world[video].frame.frame_id

    def open(self, video: str) -> None:
        """The task of a video's frame."""
        self.person.open(self.project, self.tasks[video])

    def pulled(self, video: str) -> Review:
        """The only review of a frame's boxes, once pulled."""
        pull(self.workspace, connect(self.workspace), BOXES, VOCABULARY)
        bring_instances_up_to_date(self.workspace)
        name = self.frame_id(video)
        (review,) = [row for row in self.workspace.rows(Review) if row.frame_id == name]
        return review

    def instances(self, video: str) -> list[Instance]:
        name = self.frame_id(video)
        return [row for row in self.workspace.rows(Instance) if row.frame_id == name]


@contextlib.contextmanager
def open_desk(served: Workspace, api: LabelStudio, profile: Path) -> Iterator[Desk]:
    """Push the drawn frames to a server of ours and log a person in.

    Args:
        served: the workspace whose server it is; the new one lies inside of it.
        api: its server.
        profile: an empty folder for the browser.
    """
    workspace = beside(served, api, "drawn")
    world = fill_drawn(workspace)
    number = send(workspace, api, len(VIDEOS))
    with seat(served, api, profile) as person:
        yield Desk(person, workspace, world, number, _tasks(api, number, world))


def beside(served: Workspace, api: LabelStudio, name: str, task: str = "frame") -> Workspace:
    """An empty workspace inside of what the server may show, which labels there."""
    root = served.storage.path(name)
    Workspace.create(root)
    settings = [
        f"label.url='{api.url}'",
        f"label.token_file='{served.storage.path('label-studio') / 'token'}'",
        f"label.project='{name}'",
        f"label.media_url='/data/local-files/?d={name}/'",
        f"label.task='{task}'",
    ]
    return Workspace(root, settings)


def send(workspace: Workspace, api: LabelStudio, frames: int) -> int:
    """Push all frames; the number of the project they are in, which may show their media."""
    pushed = push(workspace, api, BOXES, VOCABULARY)
    assert (pushed.new, pushed.skipped) == (frames, [])
    api.add_local_files(pushed.project.number, str(workspace.storage.path("media")))
    return pushed.project.number


def _decided(box: Proposal) -> Review:
    """A person kept the only box of a frame."""
    one = {"bbox": box.bbox, "category": box.categories[0], "scenario": "Single-sound"}
    link = {"origin": "kept", "proposal_id": box.proposal_id, "track_id": box.track_id}
    return review(box.frame_id, "dog", 1, instances=[{**one, **link}])


def send_masks(workspace: Workspace, api: LabelStudio, world: dict[str, list[Drawn]]) -> int:
    """Push right masks of the dogs of two videos, their boxes decided; the project's number."""
    boxes = {
        row.frame_id: row
        for row in reversed(workspace.rows(Proposal))
        if row.audible and row.frame_id.startswith((SINGLE, MULTI))
    }
    add_reviews(workspace, *map(_decided, boxes.values()))
    bring_instances_up_to_date(workspace)
    drawn = {one.frame.frame_id: one for ones in world.values() for one in ones}
    rows = workspace.rows(Instance)
    masks = [mask_of(row, true_mask(drawn[row.frame_id], row)) for row in rows]
    commit(workspace, "segment", Mask, masks)
    pushed = push(workspace, api, MASKS, [])
    assert (pushed.new, pushed.skipped) == (len(boxes), [])
    api.add_local_files(pushed.project.number, str(workspace.storage.path("media")))
    return pushed.project.number


@contextlib.contextmanager
def seat(served: Workspace, api: LabelStudio, profile: Path) -> Iterator[Annotator]:
    """A person logged in, in a browser of their own."""
    password = served.storage.path("label-studio") / "password"
    with browser(profile, api.url) as person:
        person.log_in(USER, password.read_text(encoding="utf-8"))
        yield person


def with_masks(desk: Desk) -> Desk:
    """The same person at the masks of the accepted boxes; each lacks its left quarter."""
    segment_drawn(desk.workspace, desk.world)
    server = connect(desk.workspace)
    assert push(desk.workspace, server, MASKS, VOCABULARY).skipped == []
    project = open_project(server, "drawn", MASKS).number
    return replace(desk, project=project, tasks=_tasks(server, project, desk.world))


def _tasks(server: LabelStudio, project: int, world: dict[str, Drawn]) -> dict[str, int]:
    names = {one.frame.frame_id: name for name, one in world.items()}
    return {names[task["data"]["frame_id"]]: int(task["id"]) for task in server.tasks(project)}
