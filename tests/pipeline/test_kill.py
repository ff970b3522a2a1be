"""A run may be killed at any instant: resumed, it ends where an uninterrupted one ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.pipeline.faulty import add_sources, outcome_digest

LABELS = ["slow", "slow", "drop", "slow", "fail"] * 200
KILLS = 50


def start(root: Path, workers: int) -> subprocess.Popen[bytes]:
    """The faulty stage in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.faulty", str(root), str(workers)],
        cwd=ROOT,
        start_new_session=True,
    )


@pytest.mark.slow
def test_fifty_kills_and_a_resume_equal_an_uninterrupted_run(tmp_path: Path) -> None:
    dice = random.Random(0)
    killed = Workspace.create(tmp_path / "killed")
    add_sources(killed, LABELS)
    kills, lists = 0, 1
    while kills < KILLS:
        process = start(tmp_path / "killed", workers=1 + kills % 2)
        try:
            assert process.wait(timeout=dice.uniform(0.3, 1.4)) == 0
            # All done before the last kill: more to do.
            add_sources(killed, LABELS, f"{lists:06d}-more")
            lists += 1
        except subprocess.TimeoutExpired:
            # Half of the time the parent alone, so that its workers must notice by themselves.
            if dice.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            kills += 1
        # What a reader sees between two lives is whole. A worker outlives its parent by a moment
        # and may finish a commit meanwhile, so the table is listed before the commits.
        in_table = {f"tables/clips/{name}" for name in killed.storage.names("tables/clips")}
        assert in_table <= {file.file for file in killed.files("clips")}
    assert start(tmp_path / "killed", workers=2).wait(timeout=300) == 0
    assert killed.storage.folders("commits/faulty/work") == []

    results = {"killed": outcome_digest(killed)}
    for workers in (1, 2):
        root = tmp_path / str(workers)
        alone = Workspace.create(root)
        add_sources(alone, LABELS)
        for number in range(1, lists):
            add_sources(alone, LABELS, f"{number:06d}-more")
        assert start(root, workers).wait(timeout=300) == 0
        results[str(workers)] = outcome_digest(Workspace(root))
    assert results["killed"] == results["1"] == results["2"]
    assert len(results["1"][1]) + len(results["1"][2]) == lists * 2 * 200


def test_two_runs_on_one_workspace_share_the_work_and_corrupt_nothing(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    workspace = Workspace.create(root)
    alone = Workspace.create(tmp_path / "alone")
    for number in range(40):  # small lists, of which some are done in one unit
        add_sources(workspace, LABELS[:5], f"{number:06d}-list")
        add_sources(alone, LABELS[:5], f"{number:06d}-list")
    runs = [start(root, workers=1), start(root, workers=1)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    commits = workspace.ledger("faulty").commits()
    assert sum(commit.counts["input"] for commit in commits) == 200
    assert {len(commit.input.parts) for commit in commits} == {2}
    assert start(tmp_path / "alone", workers=2).wait(timeout=120) == 0
    assert outcome_digest(workspace) == outcome_digest(alone)
