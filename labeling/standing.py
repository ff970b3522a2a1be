"""How far the annotators are, as the server counts."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from labeling.client import LabelStudio
from labeling.projects import find_project
from labeling.pull import SPECS
from pipeline.schema import Review
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class Standing:
    """One project's books: ``tasks = to_do + done``."""

    project: str
    tasks: int
    to_do: int
    done: int
    skipped: int
    """Skips; such a task may still be to do for others."""
    to_mend: int
    """Answers the last pull could not read."""
    seconds_per_task: float | None
    """Median of what was pulled; none before the first."""

    @property
    def hours_left(self) -> float | None:
        """Of one annotator's work at the present rate."""
        if self.seconds_per_task is None:
            return None
        return self.to_do * self.seconds_per_task / 3600

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "hours_left": self.hours_left}

    def sentence(self) -> str:
        """For people."""
        said = f"{self.project}: {self.tasks} tasks, {self.to_do} to do, {self.done} done"
        said += f", {self.skipped} skips" if self.skipped else ""
        said += f", {self.to_mend} to mend" if self.to_mend else ""
        if self.seconds_per_task is not None and self.hours_left is not None:
            said += f"; {self.seconds_per_task:.1f} s per task (median of what was pulled)"
            said += f", about {self.hours_left:.1f} h of one annotator's work left"
        return f"{said}."


def standings(workspace: Workspace, server: LabelStudio) -> list[Standing]:
    """The standing of each project of ours that exists at the server."""
    seconds: dict[str, list[float]] = {}
    for review in workspace.rows(Review):
        if review.lead_time_s is not None:
            project_key = review.annotation_id.partition("/")[0]
            seconds.setdefault(project_key, []).append(review.lead_time_s)
    found = []
    for kind, spec in SPECS.items():
        project = find_project(server, workspace.config.label.project, kind)
        if project is None:
            continue
        raw = server.project(project.number)
        tasks, done = int(raw["task_number"] or 0), int(raw["finished_task_number"] or 0)
        times = seconds.get(project.key)
        found.append(
            Standing(
                project.title,
                tasks,
                tasks - done,
                done,
                int(raw["skipped_annotations_number"] or 0),
                len(workspace.ledger(spec.name).failures()),
                statistics.median(times) if times else None,
            )
        )
    return found
