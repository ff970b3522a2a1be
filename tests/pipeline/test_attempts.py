"""A worker cut off from its run and the one in its place do one unit: neither harms the other."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline.run.local import ProcessWorker
from pipeline.run.pool import Message
from pipeline.run.runner import RunOptions, run_stage
from pipeline.run.unit import Job
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.pipeline.faulty import PATIENT, FaultyConfig, add_sources, outcome_digest
from tests.pipeline.ray_nodes import until

LABELS = ["slow", "drop", "fail", "slow"] * 2
UNITS = 24


def planned(root: Path) -> Workspace:
    """A workspace whose units are all pending."""
    workspace = Workspace.create(root)
    add_sources(workspace, LABELS * UNITS)
    run_stage(workspace, "faulty", RunOptions(workers=1), step=PATIENT, config=FaultyConfig())
    return workspace


def heard(worker: ProcessWorker, kind: str) -> Message:
    """Wait for a message of one kind."""
    while True:
        assert worker.pipe.poll(60), "no answer"
        message: Message = worker.pipe.recv()
        if message[0] == kind:
            return message


def test_two_attempts_at_each_unit_stopped_at_any_instant_make_one_table(tmp_path: Path) -> None:
    expected = outcome_digest(workspace := planned(tmp_path / "ws"))
    ledger = workspace.ledger("faulty")
    units, generation = ledger.plan(), ledger.generation()
    assert generation is not None
    # The plan stays; what was made of it is taken out of force.
    ledger.retire(ledger.commits(), "test")
    job = Job(workspace.storage, "faulty", generation.key, PATIENT.stage, FaultyConfig())
    workers = [ProcessWorker(job, {}) for _ in range(2)]
    for worker in workers:
        heard(worker, "ready")
    assert len(set(workspace.storage.folders("commits/faulty/work"))) == 2
    dice = random.Random(0)
    for unit in units:
        cut, other = dice.sample(workers, 2)
        cut.send(("unit", unit))
        time.sleep(dice.uniform(0, 0.16))  # it takes about 0.13 s
        assert cut.process.pid is not None
        os.kill(cut.process.pid, signal.SIGSTOP)
        other.send(("unit", unit))
        heard(other, "done")
        os.kill(cut.process.pid, signal.SIGCONT)
        heard(cut, "done")
    for worker in workers:
        worker.send(("end", None))
        worker.end()
    assert outcome_digest(Workspace(tmp_path / "ws")) == expected
    assert len(workspace.storage.names("commits/faulty/units")) == UNITS
    assert workspace.storage.folders("commits/faulty/work") == []


def test_a_worker_leaves_with_its_parent_also_where_no_thread_of_it_runs(tmp_path: Path) -> None:
    """Foreign code that holds the interpreter for ever would keep its own watch from looking."""
    script = (
        "import os, sys, time\n"
        "from pipeline.run.local import ProcessWorker\n"
        "from pipeline.run.unit import Job\n"
        "from pipeline.workspace.workspace import Workspace\n"
        "from tests.pipeline.faulty import FaultyConfig, PATIENT\n"
        "ws = Workspace.create(sys.argv[1])\n"
        "job = Job(ws.storage, 'faulty', 'key', PATIENT.stage, FaultyConfig())\n"
        "worker = ProcessWorker(job, {})\n"
        "assert worker.pipe.poll(60)\n"
        "os.kill(worker.process.pid, 19)\n"
        "print(worker.process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "ws")]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout
    until(lambda: not Path(f"/proc/{int(said)}").exists(), within_s=10)
