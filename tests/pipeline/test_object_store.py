"""Where no lock tells who is at work, runs share a workspace by leases, and no row is lost.

``store://`` is an object store that several processes can share: fsspec's calls alone, puts that
are whole, no locks, no renames.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.cli.doctor import check_commits, run_checks
from pipeline.errors import DamagedError, StopRun
from pipeline.records.schema import Clip, Source
from pipeline.run.runner import RunOptions, RunSummary, recover, run_stage
from pipeline.workspace import leases
from pipeline.workspace import ledger as ledger_module
from pipeline.workspace.ledger import is_attempt
from pipeline.workspace.locks import run_lock
from pipeline.workspace.storage import Storage
from pipeline.workspace.stores import mounts
from pipeline.workspace.stores.mounts import mount_of
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.pipeline import folder_store
from tests.pipeline.faulty import ENTRY, FaultyConfig, add_sources
from tests.pipeline.one_process import in_one_process

FOLDER = "commits/faulty"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    folder_store.known()
    # Of this process's workers, too.
    environment = folder_store.environment(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    monkeypatch.setattr(leases, "LOOK_AGAIN_S", 0.05)
    return Workspace.create(f"store://{tmp_path}/ws")


def run(workspace: Workspace, *, offset: int = 0, redo: bool = False) -> RunSummary:
    """Run the faulty stage here; ``start`` runs it with a worker."""
    options, config = RunOptions(workers=1, redo=redo), FaultyConfig(offset=offset)
    with pytest.MonkeyPatch.context() as patch:
        in_one_process(patch)
        return run_stage(workspace, "faulty", options, step=ENTRY, config=config)


def start(workspace: Workspace) -> subprocess.Popen[bytes]:
    """Run it in a process of its own."""
    command = [sys.executable, "-m", "tests.pipeline.faulty", workspace.storage.url, "1"]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True)


def is_whole(workspace: Workspace) -> bool:
    """Say whether every file that a commit names is there, as committed."""
    workspace = Workspace(workspace.storage.url)
    workspace.rows(Clip)
    return not workspace.ledger("faulty").gone()


def silence(workspace: Workspace, name: str, seconds: float) -> None:
    """Make a lease so old."""
    path = Path(workspace.storage.url.removeprefix("store://")) / FOLDER / "runs" / name
    os.utime(path, (time.time() - seconds,) * 2)


def test_commands_beside_a_run_lose_none_of_its_rows(store: Workspace) -> None:
    add_sources(store, ["slow"] * 120)
    beside = start(store)
    dry = 0
    options = RunOptions(workers=1, dry_run=True)
    while beside.poll() is None:
        before = store.storage.times(f"{FOLDER}/units")
        run_stage(
            Workspace(store.storage.url), "faulty", options, step=ENTRY, config=FaultyConfig()
        )
        recover(Workspace(store.storage.url))
        assert before.items() <= store.storage.times(f"{FOLDER}/units").items()
        dry += 1
        time.sleep(0.02)
    assert beside.wait() == 0
    assert dry
    assert len(store.rows(Clip)) == 240
    assert not run(store).counts
    assert store.storage.names(f"{FOLDER}/runs") == []


def test_two_runs_share_the_work(store: Workspace, tmp_path: Path) -> None:
    labels = ["slow", "slow", "drop", "slow", "fail"] * 40
    add_sources(store, labels)
    runs = [start(store), start(store)]
    assert [one.wait(timeout=240) for one in runs] == [0, 0]
    ledger = store.ledger("faulty")
    assert sum(commit.counts["input"] for commit in ledger.commits()) == len(labels)
    alone = Workspace.create(tmp_path / "alone")
    add_sources(alone, labels)
    run(alone)
    assert store.digest("clips") == alone.digest("clips")
    assert len(ledger.failures()) == len(ledger.drops()) == 40


def test_a_dead_run_keeps_nobody_out_and_its_units_are_taken_when_its_lease_is_over(
    store: Workspace,
) -> None:
    add_sources(store, ["ok"] * 24)
    run(store)
    add_sources(store, ["ok"] * 24, "000001-more")
    name = "000001-dead.json"
    dead = {"owner": "gone, process 1", "state": "shares", "claims": [3, 4]}
    store.storage.write(f"{FOLDER}/runs/{name}", json.dumps(dead).encode())
    with run_lock(store.storage, FOLDER) as lock:
        assert not lock.alone
        assert lock.lease.is_claimed(3)  # type: ignore[attr-defined]
        assert not lock.lease.is_claimed(5)  # type: ignore[attr-defined]
    silence(store, name, leases.EXPIRES_S + 1)
    assert run(store).counts["input"] == 24
    assert store.storage.names(f"{FOLDER}/runs") == []


@pytest.mark.parametrize("skew_s", [-600, 600])
def test_clocks_that_differ_by_minutes_make_no_run_dead(
    store: Workspace, skew_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_lock(store.storage, FOLDER) as first:
        assert first.alone
        first.share()
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + skew_s)
        with run_lock(store.storage, FOLDER) as second:
            assert not second.alone
            assert not second.try_alone()
        assert first.try_alone()


def test_who_waits_for_a_run_that_is_alone_says_so_and_comes_in_when_it_is_dead(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    name = "000001-dead.json"
    dead = {"owner": "gone, process 1", "state": "alone", "claims": []}
    store.storage.write(f"{FOLDER}/runs/{name}", json.dumps(dead).encode())
    silence(store, name, leases.EXPIRES_S - 0.5)
    said: list[str] = []
    with run_lock(store.storage, FOLDER, said.append) as lock:
        assert lock.try_alone()
    assert [line.split(";")[0] for line in said] == [
        "faulty: waits for another run (gone, process 1) to let others in"
    ]
    store.storage.write(f"{FOLDER}/runs/{name}", b"{")
    with run_lock(store.storage, FOLDER) as lock:
        assert not lock.alone, "what cannot be read may be of a run at work"


def test_a_run_that_was_silent_destroys_nothing_and_stops(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_sources(store, ["ok"] * 8)
    run(store)
    ledger = Workspace(store.storage.url).ledger("faulty")
    with run_lock(store.storage, FOLDER) as lock, ledger.fenced(lock.check):
        lock.check()
        monkeypatch.setattr(leases, "GIVE_UP_S", -1.0)
        for destroy in (
            lambda: ledger.retire(ledger.commits(), "x"),
            lambda: ledger.retire_all("x"),
            lock.try_alone,
            lock.check,
        ):
            with pytest.raises(StopRun, match="gave no sign of life"):
                destroy()
    assert len(store.rows(Clip)) == 16


def test_a_run_whose_lease_was_taken_away_stops(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.01)
    with run_lock(store.storage, FOLDER) as lock:
        for name in store.storage.names(f"{FOLDER}/runs"):
            store.storage.remove(f"{FOLDER}/runs/{name}")
        time.sleep(0.3)
        with pytest.raises(StopRun, match="another may have taken its place"):
            lock.check()
    assert store.storage.names(f"{FOLDER}/runs") == []


def test_young_work_of_others_is_not_swept_and_old_work_is(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_sources(store, ["ok"])
    run(store)
    unit = store.ledger("faulty").commits()[0].unit
    beaten = f"tables/clips/faulty-{unit}.0123456789abcdef.parquet"
    waiting = "tables/clips/faulty-000009-0123456789ab.0123456789abcdef.parquet"
    old = [f"{FOLDER}/work/other/clips--faulty-x.parquet", f"{FOLDER}/drops/x.other.parquet"]
    for name in (beaten, waiting, *old):
        store.storage.write(name, b"young")
    run(store)
    recover(store)
    assert all(store.storage.exists(name) for name in (beaten, waiting, *old))
    assert len(store.rows(Clip)) == 2, "what no commit names is no data"
    monkeypatch.setattr(ledger_module, "_YOUNG_S", -1.0)
    run(store)
    assert not any(store.storage.exists(name) for name in (beaten, *old))
    assert store.storage.exists(waiting), "a commit may still name it"
    assert store.storage.names(f"{FOLDER}/retired/beaten") == [beaten.replace("/", "--")]
    assert len(store.rows(Clip)) == 2


@pytest.mark.parametrize("scheme", ["", "store://"])
def test_files_lie_where_the_commit_names_them_before_it_or_it_is_taken_back(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_store.known()
    workspace = Workspace.create(f"{scheme}{tmp_path}/swept")
    create = Storage.create
    missing: list[str] = []

    def sweep(storage: Storage, name: str, data: bytes) -> bool:
        if "/units/" in name:
            files = json.loads(data)["files"]
            missing.extend(one["file"] for one in files if not storage.exists(one["file"]))
        made = create(storage, name, data)
        if "/units/" in name:
            storage.remove("commits/list/work/test/sources--list-000000-list.parquet")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "create", sweep)
        if scheme:
            add_sources(workspace, ["ok"])
            assert not missing
        else:
            with pytest.raises(DamagedError, match="gone before it became tables/sources"):
                add_sources(workspace, ["ok"])
            assert workspace.ledger("list").commits() == []
    if not scheme:
        add_sources(workspace, ["ok"])
    assert len(workspace.files("sources")) == 1


def test_a_late_attempt_at_a_committed_unit_leaves_its_rows_as_they_are(store: Workspace) -> None:
    """The attempt of a worker taken for dead: other bytes, under the same run."""
    add_sources(store, ["ok"] * 3)
    add_sources(store, ["ok", "fail", "ok"])
    assert is_attempt(store.storage.names("tables/sources")[0])
    assert [row.label for row in store.rows(Source)] == ["ok"] * 3


def test_rows_whose_files_are_gone_are_done_again_in_the_next_run(
    store: Workspace, tmp_path: Path
) -> None:
    labels = ["ok", "fail"] * 12
    add_sources(store, labels)
    run(store)
    digest = store.digest("clips")
    first, second, _ = store.ledger("faulty").commits()
    for commit, table in ((first, "clips"), (second, "failures")):
        store.storage.remove(next(one.file for one in commit.files if one.table == table))
    again = Workspace(store.storage.url)
    assert {commit.unit for commit in again.ledger("faulty").gone()} == {first.unit, second.unit}
    done = run(again)
    assert done.notes == ["files of 2 units were gone: their 16 rows are to do again."]
    assert done.counts["input"] == 16
    assert is_whole(again)
    assert again.digest("clips") == digest
    assert len(again.ledger("faulty").failures()) == 12


def test_a_workspace_of_the_old_kind_is_finished_and_healed(store: Workspace) -> None:
    """Its commits name files without a digest, some still in the work folder, some lost."""
    add_sources(store, ["ok"] * 24)
    run(store)
    digest = store.digest("clips")
    commits = store.ledger("faulty").commits()
    for number, commit in enumerate(commits):
        path = f"{FOLDER}/units/{commit.unit}.json"
        raw = json.loads(store.storage.read(path))
        del raw["digest"]
        file = raw["files"][0]
        new, file["file"] = file["file"], f"tables/clips/faulty-{commit.unit}.parquet"
        place = [file["file"], f"{FOLDER}/work/dead/clips--faulty-{commit.unit}.parquet"]
        if number < 2:
            store.storage.write(place[number], store.storage.read(new))
        store.storage.remove(new)
        store.storage.write(path, json.dumps(raw).encode())
    again = Workspace(store.storage.url)
    done = run(again)
    assert done.counts["input"] == 8
    assert is_whole(again)
    assert again.digest("clips") == digest


def test_other_settings_beside_a_living_run_are_refused_in_one_line(store: Workspace) -> None:
    add_sources(store, ["ok"] * 8)
    run(store)
    with run_lock(store.storage, FOLDER) as living:
        living.share()
        with pytest.raises(Exception, match="another run of it is alive") as refused:
            run(Workspace(store.storage.url), offset=1, redo=True)
        assert "\n" not in str(refused.value)
    assert run(Workspace(store.storage.url), offset=1, redo=True).counts["input"] == 8


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /nfs rw - nfs4 server:/a rw,vers=4.2,local_lock=none
31 22 0:41 / /old rw - nfs server:/b rw,vers=3,nolock,local_lock=all
32 22 0:42 / /scratch rw - lustre server:/c rw,flock
33 22 0:43 / /scratch/mine\\040too rw - lustre server:/c rw,lazystatfs
34 22 0:44 / /bucket rw shared:9 master:3 - fuse.gcsfuse bucket rw
"""


@pytest.mark.parametrize(
    ("folder", "shared", "by_node"),
    [
        ("/home/ws", False, False),
        ("/nfs/ws", True, False),
        ("/nfsother", False, False),
        ("/old/ws", True, True),
        ("/scratch/ws", True, False),
        ("/scratch/mine too/ws", True, True),
        ("/bucket/ws", True, True),
    ],
)
def test_a_shared_disk_whose_locks_are_of_one_node_is_known(
    folder: str, shared: bool, by_node: bool
) -> None:
    mount = mount_of(Path(folder), MOUNTS)
    assert mount is not None
    assert (mount.is_shared, mount.locks_by_node) == (shared, by_node)


def test_on_a_disk_whose_locks_are_of_one_node_there_are_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "mountinfo"
    listed.write_text(f"31 22 0:41 / {tmp_path} rw - nfs server:/b rw,nolock\n")
    monkeypatch.setattr(mounts, "_MOUNTS", listed)
    workspace = Workspace.create(tmp_path / "ws")
    add_sources(workspace, ["ok"] * 8)
    with run_lock(workspace.storage, FOLDER) as lock:
        lock.share()
        assert workspace.storage.names(f"{FOLDER}/runs")
    assert is_attempt(workspace.storage.names("tables/sources")[0])


@pytest.mark.parametrize("scheme", ["", "store://"])
def test_doctor_says_which_locks_there_are_and_whose_files_are_gone(
    tmp_path: Path, scheme: str
) -> None:
    folder_store.known()
    workspace = Workspace.create(f"{scheme}{tmp_path}/ws")
    add_sources(workspace, ["ok"] * 3)
    assert [check.state for check in check_commits(workspace)] == ["ok"]
    locks = next(
        check for check in run_checks(workspace.storage, workspace.config) if check.name == "locks"
    )
    assert ("leases" in locks.detail) == bool(scheme)
    workspace.storage.remove(workspace.files("sources")[0].file)
    (check,) = check_commits(workspace)
    assert (check.name, check.state) == ("commits: list", "bad")
    assert check.detail == "files of 1 unit (3 rows) are gone"
