"""Image-wise models on releases: which sound they hear, what is missing, what is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import AvatarBuildError
from tavlo.baselines.interface import PostProcessing
from tavlo.evaluation.evaluate import evaluate, write_scores
from tavlo.evaluation.evaluation_set import EvaluationSet, read_release
from tavlo.evaluation.image_models import ImagePredictor, SoundCounts, read_pairs
from tavlo.evaluation.predictions import Notes, predict
from tavlo.published.published_tables import draw_windows, read_windows, window_table
from tests.tavlo.release_factory import make_release
from tests.tavlo.small import RATE, Ear
from tests.video_factory import write_wav


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    return read_release(make_release(tmp_path_factory.mktemp("release") / "r"))


def test_each_frame_hears_the_window_around_it_moved_inside_the_clip(
    data: EvaluationSet, tmp_path: Path
) -> None:
    windows = {10.0: tmp_path / "10", 1.0: tmp_path / "1", 0.5: tmp_path / "05"}
    found, _ = predict(ImagePredictor(Ear()), data, windows)
    for frame in data.frames:
        loud_s = 0.4 * int(frame.video_id[-1])  # where the drawn sound swells
        for seconds, predictions in found.items():
            heat = predictions.heatmap(frame.clip_id, frame.frame_index)
            length = min(2.0, seconds)
            assert heat[9, 3] == pytest.approx(length, abs=0.03)
            start = min(max(frame.time_in_clip_s - length / 2, 0), 2.0 - length)
            if start < loud_s < start + length:
                assert heat[9, 200] == pytest.approx(loud_s - start, abs=0.05)
    # The clip is 2 s: a window of 10 s is all of it, wherever the frame lies.
    heard = {
        float(found[10.0].heatmap(frame.clip_id, frame.frame_index)[9, 200])
        for frame in data.frames
        if frame.video_id == "video000001"
    }
    assert len(heard) == 1


def test_what_was_asked_stands_beside_the_heatmaps(tmp_path: Path) -> None:
    data = read_release(make_release(tmp_path / "r"))
    (tmp_path / "r/audio").mkdir()
    write_wav(tmp_path / "r/audio/video000003_00020.wav", np.zeros((88_200, 1)), 44_100)
    found, notes = predict(ImagePredictor(Ear(), {"checkpoint": "x.pth"}), data, {1.0: tmp_path})
    said = notes.said
    assert len(said) == 2
    about = json.loads((tmp_path / "model.json").read_text())
    assert (about["name"], about["window_s"], about["checkpoint"]) == ("ear", 1.0, "x.pth")
    assert PostProcessing(**about["post"]) == Ear.post
    assert any("1 sounds at 44100 Hz were resampled to 16000" in sentence for sentence in said)
    assert any("ear hears 1.5 s; sounds down to 1 s are repeated" in sentence for sentence in said)
    assert evaluate(data, found[1.0]).model == about


def test_stereo_is_told_and_the_channel_its_authors_hear_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_release(make_release(tmp_path / "r"))
    pair = np.stack([np.full(RATE, 0.5), np.full(RATE, -0.25)], axis=1)
    (tmp_path / "r/audio").mkdir()
    for video in ("video000001", "video000002", "video000003"):
        write_wav(tmp_path / f"r/audio/{video}_00020.wav", pair, RATE)
    for level, how in ((0.5, "first"), (0.125, "mean")):
        monkeypatch.setattr(Ear, "channels", how)
        counts = SoundCounts()
        pairs = list(read_pairs(data, data.frames, Ear(), Notes(0), counts))
        assert [pair.sound.max() for pair in pairs] == pytest.approx([level] * len(pairs))
        assert any(f"3 sounds have 2 channels; the {how}" in s for s in counts.sentences(Ear()))


def test_missing_media_is_counted_named_and_refused_unless_allowed(tmp_path: Path) -> None:
    folder = make_release(tmp_path / "r")
    (folder / "video/video000002_00020.mp4").unlink()  # two frames lose their sound
    shutil.copy(folder / "metadata/video000001_00020/00003.png", tmp_path)
    (folder / "metadata/video000001_00020/00003.png").write_bytes(b"no picture")
    data = read_release(folder)
    with pytest.raises(AvatarBuildError, match=r"2 of 6 labelled frames .*_0005: no sound"):
        predict(ImagePredictor(Ear()), data, {1.0: tmp_path / "a"})
    with pytest.raises(AvatarBuildError, match=r"3 of 6 labelled frames .*--max-missing 3"):
        predict(ImagePredictor(Ear()), data, {1.0: tmp_path / "b"}, max_missing=2)
    found, _ = predict(ImagePredictor(Ear()), data, {1.0: tmp_path / "c"}, max_missing=3)
    scores = evaluate(data, found[1.0], max_missing=3)
    assert len(scores.left_out) == 3
    assert "no sound in the release" in scores.left_out["video000002_00000000_0005"]
    assert "no image" in scores.left_out["video000001_00000000_0003"]
    with pytest.raises(AvatarBuildError, match="No prediction for 3 of 6 labelled frames"):
        evaluate(data, found[1.0], max_missing=2)


def test_windows_become_a_table_and_four_plots(data: EvaluationSet, tmp_path: Path) -> None:
    windows = {10.0: tmp_path / "10", 1.0: tmp_path / "1"}
    found, _ = predict(ImagePredictor(Ear()), data, windows)
    scores = {seconds: evaluate(data, found[seconds]) for seconds in windows}
    for seconds, scored in scores.items():
        write_scores(scored, tmp_path / f"s{seconds:g}")
    files = [f"ear={tmp_path / f's{seconds:g}'}/scores.json" for seconds in windows]
    told = read_windows(files)
    total = scores[1.0].rows["Total"]["CIoU"]
    assert told["ear"][1.0]["Total", "CIoU"] == (total.value, total.n)
    table = window_table(told)
    assert [row[:2] for row in table.rows] == [["ear", "10 s"], ["ear", "1 s"]]
    assert table.rows[0][2] == scores[10.0].rows["Total"]["CIoU"].value
    draw_windows(told, tmp_path / "plots" / "windows.png")
    assert (tmp_path / "plots/windows.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(AvatarBuildError, match="given before"):
        read_windows([files[0], files[0]])
