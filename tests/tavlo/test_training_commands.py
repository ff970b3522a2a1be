"""``train-tavlo`` and ``evaluate --checkpoint`` as they are typed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.errors import AvatarBuildError, UsageError
from tavlo.evaluation.evaluation_set import read_release
from tavlo.evaluation.open_predictor import open_predictor
from tavlo.evaluation.predictions import Predictions
from tavlo.synthetic.drawn_clips import WorldConfig
from tavlo.training.checkpoint import load_checkpoint
from tavlo.training.training_clips import ClipRules
from tavlo.training.training_log import LOG, read_log
from tests.conftest import ROOT
from tests.tavlo import small
from tests.tavlo.small import equal
from tests.video_factory import bursts, make_video, scene

TESTED = tuple(f"test{number:07d}" for number in range(4))
"""Videos of the release to evaluate on."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.draw_videos(tmp_path_factory.mktemp("videos"))


def typed(*words: object) -> str:
    """Run a command in this process; what it prints."""
    done = CliRunner().invoke(cli, list(map(str, words)), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def result(*words: object) -> Any:
    """Run a command with ``--json``; what it found."""
    return json.loads(typed(*words))["result"]


def train_words(data: Path, out: Path, *more: object) -> list[object]:
    words = ["train-tavlo", "--data", data, "--out", out, "--device", "cpu", *small.settings()]
    return [*words, *more]


@pytest.fixture(scope="module")
def trained(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    typed(*train_words(listed, out, "--set", "train.epochs=1"))
    return out


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of one second with two labelled frames each, in the authors' layout, imported."""
    source = tmp_path_factory.mktemp("official") / "AVATAR"
    for number, video_id in enumerate(TESTED):
        clip = f"{video_id}_00020"
        frames = source / "metadata" / clip
        frames.mkdir(parents=True)
        (source / "video").mkdir(exist_ok=True)
        movie = source / "video" / f"{clip}.mp4"
        picture = scene(64, 48, seed=number)
        make_video(movie, frames=10, fps=10, draw=picture, sound=bursts(1.0, [0.3, 0.8]))
        for index in (3, 8):
            square = [[10.0, 8.0, 40.0, 8.0, 40.0, 30.0, 10.0, 30.0]]
            row = {"task": "single", "segmentation": square, "audio_visual_category": "dog"}
            if (number, index) == (3, 8):
                row = {"task": "off-screen", "audio_visual_category": "cat"}
            size = {"original_width": 64, "original_height": 48}
            (frames / f"{index:05d}.json").write_text(json.dumps(size | {"annotations": [row]}))
            cv2.imwrite(str(frames / f"{index:05d}.jpg"), picture(index)[:, :, ::-1])
    target = source.parent / "official"
    typed("import-release", source, "--to", target)
    return target


def test_killed_and_started_again_it_ends_with_the_same_weights(
    listed: Path, tmp_path: Path
) -> None:
    words = list(map(str, train_words(listed, tmp_path / "a", "--set", "train.epochs=6")))
    words += ["--cache", str(tmp_path / "cache"), "--set", "train.validation=0"]
    command = [sys.executable, "-m", "pipeline.cli", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        log = tmp_path / "a" / LOG
        # After a step that no checkpoint holds.
        while process.poll() is None and not (log.exists() and '"step": 5,' in log.read_text()):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    done = [row["step"] for row in read_log(log) if "loss" in row]
    assert process.returncode == -signal.SIGKILL
    assert 5 <= done[-1] < 24
    assert load_checkpoint(tmp_path / "a" / "last.pt").step < 24
    typed(*words)
    typed(*[word if word != str(tmp_path / "a") else str(tmp_path / "b") for word in words])
    one, other = (load_checkpoint(tmp_path / name / "last.pt") for name in ("a", "b"))
    assert one.step == other.step == 24
    assert equal(one.model, other.model)
    assert equal(one.optimizer, other.optimizer)
    starts = [row["step"] for row in read_log(log) if row.get("event") == "start"]
    assert len(starts) == 2
    assert starts[1] >= 4
    assert [row["step"] for row in read_log(log) if "loss" in row] == list(range(1, 25))


def test_a_dry_run_says_what_would_be_and_writes_nothing(listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = result(*train_words(listed, out, "--dry-run", "--json"))
    assert (said["clips"], said["training"], said["validation"]) == (8, 6, 2)
    assert (said["steps"], said["first_step"], said["cache_missing"]) == (9, 0, 8)
    assert said["cache_bytes"] > 0
    assert said["train_s"] > 0
    lines = typed(*train_words(listed, out, "--dry-run"))
    assert "8 clips: 6 to train on, 2 to choose the best" in lines
    assert "--held-out" in lines
    lines = typed(*train_words(listed, out, "--dry-run", "--set", "tavlo.sizes.meeting=alone"))
    assert lines.count("tavlo.sizes.meeting=alone is now called spatial_attention=none.") == 1
    assert not out.exists()


def test_a_video_held_out_stops_it_before_anything_is_decoded(listed: Path, tmp_path: Path) -> None:
    held = tmp_path / "test.txt"
    held.write_text(f"{small.NAMES[3]}_000020\n")
    with pytest.raises(UsageError, match=f"1 videos .*{small.NAMES[3]}"):
        typed(*train_words(listed, tmp_path / "run", "--held-out", held))
    assert not (tmp_path / "run").exists()


def test_broken_clips_stop_it_or_are_counted(listed: Path, tmp_path: Path) -> None:
    text = "".join(f"{listed.parent / name}.mp4,0\n" for name in small.NAMES)
    make_video(tmp_path / "silent.mp4", frames=10, fps=10)
    (tmp_path / "list.csv").write_text(f"{text}silent.mp4\n")
    words = train_words(tmp_path / "list.csv", tmp_path / "run", "--set", "train.epochs=1")
    with pytest.raises(
        AvatarBuildError, match=r"1 clips cannot be used: silent_00000000: no_audio"
    ):
        typed(*words)
    said = result(*words, "--max-failed", 1, "--json")
    assert said["clips"] == 6
    assert list(said["failed"]) == ["silent_00000000"]
    assert list(load_checkpoint(tmp_path / "run" / "best.pt").data["failed"]) == list(
        said["failed"]
    )


def test_silent_clips_are_counted_and_said(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "".join(f"{listed.parent / name}.mp4,0\n" for name in small.NAMES)
    make_video(tmp_path / "quiet.mp4", frames=10, fps=10, sound=bursts(1.0, [0.5]) * 0.001)
    (tmp_path / "list.csv").write_text(f"{text}quiet.mp4\n")
    words = train_words(tmp_path / "list.csv", tmp_path / "run", "--set", "train.epochs=1")
    assert "whether they are silent is known then" in typed(*words, "--dry-run")
    said = typed(*words)
    assert "1 clips are silent (quiet_00000000)" in said + capsys.readouterr().err
    assert "1 clips are silent (quiet_00000000)" in typed(*words, "--dry-run")
    (start,) = [row for row in read_log(tmp_path / "run" / LOG) if row.get("event") == "start"]
    assert start["silent"] == ["quiet_00000000"]
    assert load_checkpoint(tmp_path / "run" / "best.pt").data["silent"] == ["quiet_00000000"]


def test_another_config_in_the_same_folder_is_refused(listed: Path, trained: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.epochs = 1, and 2 is asked for") as error:
        typed(*train_words(listed, trained, "--set", "train.epochs=2"))
    assert "\n" not in str(error.value)


def test_other_models_train_by_their_recipes(listed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--recipe 'yolo': there is ezvsl"):
        typed("train-tavlo", "--data", listed, "--out", tmp_path, "--recipe", "yolo")


def test_a_checkpoint_is_scored_on_an_imported_release(
    trained: Path, release: Path, tmp_path: Path
) -> None:
    words = ["evaluate", "--release", release, "--checkpoint", trained / "best.pt"]
    scores = result(*words, "--device", "cpu", "--out", tmp_path / "a", "--json")
    rows = scores["rows"]
    assert rows["Single-sound"]["CIoU"]["n"] == 7
    assert rows["Total"]["CIoU"]["n"] == 7
    assert rows["Off-screen"]["TN"]["n"] == 1
    assert not scores["left_out"]
    written = sorted((tmp_path / "a" / "predictions").glob("*.npz"))
    assert [path.stem for path in written] == [f"{name}_00020000" for name in TESTED]
    with np.load(written[0]) as arrays:
        assert arrays["frame_index"].tolist() == [3, 8]
        assert arrays["heatmap"].shape == (2, 2, 2)
    # Two passes agree, and heatmaps read back from files give the same scores.
    again = result(*words, "--device", "cpu", "--out", tmp_path / "b", "--json")
    read = typed(
        "evaluate", "--release", release, "--predictions", tmp_path / "a" / "predictions", "--json"
    )
    assert again["rows"] == rows
    assert json.loads(read)["result"]["rows"] == rows


def test_where_it_attends_is_drawn_beside_its_heatmaps(
    trained: Path, release: Path, tmp_path: Path
) -> None:
    clip = f"{TESTED[0]}_00020000"
    words = ["evaluate", "--release", release, "--checkpoint", trained / "best.pt", "--json"]
    typed(*words, "--device", "cpu", "--out", tmp_path / "a", "--clip", clip)
    made = sorted(path.name for path in (tmp_path / "a" / "overlays").iterdir())
    assert f"{clip}.attention.png" in made
    assert f"{clip}.mp4" in made
    sheet = cv2.imread(str(tmp_path / "a" / "overlays" / f"{clip}.attention.png"))
    assert sheet is not None
    rows, frames = sheet.shape[0], 2
    assert rows > 200 * (frames + 1), "a row for each labelled frame, and one for time"


def test_a_world_is_trained_on_and_scored_without_saying_how_long_its_clips_are(
    tmp_path: Path,
) -> None:
    for name, seed in (("train", 1), ("test", 2)):
        words = ["synth", tmp_path / name, "--clips", 6, "--seed", seed, "--seconds", 2]
        typed(*words, "--fps", 5, "--height", 36, "--workers", 1)
    out = tmp_path / "run"
    words = train_words(tmp_path / "train", out, "--held-out", tmp_path / "test")
    at = [
        number
        for number, word in enumerate(words)
        if re.match(r"train\.(clip_s|m.._fr)", str(word))
    ]
    for number in reversed(at):
        del words[number - 1 : number + 1]
    words += ["--set", "train.epochs=1", "--set", "tavlo.sizes.max_frames=60"]
    assert "Clips of 2 s with 10 to 60 frames." in typed(*words, "--dry-run")
    typed(*words)
    place = ["--checkpoint", out / "best.pt", "--device", "cpu", "--out", tmp_path / "scores"]
    said = typed("evaluate", "--release", tmp_path / "test", *place)
    assert "| Total | CIoU |" in " ".join(said.split())


def test_what_synth_draws_by_default_is_what_training_takes_by_default() -> None:
    world, rules = WorldConfig(), ClipRules()
    assert world.seconds == rules.length_s
    assert rules.min_frames <= world.seconds * world.fps <= rules.max_frames


def test_an_imported_release_can_be_trained_on(release: Path, tmp_path: Path) -> None:
    said = result(*train_words(release, tmp_path / "run", "--dry-run", "--json"))
    assert (said["clips"], said["training"] + said["validation"]) == (4, 4)


def test_a_checkpoint_is_not_scored_on_what_it_has_seen(
    release: Path, trained: Path, tmp_path: Path
) -> None:
    state = load_checkpoint(trained / "best.pt")
    state.data["videos"].append(f"{TESTED[2]}_00020")
    state.save(tmp_path / "seen.pt")
    words = ["evaluate", "--release", release, "--checkpoint", tmp_path / "seen.pt"]
    words += ["--device", "cpu", "--out", tmp_path / "scores"]
    with pytest.raises(UsageError, match=f"trained on 1 of this release's videos .{TESTED[2]}"):
        typed(*words)
    assert "Total" in typed(*words, "--allow-overlap")


def test_a_clip_the_model_cannot_take_is_missing_not_zero(
    release: Path, trained: Path, tmp_path: Path
) -> None:
    state = load_checkpoint(trained / "best.pt")
    state.train_config["min_frames"] = state.train_config["max_frames"] = 12
    state.save(tmp_path / "other.pt")
    words = ["evaluate", "--release", release, "--checkpoint", tmp_path / "other.pt"]
    words += ["--device", "cpu", "--out", tmp_path / "scores"]
    with pytest.raises(AvatarBuildError, match="8 of 8 labelled frames cannot be predicted"):
        typed(*words)


@pytest.fixture(scope="module")
def other(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkpoint, of a model that can take clips of 12 frames alone."""
    state = load_checkpoint(trained / "best.pt")
    for value in state.model.values():
        value += 0.1 if value.is_floating_point() else 0
    path = tmp_path_factory.mktemp("other") / "other.pt"
    state.train_config["min_frames"] = state.train_config["max_frames"] = 12
    state.save(path)
    return path


def test_another_checkpoints_heatmaps_are_neither_scored_nor_kept(
    trained: Path, other: Path, release: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ev"
    words = ["evaluate", "--release", release, "--device", "cpu", "--out", out]
    typed(
        *words, "--checkpoint", trained / "best.pt", "--gallery", "--clip", f"{TESTED[0]}_00020000"
    )
    with pytest.raises(AvatarBuildError, match=r"8 of 8 labelled frames .*it must be 12 to 12"):
        typed(*words, "--checkpoint", other)
    assert [path.name for path in (out / "predictions").iterdir()] == ["model.json"]
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["model.json"]


def test_a_run_that_stopped_midway_leaves_nothing_another_model_is_scored_by(
    trained: Path, other: Path, release: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    words = ["evaluate", "--release", release, "--device", "cpu"]
    typed(*words, "--checkpoint", trained / "best.pt", "--out", first)
    # As if the second had been killed once it had begun, before it removed the last old file.
    old = {path.name: path.read_bytes() for path in (first / "predictions").glob("*.npz")}
    data = read_release(release)
    opened, _ = open_predictor(str(other), data, device="cpu")
    Predictions.begin(first / "predictions", opened.about)
    assert not list((first / "predictions").glob("*.npz"))
    (name, kept), *_ = old.items()
    (first / "predictions" / name).write_bytes(kept)
    with pytest.raises(AvatarBuildError, match=rf"{name}: made by checkpoint run \w+, and"):
        typed("evaluate", "--release", release, "--predictions", first / "predictions")
    # The first again: its own files may be there, whoever's were.
    typed(*words, "--checkpoint", trained / "best.pt", "--out", first)
    new = {path.name: path.read_bytes() for path in (first / "predictions").glob("*.npz")}
    assert new.keys() == old.keys()
    with np.load(first / "predictions" / name) as arrays:
        assert str(arrays["clip_id"]) == name.removesuffix(".npz")
        about = json.loads((first / "predictions" / "model.json").read_text())
        assert str(arrays["made_by"]) == about["made_by"]


def test_a_persons_own_heatmaps_are_never_removed_for_a_checkpoints(
    trained: Path, release: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", frame_index=[3], heatmap=np.zeros((1, 2, 2)))
    words = ["evaluate", "--release", release, "--checkpoint", trained / "best.pt"]
    words += ["--device", "cpu", "--out", tmp_path / "ev", "--predictions", tmp_path]
    with pytest.raises(UsageError, match=r"mine\.npz was not written for a checkpoint"):
        typed(*words)
    assert (tmp_path / "mine.npz").exists()


def test_neither_predictions_nor_checkpoint_is_wrong_usage(release: Path, tmp_path: Path) -> None:
    import click

    with pytest.raises(click.UsageError, match="--predictions, or --checkpoint"):
        typed("evaluate", "--release", release)
    with pytest.raises(UsageError, match="No checkpoint at"):
        typed(
            "evaluate", "--release", release, "--out", tmp_path, "--checkpoint", tmp_path / "no.pt"
        )
