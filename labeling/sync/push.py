"""Send frames to annotators.

A frame is one task, whatever was tried before: what the server has is looked at first, and a
frame that is there twice (two pushes at once, or an import whose answer got lost) is made one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from labeling.label_studio.client import LabelStudio
from labeling.label_studio.shapes import is_text, read_task
from labeling.projects.annotator_clips import FrameMedia
from labeling.projects.connect import open_project
from labeling.projects.labeling_config import check_task
from labeling.projects.project_kind import Project, ProjectKind, Questions
from pipeline.errors import AvatarBuildError
from pipeline.records.schema import Frame
from pipeline.run.derive import bring_up_to_date
from pipeline.words import counted
from pipeline.workspace.locks import run_lock
from pipeline.workspace.workspace import Workspace

Progress = Callable[[int, int], None]
"""A function told how many frames, to send or to open for more people, are done, of how many."""

_BATCH = 250
"""Tasks per request: about 2 MB."""

_SOON = timedelta(days=3)
"""Addresses that end within this are given anew."""


@dataclass
class Pushed:
    """Counts of what became of the frames: ``frames = new + known + skipped``."""

    project: Project
    frames: int = 0
    new: int = 0
    known: int = 0
    """Frames with a task at the server already."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Frames that could not be sent, with the reason."""
    doubled: int = 0
    """Tasks removed because their frame had another one."""
    renewed: int = 0
    """Tasks removed because they asked what is no longer asked; their frames are sent anew."""
    readdressed: int = 0
    """Tasks that were given addresses anew, as the old ones were about to end."""
    opened: int = 0
    """Tasks opened for more people than before."""
    foreign: list[str] = field(default_factory=list)
    """Links to tasks that are none of ours."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the frames that are not asked about."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        skipped = [{"frame_id": name, "reason": reason} for name, reason in self.skipped]
        return {**vars(self), "project": self.project.number, "skipped": skipped}

    def lines(self) -> list[str]:
        """Return the lines that the command prints."""
        said = f"push: {counted(self.frames, 'frame')}: {counted(self.new, 'new task')}"
        said += f", {self.known} there already"
        said += f", {len(self.skipped)} not sent" if self.skipped else ""
        said += f"; {counted(self.doubled, 'double task')} removed" if self.doubled else ""
        said += f"; {counted(self.renewed, 'outdated task')} replaced" if self.renewed else ""
        said += f"; {self.readdressed} given addresses anew" if self.readdressed else ""
        said += f"; {self.opened} opened for more people" if self.opened else ""
        lines = [f"{said}. Project {self.project.number}, {self.project.title!r}."]
        lines += [f"  not sent: {name}: {reason}" for name, reason in self.skipped]
        lines += [f"  {note}" for note in self.notes]
        return lines + [foreign_line(link) for link in self.foreign]


def foreign_line(link: str) -> str:
    """Say what to do about a task that is none of ours."""
    return f"  not ours: {link} has no frame_id; delete it there, nothing of it is pulled."


def push(
    workspace: Workspace,
    server: LabelStudio,
    kind: ProjectKind,
    vocabulary: Sequence[str],
    progress: Progress = lambda done, total: None,
) -> Pushed:
    """Send every frame that a kind of project is to ask about and that has no task yet.

    Args:
        workspace: whose frames; derived tables are brought up to date first.
        server: connected.
        kind: of project; it is made when it is missing.
        vocabulary: all target categories, in the order of the list.
        progress: called after each batch.

    Raises:
        AvatarBuildError: another push is running, or the server fails; what arrived stays.
    """
    with run_lock(workspace.storage, f"commits/push-{kind.name}") as lock:
        # Whoever came second has waited here for the first.
        if not (lock.alone or lock.try_alone()):
            raise AvatarBuildError("push: another push of this workspace is running; let it end.")
        bring_up_to_date(workspace)
        project = open_project(server, workspace.config.label.project, kind)
        served = workspace.storage.local_path("media")
        if served is not None and not workspace.config.label.url:
            server.add_local_files(project.number, str(served))
        questions = kind.questions(workspace, vocabulary)
        pushed = Pushed(project, notes=questions.notes())
        known, ending = _known_frames(server, questions, pushed)
        frames = questions.frames()
        waiting = [frame for frame in frames if frame.frame_id not in known]
        pushed.frames, pushed.known = len(frames), len(frames) - len(waiting)
        media = FrameMedia(workspace)
        if media.open_until:
            pushed.notes.append(
                f"The pictures' addresses open until {media.open_until}. Push again before that for"
                " what is not answered by then, or name a server of them in label.media_url."
            )
        make = partial(_task, kind.config, questions, media)
        # A task's clips are cut as it is made, so each batch is made on all cores and then sent.
        with ThreadPoolExecutor(workspace.config.run.workers or os.cpu_count()) as pool:
            for start in range(0, len(waiting), _BATCH):
                batch = waiting[start : start + _BATCH]
                _send(server, pushed, batch, list(pool.map(make, batch)))
                progress(start + len(batch), len(waiting))
        for frame in frames:
            if frame.frame_id in ending and isinstance(made := make(frame), dict):
                server.update_task(ending[frame.frame_id], data=made["data"], meta=made["meta"])
                pushed.readdressed += 1
        if questions.asks_several:
            pushed.opened = _open_for_more(server, project, questions, progress)
    return pushed


def _send(
    server: LabelStudio,
    pushed: Pushed,
    batch: Sequence[Frame],
    made: Sequence[dict[str, Any] | str],
) -> None:
    """Import the tasks that were made of a batch, and note why others were not."""
    if tasks := [task for task in made if isinstance(task, dict)]:
        pushed.new += server.import_tasks(pushed.project.number, tasks)
    pushed.skipped += [
        (frame.frame_id, reason)
        for frame, reason in zip(batch, made, strict=True)
        if isinstance(reason, str)
    ]


def _task(
    config: str, questions: Questions, media: FrameMedia, frame: Frame
) -> dict[str, Any] | str:
    """Make the frame's task and check it, or say why there is none."""
    addresses = media.addresses(frame)
    if isinstance(addresses, str):
        return addresses
    task = questions.task(frame, *addresses)
    check_task(task, config)
    # It says its frame twice: the list of all tasks is light without their data.
    until = {"open_until": media.open_until} if media.open_until else {}
    return {**task, "meta": {"frame_id": frame.frame_id, **until}}


def _open_for_more(
    server: LabelStudio, project: Project, questions: Questions, progress: Progress
) -> int:
    """Open the tasks that several people are to answer for as many; never for fewer than before.

    The community edition offers a task to a person until as many different people answered it as
    its own ``overlap`` says. It does not look again when that number changes, so a task that was
    done is said to be open in the same request.
    """
    columns = "id", "meta", "overlap", "annotators", "total_annotations"
    changes: dict[int, dict[str, Any]] = {}
    for task in server.task_columns(project.number, *columns):
        name = frame_of(task, "meta")
        overlap = 0 if name is None else questions.task_overlap(name, task["annotators"])
        if overlap > max(1, int(task["overlap"])):
            done = int(task["total_annotations"]) >= overlap  # annotators may have skipped it
            changes[int(task["id"])] = {"overlap": overlap, "is_labeled": done}
    for number, (task_number, change) in enumerate(changes.items(), 1):
        server.update_task(task_number, **change)
        if number % _BATCH == 0:
            progress(number, len(changes))
    return len(changes)


def _known_frames(
    server: LabelStudio, questions: Questions, pushed: Pushed
) -> tuple[set[str], dict[str, int]]:
    """Return the frames that have a task; of two tasks of a frame the one worked on stays.

    Returns:
        The frames; and the tasks, by frame, that nobody answered and whose addresses end soon.
    """
    first: dict[str, tuple[int, bool]] = {}
    ending: dict[str, int] = {}
    gone: list[int] = []  # removed at the end: the list is read by pages
    for task in server.tasks(pushed.project.number):
        name, number = frame_of(task), int(task["id"])
        link = server.task_link(pushed.project.number, number)
        whole = read_task(task, link)
        worked_on = bool(whole.annotations or whole.drafts)
        if name is None:
            pushed.foreign.append(link)
        elif questions.is_outdated(name, task, pushed.project):
            gone.append(number)
            pushed.renewed += 1
        elif name not in first:
            first[name] = number, worked_on
        elif not worked_on:
            gone.append(number)
            pushed.doubled += 1
        elif not first[name][1]:
            gone.append(first[name][0])
            pushed.doubled += 1
            first[name] = number, worked_on
        if name is not None and not whole.annotations and _ends_soon(task):
            ending[name] = number
    for number in gone:
        server.delete_task(number)
    return set(first), {name: task for name, task in ending.items() if task not in gone}


def _ends_soon(task: dict[str, Any]) -> bool:
    """Say whether a task's addresses end within days; those of most tasks never do."""
    meta = task.get("meta")
    until = meta.get("open_until") if isinstance(meta, dict) else None
    try:
        ends = datetime.fromisoformat(until) if isinstance(until, str) else None
        return ends is not None and ends - datetime.now(UTC) < _SOON
    except (ValueError, TypeError):
        return False


def frame_of(task: dict[str, Any], part: str = "data") -> str | None:
    """Return the frame a task shows; none when it is none of ours. Its ``meta`` says it too."""
    holder = task.get(part)
    name = holder.get("frame_id") if isinstance(holder, dict) else None
    # No frame of ours is called by half a character or by several lines.
    ours = is_text(name) and isinstance(name, str) and len(name.splitlines()) == 1
    return name if ours else None
