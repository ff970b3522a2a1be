"""Send frames to annotators.

A frame is one task, whatever was tried before: what the server has is looked at first, and a
frame that is there twice (two pushes at once, or an import whose answer got lost) is made one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from labeling.client import LabelStudio
from labeling.clips import clips_html, make_clips
from labeling.layouts import check_task
from labeling.projects import Project, open_project
from labeling.tasks import box_task
from pipeline.errors import AvatarBuildError, MediaError
from pipeline.locks import run_lock
from pipeline.schema import Clip, Frame, Proposal, Sounds, Video
from pipeline.workspace import Workspace

_BATCH = 250
"""Tasks per request: about 2 MB."""


@dataclass
class Pushed:
    """What became of the frames: ``frames = new + known + skipped``."""

    project: Project
    frames: int = 0
    new: int = 0
    known: int = 0
    """At the server already."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Frames that could not be sent, with the reason."""
    doubled: int = 0
    """Tasks removed because their frame had another one."""
    foreign: list[str] = field(default_factory=list)
    """Links to tasks that are none of ours."""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "project": self.project.number,
            "frames": self.frames,
            "new": self.new,
            "known": self.known,
            "skipped": [{"frame_id": name, "reason": reason} for name, reason in self.skipped],
            "doubled": self.doubled,
            "foreign": self.foreign,
        }

    def lines(self) -> list[str]:
        """For people."""
        said = f"push: {self.frames} frames: {self.new} new tasks, {self.known} there already"
        said += f", {len(self.skipped)} not sent" if self.skipped else ""
        said += f"; {self.doubled} double tasks removed" if self.doubled else ""
        lines = [f"{said}. Project {self.project.number}, {self.project.title!r}."]
        lines += [f"  not sent: {name}: {reason}" for name, reason in self.skipped]
        return lines + [foreign_line(link) for link in self.foreign]


def foreign_line(link: str) -> str:
    """What to say of a task that is none of ours."""
    return f"  not ours: {link} has no frame_id; delete it there, nothing of it is pulled."


def push_boxes(
    workspace: Workspace,
    server: LabelStudio,
    vocabulary: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pushed:
    """Send every frame that has no task yet.

    Args:
        workspace: whose frames.
        server: connected.
        vocabulary: all target categories, in the order of the list.
        progress: told how many of the frames to send are there.

    Raises:
        AvatarBuildError: another push is running, or the server fails; what arrived stays.
    """
    with run_lock(workspace.storage, "commits/push-boxes") as lock:
        # Whoever came second has waited here for the first.
        if not (lock.alone or lock.try_alone()):
            raise AvatarBuildError("push: another push of this workspace is running; let it end.")
        project = open_project(server, workspace.config.label.project, "boxes")
        if not workspace.config.label.url and workspace.storage.local is not None:
            server.add_local_files(project.number, str(workspace.storage.path("media")))
        pushed = Pushed(project)
        known = _known_frames(server, pushed)
        frames = workspace.rows(Frame)
        waiting = [frame for frame in frames if frame.frame_id not in known]
        pushed.frames, pushed.known = len(frames), len(frames) - len(waiting)
        maker = _TaskMaker(workspace, vocabulary)
        with ThreadPoolExecutor(workspace.config.run.workers or os.cpu_count()) as pool:
            for start in range(0, len(waiting), _BATCH):
                batch = waiting[start : start + _BATCH]
                made = list(pool.map(maker.make, batch))
                tasks = [task for task in made if isinstance(task, dict)]
                if tasks:
                    pushed.new += server.import_tasks(project.number, tasks)
                pushed.skipped += [
                    (frame.frame_id, reason)
                    for frame, reason in zip(batch, made, strict=True)
                    if isinstance(reason, str)
                ]
                progress(start + len(batch), len(waiting))
    return pushed


class _TaskMaker:
    """Makes a frame's task from the workspace's tables."""

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        self._storage = workspace.storage
        self._config = workspace.config.label
        self._vocabulary = list(vocabulary)
        self._videos = {row.video_id: row for row in workspace.rows(Video)}
        self._clips = {row.clip_id: row for row in workspace.rows(Clip)}
        self._sounds = {row.id: row for row in workspace.rows(Sounds)}
        self._proposals = _by_frame(workspace.rows(Proposal))

    def make(self, frame: Frame) -> dict[str, Any] | str:
        """The checked task, or why there is none."""
        video, clip = self._videos.get(frame.video_id), self._clips.get(frame.clip_id)
        if video is None or clip is None:
            return f"its video or clip is gone; run 'avatar-build status' ({frame.clip_id})"
        if not self._storage.exists(frame.path):
            return f"{frame.path} is gone; sample it again"
        try:
            loop, context = make_clips(self._storage, frame, clip, video, self._config)
        except MediaError as error:
            return str(error)
        except FileNotFoundError:
            return f"{video.path} is gone; download it again"
        task = box_task(
            frame,
            self._proposals.get(frame.frame_id, []),
            # What was heard around the frame, else in its whole clip.
            self._sounds.get(frame.frame_id) or self._sounds.get(frame.clip_id),
            self._vocabulary,
            self._address(frame.path),
            clips_html(self._address(loop), self._address(context)),
        )
        check_task(task, "boxes")
        return task

    def _address(self, path: str) -> str:
        return f"{self._config.media_url}{quote(path)}"


def _by_frame(proposals: Iterable[Proposal]) -> dict[str, list[Proposal]]:
    found: dict[str, list[Proposal]] = {}
    for proposal in proposals:
        found.setdefault(proposal.frame_id, []).append(proposal)
    return found


def _known_frames(server: LabelStudio, pushed: Pushed) -> set[str]:
    """The frames that have a task; of two tasks of a frame only one stays, the one worked on."""
    first: dict[str, tuple[int, bool]] = {}
    for task in server.tasks(pushed.project.number):
        name, number = frame_of(task), int(task["id"])
        worked_on = bool(task["annotations"] or task["drafts"])
        if name is None:
            pushed.foreign.append(server.task_link(pushed.project.number, number))
        elif name not in first:
            first[name] = number, worked_on
        elif not worked_on:
            server.delete_task(number)
            pushed.doubled += 1
        elif not first[name][1]:
            server.delete_task(first[name][0])
            pushed.doubled += 1
            first[name] = number, worked_on
    return set(first)


def frame_of(task: dict[str, Any]) -> str | None:
    """The frame a task shows; none when it is none of ours."""
    name = task["data"].get("frame_id")
    return name if isinstance(name, str) and name else None
