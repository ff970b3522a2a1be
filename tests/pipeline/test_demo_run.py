"""The demo does what it promises, on the real commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.demo.run_demo import score, train_tiny
from pipeline.records.schema import Frame, Instance, Mask, Review
from pipeline.synthetic.render import World
from pipeline.synthetic.world import GONE_ID, HTML_ID, REJECTED_IDS, TRUNCATED_ID
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished demo and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "demo-workspace"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "demo", "--workspace", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_every_row_of_the_world_ends_where_it_was_made_to_end(demo: tuple[Path, str]) -> None:
    workspace = Workspace(demo[0] / "ws")
    download = workspace.ledger("download")
    failed = {row.input_id: row.kind for row in download.failures()}
    assert failed == {GONE_ID: "http_404", HTML_ID: "not_media", TRUNCATED_ID: "truncated"}
    assert {row.input_id for row in download.drops()} == set(REJECTED_IDS)
    assert [row.input_id for row in workspace.ledger("sample").drops()] == ["silentMeadw"]


@pytest.mark.slow
def test_boxes_and_masks_come_near_the_truth(demo: tuple[Path, str]) -> None:
    world = World(*(demo[0] / "world" / name for name in ("videos", "vggsound.csv", "truth.json")))
    scores = score(Workspace(demo[0] / "ws"), world)
    assert scores["proposal recall at IoU 0.5"] >= 0.9
    assert scores["mean mask IoU"] >= 0.9
    assert scores["masks"] >= 60


@pytest.mark.slow
def test_all_four_scenarios_and_a_cross_event_are_in_the_release(demo: tuple[Path, str]) -> None:
    workspace = Workspace(demo[0] / "ws")
    scenarios = {row.scenario for row in workspace.rows(Instance)}
    assert scenarios == {"Single-sound", "Mixed-sound", "Multi-entity"}
    assert "off_screen" in {row.decision for row in workspace.rows(Review)}
    release = demo[0] / "ws" / "releases" / "0.1"
    assert (release / "subsets" / "cross_event.txt").read_text().split()
    document = json.loads((release / "annotations" / "instances.json").read_text())
    assert len(document["annotations"]) == len(workspace.rows(Mask))
    assert len(document["images"]) <= len(workspace.rows(Frame))


@pytest.mark.slow
def test_nobody_takes_the_simulated_annotator_for_a_person(demo: tuple[Path, str]) -> None:
    workspace = Workspace(demo[0] / "ws")
    for review in workspace.rows(Review):
        assert review.annotator.startswith("simulated:")
        assert not review.verified
    assert not any(row.verified for row in workspace.rows(Instance))
    assert "UNVERIFIED" in demo[1]


@pytest.mark.slow
def test_it_ends_with_where_to_look_and_what_to_type_next(demo: tuple[Path, str]) -> None:
    folder, said = demo
    assert str(folder / "ws" / "report.html") in said
    assert (folder / "ws" / "report.html").exists()
    assert "avatar-build why" in said
    assert "--list vggsound.csv" in said


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "demo", "--workspace", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "not a demo's folder" in done.stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.slow
def test_a_tiny_tavlo_learns_and_its_tables_are_printed(demo: tuple[Path, str]) -> None:
    folder, said = demo
    rows = [json.loads(line) for line in (folder / "tavlo" / "log.jsonl").read_text().splitlines()]
    losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert losses[-1] < losses[0]
    assert (folder / "tavlo" / "curve.png").exists()
    scores = json.loads((folder / "tavlo" / "scores" / "scores.json").read_text())
    assert {"Single-sound", "Mixed-sound", "Multi-entity", "Total", "Off-screen"} <= set(
        scores["rows"]
    )
    assert "| Total | CIoU |" in " ".join(said.split())


def test_without_torch_one_line_says_that_nothing_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[str] = []
    train_tiny(tmp_path, lambda *words: commands.append(words[0]), ["torch"])
    assert not commands
    assert capsys.readouterr().out.strip() == (
        "No TAVLO is trained: torch is not installed (avatar-build[train])."
    )
    train_tiny(tmp_path, lambda *words: commands.append(words[0]))
    assert commands == ["train-tavlo", "evaluate"]
