"""Workers as processes of this machine.

``multiprocessing.Pool`` waits for ever when a worker is killed and ``ProcessPoolExecutor`` gives up
as a whole, so the processes are started one by one and supervised by ``pool``. Few rows of a rule
are done in the run's own process.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from pipeline.arrow import spare_pandas
from pipeline.run.gpus import VISIBLE, visible_gpus
from pipeline.run.pool import CRASH, Message, Worker
from pipeline.run.unit import Job
from pipeline.run.worker import opened_stage, raised, reply

_LEAVE_S = 5.0
_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's <sys/prctl.h>."""


class ProcessWorker:
    """A spawned process and the pipe to it."""

    placed = True
    blame = CRASH

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=work, args=(theirs, job, os.getpid(), environment))
        with _no_main(), _deaf_to_interrupts():
            self.process.start()
        theirs.close()

    def send(self, message: Message) -> None:
        """Give it work."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)

    def messages(self) -> list[Message]:
        """Return what it has said since last asked."""
        found = []
        with contextlib.suppress(EOFError, OSError):
            while self.pipe.poll():
                found.append(self.pipe.recv())
        return found

    @property
    def heard(self) -> float:
        """Return this instant: it is on this machine."""
        return time.monotonic()

    def is_alive(self) -> bool:
        """Say whether the process runs."""
        return self.process.is_alive()

    def death(self) -> str:
        """Return the signal or exit code it ended with."""
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join()

    def end(self) -> None:
        """Give it seconds to leave."""
        self.process.join(_LEAVE_S)
        if self.process.is_alive():
            self.kill()
        self.pipe.close()


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Start a process that does not run the caller's script again.

    Workers need nothing of it, and one without ``if __name__ == "__main__"``, or read from standard
    input, would start workers of its own or none at all.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Start a process to which Ctrl-C does nothing: one that still imports would print where."""
    resource_tracker.ensure_running()  # its own start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LocalTeam:
    """Processes on this machine.

    Args:
        device: where the stage's model runs. With ``auto`` workers take turns on the GPUs that are
            visible, each seeing its own alone; with ``cuda:N`` they all share that one.
    """

    def __init__(self, device: str) -> None:
        self.cores = len(os.sched_getaffinity(0))
        self._turns = visible_gpus() if device == "auto" else []
        self.num_gpus = len(self._turns) if device in ("auto", "cpu") else 1

    def start(self, job: Job, place: int) -> ProcessWorker:
        """Start a process that opens the job's stage."""
        own = {VISIBLE: self._turns[place % len(self._turns)]} if self._turns else {}
        return ProcessWorker(job, own)

    def wait(self, workers: Sequence[Worker], timeout_s: float) -> None:
        """Wait until one has said something or died."""
        handles: list[Any] = []
        for worker in workers:
            assert isinstance(worker, ProcessWorker)
            handles += [worker.pipe, worker.process.sentinel]
        wait(handles, timeout=timeout_s)


class OwnWorker:
    """The run's own process in place of a worker: it is at the unit while it is given it."""

    placed = True
    blame = CRASH
    heard = -math.inf

    def __init__(self, job: Job) -> None:
        self._job = _of_its_own(job)
        self._said: list[Message] = []
        self._held = contextlib.ExitStack()
        try:
            self._stage = self._held.enter_context(opened_stage(self._job, lambda: None))
            self._said.append(("ready", None))
        except Exception as error:  # noqa: BLE001  the pool raises it again
            self._said.append(raised(error))

    def send(self, message: Message) -> None:
        """Do the work."""
        if message[0] != "end":
            said = reply(self._job, self._stage, message, lambda done: self._say("beat", done))
            self._say(*said)

    def _say(self, kind: str, value: object) -> None:
        self._said.append((kind, value))

    def messages(self) -> list[Message]:
        """Return what came of it."""
        said, self._said = self._said, []
        return said

    def is_alive(self) -> bool:
        """Say yes: who asks is the same."""
        return True

    def death(self) -> str:
        """Return nothing: nobody would be there to ask."""
        return ""

    def kill(self) -> None:
        """Close the stage."""
        self._held.close()

    def end(self) -> None:
        """Close the stage."""
        self._held.close()


class OwnTeam:
    """The run's own process, for rows that take less time than starting another.

    A row it does not survive ends the run. What that leaves below ``work`` tells the next run,
    which then starts a process and finds the row.
    """

    cores = 1
    num_gpus = 0

    def start(self, job: Job, place: int) -> OwnWorker:
        """Open the job's stage here."""
        return OwnWorker(job)

    def wait(self, workers: Sequence[Worker], timeout_s: float) -> None:
        """Return: the work is done."""


def _of_its_own(job: Job) -> Job:
    """Return the job as one worker has it.

    Two attempts at a unit write into folders of their own, also where the first, cut off from its
    run and not dead, does not know of the second.
    """
    return replace(job, run_id=f"{job.run_id}-{uuid.uuid4().hex[:12]}")


def work(pipe: Connection, job: Job, parent: int, environment: Mapping[str, str]) -> None:
    """Live as a worker: open the stage, answer messages, end with the parent."""
    os.environ.update(environment)  # before torch is imported, with the stage's backend
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    spare_pandas()
    job = _of_its_own(job)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    lock = threading.Lock()

    def send(kind: str, value: object = None) -> None:
        with lock:  # a stage's threads may beat while it answers
            pipe.send((kind, value))

    try:
        with opened_stage(job, lambda: send("beat")) as stage:
            said = "ready"
            send(said)
            while said not in ("refused", "bug") and (message := pipe.recv())[0] != "end":
                said, value = reply(job, stage, message, lambda done: send("beat", done))
                send(said, value)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:  # noqa: BLE001  the parent raises it again
        send(*raised(error))


def _end_with(parent: int) -> None:
    """Leave when the parent is gone, or a killed run would go on writing.

    Linux ends this process also while foreign code lets no thread of it run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
