"""Never lose a row: whatever a row does, it and only it is what fails."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import StopRun, UsageError
from pipeline.records.schema import Clip, Source
from pipeline.run.pool import WorkerError
from pipeline.run.runner import RunOptions, plan_retry, run_stage
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import ENTRY, EXPECTED_KIND, FaultyConfig, add_sources

WORKERS = RunOptions(workers=2)


def run(workspace: Workspace, options: RunOptions = WORKERS, offset: int = 0) -> Counter[str]:
    """Run the faulty stage and return this run's counts."""
    config = FaultyConfig(offset=offset)
    return run_stage(workspace, "faulty", options, step=ENTRY, config=config).counts


def check_conservation(workspace: Workspace, labels: list[str]) -> None:
    """Every row has exactly the answer its label asks for."""
    ledger = workspace.ledger("faulty")
    sources = {row.video_id: row.label for row in workspace.rows(Source)}
    failed = {row.input_id: row.kind for row in ledger.failures()}
    dropped = {row.input_id for row in ledger.drops()}
    made = Counter(clip.video_id for clip in workspace.rows(Clip))
    for video, label in sources.items():
        assert failed.get(video) == EXPECTED_KIND.get(label), label
        assert (video in dropped) == (label == "drop")
        assert made[video] == (2 if label in ("ok", "slow") else 0)
    assert len(sources) == len(labels)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_kind_of_fault_is_that_rows_failure_and_no_other_rows(
    workspace: Workspace, workers: int
) -> None:
    labels = [
        "ok",
        "raise",
        "drop",
        "segfault",
        "ok",
        "fail",
        "kill",
        "ok",
        "refuse",
        "hang",
        "full",
    ]
    labels += ["ok"] * 12 + ["kill"]
    add_sources(workspace, labels)
    counts = run(workspace, RunOptions(workers=workers))
    assert counts["input"] == len(labels)
    check_conservation(workspace, labels)


# Each fault alone is tested above; each example here costs its workers' lives.
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from(["ok", "ok", "ok", "drop", "fail", "raise", "refuse", "full", "kill"]),
        min_size=1,
        max_size=40,
    )
)
def test_conservation_holds_for_any_mixture(labels: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.create(Path(folder) / "ws")
        add_sources(workspace, labels)
        run(workspace)
        check_conservation(workspace, labels)


def test_a_second_run_finds_nothing_to_do(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"] * 20)
    run(workspace)
    digest = workspace.digest("clips")
    assert run(workspace) == Counter()
    assert workspace.digest("clips") == digest


def test_new_input_appends_units_and_old_ones_keep_their_results(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"] * 10)
    run(workspace)
    before = {file.file for file in workspace.files("clips")}
    add_sources(workspace, ["ok"] * 5, "000001-more")
    assert run(workspace)["input"] == 5
    assert before < {file.file for file in workspace.files("clips")}


def test_one_worker_and_many_give_the_same_table(tmp_path: Path) -> None:
    digests = set()
    for workers in (1, 2, 3):
        workspace = Workspace.create(tmp_path / str(workers))
        add_sources(workspace, ["ok", "drop", "fail"] * 15)
        run(workspace, RunOptions(workers=workers))
        digests.add(workspace.digest("clips"))
    assert len(digests) == 1


def test_shares_of_an_array_job_together_do_everything_once(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"] * 50)
    done = [run(workspace, RunOptions(workers=1, part=(i, 3)))["input"] for i in (1, 2, 3)]
    assert sum(done) == 50
    assert all(done)
    assert run(workspace) == Counter()


def test_other_settings_are_refused_until_redo_retires_the_old_results(
    workspace: Workspace,
) -> None:
    add_sources(workspace, ["ok"] * 9)
    run(workspace)
    with pytest.raises(UsageError, match=r"offset: 0 -> 1.*--redo"):
        run(workspace, offset=1)
    old = workspace.digest("clips")
    run(workspace, RunOptions(workers=1, redo=True), offset=1)
    assert workspace.digest("clips") != old
    assert len(workspace.rows(Clip)) == 18


def test_a_retry_answers_again_for_the_failed_rows_only(workspace: Workspace) -> None:
    add_sources(workspace, ["ok", "refuse", "kill", "ok"])
    run(workspace)
    assert plan_retry(workspace, "faulty", "worker_crash") == 1
    assert plan_retry(workspace, "faulty", "worker_crash") == 0, "it is already planned"
    assert run(workspace)["input"] == 1
    attempts = {row.kind: row.attempts for row in workspace.ledger("faulty").failures()}
    assert attempts == {"worker_crash": 2, "refused": 1}
    assert len(workspace.rows(Clip)) == 4


def test_a_dry_run_says_how_much_and_does_nothing(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"] * 21)
    summary = run_stage(
        workspace, "faulty", RunOptions(dry_run=True), step=ENTRY, config=FaultyConfig()
    )
    assert summary.pending == 21
    shares = [
        run_stage(
            workspace,
            "faulty",
            RunOptions(dry_run=True, part=(i, 2)),
            step=ENTRY,
            config=FaultyConfig(),
        ).pending
        for i in (1, 2)
    ]
    assert shares == [14, 7], "three units of 7 rows, in turn"
    assert workspace.rows(Clip) == []


def test_pandas_reads_a_table_folder_as_it_is(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"] * 20)
    run(workspace)
    table = pd.read_parquet(workspace.storage.path("tables/clips"))
    assert sorted(table.clip_id) == [row.clip_id for row in workspace.rows(Clip)]


def test_a_stage_that_loses_a_row_is_stopped_before_it_commits(workspace: Workspace) -> None:
    add_sources(workspace, ["ok", "forget"])
    with pytest.raises(WorkerError, match="no answer about"):
        run(workspace)
    assert workspace.rows(Clip) == []


def test_a_bug_in_every_row_stops_the_run_with_its_traceback(workspace: Workspace) -> None:
    add_sources(workspace, ["raise"] * 60)
    with pytest.raises(StopRun, match="ZeroDivisionError"):
        run(workspace, RunOptions(workers=1))
    assert len(workspace.ledger("faulty").failures()) < 60


def test_redoing_a_stage_retires_what_was_made_from_its_rows(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"] * 9)
    run(workspace)
    ledger = workspace.ledger("list")
    old = workspace.digest("clips")
    ledger.retire(ledger.commits(), "x" * 12)
    assert run(workspace) == Counter()
    assert workspace.rows(Clip) == [], "clips of rows that are gone are gone too"
    add_sources(workspace, ["ok"] * 9)
    assert run(workspace)["input"] == 9, "the same input comes back: its unit is done again"
    assert workspace.digest("clips") == old


def test_a_crash_between_commit_and_move_is_mended_at_the_next_run(workspace: Workspace) -> None:
    add_sources(workspace, ["ok"] * 9)
    run(workspace)
    digest = workspace.digest("clips")
    storage = workspace.storage
    for file in workspace.files("clips"):
        work = f"commits/faulty/work/dead/clips--{file.file.rsplit('/', 1)[1]}"
        storage.move(file.file, work)
    storage.write("commits/faulty/work/dead/clips--uncommitted.parquet", b"half")
    assert workspace.digest("clips") == digest, "readers find what is committed"
    assert run(workspace) == Counter()
    assert workspace.digest("clips") == digest
    assert storage.folders("commits/faulty/work") == []
