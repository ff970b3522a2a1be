"""What every command prints: one JSON object for machines, whole sentences for people."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.workspace.workspace import Workspace
from tests.pipeline.command_line import ALL, run
from tests.pipeline.faulty import add_sources


def typed(*words: str) -> tuple[int, dict[str, Any], str]:
    """A command of this process: its exit code, its one object, and the rest."""
    done = CliRunner().invoke(cli, [*words, "--json"])
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stdout
    found = json.loads(lines[0])
    assert found.keys() == {"version", "command", "result", "error"}
    assert found["version"] == 1
    return done.exit_code, found, done.stderr


@pytest.fixture
def root(tmp_path: Path) -> str:
    add_sources(Workspace.create(tmp_path / "ws", "offline"), ["ok"] * 3)
    return str(tmp_path / "ws")


def test_every_command_has_the_options_that_all_share() -> None:
    for name, command in ALL.items():
        spellings = {spelling for param in command.params for spelling in param.opts}
        assert spellings >= {"--json", "-q", "--quiet", "-v", "--verbose"}, name


def test_one_object_says_which_command_found_what(root: str, tmp_path: Path) -> None:
    place = ("--workspace", root)
    (tmp_path / "list.csv").write_text("abcdefghijk,0,dog barking,test\n")
    for words, keys in {
        ("init", str(tmp_path / "other")): {"workspace", "profile"},
        ("download", *place, "--dry-run", "--list", str(tmp_path / "list.csv")): {"list", "stages"},
        ("propose", *place, "--dry-run"): {"stages"},
        ("run", *place, "--dry-run"): {"stages"},
        ("label", "accept", *place): {"stages", "instances"},
        ("label", "agreement", *place): {"disputed"},
        ("status", *place): {"stages"},
        ("failures", *place): {"failed", "dropped"},
        ("config", "show", *place): {"sample", "export"},
        ("config", "validate", *place): {"valid"},
        ("models", "list"): {"models"},
        ("tables", "paper"): {"tables"},
        ("takedown", "-1pRmoJIGQc", *place): {"video_id", "still_in"},
    }.items():
        code, found, rest = typed(*words)
        assert (code, found["error"]) == (0, None), rest
        assert found["result"].keys() >= keys, words
        assert words[: len(found["command"].split())] == tuple(found["command"].split())


def test_errors_are_in_the_object_with_their_exit_code(root: str, tmp_path: Path) -> None:
    for words, kind, message in (
        (("sample", "--workspace", str(tmp_path)), "UsageError", "no workspace here"),
        (("sample", "--set", "sample.nope=1"), "UsageError", "no workspace here"),
        (("sample", "--nope"), "NoSuchOption", "--nope"),
        (("release", "diff", "a"), "MissingParameter", "NEW"),
        (("status", "-w", root, "--set", "run.nope=1"), "ConfigError", "no such setting"),
        (("release", "nope"), "NoSuchCommand", "nope"),
    ):
        code, found, rest = typed(*words)
        assert found["error"]["exit_code"] == 2
        assert found["error"]["kind"] == kind
        assert message.lower() in found["error"]["message"].lower()
        assert code != 0, rest


def test_what_was_done_before_a_failure_is_in_the_object_too(root: str, tmp_path: Path) -> None:
    missing = f"{tmp_path}/archive/{{video_id}}.mp4"
    words = ("download", "--workspace", root, "--source-template", missing, "--max-failed", "0")
    code, found, rest = typed(*words)
    assert code == 1
    (stage,) = found["result"]["stages"]
    assert (stage["failed"], stage["kinds"]) == (3, {"missing_file": 3})
    assert "--max-failed 0" in found["error"]["message"]
    assert "--max-failed 0" in rest


def test_an_option_that_is_a_value_asks_for_nothing(root: str) -> None:
    words = ["takedown", "abcdefghijk", "-w", root, "--reason", "--json"]
    assert "taken down" in CliRunner().invoke(cli, words).stdout


def test_quiet_leaves_progress_and_advice_out_and_verbose_says_how(
    root: str, tmp_path: Path
) -> None:
    said = [
        CliRunner().invoke(cli, ["init", str(tmp_path / n), *f])
        for n, f in (("a", ()), ("b", ("-q",)))
    ]
    assert ["Next:" in done.stdout for done in said] == [True, False]
    words = ["download", "-w", root, "--source-template", f"{tmp_path}/{{video_id}}.mp4"]
    assert "unit 000000-" in CliRunner().invoke(cli, [*words, "-v"]).stderr
    done = run("status", "-v", "--workspace", str(tmp_path / "none"))
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error:")
    assert done.returncode == 2


def first_sentences(group: click.Group) -> dict[str, str]:
    return {name: command.get_short_help_str(10_000) for name, command in group.commands.items()}


@pytest.mark.parametrize("words", [(), ("label",), ("models",), ("tables",)])
def test_help_says_a_whole_sentence_of_every_command_once(words: tuple[str, ...]) -> None:
    group: click.Command = cli
    for word in words:
        assert isinstance(group, click.Group)
        group = group.commands[word]
    assert isinstance(group, click.Group)
    shown = " ".join(CliRunner().invoke(cli, [*words, "--help"]).stdout.split())
    assert "..." not in shown.partition("Options:")[2]
    for name, sentence in first_sentences(group).items():
        assert sentence.endswith("."), name
        assert shown.count(f" {name} {sentence}") == 1


def test_the_shell_completes_commands_and_options() -> None:
    def offered(words: str) -> set[str]:
        environment = {
            **os.environ,
            "_AVATAR_BUILD_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(shlex.split(words)) - (0 if words.endswith(" ") else 1)),
        }
        program = Path(sys.executable).with_name("avatar-build")
        done = subprocess.run([program], env=environment, capture_output=True, text=True)
        return {line.partition(",")[2] for line in done.stdout.splitlines()}

    assert offered("avatar-build s") == {"sample", "segment", "status", "synth"}
    assert offered("avatar-build label pu") == {"push", "pull"}
    assert offered("avatar-build label push ") >= {"boxes", "masks", "adjudication"}
    assert "--quiet" in offered("avatar-build sample --q")


IDS = ("-1pRmoJIGQc", "--abcdefghi", "-w1RmoJIGQc", "-qvqvqvqvqv", "-----------", "-_0aZ9-_bQx")


@pytest.mark.parametrize("some_id", [*IDS, "--abcdefghi_00012000", "-1pRmoJIGQc_00012000_000007"])
def test_an_id_may_begin_with_a_dash_anywhere_among_options(root: str, some_id: str) -> None:
    for words in (
        ("why", some_id, "--workspace", root),
        ("why", "-w", root, some_id),
        ("why", "-q", some_id, f"--workspace={root}"),
    ):
        _, found, _ = typed(*words)
        assert (found["command"], found["error"]["exit_code"]) == ("why", 2)
        assert f"{some_id!r}: no row" in found["error"]["message"]
    done = run("why", "-w", root, "--", some_id)
    assert f"{some_id!r}: no row" in done.stderr


@pytest.mark.parametrize("some_id", IDS)
def test_a_video_whose_id_begins_with_a_dash_is_taken_down(root: str, some_id: str) -> None:
    words = ("--reason", "-asked by mail", "--workspace", root)
    code, found, rest = typed("takedown", some_id, *words)
    assert code == 0, rest
    assert (found["result"]["video_id"], found["result"]["reason"]) == (some_id, "-asked by mail")


def test_a_mistyped_option_is_still_one(root: str) -> None:
    for words in (
        ("why", "abcdefghijk", "--workspaces", root),
        ("why", "--workspacee", root),
        ("takedown", "--workspace-", root, "abcdefghijk"),
        ("takedown", "abcdefghijk", "--reasn=x", "-w", root),
        ("sample", "-1pRmoJIGQc"),
    ):
        code, found, _ = typed(*words)
        assert code != 0
        assert found["error"]["kind"] == "NoSuchOption", words
