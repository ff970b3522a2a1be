"""Every write is whole or absent, and nothing outside the root is touched."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.records.schema import Clip
from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import ENTRY, FaultyConfig, add_sources


@pytest.fixture(params=["", "local://", "memory://"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A local folder, and the same contract through fsspec."""
    return Storage(f"{request.param}{tmp_path}/store")


def test_what_is_written_is_read_back_and_listed(storage: Storage) -> None:
    storage.write("a/b/one.txt", b"1")
    storage.write("a/b/one.txt", b"11")
    storage.write("a/two.txt", b"2")
    assert storage.read("a/b/one.txt") == b"11"
    assert storage.size("a/b/one.txt") == 2
    assert storage.names("a") == ["two.txt"]
    assert storage.folders("a") == ["b"]
    assert storage.names("nowhere") == storage.folders("nowhere") == []


def test_create_writes_once(storage: Storage) -> None:
    assert storage.create("x/commit.json", b"first")
    assert not storage.create("x/commit.json", b"second")
    assert storage.read("x/commit.json") == b"first"


def test_move_replaces_and_remove_forgives(storage: Storage) -> None:
    storage.write("from/f", b"new")
    storage.write("to/f", b"old")
    storage.move("from/f", "to/f")
    assert storage.read("to/f") == b"new"
    assert not storage.exists("from/f")
    storage.remove("to/f")
    storage.remove("to/f")
    assert not storage.exists("to/f")


def test_a_published_file_can_be_had_as_a_local_one(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "made.bin").write_bytes(b"media")
    storage.publish(tmp_path / "made.bin", "media/x.bin")
    assert not (tmp_path / "made.bin").exists()
    with storage.as_local("media/x.bin") as path:
        assert path.read_bytes() == b"media"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside"])
def test_a_name_that_leads_outside_is_refused(storage: Storage, name: str) -> None:
    with pytest.raises(UsageError, match="outside the workspace"):
        storage.write(name, b"")


def test_it_travels_to_workers(storage: Storage) -> None:
    assert pickle.loads(pickle.dumps(storage)).url == storage.url


def test_it_travels_to_another_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(Storage("ws"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(sent).local == tmp_path / "ws"


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write("f", b"old")
    with pytest.raises(TypeError):
        storage.write("f", None)  # type: ignore[arg-type]
    assert storage.read("f") == b"old"
    assert storage.names(".") == ["f"]


def test_a_stage_runs_on_a_store_without_locks_or_renames(tmp_path: Path) -> None:
    digests = []
    for root in (f"local://{tmp_path}/store", str(tmp_path / "folder")):
        workspace = Workspace.create(root)
        add_sources(workspace, ["ok", "drop", "raise", "kill"] * 4)
        options = RunOptions(workers=2)
        run_stage(workspace, "faulty", options, step=ENTRY, config=FaultyConfig())
        digests.append(workspace.digest("clips"))
        assert len(workspace.rows(Clip)) == 8
    assert digests[0] == digests[1]


def test_a_file_is_looked_at_as_its_path_is_whatever_its_name(tmp_path: Path) -> None:
    draw = random.Random(0)
    storage = Storage(tmp_path)
    for folder in ("a", "a/b", "a/.b", ".a"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "c").write_bytes(folder.encode())
    for _ in range(3_000):
        name = "".join(draw.choice(["a", "b", "c", "/", "/", ".", "..", ".b"]) for _ in range(5))
        looked: list[object] = []
        for look in (storage.local_stat, lambda name: storage.path(name).stat()):
            try:
                looked.append(look(name).st_ino)
            except (UsageError, OSError) as error:
                looked.append(type(error))
        assert looked[0] == looked[1], name
