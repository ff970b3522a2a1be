"""``evaluate-images`` with a real network, from a checkpoint as its authors release them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
from click.testing import CliRunner

from pipeline.cli import cli
from tavlo.baselines.ezvsl import EzVsl
from tests.tavlo.older_sets import BOXES, vggss
from tests.tavlo.release_factory import make_release


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EZ-VSL's layout with random weights."""
    torch.manual_seed(0)
    tensors = {f"module.{name}": value for name, value in EzVsl().state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "best.pth"
    torch.save({"model": tensors, "epoch": 1}, path)
    return path


def run(*words: str) -> str:
    done = CliRunner().invoke(cli, ["evaluate-images", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_release_is_scored_once_per_window_with_plots(checkpoint: Path, tmp_path: Path) -> None:
    release, out = make_release(tmp_path / "r"), tmp_path / "out"
    (tmp_path / "train.txt").write_text("video000001\n")
    text = run(
        *("--release", str(release), "--model", "ezvsl", "--checkpoint", str(checkpoint)),
        *("--window", "10", "--window", "0.5", "--out", str(out), "--device", "cpu"),
        *("--train-list", str(tmp_path / "train.txt")),
    )
    assert "| ezvsl | 0.5 s |" in " ".join(text.split())
    assert (out / "windows.png").stat().st_size > 10_000
    numbers = {}
    for window in ("10", "0.5"):
        scores = json.loads((out / f"window-{window}/scores.json").read_text())
        assert scores["rows"]["Total"]["CIoU"]["n"] == 5
        assert scores["model"]["window_s"] == float(window)
        assert scores["model"]["post"]["align_corners"] is True
        assert len(scores["model"]["checkpoint_sha256"]) == 64
        assert scores["leaks"][0]["shared"] == 1
        numbers[window] = scores["threshold"]
    assert numbers["10"] != numbers["0.5"]


def test_another_models_windows_do_not_stay_beside_new_ones(
    checkpoint: Path, tmp_path: Path
) -> None:
    release, out = make_release(tmp_path / "r"), tmp_path / "out"
    words = ["--release", str(release), "--model", "ezvsl", "--out", str(out), "--device", "cpu"]
    run(*words, "--checkpoint", str(checkpoint), "--window", "1")
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "epoch": 2}, tmp_path / "later.pth")
    done = CliRunner().invoke(
        cli, ["evaluate-images", *words, "--checkpoint", str(tmp_path / "later.pth")]
    )
    assert "window-1 holds the scores of another model (ezvsl, best.pth)" in str(done.exception)
    # The same window again is written anew, whole.
    old = {path.name: path.read_bytes() for path in (out / "window-1" / "heatmaps").glob("*.npz")}
    run(*words, "--checkpoint", str(tmp_path / "later.pth"), "--window", "1")
    new = {path.name: path.read_bytes() for path in (out / "window-1" / "heatmaps").glob("*.npz")}
    assert new.keys() == old.keys()
    assert not set(new.values()) & set(old.values()), "each holds its checkpoint's digest"


def test_an_imported_set_is_scored_as_its_field_does(checkpoint: Path, tmp_path: Path) -> None:
    data, out = vggss(tmp_path, BOXES, pairs=2), tmp_path / "out"
    text = run(
        *("--release", str(data.folder), "--model", "ezvsl", "--checkpoint", str(checkpoint)),
        *("--retrieval", "--out", str(out), "--device", "cpu"),
    )
    for name in ("VGG-SS cIoU", "Extended VGG-SS AP", "audio to image R@10"):
        assert f"| {name} |" in " ".join(text.split())
    assert "4 sounds" not in text
    assert "ezvsl hears 3 s; sounds down to 1 s are repeated" in text
    scores = json.loads((out / "scores.json").read_text())
    assert scores["rows"]["image to audio"]["R@10"] == {"value": 100.0, "n": 4}
    again = run("--release", str(data.folder), "--predictions", str(out / "heatmaps"),
                "--out", str(tmp_path / "again"))  # fmt: skip
    rescored = json.loads((tmp_path / "again/scores.json").read_text())["rows"]
    assert rescored["VGG-SS"] == scores["rows"]["VGG-SS"]
    assert "Extended VGG-SS LocAcc" in again


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's layout with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_the_object_prior_stands_beside_any_models_numbers(
    checkpoint: Path, resnet18: Path, tmp_path: Path
) -> None:
    release = make_release(tmp_path / "r")
    own, alone, older = (tmp_path / name for name in ("own", "alone", "older"))
    prior = ("--object-prior", str(resnet18), "--device", "cpu")
    text = run(
        *("--release", str(release), "--model", "ezvsl", "--checkpoint", str(checkpoint)),
        *("--window", "1", "--out", str(own), *prior),
    )
    floors = json.loads((own / "window-1/scores.json").read_text())["floors"]
    assert list(floors) == ["fixed map", "object prior"]
    run(
        *("--release", str(release), "--model", "object-prior", "--checkpoint", str(resnet18)),
        *("--out", str(alone), "--device", "cpu"),
    )
    scores = json.loads((alone / "window-10/scores.json").read_text())
    del scores["rows"]["Off-screen"]["TN dagger"]  # it takes a threshold of its own
    assert floors["object prior"] == scores["rows"], "the model of that name, scored by itself"
    assert " object prior |" in " ".join(text.split())

    data = vggss(tmp_path, BOXES, pairs=2)
    run(
        *("--release", str(data.folder), "--model", "ezvsl", "--checkpoint", str(checkpoint)),
        *("--out", str(older), *prior),
    )
    found = json.loads((older / "scores.json").read_text())["floors"]
    run(
        *("--release", str(data.folder), "--model", "object-prior", "--checkpoint", str(resnet18)),
        *("--out", str(tmp_path / "again"), "--device", "cpu"),
    )
    assert found["object prior"] == json.loads((tmp_path / "again/scores.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "ezvsl"], "--model and --checkpoint"),
        (["--model", "nothing", "--checkpoint", "CHECKPOINT"], "there is"),
        (["--model", "slavc", "--checkpoint", "CHECKPOINT"], "img_proj1.weight is missing"),
        (["--checkpoint", "CHECKPOINT"], "Say whose it is: --model ezvsl"),
        (["--predictions", ".", "--object-prior", "CHECKPOINT"], "where this model's tensors"),
        (["--predictions", ".", "--window", "1"], "a model of one picture and one sound"),
        (["--model", "ezvsl", "--checkpoint", "CHECKPOINT", "--retrieval"], "imported set"),
    ],
)
def test_wrong_use_says_what_to_do(
    checkpoint: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    release = make_release(tmp_path / "r", clips=False, images=False)
    given = [str(checkpoint) if word == "CHECKPOINT" else word for word in words]
    place = ["--release", str(release), "--out", str(tmp_path / "o"), "--device", "cpu"]
    done = CliRunner().invoke(cli, ["evaluate-images", *place, *given])
    assert done.exit_code != 0
    assert message in (done.output + str(done.exception)).replace("\n", " ")
