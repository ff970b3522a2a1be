"""Open the boxes of a frame again that was sent back from the masks.

The person's boxes become what the next one starts from, and their answer is deleted at the server;
our tables keep it. Of a clip, the frame alone is asked about again, in a task of its own, and the
answer stays: it decides the other frames. What is to be opened is told by the reviews, so a crash
or a server that stops leaves it for the next pull.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from labeling.label_studio.client import LabelStudio
from labeling.label_studio.shapes import Stamp, is_skip, read, read_task, utc
from labeling.projects.box_project import BOXES
from labeling.projects.connect import find_projects
from labeling.projects.labeling_config import PREDICTED
from labeling.projects.pages import frames_of, one_page
from labeling.projects.project_kind import Project, PulledAt, are_pulled, pulled_at
from labeling.review.instances import deciding_reviews
from pipeline.errors import InputError
from pipeline.records.reviews import by_frame, is_sent_back
from pipeline.records.schema import Frame, Review
from pipeline.words import command_line, counted
from pipeline.workspace.workspace import Workspace


@dataclass
class Reopened:
    """Lists of what became of the frames that were sent back."""

    frames: list[str] = field(default_factory=list)
    """Frames whose boxes are to do again."""
    waiting: list[tuple[str, str]] = field(default_factory=list)
    """Frames that could not be opened, with what to do."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        waiting = [{"frame_id": name, "what": what} for name, what in self.waiting]
        return {"reopened": self.frames, "not_reopened": waiting}

    def lines(self) -> list[str]:
        """Return the lines that the command prints."""
        opened = f"back to boxes: {counted(len(self.frames), 'frame')} opened again."
        lines = [opened] if self.frames else []
        return lines + [f"  not opened: {name}: {what}" for name, what in self.waiting]


def reopen_boxes(workspace: Workspace, server: LabelStudio) -> Reopened:
    """Make the box task of every frame that was sent back one to do.

    Args:
        workspace: whose reviews say which.
        server: connected.

    Raises:
        AvatarBuildError: the server fails; what was opened stays open.
    """
    found = Reopened()
    reviews = workspace.rows(Review)
    back = _sent_back(reviews)
    if not back:
        return found
    projects = find_projects(server, workspace.config.label.project, BOXES)
    pulled = pulled_at(reviews)
    clip_of = {row.frame_id: row.clip_id for row in workspace.rows(Frame) if row.frame_id in back}
    push = command_line("label", "push", "boxes", "--workspace", workspace.storage.url)
    for name, review in sorted(back.items()):
        there = False
        for project in projects:
            tasks = _tasks(server, project, name, clip_of.get(name, ""))
            there = there or bool(tasks)
            if project.by_clip:
                _open_page(server, project, tasks, review, pulled, found)
            else:
                for task in tasks:
                    _open(server, project, task, review, pulled, found)
        if not there:
            found.waiting.append((name, f"it has no task; run {push}"))
    return found


def _tasks(server: LabelStudio, project: Project, frame_id: str, clip_id: str) -> list[Any]:
    """Return the tasks of a project that show a frame."""
    if not project.by_clip:
        return list(server.tasks_of(project.number, frame_id))
    tasks = server.tasks_of(project.number, clip_id, "clip_id") if clip_id else ()
    return [task for task in tasks if frame_id in frames_of(task)]


def _sent_back(reviews: Sequence[Review]) -> dict[str, Review]:
    """Return the review that sent each frame back, where no newer boxes have answered it."""
    back = {name for name, rows in by_frame(reviews).items() if is_sent_back(rows)}
    found = deciding_reviews(reviews, "masks")
    return {name: review for name, review in found.items() if name in back}


def _open(
    server: LabelStudio,
    project: Project,
    task: dict[str, Any],
    review: Review,
    pulled: PulledAt,
    found: Reopened,
) -> None:
    """Make a frame's task one to do, unless it is open already or was answered again."""
    if not (old := _answers_before(server, project, task, review, pulled, found)):
        return
    newest = max(old, key=lambda answer: utc(answer["updated_at"]))
    # Its origins tell what that person did, not what the next one will do.
    result = [{key: item[key] for key in item if key != "origin"} for item in newest["result"]]
    server.set_prediction(task, result, PREDICTED)
    for answer in old:
        server.delete_annotation(int(answer["id"]))
    found.frames.append(review.frame_id)


def _open_page(
    server: LabelStudio,
    project: Project,
    tasks: Sequence[dict[str, Any]],
    review: Review,
    pulled: PulledAt,
    found: Reopened,
) -> None:
    """Ask about a frame of a clip again, unless it was asked or answered since.

    Args:
        server: connected.
        project: of clips.
        tasks: all that show the frame.
        review: that sent it back.
        pulled: what was pulled.
        found: gets what became of it.
    """
    old: list[tuple[dict[str, Any], Any]] = []
    for task in tasks:
        whole = read_task(task, server.task_link(project.number, task["id"]))
        if whole.created_at > review.updated_at:
            return  # asked already
        answers = _answers_before(server, project, task, review, pulled, found)
        if answers is None:
            return
        old += [(task, answer) for answer in answers]
    if old:
        task, newest = max(old, key=lambda pair: utc(pair[1]["updated_at"]))
        server.import_tasks(project.number, [one_page(task, review.frame_id, newest)])
        found.frames.append(review.frame_id)


def _answers_before(
    server: LabelStudio,
    project: Project,
    task: dict[str, Any],
    review: Review,
    pulled: PulledAt,
    found: Reopened,
) -> list[Any] | None:
    """Return the answers of a task that a frame was sent back from; none where it has to wait."""
    link = server.task_link(project.number, task["id"])
    answers = [answer for answer in read_task(task, link).annotations if not is_skip(answer)]
    try:
        times = [read(Stamp, answer, "an answer").updated_at for answer in answers]
    except InputError as error:
        found.waiting.append((review.frame_id, f"{error.detail}. {link}"))
        return None
    old = [answer for answer, at in zip(answers, times, strict=True) if at <= review.updated_at]
    if old and not are_pulled(old, review.frame_id, project, pulled):
        what = (
            f"its boxes were not pulled; 'avatar-build label pull boxes', then masks again. {link}"
        )
        found.waiting.append((review.frame_id, what))
        return None
    return old
