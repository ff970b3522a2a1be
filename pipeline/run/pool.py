"""Supervise workers, wherever they run, and survive whatever happens to them.

A worker that dies or hangs is replaced, and its unit is done again row by row (``RowByRow``), which
shows the row at fault and spares the others. What a worker is, a process or an actor, is the
executor's business (``Worker``).
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from pipeline.errors import StopRun
from pipeline.records.schema import Record
from pipeline.run.stage import Fail, Outcome, StageSpec
from pipeline.run.unit import Clock, ConservationError, Job, UnitResult, commit_unit, read_unit
from pipeline.workspace.commit import Unit
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.locks import Claims

_POLL_S = 0.2
_START_TIMEOUT_S = 300.0
_TRIES = 2
"""A row may kill this many workers before it is the row's fault and not the machine's."""
_LOSSES = 10
"""A unit may lose this many machines, or as many in turn a worker that starts; then the run stops:
it is no row's fault, and more of it would be none's gain."""

CRASH = "worker_crash"
"""Kind of a row that its worker does not survive."""


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
    """A unit being done row by row after it lost its worker."""

    unit: Unit
    rows: list[Record]
    clock: Clock
    outcomes: list[Outcome] = field(default_factory=list)
    deaths: int = 0
    """Workers the row at hand cost."""
    losses: int = 0
    """Machines that were lost while they were at the unit."""

    @property
    def index(self) -> int:
        """Return the place of the row at hand."""
        return len(self.outcomes)


Message = tuple[str, Any]
"""A message to a worker: ``unit``, ``row`` or ``end``. From it: ``ready``, ``beat``, ``done``,
``outcomes``, ``stop``, ``refused`` or ``bug``."""


class Worker(Protocol):
    """Something that opens the stage once and then answers messages."""

    @property
    def placed(self) -> bool:
        """Say whether there was room for it; until then it only waits, and nothing is wrong."""
        ...

    @property
    def heard(self) -> float:
        """Return when it was last known to be in reach, by ``time.monotonic``.

        A worker that is silent while it is in reach hangs; one that is out of reach may not.
        """
        ...

    @property
    def blame(self) -> str:
        """Return the kind of failure of a row that it dies of again; empty: none is to blame."""
        ...

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

    @property
    def cores(self) -> int:
        """Return how many workers there are, now, where nobody says how many."""
        ...

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
    deadline: float = math.inf
    """The time from which on it hangs; that of its start counts from its placement."""
    ready: bool = False
    unit: Unit | None = None
    row_by_row: RowByRow | None = None

    @property
    def busy(self) -> bool:
        return self.unit is not None or self.row_by_row is not None

    @property
    def idle(self) -> bool:
        return self.ready and not self.busy


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
        """Units that lost their worker and wait for another."""
        self.failed_starts = Counter[str]()
        """Workers that died at their start since one was ready last, by what is to blame."""
        self.stop: StopRun | None = None

    def run(self, most: Callable[[], int]) -> None:
        """Do all there is to do.

        Args:
            most: returns how many workers there are to be, at least 1; asked again and again, as a
                cluster grows and shrinks.

        Raises:
            StopRun: a worker says the run must stop, or too many machines are lost; committed
                units stay.
            AvatarBuildError: a worker could not open the stage.
            WorkerError: a bug outside any row.
        """
        try:
            self._run(most)
        finally:
            self._end()

    def _run(self, most: Callable[[], int]) -> None:
        while True:
            self._follow(most())
            for place in self.places:
                if place.idle:
                    self._assign(place)
            if not self._work_left() and not any(place.busy for place in self.places):
                break
            self._listen()
        if self.stop:
            raise self.stop

    def _follow(self, most: int) -> None:
        """Start workers where there are fewer, and ask for no more room than that."""
        while len(self.places) < most and self._work_left():
            taken = {place.number for place in self.places}
            number = next(number for number in count() if number not in taken)
            self.places.append(_Place(number, self.team.start(self.job, number)))
        for place in self.places[most:]:
            if not place.worker.placed:
                place.worker.kill()
                self.places.remove(place)

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
            place.deadline = time.monotonic() + self.spec.row_timeout_s * self.spec.batch_size
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
            if not place.ready and place.worker.placed:
                place.deadline = min(place.deadline, time.monotonic() + _START_TIMEOUT_S)
            if not alive:
                self._replace_dead(place, hung=False)
            elif not place.idle and place.worker.heard > place.deadline:
                place.worker.kill()
                self._replace_dead(place, hung=True)

    def _act(self, place: _Place, message: Message) -> None:
        kind, value = message
        if kind == "ready":
            self.on_ready()
            place.ready = True
            self.failed_starts.clear()
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
        how, blame = place.worker.death(), place.worker.blame
        place.worker.end()
        if not place.ready:
            self.failed_starts[blame] += 1
            if blame != CRASH and self.failed_starts[blame] >= _LOSSES:
                raise StopRun(f"{self.spec.name}: {_LOSSES} workers in turn found no place: {how}.")
            if blame == CRASH and self.failed_starts[blame] > _TRIES:
                raise WorkerError(f"{self.spec.name}: three workers died at their start ({how})")
        if place.unit:
            rows = read_unit(self.job, self.spec, place.unit)
            self.row_by_row.append(RowByRow(place.unit, rows, Clock()))
        elif row_by_row := place.row_by_row:
            self._go_on(row_by_row, how, "hang" if hung else blame)

    def _go_on(self, row_by_row: RowByRow, how: str, blame: str) -> None:
        """Go on with a unit whose worker died at a row, past that if it is to blame."""
        row = row_by_row.rows[row_by_row.index]
        if not blame:
            row_by_row.losses += 1
            if row_by_row.losses >= _LOSSES:
                unit = row_by_row.unit.name
                raise StopRun(f"{self.spec.name}: unit {unit} lost {_LOSSES} workers: {how}.")
        else:
            row_by_row.deaths += 1
        if blame == "hang":
            limit = self.spec.row_timeout_s
            row_by_row.outcomes.append(Fail(row.id, blame, f"no answer in {limit:g} s", True))
        elif row_by_row.deaths >= _TRIES:
            detail = f"the worker died twice on this row ({how})"
            row_by_row.outcomes.append(Fail(row.id, blame, detail, True))
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
