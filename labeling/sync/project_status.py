"""The progress of the annotators, as the server counts, and what the tables know besides."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from labeling.label_studio.client import LabelStudio
from labeling.projects.connect import find_projects
from labeling.projects.project_kind import project_kinds
from labeling.quality.agreement import agreement
from labeling.review.overlap import EVERYBODY, OverlapPlan
from pipeline.records.schema import Review
from pipeline.words import command_line
from pipeline.workspace.workspace import Workspace

_RECENT = 100
"""The number of answers that make the present rate."""


@dataclass(frozen=True)
class ProjectStatus:
    """A project's progress: ``tasks = to_do + done + gold``."""

    kind: str
    project: str
    tasks: int
    to_do: int
    done: int
    """Tasks answered by as many people as were asked."""
    gold: int
    """Tasks with known answers, open for everybody; they are never done."""
    answers_to_do: int
    """Answers still to be given; more than ``to_do`` where several people are asked."""
    skipped: int
    """Skips; such a task may still be to do for others."""
    to_mend: int
    """Answers the last pull could not read."""
    in_adjudication: int
    """Disputes about boxes that nobody has adjudicated: of a thing in several frames, once."""
    seconds_per_task: float | None
    """The median of the newest answers that were pulled, each of a frame or of a clip as the tasks
    are; none before the first."""

    @property
    def hours_left(self) -> float | None:
        """Hours of one annotator's work at the present rate."""
        if self.seconds_per_task is None:
            return None
        return self.answers_to_do * self.seconds_per_task / 3600

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {**asdict(self), "hours_left": self.hours_left}

    def cells(self) -> list[str]:
        """Return the cells of a table row, below ``COLUMNS``."""
        counts = (self.tasks, self.to_do, self.done, self.gold, self.skipped, self.to_mend)
        rates = (self.seconds_per_task, self.hours_left)
        shown = ["-" if rate is None else f"{rate:.1f}" for rate in rates]
        return [self.project, *map(str, (*counts, self.in_adjudication)), *shown]


COLUMNS = [
    *("project", "tasks", "to do", "done", "gold", "skips", "to mend", "in adjudication"),
    *("s per task", "hours left"),
]
"""Titles of the table; seconds are the median of the newest answers pulled, hours one
annotator's at that rate."""


@dataclass(frozen=True)
class Orphan:
    """A person's answer that no longer fits its frame."""

    frame_id: str
    annotator: str
    review_id: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the words that the command prints."""
        return f"  orphaned: {self.frame_id}, annotator {self.annotator}: {self.why}"


def project_statuses(workspace: Workspace, server: LabelStudio) -> list[ProjectStatus]:
    """Return the status of every project of ours that exists at the server.

    Args:
        workspace: whose projects.
        server: connected.
    """
    config = workspace.config.label
    reviews = workspace.rows(Review)
    disputed = len(agreement(reviews, config.agreement_iou).disputes)
    found = []
    projects = [
        (kind, project)
        for kind in project_kinds()
        for project in find_projects(server, config.project, kind)
    ]
    for kind, project in projects:
        raw = server.project(project.number)
        tasks, done = int(raw["task_number"] or 0), int(raw["finished_task_number"] or 0)
        shared = list(server.shared_tasks(project.number))
        gold = sum(int(task["overlap"]) >= EVERYBODY for task in shared)
        to_do = tasks - done - gold
        found.append(
            ProjectStatus(
                kind=kind.title(project.by_clip),
                project=project.title,
                tasks=tasks,
                to_do=to_do,
                done=done,
                gold=gold,
                answers_to_do=to_do + sum(map(_more_answers, shared)),
                skipped=int(raw["skipped_annotations_number"] or 0),
                to_mend=len(workspace.ledger(kind.step.name).failures()),
                in_adjudication=disputed if kind.name == "boxes" else 0,
                seconds_per_task=_rate(reviews, project.key),
            )
        )
        if kind.name == "boxes":
            disputed = 0  # said once, whichever layout they are in
    return found


def orphans(workspace: Workspace) -> list[Orphan]:
    """Return people's answers that no longer fit their frames."""
    known = set(workspace.arrow("frames").column("frame_id").to_pylist())
    push = command_line("label", "push", "boxes", "--workspace", workspace.storage.url)
    away = "its frame was sampled away; it counts again when the frame comes back"
    lost = f"a box it kept is no longer proposed; to ask again: {push}"
    return [
        Orphan(
            review.frame_id,
            review.annotator,
            review.review_id,
            lost if review.frame_id in known else away,
        )
        for review in OverlapPlan.of(workspace).orphaned
    ]


def _more_answers(task: dict[str, Any]) -> int:
    """Count what a task for several is to get beyond the one answer every task to do gets."""
    if task["is_labeled"] or int(task["overlap"]) >= EVERYBODY:
        return 0
    return max(0, int(task["overlap"]) - int(task["total_annotations"]) - 1)


def _rate(reviews: Iterable[Review], key: str) -> float | None:
    """Return the median lead time of a project's newest answers."""
    timed: dict[tuple[str, str], float] = {}
    for review in reviews:
        if review.annotation_id.startswith(f"{key}/") and review.lead_time_s is not None:
            answer = review.updated_at, review.annotation_id  # of a clip, one about each frame
            timed[answer] = timed.get(answer, 0.0) + review.lead_time_s
    newest = [seconds for _, seconds in sorted(timed.items())[-_RECENT:]]
    return statistics.median(newest) if newest else None
