"""Supervise workers, wherever they run, and survive whatever happens to them.

A worker that dies or hangs is replaced, and its unit is done again row by row (``RowByRow``), which
shows the row at fault and spares the others. What a worker is, a process or an actor, is the
executor's business (``Worker``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.errors import StopRun
from pipeline.records.schema import Record
from pipeline.run.stage import Fail, Outcome, StageSpec
from pipeline.run.unit import Clock, ConservationError, Job, UnitResult, commit_unit, read_unit
from pipeline.workspace.ledger import Ledger, Unit
from pipeline.workspace.locks import Claims

_POLL_S = 0.2
_START_TIMEOUT_S = 300.0
_TRIES = 2
"""A row may kill this many workers before it is the row's fault and not the machine's."""


class UnitSource:
    """The units of a run that are still to do, claimed one by one: other processes take others."""

    def __init__(self, ledger: Ledger, units: Iterable[Unit], claims: Claims) -> None:
        self._ledger, self._claims = ledger, claims
        self._waiting = deque(claims.in_turn([*units]))

    def take(self) -> Unit | None:
        """Claim a unit; none when there is none just now."""
        for _ in range(len(self._waiting)):
            unit = self._waiting.popleft()
            if not self._claims.take(unit.ordinal):
                self._waiting.append(unit)
            elif self._ledger.is_committed(unit):
                self.done(unit)
            else:
                self._claims.tell()
                return unit
        return None

    def done(self, unit: Unit) -> None:
        """Give back a unit that is committed."""
        self._claims.release(unit.ordinal)

    def remaining(self) -> int:
        """Count the units not known to be committed, those of other processes included."""
        return len(self._waiting)


class WorkerError(Exception):
    """A bug in a worker outside any row; carries the worker's traceback."""


@dataclass
class RowByRow:
    """A unit being done row by row after it cost a worker."""

    unit: Unit
    rows: list[Record]
    clock: Clock
    outcomes: list[Outcome] = field(default_factory=list)
    deaths: int = 0

    @property
    def index(self) -> int:
        """Return the place of the row at hand."""
        return len(self.outcomes)


Message = tuple[str, Any]
"""A message to a worker: ``unit``, ``row`` or ``end``. From it: ``ready``, ``beat``, ``done``,
``outcomes``, ``stop``, ``refused`` or ``bug``."""


class Worker(Protocol):
    """Something that opens the stage once and then answers messages."""

    beats: bool
    """True where it says ``beat`` before each batch; else a unit is waited for as a whole."""

    def send(self, message: Message) -> None:
        """Give it work; a dead worker is no error here."""

    def messages(self) -> list[Message]:
        """Return what it has said since last asked."""
        ...

    def is_alive(self) -> bool:
        """Say whether it may say more."""
        ...

    def death(self) -> str:
        """Return how it died, for people."""
        ...

    def kill(self) -> None:
        """End it at once."""

    def end(self) -> None:
        """Let it close its stage and leave, within seconds."""


class Team(Protocol):
    """Makes workers and waits for any of them."""

    cores: int
    """Workers there are where nobody says how many."""
    num_gpus: int
    """GPUs its workers share; 0 where they use none."""

    def start(self, job: Job, place: int) -> Worker:
        """Start a worker that opens the job's stage.

        Args:
            job: what to run.
            place: from 0 on; no two live workers have one, and who replaces a dead one has its.
        """
        ...

    def wait(self, workers: Sequence[Worker], timeout_s: float) -> None:
        """Return when one of them may have said something or died, or after ``timeout_s``."""


@dataclass(eq=False)
class _Place:
    """A worker and what it is doing."""

    number: int
    worker: Worker
    deadline: float
    ready: bool = False
    unit: Unit | None = None
    row_by_row: RowByRow | None = None

    @property
    def idle(self) -> bool:
        return self.ready and self.unit is None and self.row_by_row is None


class Pool:
    """Runs units on a team of workers until the source has none left.

    Args:
        team: makes the workers.
        job: what to run.
        spec: of the stage.
        source: of units.
        on_result: called for every committed unit.
        on_rows: called with a unit and its finished rows, for progress.
        on_ready: called when a worker has opened the stage, before it is given work.
    """

    def __init__(
        self,
        team: Team,
        job: Job,
        spec: StageSpec,
        source: UnitSource,
        on_result: Callable[[UnitResult], None],
        on_rows: Callable[[Unit, int], None],
        on_ready: Callable[[], None],
    ) -> None:
        self.team, self.job, self.spec, self.source = team, job, spec, source
        self.on_result, self.on_rows, self.on_ready = on_result, on_rows, on_ready
        self.places: list[_Place] = []
        self.row_by_row: list[RowByRow] = []
        """Units that cost a worker and wait for a new one."""
        self.failed_starts = 0
        self.stop: StopRun | None = None

    def run(self, count: int) -> None:
        """Do all there is to do with ``count`` workers, at least 1.

        Raises:
            StopRun: a worker says the run must stop; committed units stay.
            AvatarBuildError: a worker could not open the stage.
            WorkerError: a bug outside any row.
        """
        try:
            self._run(count)
        finally:
            self._end()

    def _run(self, count: int) -> None:
        while True:
            while len(self.places) < count and self._work_left():
                number = min(set(range(count)) - {place.number for place in self.places})
                worker = self.team.start(self.job, number)
                self.places.append(_Place(number, worker, time.monotonic() + _START_TIMEOUT_S))
            for place in self.places:
                if place.idle:
                    self._assign(place)
            if all(place.idle for place in self.places) and not self._work_left():
                break
            self._listen()
        if self.stop:
            raise self.stop

    def _work_left(self) -> bool:
        if self.stop:
            return False
        return bool(self.row_by_row) or self.source.remaining() > 0

    def _assign(self, place: _Place) -> None:
        if self.stop:
            return
        if self.row_by_row:
            place.row_by_row = self.row_by_row.pop()
            self._send_row(place)
        elif unit := self.source.take():
            place.unit = unit
            rows = self.spec.batch_size if place.worker.beats else unit.stop - unit.first
            place.deadline = time.monotonic() + self.spec.row_timeout_s * rows
            place.worker.send(("unit", unit))

    def _send_row(self, place: _Place) -> None:
        row_by_row = place.row_by_row
        assert row_by_row is not None
        place.deadline = time.monotonic() + self.spec.row_timeout_s
        place.worker.send(("row", row_by_row.rows[row_by_row.index]))

    def _listen(self) -> None:
        self.team.wait([place.worker for place in self.places], _POLL_S)
        for place in list(self.places):
            alive = place.worker.is_alive()  # asked first: what it said before it died is heard
            for message in place.worker.messages():
                self._act(place, message)
            if not alive:
                self._replace_dead(place, hung=False)
            elif not place.idle and time.monotonic() > place.deadline:
                place.worker.kill()
                self._replace_dead(place, hung=True)

    def _act(self, place: _Place, message: Message) -> None:
        kind, value = message
        if kind == "ready":
            self.on_ready()
            place.ready = True
            self.failed_starts = 0
        elif kind == "beat":
            place.deadline = time.monotonic() + self.spec.row_timeout_s * self.spec.batch_size
            if place.unit and value is not None:
                self.on_rows(place.unit, value)
        elif kind == "done":
            place.unit = None
            self._committed(value)
        elif kind == "outcomes":
            self._answered(place, value)
        elif kind == "stop":
            place.unit = place.row_by_row = None
            self.stop = value
        elif kind == "refused":
            raise value
        else:
            raise WorkerError(value)

    def _committed(self, result: UnitResult) -> None:
        self.source.done(result.unit)
        self.on_result(result)

    def _answered(self, place: _Place, outcomes: list[Outcome]) -> None:
        row_by_row = place.row_by_row
        assert row_by_row is not None
        row = row_by_row.rows[row_by_row.index]
        if [outcome.id for outcome in outcomes] != [row.id]:
            raise ConservationError(f"{self.spec.name}: asked about {row.id!r}, got {outcomes}")
        row_by_row.outcomes += outcomes
        row_by_row.deaths = 0
        self._next_row(place, row_by_row)

    def _next_row(self, place: _Place | None, row_by_row: RowByRow) -> None:
        if row_by_row.index < len(row_by_row.rows):
            self.on_rows(row_by_row.unit, row_by_row.index)
            if place:
                self._send_row(place)
            else:
                self.row_by_row.append(row_by_row)
            return
        if place:
            place.row_by_row = None
        ids = [row.id for row in row_by_row.rows]
        self._committed(
            commit_unit(
                self.job, self.spec, row_by_row.unit, ids, row_by_row.outcomes, row_by_row.clock
            )
        )

    def _replace_dead(self, place: _Place, *, hung: bool) -> None:
        """Replace a dead worker; what it was doing goes on row by row."""
        self.places.remove(place)
        how = place.worker.death()
        place.worker.end()
        if not place.ready:
            self.failed_starts += 1
            if self.failed_starts >= _TRIES + 1:
                raise WorkerError(f"{self.spec.name}: three workers died at their start ({how})")
        if place.unit:
            rows = read_unit(self.job, self.spec, place.unit)
            self.row_by_row.append(RowByRow(place.unit, rows, Clock()))
        elif row_by_row := place.row_by_row:
            row_by_row.deaths += 1
            row = row_by_row.rows[row_by_row.index]
            if hung:
                limit = self.spec.row_timeout_s
                row_by_row.outcomes.append(Fail(row.id, "hang", f"no answer in {limit:g} s", True))
            elif row_by_row.deaths >= _TRIES:
                detail = f"the worker died twice on this row ({how})"
                row_by_row.outcomes.append(Fail(row.id, "worker_crash", detail, True))
            else:
                self.row_by_row.append(row_by_row)
                return
            row_by_row.deaths = 0
            self._next_row(None, row_by_row)

    def _end(self) -> None:
        for place in self.places:
            if place.idle:
                place.worker.send(("end", None))
            else:
                place.worker.kill()
        for place in self.places:
            place.worker.end()
