"""The contents of a workspace and the outcome of every row: status, failures, drops."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.columns import columns
from pipeline.errors import UsageError
from pipeline.flow import FLOW, STAGES
from pipeline.records.schema import TABLES, DropRow, FailureRow
from pipeline.words import short
from pipeline.workspace.commit import Commit
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.workspace import Workspace


@dataclass
class StageStatus:
    """The counts of a stage: ``input = ok + dropped + failed + pending``."""

    stage: str
    input: int = 0
    ok: int = 0
    dropped: int = 0
    failed: int = 0
    pending: int = 0
    children: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    """Drops by reason."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Failures by kind."""
    wall_s: float = 0.0
    """Seconds its workers spent, summed."""

    @property
    def rows_per_second(self) -> float:
        """Return the rows per second of one worker."""
        done = self.input - self.pending
        return done / self.wall_s if self.wall_s else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for ``--json`` and the report."""
        return {**self.__dict__, "rows_per_second": round(self.rows_per_second, 3)}


def stage_status(workspace: Workspace) -> list[StageStatus]:
    """Count the rows of every stage that has run or has input waiting."""
    with workspace.one_moment():
        found = [_status_of(workspace, workspace.ledger(step.name)) for step in FLOW]
    return [status for status in found if status.input]


def commits_in_force(workspace: Workspace, ledger: Ledger) -> list[Commit]:
    """Return the commits whose input is still in its table; the next run retires the others."""
    commits = ledger.commits()
    if ledger.stage not in STAGES:
        return commits
    live = workspace.live(*{commit.input.table for commit in commits})
    return [commit for commit in commits if commit.input.contents <= live]


def _status_of(workspace: Workspace, ledger: Ledger) -> StageStatus:
    status = StageStatus(ledger.stage)
    commits = commits_in_force(workspace, ledger)
    children: Counter[str] = Counter()
    for commit in commits:
        if not commit.ids:  # a retry answers rows that are counted already
            status.input += commit.counts["input"]
        status.ok += commit.counts["ok"]
        status.wall_s += commit.wall_s
        for name, count in commit.counts.items():
            if name.startswith("children:"):
                children[name.removeprefix("children:")] += count
    status.children = dict(children)
    status.reasons = ledger.drop_counts(commits)
    status.kinds = ledger.failure_counts(commits)
    status.dropped = sum(status.reasons.values())
    status.failed = sum(status.kinds.values())
    status.wall_s = round(status.wall_s, 3)
    status.pending = _pending_rows(workspace, ledger, commits)
    status.input += status.pending
    return status


def _pending_rows(workspace: Workspace, ledger: Ledger, commits: list[Commit]) -> int:
    """Rows of the input table that no commit answers yet."""
    if ledger.stage not in STAGES or (STAGES[ledger.stage].of_people and not commits):
        return 0  # who labels is the user's choice: no rows wait for a rule nobody asked for
    done: Counter[tuple[str, str]] = Counter()
    for commit in commits:
        if not commit.ids:
            for part in commit.input.parts:
                done[part.content] += part.stop - part.first
    reads = STAGES[ledger.stage].reads
    return sum(file.rows - done[file.content] for file in workspace.files(reads))


def status_lines(found: list[StageStatus]) -> list[str]:
    """Lay the counts out as a table for people."""
    if not found:
        return ["Nothing here yet. Start with: avatar-build download --list vggsound.csv"]
    rows = []
    for stage in found:
        counts = (stage.input, stage.ok, stage.dropped, stage.failed, stage.pending)
        notes = [f"{count} {table}" for table, count in stage.children.items()]
        worst = list((stage.kinds | stage.reasons).items())[:3]
        notes += [f"{name} {count}" for name, count in worst]
        if stage.rows_per_second:
            notes.append(f"{stage.rows_per_second:.3g} rows/s per worker")
        if stage.pending and stage.rows_per_second:
            notes.append(f"about {_duration(stage.pending / stage.rows_per_second)} of work left")
        rows.append([stage.stage, *(f"{count:,}" for count in counts), ", ".join(notes)])
    numbers = ["rows", "ok", "dropped", "failed", "waiting"]
    return columns(["stage", *numbers, "notes"], rows, right=numbers)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def check_names(workspace: Workspace, stage: str | None, kind: str | None) -> None:
    """Refuse a stage there is none of, and a kind or reason that never occurred here.

    A kind that occurred and was mended by a retry is known: to ask for it again finds no row.

    Raises:
        UsageError: with what there is.
    """
    stages = sorted({*(step.name for step in FLOW), *(one.stage for one in workspace.ledgers())})
    if stage is not None and stage not in stages:
        raise UsageError(f"--stage {short(stage)}: there is {', '.join(stages)}.")
    if kind is None:
        return
    seen: set[str] = set()
    for ledger in workspace.ledgers():
        if stage in (None, ledger.stage):
            commits = ledger.commits()
            seen |= ledger.drop_counts(commits).keys()
            for commit in commits:
                if commit.endings is None:
                    seen |= {row.kind for row in ledger.failures_of(commit)}
                else:
                    seen |= commit.endings["failures"].keys()
    if kind not in seen:
        where = f" of {stage}" if stage else ""
        there = f"there is {', '.join(sorted(seen))}" if seen else "none failed or was dropped"
        raise UsageError(f"--kind {short(kind)}: no row{where} ended so; {there}.")


def failed_rows(
    workspace: Workspace, stage: str | None = None, kind: str | None = None
) -> list[FailureRow]:
    """Return the failures that stand, of one stage or all, of one kind or all."""
    return [
        row
        for ledger, commits in _ended(workspace, stage)
        for row in ledger.failures(commits)
        if kind in (None, row.kind)
    ]


def dropped_rows(
    workspace: Workspace, stage: str | None = None, kind: str | None = None
) -> list[DropRow]:
    """Return the drops of one stage or all, for one reason or all."""
    return [
        row
        for ledger, commits in _ended(workspace, stage)
        for row in ledger.drops(commits)
        if kind in (None, row.reason)
    ]


def num_dropped(workspace: Workspace, stage: str | None = None, kind: str | None = None) -> int:
    """Count what ``dropped_rows`` returns, from the commits alone."""
    counts = [ledger.drop_counts(commits) for ledger, commits in _ended(workspace, stage)]
    return sum(count for one in counts for reason, count in one.items() if kind in (None, reason))


def outcomes(workspace: Workspace) -> tuple[list[FailureRow], list[DropRow]]:
    """Return all failures and drops of a workspace."""
    return failed_rows(workspace), dropped_rows(workspace)


def _ended(workspace: Workspace, stage: str | None) -> list[tuple[Ledger, list[Commit]]]:
    """Return the commits in force of one stage or all."""
    with workspace.one_moment():
        for table in TABLES:
            workspace.files(table)  # a commit that is missing takes its failures along
        return [
            (ledger, commits_in_force(workspace, ledger))
            for ledger in workspace.ledgers()
            if stage in (None, ledger.stage)
        ]
