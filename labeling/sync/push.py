"""Send frames to annotators.

A frame has one task, whatever was tried before: what the server has is looked at first, and a
task that is there twice (two pushes at once, or an import whose answer got lost) is made one.

A task shows one frame or those of a clip (``label.task``), each layout in a project of its own.
What somebody has begun in the other layout's project stays there; what nobody has begun moves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from labeling.label_studio.client import LabelStudio
from labeling.label_studio.shapes import Task, read_task
from labeling.projects.annotator_clips import FrameMedia
from labeling.projects.beside import Beside, with_beside
from labeling.projects.connect import find_project, open_project
from labeling.projects.labeling_config import check_task
from labeling.projects.pages import clip_task, frames_of, in_tasks, page_of
from labeling.projects.project_kind import Project, ProjectKind, Questions
from pipeline.errors import AvatarBuildError, MediaError
from pipeline.records.schema import Frame
from pipeline.run.derive import bring_up_to_date
from pipeline.words import counted
from pipeline.workspace.asking import note_order
from pipeline.workspace.locks import run_lock
from pipeline.workspace.takedowns import read_takedowns
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
    """Frames that were sent."""
    clips: int = 0
    """Tasks they were sent in, where a task may be about several frames of a clip."""
    known: int = 0
    """Frames with a task at the server already."""
    elsewhere: int = 0
    """Frames of these whose task, which somebody has begun, is in the other layout's project."""
    moved: int = 0
    """Tasks removed from there, as nobody had begun them; their frames are sent here."""
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
        new = counted(self.new, "new task")
        if self.project.by_clip or (self.project.of_several and self.clips < self.new):
            new = f"{self.new} sent in {counted(self.clips, 'new task')}"
        said = f"push: {counted(self.frames, 'frame')}: {new}, {self.known} there already"
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
        prefix = workspace.config.label.project
        by_clip = workspace.config.label.task == "clip"
        project = open_project(server, prefix, kind, by_clip)
        other = find_project(server, prefix, kind, not by_clip)
        served = workspace.storage.local_path("media")
        if served is not None and not workspace.config.label.url:
            server.add_local_files(project.number, str(served))
        questions = kind.questions(workspace, vocabulary)
        pushed = Pushed(project, notes=questions.notes())
        frames = _not_taken_down(workspace, questions.frames(), pushed)
        known, ending = _known_frames(server, questions, project, pushed)
        if other is not None:
            begun = _begun_elsewhere(server, questions, other, pushed)
            asked = {frame.frame_id for frame in frames}
            pushed.elsewhere = len((begun - known) & asked)
            known |= begun
            if pushed.elsewhere or pushed.moved:
                pushed.notes.append(_of_both(pushed, other))
        waiting = [frame for frame in frames if frame.frame_id not in known]
        pushed.frames, pushed.known = len(frames), len(frames) - len(waiting)
        media = FrameMedia(workspace)
        if media.open_until:
            pushed.notes.append(
                f"The pictures' addresses open until {media.open_until}. Push again before that for"
                " what is not answered by then, or name a server of them in label.media_url."
            )
        make = partial(_clip_task if kind.is_paged(by_clip) else _frame_task, questions, media)
        made_of = partial(_checked, make, questions, kind.layout_name(by_clip), media)
        units, done = _units(questions.groups(waiting), kind.is_paged(by_clip)), 0
        # A task's clips are cut as it is made, so each batch is made on all cores and then sent.
        with ThreadPoolExecutor(workspace.config.run.workers or os.cpu_count()) as pool:
            for start in range(0, len(units), _BATCH):
                batch = units[start : start + _BATCH]
                _send(server, pushed, list(pool.map(made_of, batch)))
                done += sum(len(unit.frames) for unit in batch)
                progress(done, len(waiting))
        if pushed.new and questions.order != "given":
            note_order(workspace.storage, questions.order, workspace.config.label.seed)
        by_name = {frame.frame_id: frame for frame in frames}
        for names, number in ending.items():
            shown = [by_name[name] for name in names if name in by_name]
            for unit in _units(questions.groups(shown), kind.is_paged(by_clip)):
                task, left_out = made_of(unit)
                if task is not None and not left_out and frames_of(task) == list(names):
                    server.update_task(number, data=task["data"], meta=task["meta"])
                    pushed.readdressed += 1
        if questions.asks_several:
            for there in (project, other):
                if there is not None:
                    pushed.opened += _open_for_more(server, there, questions, progress)
    return pushed


def _not_taken_down(workspace: Workspace, frames: Sequence[Frame], pushed: Pushed) -> list[Frame]:
    """Return the frames of videos that may still be looked at, and note how many others are."""
    gone = {one.video_id for one in read_takedowns(workspace.storage)}
    left = [frame for frame in frames if frame.video_id not in gone]
    if out := len(frames) - len(left):
        pushed.notes.append(
            f"{counted(out, 'frame')} not asked about: their videos were taken down."
        )
    return left


_Made = tuple[dict[str, Any] | None, list[tuple[str, str]]]
"""A task, if there is one, and the frames that are not in it, each with the reason."""


@dataclass(frozen=True)
class _Unit:
    """The frames of one task."""

    asked: list[Frame]
    beside: list[tuple[Frame, str]]
    """Frames beside them, each with the id of the one it is beside."""

    @property
    def frames(self) -> list[Frame]:
        """The frames asked about, then those beside them."""
        return [*self.asked, *(frame for frame, _ in self.beside)]


def _units(groups: Sequence[tuple[Frame, list[Frame]]], paged: bool) -> list[_Unit]:
    """Put frames into tasks, those beside each other into one."""
    beside = {frame.frame_id: others for frame, others in groups}
    tasks = in_tasks([frame for frame, _ in groups], paged)
    return [
        _Unit(asked, [(other, one.frame_id) for one in asked for other in beside[one.frame_id]])
        for asked in tasks
    ]


def _send(server: LabelStudio, pushed: Pushed, made: Sequence[_Made]) -> None:
    """Import the tasks that were made of a batch, and note why others were not."""
    if tasks := [task for task, _ in made if task is not None]:
        arrived = server.import_tasks(pushed.project.number, tasks)
        if pushed.project.of_several:
            pushed.clips += arrived
            pushed.new += sum(len(frames_of(task)) for task in tasks)
        else:
            pushed.new += arrived
    pushed.skipped += [reason for _, left_out in made for reason in left_out]


def _checked(
    make: Callable[[Sequence[Frame]], _Made],
    questions: Questions,
    config: str,
    media: FrameMedia,
    unit: _Unit,
) -> _Made:
    """Make a task of frames and check it, or say why there is none."""
    task, left_out = make(unit.asked)
    why_not = dict(left_out)
    beside: list[Beside] = []
    for frame, of in unit.beside:
        if of in why_not:
            left_out.append((frame.frame_id, f"it goes with {of}: {why_not[of]}"))
            continue
        try:
            said, picture = questions.beside(frame, media.picture(frame))
        except MediaError as error:
            left_out.append((frame.frame_id, str(error)))
        else:
            beside.append(Beside(frame.frame_id, of, said, picture))
    if task is None:
        return None, left_out
    task = with_beside(task, beside, questions.says_beside)
    check_task(task, config)
    # It says its frames twice: the list of all tasks is light without their data.
    names = ("frame_id", "clip_id", "frame_ids")
    meta = {name: task["data"][name] for name in names if name in task["data"]}
    until = {"open_until": media.open_until} if media.open_until else {}
    return {**task, "meta": {**meta, **until}}, left_out


def _frame_task(questions: Questions, media: FrameMedia, frames: Sequence[Frame]) -> _Made:
    (frame,) = frames
    addresses = media.addresses(frame)
    if isinstance(addresses, str):
        return None, [(frame.frame_id, addresses)]
    return questions.task(frame, *addresses), []


def _clip_task(questions: Questions, media: FrameMedia, frames: Sequence[Frame]) -> _Made:
    pages, around = media.of_clip(frames)
    tasks, left_out = [], []
    for frame in frames:
        addresses = pages[frame.frame_id]
        if isinstance(addresses, str):
            left_out.append((frame.frame_id, addresses))
        else:
            tasks.append(questions.task(frame, *addresses))
    return clip_task(frames[0].clip_id, tasks, around) if tasks else None, left_out


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
        names = frames_of(task, "meta")
        there = task["annotators"]
        overlap = max((questions.task_overlap(name, there) for name in names), default=0)
        if overlap > max(1, int(task["overlap"])):
            done = int(task["total_annotations"]) >= overlap  # annotators may have skipped it
            changes[int(task["id"])] = {"overlap": overlap, "is_labeled": done}
    for number, (task_number, change) in enumerate(changes.items(), 1):
        server.update_task(task_number, **change)
        if number % _BATCH == 0:
            progress(number, len(changes))
    return len(changes)


def _known_frames(
    server: LabelStudio, questions: Questions, project: Project, pushed: Pushed
) -> tuple[set[str], dict[tuple[str, ...], int]]:
    """Return the frames that have a task; of two tasks of the same the one worked on stays.

    Returns:
        The frames; and the tasks, by their frames, that nobody answered and whose addresses end
        soon.
    """
    first: dict[tuple[str, ...], tuple[int, bool]] = {}
    known: set[str] = set()
    ending: dict[tuple[str, ...], int] = {}
    gone: list[int] = []  # removed at the end: the list is read by pages
    for task, whole, names in _tasks_of_ours(server, project, pushed):
        number, worked_on = int(task["id"]), _is_begun(whole)
        if not (asked := _still_asked(task, names, whole, questions, project)):
            gone.append(number)
            pushed.renewed += 1
        elif names not in first:
            first[names] = number, worked_on
        elif not worked_on:
            gone.append(number)
            pushed.doubled += 1
        elif not first[names][1]:
            gone.append(first[names][0])
            pushed.doubled += 1
            first[names] = number, worked_on
        known |= asked
        if not whole.annotations and _ends_soon(task):
            ending[names] = number
    for number in gone:
        server.delete_task(number)
    return known, {names: task for names, task in ending.items() if task not in gone}


def _begun_elsewhere(
    server: LabelStudio, questions: Questions, other: Project, pushed: Pushed
) -> set[str]:
    """Remove the tasks of the other layout that nobody has begun; return the frames of the rest."""
    begun: set[str] = set()
    gone: list[int] = []
    for task, whole, names in _tasks_of_ours(server, other, pushed):
        asked = _still_asked(task, names, whole, questions, other)
        if asked and _is_begun(whole):
            begun |= asked
        else:
            gone.append(int(task["id"]))
    for number in gone:
        server.delete_task(number)
    pushed.moved = len(gone)
    return begun


def _of_both(pushed: Pushed, other: Project) -> str:
    """Say what became of the tasks of the other layout."""
    where = f"project {other.number}, {other.title!r}"
    stay = (
        f"{counted(pushed.elsewhere, 'frame stays', 'frames stay')} to do in {where}, begun there"
    )
    moved = f"{counted(pushed.moved, 'task')} that nobody had begun left {where}"
    said = [stay] * bool(pushed.elsewhere) + [moved] * bool(pushed.moved)
    return f"{'; '.join(said)}. Pulling brings in the answers of both."


def _tasks_of_ours(
    server: LabelStudio, project: Project, pushed: Pushed
) -> Iterator[tuple[dict[str, Any], Task, tuple[str, ...]]]:
    """Yield a project's tasks with their frames; what is none of ours is noted."""
    for task in server.tasks(project.number):
        link = server.task_link(project.number, task["id"])
        whole, names = read_task(task, link), tuple(frames_of(task))
        if names:
            yield task, whole, names
        else:
            pushed.foreign.append(link)


def _is_begun(whole: Task) -> bool:
    return bool(whole.annotations or whole.drafts)


def _still_asked(
    task: dict[str, Any],
    names: Sequence[str],
    whole: Task,
    questions: Questions,
    project: Project,
) -> set[str]:
    """Return the frames for which a task stands; none when it is to be replaced.

    A clip's task that was answered stays for the frames whose answers hold; another asks about the
    others again. One that nobody has begun is replaced as a whole.
    """
    asked = {
        name for name in names if not questions.is_outdated(name, page_of(task, name), project)
    }
    return asked if len(asked) == len(names) or whole.annotations else set()


def _ends_soon(task: dict[str, Any]) -> bool:
    """Say whether a task's addresses end within days; those of most tasks never do."""
    meta = task.get("meta")
    until = meta.get("open_until") if isinstance(meta, dict) else None
    try:
        ends = datetime.fromisoformat(until) if isinstance(until, str) else None
        return ends is not None and ends - datetime.now(UTC) < _SOON
    except (ValueError, TypeError):
        return False
