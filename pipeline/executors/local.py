"""Run units on worker processes of this machine, and survive whatever happens to them.

``multiprocessing.Pool`` waits for ever when a worker is killed and ``ProcessPoolExecutor`` gives up
as a whole, so the workers are supervised here: a worker that dies or hangs is replaced, and its
unit is done again row by row (``Careful``), which shows the row at fault and spares the others.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import AvatarBuildError, StopRun
from pipeline.ledger import Unit
from pipeline.schema import Record
from pipeline.stage import Fail, Outcome, Stage, StageSpec, WorkerContext
from pipeline.unit import (
    Clock,
    ConservationError,
    Job,
    UnitResult,
    commit_unit,
    process_batch,
    read_unit,
    run_unit,
)

_POLL_S = 0.2
_START_TIMEOUT_S = 300.0
_TRIES = 2
"""A row may kill this many workers before it is the row's fault and not the machine's."""


class UnitSource(Protocol):
    """Hands out units that no other process works on."""

    def take(self) -> Unit | None:
        """A claimed unit; none when there is none just now."""

    def done(self, unit: Unit) -> None:
        """The unit is committed."""

    def remaining(self) -> int:
        """Units not known to be committed, those of other processes included."""


class WorkerError(Exception):
    """A bug in a worker outside any row; carries the worker's traceback."""


@dataclass
class Careful:
    """A unit being done row by row after it cost a worker."""

    unit: Unit
    rows: list[Record]
    clock: Clock
    outcomes: list[Outcome] = field(default_factory=list)
    deaths: int = 0

    @property
    def index(self) -> int:
        """The row at hand."""
        return len(self.outcomes)


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    deadline: float
    ready: bool = False
    unit: Unit | None = None
    careful: Careful | None = None

    @property
    def idle(self) -> bool:
        return self.ready and self.unit is None and self.careful is None


def run_local(
    job: Job,
    spec: StageSpec,
    source: UnitSource,
    workers: int,
    on_result: Callable[[UnitResult], None],
    on_rows: Callable[[Unit, int], None],
) -> None:
    """Run units until the source has none left.

    Args:
        job: what to run.
        spec: of the stage.
        source: of units.
        workers: processes, at least 1.
        on_result: called for every committed unit.
        on_rows: called with a unit and its finished rows, for progress.

    Raises:
        StopRun: a worker says the run must stop; committed units stay.
        AvatarBuildError: a worker could not open the stage.
        WorkerError: a bug outside any row.
    """
    pool = _Pool(job, spec, source, on_result, on_rows)
    try:
        pool.run(workers)
    finally:
        pool.end()


class _Pool:
    def __init__(
        self,
        job: Job,
        spec: StageSpec,
        source: UnitSource,
        on_result: Callable[[UnitResult], None],
        on_rows: Callable[[Unit, int], None],
    ) -> None:
        self.job, self.spec, self.source = job, spec, source
        self.on_result, self.on_rows = on_result, on_rows
        self.workers: list[_Worker] = []
        self.careful: list[Careful] = []
        """Units that cost a worker and wait for a new one."""
        self.failed_starts = 0
        self.stop: StopRun | None = None

    def run(self, count: int) -> None:
        while True:
            while len(self.workers) < count and self._work_left():
                self.workers.append(self._start())
            for worker in self.workers:
                if worker.idle:
                    self._assign(worker)
            busy = [w for w in self.workers if not w.idle]
            if not busy and not self._work_left():
                break
            self._listen()
        if self.stop:
            raise self.stop

    def _work_left(self) -> bool:
        if self.stop:
            return False
        return bool(self.careful) or self.source.remaining() > 0

    def _start(self) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        name = f"{self.spec.name}-{len(self.workers)}"
        process = context.Process(target=work, args=(theirs, self.job, os.getpid()), name=name)
        process.start()
        theirs.close()
        return _Worker(process, ours, time.monotonic() + _START_TIMEOUT_S)

    def _assign(self, worker: _Worker) -> None:
        if self.stop:
            return
        if self.careful:
            worker.careful = self.careful.pop()
            self._send_row(worker)
        elif unit := self.source.take():
            worker.unit = unit
            worker.deadline = time.monotonic() + self.spec.row_timeout_s * self.spec.batch_size
            self._send(worker, ("unit", unit))

    def _send_row(self, worker: _Worker) -> None:
        careful = worker.careful
        assert careful is not None
        worker.deadline = time.monotonic() + self.spec.row_timeout_s
        self._send(worker, ("row", careful.rows[careful.index]))

    @staticmethod
    def _send(worker: _Worker, message: object) -> None:
        # A worker that died meanwhile is noticed by _listen; its work is still on its record.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.pipe.send(message)

    def _listen(self) -> None:
        handles: list[Any] = [w.pipe for w in self.workers]
        handles += [w.process.sentinel for w in self.workers]
        ready = wait(handles, timeout=_POLL_S)
        now = time.monotonic()
        for worker in list(self.workers):
            alive = True
            while alive and worker.pipe.poll():
                alive = self._receive(worker)
            if not worker.process.is_alive() and not (alive and worker.pipe.poll()):
                self._bury(worker, hung=False)
            elif now > worker.deadline and not worker.idle and worker.pipe not in ready:
                worker.process.kill()
                worker.process.join()
                self._bury(worker, hung=True)

    def _receive(self, worker: _Worker) -> bool:
        """Act on one message; false when the pipe is at its end."""
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            return False
        if kind == "ready":
            worker.ready = True
            self.failed_starts = 0
        elif kind == "beat":
            worker.deadline = time.monotonic() + self.spec.row_timeout_s * self.spec.batch_size
            if worker.unit and value is not None:
                self.on_rows(worker.unit, value)
        elif kind == "done":
            worker.unit = None
            self._committed(value)
        elif kind == "outcomes":
            self._answered(worker, value)
        elif kind == "stop":
            worker.unit = worker.careful = None
            self.stop = value
        elif kind == "refused":
            raise value
        else:
            raise WorkerError(value)
        return True

    def _committed(self, result: UnitResult) -> None:
        self.source.done(result.unit)
        self.on_result(result)

    def _answered(self, worker: _Worker, outcomes: list[Outcome]) -> None:
        careful = worker.careful
        assert careful is not None
        row = careful.rows[careful.index]
        if [outcome.id for outcome in outcomes] != [row.id]:
            raise ConservationError(f"{self.spec.name}: asked about {row.id!r}, got {outcomes}")
        careful.outcomes += outcomes
        careful.deaths = 0
        self._next_row(worker, careful)

    def _next_row(self, worker: _Worker | None, careful: Careful) -> None:
        if careful.index < len(careful.rows):
            self.on_rows(careful.unit, careful.index)
            if worker:
                self._send_row(worker)
            else:
                self.careful.append(careful)
            return
        if worker:
            worker.careful = None
        ids = [row.id for row in careful.rows]
        self._committed(
            commit_unit(self.job, self.spec, careful.unit, ids, careful.outcomes, careful.clock)
        )

    def _bury(self, worker: _Worker, *, hung: bool) -> None:
        """Replace a dead worker; what it was doing goes on row by row."""
        self.workers.remove(worker)
        worker.pipe.close()
        code = worker.process.exitcode
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts >= 3:
                raise WorkerError(f"{self.spec.name}: three workers died at their start ({code})")
        if worker.unit:
            rows = read_unit(self.job, self.spec, worker.unit)
            self.careful.append(Careful(worker.unit, rows, Clock()))
        elif careful := worker.careful:
            careful.deaths += 1
            row = careful.rows[careful.index]
            if hung:
                limit = self.spec.row_timeout_s
                careful.outcomes.append(Fail(row.id, "hang", f"no answer in {limit:g} s", True))
            elif careful.deaths >= _TRIES:
                detail = f"the worker died twice on this row ({_exit_name(code)})"
                careful.outcomes.append(Fail(row.id, "worker_crash", detail, True))
            else:
                self.careful.append(careful)
                return
            careful.deaths = 0
            self._next_row(None, careful)

    def end(self) -> None:
        """End every worker, politely first."""
        for worker in self.workers:
            if worker.idle:
                self._send(worker, ("end", None))
            else:
                worker.process.terminate()
        limit = time.monotonic() + 5
        for worker in self.workers:
            worker.process.join(max(0.0, limit - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()


def _exit_name(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def work(pipe: Connection, job: Job, parent: int) -> None:
    """A worker's life: open the stage, answer messages, end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    scratch = make_scratch(job, f"{os.getpid()}")
    lock = threading.Lock()

    def send(kind: str, value: object = None) -> None:
        with lock:  # a stage's threads may beat while it answers
            pipe.send((kind, value))

    try:
        with opened_stage(job, scratch, lambda: send("beat")) as stage:
            send("ready")
            _answer(pipe, send, job, stage)
    except AvatarBuildError as error:
        send("refused", error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:  # noqa: BLE001  the parent raises it again, with this traceback
        send("bug", traceback.format_exc())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _answer(pipe: Connection, send: Callable[..., None], job: Job, stage: Stage[Any]) -> None:
    while True:
        kind, value = pipe.recv()
        if kind == "end":
            return
        try:
            if kind == "unit":
                send("done", run_unit(job, stage, value, lambda done: send("beat", done)))
            else:
                send("outcomes", process_batch(stage, [value]))
        except StopRun as stop:
            send("stop", stop)


def _end_with(parent: int) -> None:
    """Leave when the parent is gone, or a killed run would go on writing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def make_scratch(job: Job, name: str) -> Path:
    """A folder for unfinished files: on the workspace's own disk, so that renaming works."""
    if job.storage.local is None:
        import tempfile

        return Path(tempfile.mkdtemp(prefix="avatar-build-"))
    path = job.storage.path(f"commits/{job.stage}/work/{job.run_id}/{name}")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def opened_stage(job: Job, scratch: Path, heartbeat: Callable[[], None]) -> Iterator[Stage[Any]]:
    """The job's stage, opened; closed at the end."""
    from pipeline.workspace import Lookups

    stage = job.make_stage()
    stage.open(WorkerContext(job.storage, scratch, Lookups(job.storage), heartbeat))
    try:
        yield stage
    finally:
        stage.close()
