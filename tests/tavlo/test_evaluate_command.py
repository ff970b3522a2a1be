"""``evaluate`` and ``tables`` as typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from tavlo.evaluation.predictions import Predictions
from tests.conftest import ROOT
from tests.pipeline.command_line import check_parses
from tests.tavlo.release_factory import heatmaps, make_release


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make_release(tmp_path / "r")


def run(*words: str) -> str:
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_evaluate_writes_scores_overlays_and_a_gallery(release: Path, tmp_path: Path) -> None:
    heat, out = heatmaps(release, tmp_path / "heat", 0), tmp_path / "out"
    (tmp_path / "train.txt").write_text("video000003\nzzzzzzzzzzz\n")
    text = run(
        *("evaluate", "--release", str(release), "--predictions", str(heat), "--out", str(out)),
        *("--gallery", "--clip", "video000001_00000000"),
        *("--train-list", str(tmp_path / "train.txt")),
    )
    assert "Training list train.txt: 1 of its 2 videos (50.00 %)" in text
    assert {path.name for path in out.iterdir()} == {
        *("scores.md", "scores.tex", "scores.csv", "scores.json", "frames.csv"),
        *("gallery.html", "overlays"),
    }
    assert {path.name for path in (out / "overlays").iterdir()} == {
        "video000001_00000000_0003.jpg",
        "video000001_00000000_0040.jpg",
        "video000001_00000000.mp4",
    }
    assert json.loads((out / "scores.json").read_text())["leaks"][0]["shared"] == 1


def test_scored_runs_go_into_every_table(release: Path, tmp_path: Path) -> None:
    files = []
    for seed in range(2):
        heat = heatmaps(release, tmp_path / f"heat{seed}", seed)
        out = tmp_path / f"out{seed}"
        run("evaluate", "--release", str(release), "--predictions", str(heat), "--out", str(out))
        files.append(str(out / "scores.json"))
    text = run("tables", "scores", f"a={files[0]}", f"b={files[1]}", "--out", str(tmp_path / "t"))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.find(" | ", 2) for line in rows[:2]}) == 1, "columns stand below one another"
    text = " ".join(text.split())
    assert text.count("| a |") == text.count("| b |") == 3
    text = run("tables", "ablation", f"a={files[0]}", f"b={files[1]}", "--out", str(tmp_path / "t"))
    assert "CIoU against the first" in text
    text = run("tables", "paper", f"TAVLO(10k)={files[0]}", f"mine={files[1]}")
    assert "| TAVLO(10k) | difference |" in " ".join(text.split())
    assert "| mine | ours |" in " ".join(text.split())
    assert "no checkpoint at hand" in run("tables", "alignment")
    table = json.loads(run("tables", "paper", "--json"))["result"]["tables"]
    assert [found["title"][:7] for found in table] == ["Table 2", "Table 3", "Table 4", "Table B"]
    written = {path.name for path in (tmp_path / "t").iterdir()}
    assert written >= {"scores.md", "scores.tex", "ablation.csv", "ablation.json"}


def test_a_short_set_is_listed_when_it_is_allowed(release: Path, tmp_path: Path) -> None:
    heat = heatmaps(release, tmp_path / "heat", 0)
    (heat / "video000003_00000000.npz").unlink()
    words = ["evaluate", "--release", str(release), "--predictions", str(heat)]
    refused = CliRunner().invoke(cli, words)
    assert refused.exit_code != 0
    assert "--max-missing 2" in str(refused.exception)
    text = run(*words, "--max-missing", "2")
    assert "2 frames left out:" in text
    assert "- video000003_00000000_0007: no prediction" in text


def test_what_the_documentation_shows_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "heat").mkdir()
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    assert Predictions(tmp_path / "heat").indices("l_7B1wnTNtA_00020000") == [31, 84, 140]
    commands = re.findall(r"^avatar-build (.+)$", text.replace("\\\n", ""), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        check_parses(command)
