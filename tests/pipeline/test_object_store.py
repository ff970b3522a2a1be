"""On an object store nothing is lost beside a run, and a second run of a stage is kept out.

``local://`` is one that several processes can share: fsspec's calls alone, no locks, no renames.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import DamagedError, StopRun
from pipeline.records.schema import Clip
from pipeline.run.runner import RunOptions, recover, run_stage
from pipeline.workspace import ledger as ledger_module
from pipeline.workspace import locks
from pipeline.workspace.locks import RunningError, run_lock
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.pipeline.faulty import ENTRY, FaultyConfig, add_sources


@pytest.fixture
def store(tmp_path: Path) -> Workspace:
    return Workspace.create(f"local://{tmp_path}/ws")


def run(workspace: Workspace, *, dry_run: bool = False) -> int:
    """Run the faulty stage; the rows of this run."""
    options = RunOptions(workers=1, dry_run=dry_run)
    done = run_stage(workspace, "faulty", options, step=ENTRY, config=FaultyConfig())
    return done.counts["input"]


def test_commands_beside_a_run_lose_none_of_its_rows_and_a_second_run_is_refused(
    store: Workspace,
) -> None:
    add_sources(store, ["slow"] * 200)
    root = store.storage.url
    beside = subprocess.Popen([sys.executable, "-m", "tests.pipeline.faulty", root, "1"], cwd=ROOT)
    dry, refused = 0, []
    while beside.poll() is None:
        if store.storage.exists("commits/faulty/run.json"):
            dry += run(Workspace(root), dry_run=True) == 0
            recover(Workspace(root))
            try:
                run(Workspace(root))
            except RunningError as error:
                refused.append(str(error))
        time.sleep(0.02)
    assert beside.wait() == 0
    assert all("If it is dead, try again in" in one and "\n" not in one for one in refused)
    assert refused
    assert dry
    assert len(store.rows(Clip)) == 400
    assert run(store) == 0
    assert not store.storage.exists("commits/faulty/run.json")


def test_a_dead_runs_marker_lets_the_next_run_in_after_a_while(store: Workspace) -> None:
    add_sources(store, ["ok"])
    name = "commits/faulty/run.json"
    beat = time.time() - locks.EXPIRES_S + 60
    dead = {"owner": "gone", "token": "t", "time": beat}
    store.storage.write(name, json.dumps(dead).encode())
    with pytest.raises(RunningError, match=r"another run \(gone\).*try again in (59|60) s"):
        run(store)
    dead["time"] = beat - 60
    store.storage.write(name, json.dumps(dead).encode())
    assert run(store) == 1
    store.storage.write(name, b"{")
    assert run(store) == 0, "what cannot be read holds nobody"


def test_a_run_that_was_taken_for_dead_stops_and_leaves_the_marker_of_the_other(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 0.01)
    with run_lock(store.storage, "commits/faulty") as lock:
        lock.check()
        other = json.dumps({"owner": "other", "token": "o", "time": time.time()}).encode()
        store.storage.write("commits/faulty/run.json", other)
        time.sleep(0.3)
        with pytest.raises(StopRun, match="another took its place"):
            lock.check()
    assert store.storage.read("commits/faulty/run.json") == other


def test_young_work_of_others_is_not_swept_and_old_work_is(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_sources(store, ["ok"])
    run(store)
    names = ["work/other/clips--faulty-x.parquet", "drops/x.other.parquet"]
    for name in names:
        store.storage.write(f"commits/faulty/{name}", b"young")
    run(store)
    recover(store)
    assert all(store.storage.exists(f"commits/faulty/{name}") for name in names)
    monkeypatch.setattr(ledger_module, "_YOUNG_S", -1.0)
    run(store)
    assert not any(store.storage.exists(f"commits/faulty/{name}") for name in names)
    assert len(store.rows(Clip)) == 2


@pytest.mark.parametrize("scheme", ["", "local://", "memory://"])
def test_a_committed_file_that_cannot_be_moved_is_an_error_and_its_rows_are_to_do(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.create(f"{scheme}{tmp_path}/swept")
    create = Storage.create

    def sweep(storage: Storage, name: str, data: bytes) -> bool:
        made = create(storage, name, data)
        if "/units/" in name:
            storage.remove("commits/list/work/test/sources--list-000000-list.parquet")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "create", sweep)
        with pytest.raises(DamagedError, match="gone before it became tables/sources"):
            add_sources(workspace, ["ok"])
    assert workspace.ledger("list").commits() == []
    add_sources(workspace, ["ok"])
    assert len(workspace.files("sources")) == 1
