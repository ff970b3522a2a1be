"""Rows that a command commits at once, in no plan: lists brought in, answers, derived tables.

A derived table follows from other tables alone: ``instances`` from ``reviews``, verified masks from
both. Each of its units has a key made from what it was derived from, so that what is up to date is
known by name, and the rest is retired and made anew.

``commits/<step>/current/<digest>`` says that a table was up to date as things stood: the digest is
of the files it follows from, of its commits and of what lies in its folder. While these are the
same, nothing is read to know that there is nothing to do, and no lock is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pipeline.errors import AvatarBuildError
from pipeline.flow import FLOW
from pipeline.records.schema import digest_of
from pipeline.run.stage import Outcome, StageSpec
from pipeline.run.unit import Clock, Job, commit_unit
from pipeline.workspace.commit import Commit, Generation, Rows, TableFile, Unit
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.locks import run_lock
from pipeline.workspace.workspace import Workspace

_CURRENT = "current"
"""The folder, below a step's commits, of what says that its table is up to date."""


@dataclass(frozen=True)
class Derived:
    """The rows of one unit, and what they were made from."""

    key: str
    """Twelve hex digits that follow from all that decides the rows."""
    file: str
    """The file they were made from, or its name for people."""
    sha256: str
    outcomes: Sequence[Outcome]
    """An outcome per input row, in the order of the rows."""
    table: str = ""
    """The table of ``file``; empty for the one the spec reads."""
    attempts: Mapping[str, int] | None = None
    """The earlier tries of each row, in a retry."""


class HeldStep:
    """The commits of a step that is held, see ``hold``."""

    def __init__(self, workspace: Workspace, spec: StageSpec) -> None:
        self.ledger: Ledger = workspace.ledger(spec.name)
        self._spec = spec
        self._generation = Generation(spec.name, spec.version, {}, {}, {})
        self._job = Job(workspace.storage, spec.name, self._generation.key)
        self._last: int | None = None
        """The ordinal of the last unit; none before it was looked for."""

    @property
    def stage_key(self) -> str:
        """Return the key of the step's generation."""
        return self._generation.key

    def commits(self) -> dict[str, Commit]:
        """Return the commits in force by key."""
        return {commit.unit.rpartition("-")[2]: commit for commit in self.ledger.commits()}

    def retire_but(self, keys: Collection[str]) -> None:
        """Take every unit out of force whose key is not among these."""
        stale = [commit for key, commit in self.commits().items() if key not in keys]
        self.ledger.retire(stale, self._generation.key)

    def commit(self, rows: Derived, clock: Clock | None = None) -> None:
        """Commit a unit after all others.

        Args:
            rows: its rows.
            clock: started with the work; none: now.
        """
        if self._last is None:  # once: nobody else commits while the step is held
            self._last = max((commit.ordinal for commit in self.ledger.commits()), default=-1)
        ordinal = self._last = self._last + 1
        ids = [outcome.id for outcome in rows.outcomes]
        name = f"{ordinal:06d}-{rows.key}"
        unit = Unit((Rows(rows.file, rows.sha256, 0, len(ids)),), ordinal, name)
        if rows.attempts is not None:
            attempts = tuple(rows.attempts[row_id] for row_id in ids)
            unit = replace(unit, ids=tuple(ids), attempts=attempts)
        spec = replace(self._spec, reads=rows.table) if rows.table else self._spec
        self.ledger.begin(self._generation)
        commit_unit(self._job, spec, unit, ids, rows.outcomes, clock or Clock())


@contextmanager
def hold(workspace: Workspace, spec: StageSpec, *, wait: bool = False) -> Iterator[HeldStep]:
    """Hold a step alone, with what a crash interrupted mended, to commit to it.

    Args:
        workspace: where.
        spec: of the step.
        wait: until another run has ended; else that is an error.

    Raises:
        AvatarBuildError: another run holds it.
    """
    ledger = workspace.ledger(spec.name)
    with run_lock(workspace.storage, ledger.folder) as lock, ledger.fenced(lock.check):
        while not (lock.alone or lock.try_alone()):
            if not wait:
                raise AvatarBuildError(
                    f"{spec.name}: another run of this workspace is at it; try again after it."
                )
            time.sleep(lock.look_again_s)
        ledger.recover()
        yield HeldStep(workspace, spec)
        ledger.recover()


def commit_derived(held: HeldStep, wanted: Mapping[str, Callable[[], Derived]]) -> int:
    """Make exactly these units the ones in force; what is there already stays as it is.

    Args:
        held: of a step that is held.
        wanted: what makes each unit, by key; called for those that are new, one after the other in
            this order, so that the rows of one are in memory at a time.

    Returns:
        The number of units made anew.
    """
    held.retire_but(wanted.keys())
    there = held.commits()
    new = [key for key in wanted if key not in there]
    for key in new:
        held.commit(wanted[key]())
    return len(new)


Inputs = Mapping[str, Sequence[TableFile]]
"""The files that a derived table follows from, by table."""


def derive(
    workspace: Workspace,
    spec: StageSpec,
    inputs: Callable[[], Inputs],
    make: Callable[[HeldStep, Inputs], int],
) -> int:
    """Make a derived table anew where what it follows from, or the table itself, is another.

    Args:
        workspace: where.
        spec: of the step.
        inputs: finds the files that it follows from.
        make: makes it from just those, and returns the number of units made anew.

    Returns:
        The number of units made anew.
    """
    ledger = workspace.ledger(spec.name)
    with workspace.storage.listed_once():
        if _state(ledger, spec, inputs()) in _said_current(ledger):
            return 0
        with hold(workspace, spec, wait=True) as held:
            for state in _said_current(ledger):
                workspace.storage.remove(f"{ledger.folder}/{_CURRENT}/{state}")
            given = inputs()
            made = make(held, given)
            state = _state(ledger, spec, given)
            workspace.storage.write(f"{ledger.folder}/{_CURRENT}/{state}", b"")
        return made


def _said_current(ledger: Ledger) -> list[str]:
    return ledger.storage.names(f"{ledger.folder}/{_CURRENT}")


def _state(ledger: Ledger, spec: StageSpec, inputs: Inputs) -> str:
    """Digest all that tells whether a derived table is up to date."""
    files = {table: [file.content for file in found] for table, found in inputs.items()}
    commits = [(one.unit, [file.content for file in one.files]) for one in ledger.commits()]
    names = [ledger.storage.names(f"tables/{table}") for table in spec.writes]
    return digest_of([spec.name, spec.version, files, commits, names])[:32]


def is_derived(*tables: str) -> bool:
    """Return whether one of these tables is derived from others."""
    return any(step.derive and step.writes in tables for step in FLOW)


def decides_derived(*tables: str) -> bool:
    """Return whether a derived table may be another after one of these was written."""
    return any(step.derive and tables and {step.reads, step.writes} & {*tables} for step in FLOW)


def bring_up_to_date(workspace: Workspace) -> None:
    """Bring every derived table in step with the tables it follows from, in the flow's order."""
    with workspace.storage.listed_once():
        for step in FLOW:
            if step.derive:
                step.load_derive()(workspace)
