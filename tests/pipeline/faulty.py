"""A stage that misbehaves on command, and the workspace to run it in.

What a row does is in its label: ok, drop, fail, raise, hang, segfault, kill, full.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import BaseModel

from pipeline.errors import AvatarBuildError, InputError
from pipeline.flow import Step
from pipeline.records.schema import Clip, Record, Source, clip_id, digest_of
from pipeline.run.runner import RunOptions, run_stage
from pipeline.run.stage import Drop, Fail, Ok, Outcome, Stage, StageSpec, WorkerContext
from pipeline.workspace import leases
from pipeline.workspace.commit import Commit, Generation, Input, Rows
from pipeline.workspace.workspace import Workspace


class FaultyConfig(BaseModel):
    """Nothing here; another value makes another generation."""

    offset: int = 0


class Faulty(Stage[FaultyConfig]):
    """Answer rows as their labels say, with two clips for a good one."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="faulty",
        version=1,
        reads="sources",
        writes=("clips",),
        rows_per_unit=8,
        batch_size=4,
        row_timeout_s=0.7,
    )

    def open(self, ctx: WorkerContext) -> None:
        self.scratch = ctx.scratch

    def process(self, rows: Sequence[Source]) -> Iterator[Outcome]:
        for row in rows:
            yield self._answer(row)

    def _answer(self, row: Source) -> Outcome:
        match row.label:
            case "drop":
                return Drop(row.id, "unwanted")
            case "fail":
                return Fail(row.id, "bad_input")
            case "raise":
                raise ZeroDivisionError(row.id)
            case "refuse":
                raise InputError("refused", row.id)
            case "hang":
                time.sleep(60)
            case "segfault":
                ctypes.string_at(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            case "big":
                (self.scratch / row.id).write_bytes(bytes(1_000_000))
                (self.scratch / row.id).unlink()
            case "slow":
                time.sleep(0.03)
            case "nap":
                time.sleep(0.2)
            case "forget":
                return Ok("somebody else")
        return Ok(row.id, [self._clip(row.id, start) for start in range(2)])

    def _clip(self, video: str, start: int) -> Clip:
        digest = hashlib.sha256(f"{video}{start}{self.config.offset}".encode()).digest()
        return Clip(
            clip_id=clip_id(video, start),
            video_id=video,
            start_s=start,
            end_s=start + 10,
            active_seconds=digest[0],
            rms_per_second=[byte / 255 for byte in digest[:10]],
            candidates=1,
        )


class Patient(Faulty):
    """The same stage where the machine has more to do than this."""

    spec: ClassVar[StageSpec] = replace(Faulty.spec, row_timeout_s=60.0)


class Rule(Patient):
    """The same as a rule, which it is where no row is fatal."""

    def is_rule(self) -> bool:
        return True


class Long(Faulty):
    """The same stage in units that take far longer than a row may."""

    spec: ClassVar[StageSpec] = replace(
        Faulty.spec, row_timeout_s=5.0, rows_per_unit=64, batch_size=1
    )


class Quick(Faulty):
    """The same with units of a real stage's size, for measuring the runner alone."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="quick",
        version=1,
        reads="sources",
        writes=("clips",),
        rows_per_unit=32,
        batch_size=32,
    )


ENTRY = Step("faulty", stage="tests.pipeline.faulty:Faulty", section="sample")
LONG = Step("faulty", stage="tests.pipeline.faulty:Long", section="sample")
PATIENT = Step("faulty", stage="tests.pipeline.faulty:Patient", section="sample")
RULE = Step("faulty", stage="tests.pipeline.faulty:Rule", section="sample")
QUICK = Step("quick", stage="tests.pipeline.faulty:Quick", section="sample")

EXPECTED_KIND = {
    "fail": "bad_input",
    "raise": "bug",
    "refuse": "refused",
    "hang": "hang",
    "segfault": "worker_crash",
    "kill": "worker_crash",
    "full": "local_disk",
}


def video_id(number: int) -> str:
    """An id for row ``number``.

    >>> video_id(7)
    'vid00000007'
    """
    return f"vid{number:08d}"


def add_sources(workspace: Workspace, labels: Sequence[str], name: str = "000000-list") -> None:
    """Commit one list whose rows do what ``labels`` say."""
    ledger = workspace.ledger("list")
    if ledger.generation() is None:
        ledger.begin(Generation("list", 1, {}, {}, {}))
    sources = [
        Source(video_id=f"{name[4:6]}{video_id(n)[2:]}", label=label, split="test", start_s=0)
        for n, label in enumerate(labels)
    ]
    commit = Commit(
        unit=name,
        ordinal=int(name[:6]),
        stage="list",
        stage_key="",
        unit_key=digest_of(labels),
        input=Input((Rows("", "", 0, len(labels)),), ""),
        files=(),
        counts={"input": len(labels), "ok": len(labels), "dropped": 0, "failed": 0},
        code_revision="",
        versions={},
        started="",
        wall_s=0.0,
        cpu_s=0.0,
    )
    rows: list[Record] = list(sources)
    ledger.commit(commit, {"sources": (Source, rows)}, "test")


def outcome_digest(workspace: Workspace) -> tuple[str, list[str], list[str]]:
    """All that a run decides, without the clock."""
    ledger = workspace.ledger("faulty")
    return (
        workspace.digest("clips"),
        sorted(f"{row.input_id} {row.kind}" for row in ledger.failures()),
        sorted(f"{row.input_id} {row.reason}" for row in ledger.drops()),
    )


def main(root: str, workers: int, *settings: str) -> None:
    """Run the stage in a process of its own, for tests that kill it.

    ``FAULTY_LEASE_S`` holds the times of a lease where a test cannot wait for those of every day:
    between two beats, until it gives itself up, until others do.
    """
    if times := os.environ.get("FAULTY_LEASE_S"):
        leases.BEAT_S, leases.GIVE_UP_S, leases.EXPIRES_S = map(float, times.split())
    # Of the module by its name: workers know nothing of a script that is run.
    config = importlib.import_module("tests.pipeline.faulty").FaultyConfig()
    options = RunOptions(workers=workers)
    try:
        run_stage(Workspace(root, settings), "faulty", options, step=PATIENT, config=config)
    except AvatarBuildError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
