"""What was typed with ``--set`` is written beside the results it made."""

from __future__ import annotations

import threading
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.config import load_config
from pipeline.errors import AvatarBuildError, ConfigError
from pipeline.workspace.settings_file import render_toml, with_settings
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import add_sources

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_sources(Workspace.create(tmp_path / "a b", "offline"), ["ok"] * 3)
    return tmp_path / "a b"


def download(root: Path, *words: str) -> Result:
    template = f"{root.parent}/none/{{video_id}}.mp4"
    place = ["--workspace", str(root), "--source-template", template]
    return CliRunner().invoke(cli, ["download", *place, *words])


def test_a_typed_setting_is_kept_with_the_results_it_made(root: Path) -> None:
    before = (root / "avatar.toml").read_text()
    first = download(root, "--set", "download.min_fps=10", "--set", "run.max_bugs=3")
    assert first.exit_code == 0, first.output
    assert "avatar.toml: download.min_fps = 10.0 (was 20.0)" in first.stderr
    after = (root / "avatar.toml").read_text()
    changed = [(a, b) for a, b in zip(before.split("\n"), after.split("\n"), strict=True) if a != b]
    assert changed == [("#min_fps = 20.0", "min_fps = 10.0")]
    again = download(root)
    assert (again.exit_code, again.stdout) == (0, "download: Nothing new to do.\n")
    refused = download(root, "--set", "download.min_fps=12")
    assert refused.exit_code != 0
    assert (root / "avatar.toml").read_text() == after, "no results were made with it"
    redone = download(root, "--require-license", "cc-by", "--redo")
    assert redone.exit_code == 0, redone.output
    assert Workspace(root).config.download.require_license == "cc-by"
    assert "Nothing new" in download(root).stdout


def test_what_decides_nothing_or_is_of_another_stage_is_not_kept(root: Path) -> None:
    before = (root / "avatar.toml").read_bytes()
    for words in (
        ("--set", "download.timeout_s=9", "--workers", "1", "--max-failed", "9"),
        ("--set", "sample.active_rms=0.5"),
        ("--set", "download.min_fps=7", "--dry-run", "--redo"),
    ):
        assert download(root, *words).exit_code == 0
        assert (root / "avatar.toml").read_bytes() == before


def test_what_may_hold_a_password_is_not_written_and_that_is_said(root: Path) -> None:
    words = ("--set", 'download.identities=["http://me:hunter2@proxy:8080"]')
    done = download(root, *words, "--set", 'download.options={password="hunter2"}')
    assert "hunter2" not in (root / "avatar.toml").read_text()
    assert "hunter2" not in done.output
    for key in ("identities", "options", "source_template"):
        assert f"download.{key} holds for this command alone" in done.stderr
    assert "for this command alone" not in download(root, *words).stderr, "once is enough"


def test_a_setting_is_not_written_where_nothing_opens_that_makes_results(root: Path) -> None:
    before = (root / "avatar.toml").read_bytes()
    typed = ("--set", "download.min_fps=10")
    refused = download(root, *typed, "--set", 'download.identities=["nope"]')
    assert isinstance(refused.exception, AvatarBuildError)
    assert (root / "avatar.toml").read_bytes() == before
    download(root, *typed)
    assert Workspace(root).config.download.min_fps == 10


@pytest.mark.parametrize("kind", ["read-only", "link", "layout"])
def test_a_file_that_cannot_be_changed_is_said_and_left(root: Path, kind: str) -> None:
    file = root / "avatar.toml"
    if kind == "layout":
        file.write_text("download = {min_fps = 15.0}\n")
    elif kind == "link":
        file.rename(root.parent / "shared.toml")
        file.symlink_to(root.parent / "shared.toml")
    else:
        file.chmod(0o444)
    before = file.read_bytes()
    done = download(root, "--set", "download.min_fps=10")
    assert done.exit_code == 0, done.output
    assert "cannot be changed" in done.stderr
    assert "download.min_fps" in done.stderr
    assert file.read_bytes() == before


def test_settings_that_are_valid_together_only_are_written_together(tmp_path: Path) -> None:
    Workspace.create(tmp_path / "ws")
    typed = ["hear.taxonomy='t.csv'", "propose.taxonomy='t.csv'"]
    assert len(Workspace(tmp_path / "ws", typed).keep_settings("hear")) == 1
    found = Workspace(tmp_path / "ws").config
    assert (found.hear.taxonomy, found.propose.taxonomy) == ("t.csv", "t.csv")


def test_tasks_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    Workspace.create(tmp_path / "ws")
    typed = {
        "sample": "sample.seed=7",
        "hear": "hear.active_top_k=2",
        "segment": "segment.grabcut_iterations=3",
    }
    tasks = [
        threading.Thread(target=Workspace(tmp_path / "ws", [text]).keep_settings, args=(section,))
        for section, text in typed.items()
        for _ in range(3)
    ]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert Workspace(tmp_path / "ws").config == load_config("", typed.values())


FILES = (
    "",
    "[sample]",
    "[sample]\r\nseed = 1 # mine\r\n",
    "# top\n[sample] # here\nseed   =  1   # a '#' in it\n\n# of the next\n"
    "[export]\ntitle = 'x # y'\n",
    "[export]\ntitle = '''\n[sample]\nseed = 4'''\n",
    '[hear]\nactive_scores = {"Growling" = 0.4}\n'
    "[download]\nidentities = [\n  'a', # one\n  'b',\n]\n",
    render_toml("paper"),
)


@pytest.mark.parametrize("toml", FILES)
@pytest.mark.parametrize(
    "values",
    [
        {"sample": {"seed": 7}},
        {"sample": {"seed": 7, "active_rms": 1e-05}, "export": {"title": 'a "#" \\ \n é'}},
        {"hear": {"active_scores": {'Bark "x"': 0.5}}, "download": {"identities": ["c#", "d"]}},
    ],
)
def test_a_file_says_what_it_said_and_what_was_written(
    toml: str, values: dict[str, dict[str, object]]
) -> None:
    try:
        text = with_settings(toml, values)
    except ConfigError:
        return  # left alone, and said
    expected = tomllib.loads(toml)
    for section, chosen in values.items():
        expected.setdefault(section, {}).update(chosen)
    assert tomllib.loads(text) == expected
    kept = [line for line in toml.splitlines() if line.startswith("# ")]
    assert [line for line in text.splitlines() if line.startswith("# ")] == kept


def test_comments_beside_a_value_stay() -> None:
    text = with_settings(FILES[3], {"sample": {"seed": 7}, "export": {"title": "z"}})
    assert "seed = 7   # a '#' in it\n" in text
    assert with_settings(FILES[2], {"sample": {"seed": 7}}) == "[sample]\r\nseed = 7 # mine\r\n"


def test_a_setting_takes_the_line_of_its_old_name() -> None:
    values = {"propose": {"detectors": ["yolov8n-oiv7", "motion"]}}
    wanted = '[propose]\ndetectors = ["yolov8n-oiv7", "motion"]\nmin_score = 0.1\n'
    for line in ('detector = "motion"', '#detector = "motion"', '#detectors = ["motion"]'):
        assert with_settings(f"[propose]\n{line}\nmin_score = 0.1\n", values) == wanted
    old = '[propose]\ndetector = "motion"\n#min_score = 0.05\n'
    assert with_settings(old, {"propose": {"min_score": 0.1}}).startswith(old[:30])
