"""The pool, with workers that live, wait, hang and vanish as a test says, without a process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StopRun
from pipeline.run import runner
from pipeline.run.pool import CRASH, Message, Worker, WorkerError
from pipeline.run.runner import RunOptions, RunSummary, run_stage
from pipeline.run.unit import Job
from pipeline.run.worker import opened_stage, reply
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import PATIENT, FaultyConfig, Patient, add_sources, outcome_digest

LABELS = ["ok", "drop", "ok", "fail"] * 8
UNITS = 4


class Scripted:
    """Answers as a worker does, until it is asked so often that its end has come.

    Args:
        job: what it runs.
        answers: how many messages it answers before it dies.
        blame: what is to blame then.
        placed: false where there is never room for it.
        starts: false where it is placed and never ready.
    """

    def __init__(
        self,
        job: Job,
        answers: float = math.inf,
        blame: str = CRASH,
        *,
        placed: bool = True,
        starts: bool = True,
    ) -> None:
        self._opened = opened_stage(replace(job, run_id=f"{job.run_id}-{id(self)}"), lambda: None)
        self._job, self._stage = job, self._opened.__enter__()
        self._left, self.blame, self.placed = answers, blame, placed
        self._said: list[Message] = [("ready", None)] if placed and starts else []
        self.late_s = 0.0
        self.was_killed = False

    @property
    def heard(self) -> float:
        return time.monotonic() + self.late_s

    def send(self, message: Message) -> None:
        if message[0] == "end":
            return
        self._left -= 1
        if self._left >= 0:
            self._said.append(reply(self._job, self._stage, message, lambda _done: None))

    def messages(self) -> list[Message]:
        said, self._said = self._said, []
        return said

    def is_alive(self) -> bool:
        return self._left >= 0

    def death(self) -> str:
        return "as the test says"

    def kill(self) -> None:
        self.was_killed = True

    def end(self) -> None:
        self._opened.__exit__(None, None, None)


class ScriptedTeam:
    """Makes the workers of a test, in turn; then such that never die."""

    num_gpus = 0

    def __init__(self, *makes: Callable[[Job], Scripted], cores: Sequence[int] = (1,)) -> None:
        self._makes = list(makes)
        self._cores = list(cores)
        self.made: list[Scripted] = []

    @property
    def cores(self) -> int:
        return self._cores.pop(0) if len(self._cores) > 1 else self._cores[0]

    def start(self, job: Job, place: int) -> Worker:
        worker = self._makes.pop(0)(job) if self._makes else Scripted(job)
        self.made.append(worker)
        return worker

    def wait(self, workers: Sequence[Worker], timeout_s: float) -> None:
        time.sleep(0.001)


def run(
    workspace: Workspace, team: ScriptedTeam, patch: pytest.MonkeyPatch, workers: int = 0
) -> RunSummary:
    patch.setattr(runner, "make_team", lambda *_: team)
    options = RunOptions(workers=workers)
    return run_stage(workspace, "faulty", options, step=PATIENT, config=FaultyConfig())


@pytest.fixture
def expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str], list[str]]:
    """The outcome of a run to which nothing happens."""
    workspace = Workspace.create(tmp_path / "expected")
    add_sources(workspace, LABELS)
    run(workspace, ScriptedTeam(), monkeypatch)
    return outcome_digest(workspace)


Outcome = tuple[str, list[str], list[str]]


def test_workers_without_room_are_no_failure_and_hold_up_no_end(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, expected: Outcome
) -> None:
    add_sources(workspace, LABELS)
    waits = [lambda job: Scripted(job, placed=False)] * 3
    monkeypatch.setattr("pipeline.run.pool._START_TIMEOUT_S", 0.0)
    summary = run(workspace, ScriptedTeam(*waits, Scripted), monkeypatch, workers=4)
    assert (summary.pending, summary.counts["input"]) == (0, len(LABELS))
    assert outcome_digest(workspace) == expected


def test_a_worker_that_does_not_start_is_given_up_from_its_placement_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, expected: Outcome
) -> None:
    add_sources(workspace, LABELS)
    monkeypatch.setattr("pipeline.run.pool._START_TIMEOUT_S", 0.05)
    slow = [lambda job: Scripted(job, starts=False)] * 2
    run(workspace, ScriptedTeam(*slow), monkeypatch)
    assert outcome_digest(workspace) == expected
    add_sources(workspace, LABELS, "000001-more")
    with pytest.raises(WorkerError, match="three workers died at their start"):
        run(workspace, ScriptedTeam(*slow, *slow), monkeypatch)


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
def test_a_lost_machine_is_no_rows_fault_however_often(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, expected: Outcome, answers: int
) -> None:
    add_sources(workspace, LABELS)
    lost = [lambda job: Scripted(job, answers, "")] * 8
    summary = run(workspace, ScriptedTeam(*lost), monkeypatch)
    assert outcome_digest(workspace) == expected
    assert summary.counts["input"] == len(LABELS)
    assert "worker_crash" not in summary.kinds


def test_a_unit_that_loses_ten_machines_stops_the_run_and_keeps_what_is_done(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, expected: Outcome
) -> None:
    add_sources(workspace, LABELS)
    lost = [lambda job: Scripted(job, 1, "")] + [lambda job: Scripted(job, 0, "")] * 20
    with pytest.raises(StopRun, match=r"lost 10 workers: as the test says\.$"):
        run(workspace, ScriptedTeam(*lost), monkeypatch)
    assert len(workspace.ledger("faulty").commits()) == 1
    run(workspace, ScriptedTeam(), monkeypatch)
    assert outcome_digest(workspace) == expected


@pytest.mark.parametrize("blame", ["", "out_of_memory"])
def test_workers_that_machines_end_at_their_start_stop_the_run_after_ten(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, expected: Outcome, blame: str
) -> None:
    add_sources(workspace, LABELS)

    class Ended(Scripted):
        def is_alive(self) -> bool:
            return False

    ended = [lambda job: Ended(job, blame=blame, starts=False)] * 10
    run(workspace, ScriptedTeam(*ended[:9]), monkeypatch)
    assert outcome_digest(workspace) == expected
    add_sources(workspace, LABELS, "000001-more")
    with pytest.raises(StopRun, match="10 workers in turn found no place: as the test says"):
        run(workspace, ScriptedTeam(*ended), monkeypatch)


@pytest.mark.parametrize("kind", [CRASH, "out_of_memory"])
def test_a_row_that_costs_its_worker_twice_fails_by_what_it_died_of(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    add_sources(workspace, ["ok"] * 8)
    dies = [lambda job: Scripted(job, 0, kind)] * 3  # with the unit, then twice at its first row
    run(workspace, ScriptedTeam(*dies), monkeypatch)
    failures = workspace.ledger("faulty").failures()
    assert [row.kind for row in failures] == [kind]
    assert failures[0].detail == "the worker died twice on this row (as the test says)"


def test_silence_of_what_is_out_of_reach_is_no_hang(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, expected: Outcome
) -> None:
    add_sources(workspace, LABELS)

    class Cut(Scripted):
        """Answers nothing, and is found lost later than a row may take."""

        def send(self, message: Message) -> None:
            self.late_s, self._since = -1e6, time.monotonic()

        def is_alive(self) -> bool:
            return not (self.late_s and time.monotonic() - self._since > 0.2)

    monkeypatch.setattr(Patient, "spec", replace(Patient.spec, row_timeout_s=0.01))
    team = ScriptedTeam(lambda job: Cut(job, blame=""))
    run(workspace, team, monkeypatch)
    assert not team.made[0].was_killed
    assert outcome_digest(workspace) == expected


def test_the_pool_asks_for_no_more_room_than_a_cluster_that_shrank_has(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, expected: Outcome
) -> None:
    add_sources(workspace, LABELS)
    team = ScriptedTeam(Scripted, *[lambda job: Scripted(job, placed=False)] * 3, cores=(4, 4, 1))
    run(workspace, team, monkeypatch)
    assert [worker.was_killed for worker in team.made] == [False, True, True, True]
    assert len(team.made) == 4
    assert outcome_digest(workspace) == expected
