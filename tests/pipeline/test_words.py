"""What a command says is so: counts, names, sizes, and commands that can be pasted."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydantic import BaseModel, Field, ValidationError

from exports.release.freeze import ReleaseSummary
from pipeline.cli import cli
from pipeline.records.schema import Source
from pipeline.words import plain, short
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import add_sources

ROWS = [f"abcdefghi{number:02d}" for number in range(70)]

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Workspace.create(tmp_path / "my ws", "offline")
    return tmp_path / "my ws"


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "list.csv"
    path.write_text("".join(f"{row},0,dog barking,test\n" for row in ROWS))
    return path


def typed(root: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--workspace", str(root)])


def test_a_dry_run_counts_what_a_new_list_would_add(root: Path, listed: Path) -> None:
    words = ("download", "--list", str(listed), "--dry-run")
    assert "download: 70 rows to do" in typed(root, *words).stdout
    assert "download: 1 row to do" in typed(root, *words, "--limit", "1").stdout
    tasks = [typed(root, *words, "--units", f"{task}/2", "--json").stdout for task in (1, 2)]
    shares = [json.loads(task)["result"]["stages"][0]["pending"] for task in tasks]
    add_sources(Workspace(root), ["ok"] * 3)
    assert sum(shares) == 70
    assert "download: 73 rows to do" in typed(root, *words).stdout


def test_a_dry_run_of_several_stages_says_what_is_still_to_come(root: Path) -> None:
    add_sources(Workspace(root), ["ok"] * 3)
    lines = typed(root, "run", "--dry-run").stdout.splitlines()
    assert lines.pop(0).startswith("Backends: hear with vggsound-label")
    assert lines[0].startswith("download: 3 rows to do, workers")
    assert lines[1] == "sample: 0 rows to do, and more once videos are made."
    assert lines[2] == "hear: 0 rows to do, and more once clips are made."
    assert lines[3] == "propose: 0 rows to do, and more once frames are made."
    assert lines[4] == "segment: 0 rows to do."


def test_what_the_last_stage_lacks_is_told_before_the_first_works(
    root: Path, listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVATAR_BUILD_MODELS", str(tmp_path / "none"))
    add_sources(Workspace(root), ["ok"] * 3)
    done = typed(root, "run", "--set", "segment.segmenter=sam-vit-h")
    assert "sam-vit-h: no weights on this machine" in str(done.exception)
    assert not done.stdout, "no stage has run"


def test_a_dry_run_says_what_redo_would_do_and_refuses_what_the_run_would(root: Path) -> None:
    add_sources(Workspace(root), ["ok"] * 3)
    missing = ("download", "--source-template", f"{root}/none/{{video_id}}.mp4")
    assert typed(root, *missing).exit_code == 0
    assert "download: 0 rows to do" in typed(root, *missing, "--dry-run").stdout
    changed = (*missing, "--dry-run", "--set", "download.min_fps=9")
    assert "min_fps: 20.0 -> 9.0" in str(typed(root, *changed).exception)
    assert "download: 3 rows to do" in typed(root, *changed, "--redo").stdout


def test_the_reasons_of_a_run_are_of_its_own_rows(root: Path) -> None:
    add_sources(Workspace(root), ["a", "b"])
    missing = ("download", "--source-template", f"{root}/none/{{video_id}}.mp4")
    assert "2 failed (missing_file 2)" in typed(root, *missing).stdout
    listed = root.parent / "more.csv"
    listed.write_text(f"{ROWS[0]},0,dog barking,test\n")
    second = typed(root, *missing, "--list", str(listed)).stdout
    assert "download: 1 row: 0 ok; 1 failed (missing_file 1)." in second


def test_a_retry_of_nothing_names_what_failed_for_good_and_a_command_to_paste(root: Path) -> None:
    workspace = Workspace(root)
    add_sources(workspace, ["ok"] * 2)
    for row in workspace.rows(Source):
        (root.parent / f"{row.video_id}.mp4").write_text("<html>")
    archive = ("--source-template", f"{root.parent}/{{video_id}}.mp4")
    typed(root, "download", *archive)
    said = typed(root, "retry", "--stage", "download").stdout
    assert "download: 0 failed rows to do again." in said
    assert "download: 2 rows failed for good (not_media 2)" in said
    pasted = shlex.split(said[said.index("avatar-build") :])
    assert pasted[1:] == [
        *("retry", "--workspace", str(root), "--stage", "download", "--kind", "not_media")
    ]
    again = CliRunner().invoke(cli, [*pasted[1:], "--dry-run"])
    assert again.stdout == "download: 2 failed rows to do again.\n"


@pytest.mark.parametrize(
    "words",
    [
        ("failures", "--stage", "nope"),
        ("failures", "--kind", "nope"),
        ("retry", "--stage", "nope"),
        ("retry", "--stage", "download", "--kind", "nope"),
        ("report", "--max-clips", "-1"),
        ("download", "--limit", "0"),
        ("download", "--limit", "-3"),
        ("sample", "--workers", "-1"),
        ("sample", "--max-failed", "-1"),
        ("sample", "--max-failed", ""),
        ("sample", "--max-failed", "5%%"),
        ("sample", "--units", "0/2"),
        ("propose", "--device", ""),
        ("label", "push", "boxes", "--overlap", "0"),
        ("label", "push", "boxes", "--share", "1.5"),
    ],
)
def test_what_cannot_be_is_one_line_with_what_there_is(root: Path, words: tuple[str, ...]) -> None:
    add_sources(Workspace(root), ["ok"])
    typed(root, "download", "--source-template", f"{root}/none/{{video_id}}.mp4")
    document = json.loads(typed(root, *words, "--json").stdout)
    assert document["error"]["exit_code"] == 2
    message = document["error"]["message"]
    assert "\n" not in message
    assert "\\d" not in message, "a pattern is no sentence"
    if words[-1] == "nope":
        assert ("missing_file" in message) == ("--kind" in words)
        assert ("sample" in message) == ("--kind" not in words)


def test_rows_that_were_retried_are_still_a_kind_there_is(root: Path) -> None:
    add_sources(Workspace(root), ["ok"])
    typed(root, "download", "--source-template", f"{root}/none/{{video_id}}.mp4")
    assert typed(root, "failures", "--kind", "missing_file").exit_code == 0
    assert typed(root, "failures", "--stage", "sample").exit_code == 0


def test_commands_to_paste_hold_paths_with_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "it's a place"
    said = CliRunner().invoke(cli, ["init", str(folder)]).stdout
    assert shlex.split(said[said.index("avatar-build") :])[3] == str(folder)
    gone = CliRunner().invoke(cli, ["status", "-w", str(tmp_path / "a b")]).exception
    text = str(gone)
    assert shlex.split(text[text.index("avatar-build") :])[2] == str(tmp_path / "a b")


def test_left_out_rows_are_words() -> None:
    left_out = {"frame no_instance_released": 2, "video taken_down": 1}
    said = ReleaseSummary("1", "releases/1", True, 1, 1, 1, 0, 2, left_out, 0, []).sentence()
    assert "1 video, 1 frame (0 off-screen), 2 instances." in said
    assert "2 frames (no_instance_released), 1 video (taken_down)" in said


def test_a_value_is_shown_short_and_a_pattern_never() -> None:
    assert len(short("x" * 10_000)) == 80

    class Row(BaseModel):
        name: str = Field(pattern=r"^\\d+$")

    with pytest.raises(ValidationError) as caught:
        Row(name="x")
    assert plain(caught.value.errors()[0]) == "is not written as it should be"


def test_rows_of_what_was_retired_are_in_no_books(root: Path) -> None:
    workspace = Workspace(root)
    add_sources(workspace, ["ok"] * 3)
    typed(root, "download", "--source-template", f"{root}/none/{{video_id}}.mp4")
    workspace.ledger("list").retire_all("another list")
    add_sources(workspace, ["ok"], "000001-list")
    told = json.loads(typed(root, "status", "--json").stdout)["result"]["stages"]
    (books,) = [stage for stage in told if stage["stage"] == "download"]
    assert (books["input"], books["failed"], books["kinds"]) == (1, 0, {})
    assert books["pending"] == 1
    failed = json.loads(typed(root, "failures", "--stage", "download", "--json").stdout)
    assert failed["result"]["failed"] == []
