"""One checkpoint has one number on a release, whatever it is called and by whichever command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.errors import UsageError
from tavlo.baselines.ezvsl import EzVsl
from tavlo.training.checkpoint import Checkpoint
from tests.tavlo import small


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn release, larger than the small copies that training reads."""
    folder = tmp_path_factory.mktemp("world") / "test"
    words = ["--clips", "2", "--seed", "3", "--seconds", "2", "--fps", "5", "--height", "240"]
    done = CliRunner().invoke(cli, ["synth", str(folder), *words, "--workers", "1"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same random EZ-VSL as its authors save it and as ``train-tavlo`` does."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    tensors = EzVsl().state_dict()
    authors = {f"module.{name}": value for name, value in tensors.items()}
    torch.save({"model": authors, "epoch": 1}, folder / "authors.pth")
    save_ours(folder / "ours.pt", tensors, [])
    return {"authors": folder / "authors.pth", "ours": folder / "ours.pt"}


def save_ours(path: Path, tensors: dict[str, torch.Tensor], videos: list[str]) -> None:
    Checkpoint(
        recipe="ezvsl",
        recipe_config={"width": 64, "imagenet": False},
        train_config=small.config().model_dump(mode="json"),
        weights_from={"all": "from scratch"},
        data={"digest": "0", "videos": videos, "validation_videos": []},
        step=1,
        best=None,
        model=tensors,
    ).save(path)


def typed(*words: object) -> str:
    done = CliRunner().invoke(cli, list(map(str, words)), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def heatmaps(folder: Path) -> dict[str, Any]:
    """Each clip's frames and heatmaps."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            found[path.stem] = (arrays["frame_index"].tolist(), arrays["heatmap"].tobytes())
    return found


def test_a_checkpoint_has_one_number(
    world: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    place = ["--release", world, "--device", "cpu", "--json"]
    ours, authors = checkpoints["ours"], checkpoints["authors"]
    runs = {
        "a": ["evaluate", *place, "--checkpoint", ours],
        "b": ["evaluate", *place, "--checkpoint", authors, "--model", "ezvsl"],
        "c": ["evaluate-images", *place, "--checkpoint", ours, "--model", "ezvsl"],
        "d": ["evaluate-images", *place, "--checkpoint", authors, "--model", "ezvsl"],
    }
    folders = {name: tmp_path / name for name in runs}
    scores, maps, about = {}, {}, {}
    for name, words in runs.items():
        told = json.loads(typed(*words, "--out", folders[name]))["result"]
        scores[name] = told["windows"]["10"] if "windows" in told else told
        heat = "predictions" if name in "ab" else "window-10/heatmaps"
        maps[name] = heatmaps(folders[name] / heat)
        about[name] = json.loads((folders[name] / heat / "model.json").read_text())
    assert len(maps["a"]) == 2
    for name in "bcd":
        assert maps[name] == maps["a"]
        assert scores[name]["rows"] == scores["a"]["rows"]
        assert scores[name]["threshold"] == scores["a"]["threshold"]
        for key in ("post", "preparation", "precision", "window_s"):
            assert about[name][key] == about["a"][key]
    assert about["a"]["post"]["upsampling"] == "bilinear"
    # The same file is the same model, whichever command asked it.
    assert about["a"]["made_by"] == about["c"]["made_by"] != about["b"]["made_by"]
    assert about["b"]["made_by"] == about["d"]["made_by"]
    assert len(about["d"]["checkpoint_sha256"]) == 64


def test_no_way_scores_a_model_on_what_it_was_trained_on(
    world: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    document = json.loads((world / "annotations" / "instances.json").read_text())
    video = document["images"][0]["video_id"]
    tensors = EzVsl().state_dict()
    save_ours(tmp_path / "seen.pt", tensors, [video])
    given = ["--release", world, "--checkpoint", tmp_path / "seen.pt", "--device", "cpu"]
    for command in ("evaluate", "evaluate-images"):
        for words in ([], ["--model", "ezvsl"]):
            with pytest.raises(UsageError, match=f"trained on 1 of this release's .*{video}"):
                typed(command, *given, *words, "--out", tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    typed("evaluate", *given, "--out", tmp_path / "a", "--allow-overlap")
    stored = ["evaluate", "--release", world, "--predictions", tmp_path / "a" / "predictions"]
    with pytest.raises(UsageError, match="trained on 1 of this release's videos"):
        typed(*stored)
    assert "Total" in typed(*stored, "--allow-overlap")


def test_a_film_of_a_picture_model_has_a_heatmap_of_every_frame(
    world: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    document = json.loads((world / "annotations" / "instances.json").read_text())
    clip = document["images"][0]["clip_id"]
    words = ["--checkpoint", checkpoints["ours"], "--device", "cpu", "--clip", clip]
    typed("evaluate", "--release", world, *words, "--out", tmp_path / "a")
    filmed = heatmaps(tmp_path / "a" / "predictions")
    assert sorted(filmed[clip][0]) == list(range(10))
    assert (tmp_path / "a" / "overlays" / f"{clip}.mp4").stat().st_size > 0
