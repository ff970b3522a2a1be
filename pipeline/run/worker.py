"""Open a stage where a worker runs."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import AvatarBuildError, StopRun
from pipeline.run.pool import Message
from pipeline.run.stage import Stage, WorkerContext
from pipeline.run.unit import Job, answer, run_unit
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.locks import worker_lock
from pipeline.workspace.workspace import Lookups


@contextlib.contextmanager
def _scratch(job: Job) -> Iterator[Path]:
    """Make a folder for unfinished files, on the workspace's own disk so that renaming works."""
    work = job.storage.local_path(f"commits/{job.stage}/work/{job.run_id}")
    if work is None:
        with tempfile.TemporaryDirectory(prefix="avatar-build-") as folder:
            yield Path(folder)
        return
    path = work / "scratch"
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # files of a commit may be left, to be moved later
            work.rmdir()


@contextlib.contextmanager
def opened_stage(job: Job, heartbeat: Callable[[], None]) -> Iterator[Stage[Any]]:
    """Open the job's stage; it is closed at the end.

    The worker shares the run's lock: should its parent be killed, no new run cleans up under a
    commit that this worker is still making.
    """
    folder = Ledger(job.storage, job.stage).folder
    with worker_lock(job.storage, folder), _scratch(job) as scratch:
        stage = job.make_stage()
        stage.open(WorkerContext(job.storage, scratch, Lookups(job.storage), heartbeat))
        with contextlib.closing(stage):
            yield stage


def reply(job: Job, stage: Stage[Any], message: Message, beat: Callable[[int], None]) -> Message:
    """Do a unit or a row; ``beat`` as ``run_unit`` takes it."""
    kind, value = message
    try:
        if kind == "unit":
            return "done", run_unit(job, stage, value, beat)
        return "outcomes", answer(job, stage, [value])
    except StopRun as stop:
        return "stop", stop
    except Exception as error:  # noqa: BLE001  who supervises raises it again
        return raised(error)


def raised(error: Exception) -> Message:
    """Say what ends a worker; call it where the error is handled."""
    if isinstance(error, AvatarBuildError):
        return "refused", error
    return "bug", traceback.format_exc()
