"""Either of two runs on one workspace is killed again and again: the rows are those of one run.

On S3 the runs know of each other by leases, on a disk by kernel locks.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.pipeline.faulty import ENTRY, FaultyConfig, add_sources, outcome_digest
from tests.pipeline.s3_server import S3, served

LABELS = ["slow", "slow", "drop", "slow", "fail"] * 40

LEASE_S = "0.5 4 7"
"""Beat, give up, expire: far apart, as S3 tells times in whole seconds and the machine is busy."""

GAVE_UP = "gave no sign of life"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch, served(patch) as server:
        yield server


@dataclass
class Life:
    """A run in a process group of its own."""

    root: str
    log: Path

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "tests.pipeline.faulty", self.root, "1"]
        with self.log.open("wb") as said:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                start_new_session=True,
                stderr=said,
                stdout=said,
                env={**os.environ, "FAULTY_LEASE_S": LEASE_S},
            )

    def again(self) -> Life:
        """Start another one in its place."""
        return Life(self.root, self.log)

    def has_ended(self) -> bool:
        """Say whether it did all there was, or gave itself up; anything else is a failure."""
        code = self.process.poll()
        if code is not None and code != 0:
            said = self.log.read_text()
            assert GAVE_UP in said, said
        return code is not None

    def kill(self, *, workers: bool) -> None:
        if workers:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()  # its worker must notice by itself
        self.process.wait()


def killed_often(root: str, logs: Path, kills: int, seed: int) -> Workspace:
    """Kill either of two runs so often, then let both come to their end."""
    dice = random.Random(seed)
    workspace = Workspace.create(root)
    add_sources(workspace, LABELS)
    lists, lives = 1, [Life(root, logs / name) for name in ("one.log", "other.log")]
    deadline = time.monotonic() + 60 + 20 * kills
    while kills:
        assert time.monotonic() < deadline
        time.sleep(dice.uniform(0.2, 1.5))
        for place, life in enumerate(lives):
            if life.has_ended():
                if all(one.process.poll() == 0 for one in lives):
                    add_sources(workspace, LABELS, f"{lists:06d}-more")
                    lists += 1
                lives[place] = lives[place].again()
        place = dice.randrange(2)
        if lives[place].process.poll() is None:
            lives[place].kill(workers=dice.random() < 0.5)
            lives[place] = lives[place].again()
            kills -= 1
    for place in range(2):
        while (life := lives[place]).process.wait(timeout=180):
            assert life.has_ended()
            lives[place] = lives[place].again()
    return workspace


def alone(root: Path, lists: int) -> Workspace:
    """What one run makes of so many lists."""
    workspace = Workspace.create(root)
    for number in range(lists):
        add_sources(workspace, LABELS, f"{number:06d}-{'more' if number else 'list'}")
    run_stage(workspace, "faulty", RunOptions(workers=2), step=ENTRY, config=FaultyConfig())
    return workspace


@pytest.mark.parametrize("place", ["s3", "disk"])
@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_of_either_of_two_runs_change_nothing(
    s3: S3, tmp_path: Path, place: str, kills: int
) -> None:
    root = f"{s3.make_bucket(f'kills-{kills}')}/ws" if place == "s3" else str(tmp_path / "ws")
    workspace = killed_often(root, tmp_path, kills, seed=kills)
    last = RunOptions(workers=1)
    summary = run_stage(Workspace(root), "faulty", last, step=ENTRY, config=FaultyConfig())
    assert not summary.pending
    lists = len(workspace.ledger("list").commits())
    ledger = workspace.ledger("faulty")
    assert sum(one.counts["input"] for one in ledger.commits()) == lists * len(LABELS)
    assert not ledger.gone()
    assert outcome_digest(workspace) == outcome_digest(alone(tmp_path / "alone", lists))
