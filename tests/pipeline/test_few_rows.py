"""Few rows of a rule, which are done in the run's own process."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.chain import measure
from pipeline.errors import AvatarBuildError
from pipeline.records.schema import Clip, Frame, Proposal, Video
from pipeline.run.runner import RunOptions, RunSummary, run_stage
from pipeline.run.stage import WorkerContext
from pipeline.workspace.workspace import Workspace
from tests.labeling.labelled_workspace import commit
from tests.pipeline.faulty import RULE, FaultyConfig, Rule, add_sources, outcome_digest, video_id
from tests.rows import clip, frame, proposal, video

LABELS = ["ok", "drop", "fail", "raise", "refuse", "full", "ok", "big", "ok", "drop"]


def run(workspace: Workspace, workers: int = 0) -> RunSummary:
    options = RunOptions(workers=workers)
    return run_stage(workspace, "faulty", options, step=RULE, config=FaultyConfig())


def made(folder: Path, labels: list[str]) -> Workspace:
    workspace = Workspace.create(folder)
    add_sources(workspace, labels)
    return workspace


def test_they_end_as_they_do_in_a_worker(tmp_path: Path) -> None:
    here, there = made(tmp_path / "here", LABELS), made(tmp_path / "there", LABELS)
    assert run(here).counts == run(there, workers=1).counts
    assert outcome_digest(here) == outcome_digest(there)
    assert not here.storage.folders("commits/faulty/work")


KILLED = """
import sys
from pipeline.workspace.workspace import Workspace
from tests.pipeline.test_few_rows import run
run(Workspace(sys.argv[1]))
"""


@pytest.mark.parametrize("fatal", ["kill", "segfault"])
def test_a_row_the_run_does_not_survive_is_found_by_the_next_one(
    tmp_path: Path, fatal: str
) -> None:
    workspace = made(tmp_path / "ws", ["ok", "ok", fatal, "drop", "ok"])
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "ws")], check=False)
    assert died.returncode == -(signal.SIGKILL if fatal == "kill" else signal.SIGSEGV)
    summary = run(workspace)
    assert (summary.counts["ok"], summary.counts["dropped"]) == (3, 1)
    (row,) = workspace.ledger("faulty").failures()
    assert (row.input_id, row.kind) == (f"00{video_id(2)[2:]}", "worker_crash")


def test_more_rows_are_left_to_workers(tmp_path: Path) -> None:
    workspace = made(tmp_path / "ws", ["kill"] + ["drop"] * 256)
    assert run(workspace).kinds == {"worker_crash": 1}


class Closed(Rule):
    def open(self, ctx: WorkerContext) -> None:
        raise AvatarBuildError("no such thing")


def test_a_stage_that_does_not_open_stops_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    workspace = made(tmp_path / "ws", ["ok"])
    step = replace(RULE, stage="tests.pipeline.test_few_rows:Closed")
    with pytest.raises(AvatarBuildError, match="no such thing"):
        run_stage(workspace, "faulty", RunOptions(), step=step, config=FaultyConfig())
    assert not workspace.storage.folders("commits/faulty/work")
    assert run(workspace).counts["ok"] == 1


def clips_and_proposals(folder: Path) -> Workspace:
    workspace = Workspace.create(folder, "offline")
    commit(workspace, "download", Video, [video()])
    commit(workspace, "sample", Clip, [clip()])
    commit(workspace, "choose", Frame, [frame()])
    commit(workspace, "propose", Proposal, [proposal(frame_id=frame().frame_id)])
    return workspace


@pytest.mark.parametrize("words", [["label", "accept"], ["run", "--stage", "hear"]])
def test_a_small_run_of_a_rule_starts_no_process(tmp_path: Path, words: list[str]) -> None:
    clips_and_proposals(tmp_path / "ws")
    found = measure([*words, "--workspace", str(tmp_path / "ws")], tmp_path)
    assert "1 row: 1 ok" in found.said
    assert sum(line.startswith("python") for line in found.started) == 1
    assert len(found.started) <= 3  # git, asked which revision the code has and whether it changed


def test_a_worker_that_is_asked_for_is_started_with_its_tracker(tmp_path: Path) -> None:
    clips_and_proposals(tmp_path / "ws")
    words = ["label", "accept", "--workspace", str(tmp_path / "ws"), "--workers", "2"]
    started = measure(words, tmp_path).started
    assert sum("spawn_main" in line for line in started) == 1
    assert sum(line.startswith("python") for line in started) == 3
