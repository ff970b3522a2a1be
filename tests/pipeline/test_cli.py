"""What a user types: help that can be pasted, errors in one line, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.pipeline.command_line import ALL, check_parses, run
from tests.pipeline.faulty import add_sources
from tests.pipeline.shell import Said, Shell


def one_error(said: Said, code: int) -> str:
    """The only line of an error; a traceback or a second line fails the test."""
    assert said.code == code, said.err
    lines = [line for line in said.err.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err
    return lines[0]


def in_a_process(*words: str, cwd: Path | None = None) -> Said:
    """What the installed command says; the others here run in this process."""
    done = run(*words, cwd=cwd)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("name", sorted(ALL))
def test_help_ends_with_an_example_that_parses(name: str) -> None:
    command = ALL[name]
    examples = re.findall(r"^\s*avatar-build (.+)$", command.help or "", re.MULTILINE)
    assert examples, "no example in the help"
    for example in examples:
        check_parses(example)


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ALL:
        assert re.search(rf"`(avatar-build )?{re.escape(name)}\b", text), name


def test_no_workspace_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    error = one_error(in_a_process("sample", cwd=tmp_path), 2)
    assert "no workspace here" in error
    assert "avatar-build init" in error


def test_init_makes_a_workspace_once(shell: Shell, tmp_path: Path) -> None:
    root = str(tmp_path / "ws")
    assert shell("init", root, "--profile", "offline").code == 0
    assert "already a workspace" in one_error(shell("init", root), 2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    assert "not empty" in one_error(shell("init", str(tmp_path / "other")), 2)
    assert "offline" in one_error(shell("init", str(tmp_path / "x"), "--profile", "best"), 2)


def test_a_workspace_of_another_format_is_refused(shell: Shell, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    shell("init", str(root))
    marker = root / "commits" / "workspace.json"
    marker.write_text(json.dumps({"format": 99, "version": "9.0"}))
    error = one_error(shell("status", "--workspace", str(root)), 2)
    assert "format 99" in error
    assert "9.0" in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "empty"),
        ("abcdefghijk,1,dog barking,test\nabcdefghijl,1\n", "row 2"),
        ("abcdefghijk,soon,dog barking,test\n", "row 1"),
    ],
)
def test_a_bad_list_is_named_with_its_row(
    shell: Shell, tmp_path: Path, content: str | None, message: str
) -> None:
    root, listed = str(tmp_path / "ws"), tmp_path / "list.csv"
    shell("init", root)
    if content is not None:
        listed.write_text(content)
    error = one_error(shell("download", "--workspace", root, "--list", str(listed)), 2)
    assert message in error.lower()
    assert "list.csv" in error


def test_hostile_and_repeated_ids_become_rows_in_the_books_and_nothing_else(
    shell: Shell, tmp_path: Path
) -> None:
    root, listed = tmp_path / "ws", tmp_path / "list.csv"
    shell("init", str(root))
    rows = ["../../etc/passwd,0,dog barking,test", "abcdefghijk,0,dog barking,test"]
    rows += ["abcdefghijk,30,dog barking,train", "https://x.y/,0,dog barking,test"]
    listed.write_text("\n".join(rows) + "\n")
    missing = f"{tmp_path}/archive/{{video_id}}.mp4"
    arguments = ("--workspace", str(root), "--list", str(listed), "--source-template", missing)
    first = shell("download", *arguments)
    assert first.code == 0, first.err
    shown = shell("failures", "--workspace", str(root), "--drops", "--json").out
    told = json.loads(shown)["result"]
    found = {(row["stage"], row["input_id"]): row for row in told["failed"] + told["dropped"]}
    assert found["list", "list.csv#1"]["kind"] == "invalid_id"
    assert found["list", "list.csv#4"]["kind"] == "invalid_id"
    assert found["list", "list.csv#3"]["reason"] == "duplicate_id"
    assert ("download", "abcdefghijk") in found
    assert len(found) == 4
    books = json.loads(shell("status", "--workspace", str(root), "--json").out)["result"]["stages"]
    for stage in books:
        ended = stage["ok"] + stage["dropped"] + stage["failed"] + stage["pending"]
        assert stage["input"] == ended
    again = shell("download", *arguments)
    assert "1 known already" in again.out
    assert {path.name for path in tmp_path.iterdir()} == {"ws", "list.csv"}


def test_a_dry_run_says_how_many_rows_and_workers_there_would_be(
    shell: Shell, tmp_path: Path
) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    add_sources(workspace, ["ok"] * 3)
    arguments = ("download", "--workspace", str(tmp_path / "ws"), "--dry-run")
    assert shell(*arguments).out == "download: 3 rows to do, workers: 1.\n"
    (shown,) = json.loads(shell(*arguments, "--json").out)["result"]["stages"]
    assert (shown["pending"], shown["workers"]) == (3, 1)


def test_a_failure_bound_decides_the_exit_code(tmp_path: Path) -> None:
    root, listed = str(tmp_path / "ws"), tmp_path / "list.csv"
    run("init", root)
    listed.write_text("abcdefghijk,0,dog barking,test\n")
    missing = f"{tmp_path}/archive/{{video_id}}.mp4"
    arguments = ("--workspace", root, "--list", str(listed), "--source-template", missing)
    done = run("download", *arguments, "--max-failed", "0")
    assert done.returncode == 1
    assert "--max-failed 0" in done.stderr


def test_an_unknown_id_and_a_wrong_share_say_so(shell: Shell, tmp_path: Path) -> None:
    root = str(tmp_path / "ws")
    shell("init", root)
    assert "no row of this workspace" in one_error(shell("why", "nothing", "--workspace", root), 2)
    for share in ("4/3", "0/3", "1/0", "²/3", "1", "-1/3"):
        assert "I/N" in shell("sample", "--workspace", root, "--units", share).err
    for words in (("--stage", "sample"), ("--stage", "sample", "--kind", "")):
        kind = one_error(shell("failures", "--workspace", root, *words, "--kind", "timeout"), 2)
        assert "no row of sample ended so; none failed or was dropped" in kind
    assert "cannot be read" in one_error(shell("download", "--workspace", root, "--list", ""), 2)
