"""A command that only looks leaves every byte as it was; where one may not write it says so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from tests.labeling.labelled_workspace import fill, name, segment
from tests.pipeline.shell import Shell

LOOKING = (
    "status",
    "failures --drops",
    f"why {name()}",
    "config show",
    "config validate",
    "doctor --set download.min_free_bytes=0",
    "label report",
    "label agreement",
    "label status --url http://127.0.0.1:9",
    "download --dry-run --list LIST",
    "sample --dry-run",
    "propose --dry-run",
    "propose --preview propose.min_score=0.2",
    "label accept --dry-run",
    "segment --dry-run",
    "run --dry-run",
    "run --dry-run --redo",
    "retry --stage sample --dry-run",
    "export --verify ws/releases/0.1",
    "release diff ws/releases/0.1 ws/releases/0.1",
)
WRITING = (
    "propose",
    "report",
    "init ws/new",
    "takedown vvvvvvvvvvv",
    "export --version 0.2 --unverified",
    "download --list LIST",
    "label accept",
    "segment",
    "run",
)


@pytest.fixture
def root(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a release, as a crash left it: some work is not moved yet."""
    root = tmp_path / "ws"
    fill(Workspace.create(root, "offline"))
    shell("label", "accept", "-w", root, "--set", "label.accept_score=0.01").check()
    segment(Workspace(root))
    shell("export", "-w", root, "--version", "0.1", "--unverified", "--ids-only").check()
    (tmp_path / "list.csv").write_text("aaaaaaaaaaa,0,dog barking,test\n")
    storage = Storage(root)
    (table,) = storage.names("tables/instances")
    storage.move(f"tables/instances/{table}", f"commits/settle/work/dead/instances--{table}")
    storage.write("commits/sample/drops/nobody.parquet", b"swept by the next run")
    monkeypatch.chdir(tmp_path)
    return root


def words(line: str, root: Path) -> list[str]:
    """A command line of this test, for the workspace."""
    found = line.replace("LIST", str(root.parent / "list.csv")).split()
    named = found[:1] in (["init"], ["release"])
    return found if named else [*found, "-w", str(root)]


def everything(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Each file and folder with its time and content; a folder's time tells what came and went."""
    return {
        str(path): (
            path.stat().st_mtime_ns,
            path.stat().st_size,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [root, *root.rglob("*")]
    }


def test_a_command_that_only_looks_leaves_everything_as_it_was(root: Path, shell: Shell) -> None:
    before = everything(root)
    for line in LOOKING:
        said = shell(*words(line, root))
        if said.code and not line.startswith("doctor"):
            said.one_line()
        assert everything(root) == before, line


@pytest.fixture
def read_only(root: Path) -> Iterator[Path]:
    """The same where nobody may write: mounted so for root, whom permissions do not bind."""
    if os.geteuid() != 0:
        for path in [root, *root.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        yield root
        for path in [root, *root.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)
        return
    for options in ("bind", "remount,bind,ro"):
        mount = ["mount", "-o", options, str(root), str(root)]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("this machine does not let us mount a folder read-only")
    yield root
    subprocess.run(["umount", str(root)], check=True)


def test_where_nobody_may_write_looking_works_and_the_rest_is_one_line(
    read_only: Path, shell: Shell
) -> None:
    for line in LOOKING:
        said = shell(*words(line, read_only))
        if said.code and not line.startswith("doctor"):
            said.one_line()
    for line in WRITING:
        error = shell(*words(line, read_only)).one_line()
        assert str(read_only) in error or "ws/" in error, line
        assert "read-only" in error.lower() or "denied" in error.lower(), error


@pytest.mark.parametrize("folder", ["list.csv/ws", "list.csv", "n" * 300, "ws/avatar.toml/x"])
def test_init_where_no_folder_can_be_made_is_one_line(
    root: Path, shell: Shell, folder: str
) -> None:
    assert folder in shell("init", folder).one_line()


def test_a_path_somebody_typed_wrong_is_one_line(root: Path, shell: Shell) -> None:
    for line in ("download --list ws", "export --verify nowhere", "export --verify list.csv"):
        shell(*words(line, root)).one_line()
