"""The paper's tables, against the same numbers computed the long way."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import rle
from pipeline.errors import AvatarBuildError, UsageError
from tavlo.evaluate import FORMATS, SCENARIOS, evaluate, to_latex, to_markdown
from tavlo.predictions import Predictions
from tavlo.release import EvaluationSet, read_release

SIZE_HW = (36, 64)


def mask_of(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, np.uint8)
    cv2.ellipse(mask, (x + w // 2, y + h // 2), (w // 2, h // 2), 0, 0, 360, (1,), -1)
    return mask


FRAMES: list[tuple[str, int, list[tuple[str, str, tuple[int, int, int, int]]] | None]] = [
    ("video000001", 3, [("Single-sound", "dog", (4, 4, 20, 20))]),
    ("video000001", 60, [("Single-sound", "cat", (30, 8, 24, 20))]),
    ("video000002", 5, [("Multi-entity", "dog", (2, 2, 18, 18))]),
    (
        "video000002",
        80,
        [("Mixed-sound", "dog", (2, 2, 18, 18)), ("Mixed-sound", "bell", (40, 10, 20, 20))],
    ),
    ("video000003", 7, None),
    ("video000003", 90, [("Multi-entity", "car", (20, 10, 20, 16))]),
]
"""Video, frame index, instances; none: off screen."""


def write_release(folder: Path) -> Path:
    """The parts of a release that evaluation reads."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (video, index, instances) in enumerate(FRAMES, start=1):
        clip = f"{video}_00000000"
        images.append(
            {
                "id": number,
                "video_id": video,
                "clip_id": clip,
                "frame_id": f"{clip}_{index:04d}",
                "frame_index": index,
                "height": SIZE_HW[0],
                "width": SIZE_HW[1],
                "off_screen": instances is None,
            }
        )
        for scenario, category, box in instances or []:
            row = {
                "id": len(annotations) + 1,
                "image_id": number,
                "scenario": scenario,
                "audio_visual_category": category,
                "bbox": list(map(float, box)),
                "segmentation": rle.encode(mask_of(*box).astype(bool)).model_dump(),
            }
            annotations.append(row)
    document = {
        "info": {"version": "1.0", "verified": True},
        "images": images,
        "annotations": annotations,
    }
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "instances.json").write_text(json.dumps(document))
    (folder / "subsets").mkdir()
    (folder / "subsets" / "cross_event.txt").write_text("video000001\n")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> EvaluationSet:
    return read_release(write_release(tmp_path / "release"))


@pytest.fixture
def predictions(tmp_path: Path) -> Predictions:
    """Noise on a coarse grid, of another size per clip."""
    (tmp_path / "heat").mkdir()
    found = Predictions(tmp_path / "heat")
    dice = np.random.default_rng(0)
    for number, video in enumerate(("video000001", "video000002", "video000003")):
        index = [i for name, i, _ in FRAMES if name == video]
        heat = dice.normal(size=(len(index), 7 + number, 7)).astype(np.float32)
        found.save(f"{video}_00000000", index, heat)
    return found


def slow_tables(folder: Path) -> dict[tuple[str, str], float]:
    """Everything at once in memory, one loop per cell."""
    heat = {}
    for video, index, _ in FRAMES:
        arrays = np.load(folder / f"{video}_00000000.npz")
        coarse = arrays["heatmap"][arrays["frame_index"].tolist().index(index)]
        heat[video, index] = cv2.resize(coarse, (224, 224), interpolation=cv2.INTER_LINEAR)

    def top(keys: list[tuple[str, int]], share: float) -> float:
        pixels = np.sort(np.concatenate([heat[key].ravel() for key in keys]))
        return float(pixels[len(pixels) - round(len(pixels) * share)])

    threshold = top(list(heat), 0.10)
    cells: dict[tuple[str, str], list[float]] = {}
    for video, index, instances in FRAMES:
        predicted = heat[video, index] >= threshold
        if instances is None:
            cells.setdefault(("Off-screen", "TN"), []).append(float((~predicted).mean()))
            continue
        rows = {scenario for scenario, _, _ in instances} | {"Total"}
        rows |= {"Cross-event"} if video == "video000001" else set()
        for row in rows:
            union = np.zeros(SIZE_HW, np.float32)
            for scenario, _, box in instances:
                if row not in SCENARIOS or scenario == row:
                    union = np.maximum(union, mask_of(*box))
            truth = cv2.resize(union, (224, 224), interpolation=cv2.INTER_AREA) >= 0.5
            value = (predicted & truth).sum() / (predicted | truth).sum()
            cells.setdefault((row, "CIoU"), []).append(float(value))
    third = [key for key in heat if key[0] == "video000003"]
    dagger = top(third, 0.05)
    cells["Off-screen", "TN dagger"] = [float((heat["video000003", 7] < dagger).mean())]
    return {name: 100 * float(np.mean(values)) for name, values in cells.items()}


def test_every_cell_equals_the_slow_definition(
    data: EvaluationSet, predictions: Predictions, tmp_path: Path
) -> None:
    scores = evaluate(data, predictions)
    slow = slow_tables(tmp_path / "heat")
    for (row, metric), value in slow.items():
        assert scores.rows[row][metric].value == pytest.approx(value), (row, metric)
    assert set(scores.rows) == {*SCENARIOS, "Total", "Cross-event", "Off-screen"}
    assert scores.rows["Total"]["CIoU"].n == 5
    assert scores.rows["Off-screen"]["TN"].n == 1
    assert set(scores.per_category) == {"bell", "car", "cat", "dog"}


def test_a_perfect_model_gets_what_its_pixels_allow(data: EvaluationSet, tmp_path: Path) -> None:
    (tmp_path / "perfect").mkdir()
    perfect = Predictions(tmp_path / "perfect")
    for video in ("video000001", "video000002", "video000003"):
        frames = [frame for frame in data.frames if frame.video_id == video]
        heat = np.stack([frame.truth((224, 224)).astype(np.float32) for frame in frames])
        perfect.save(f"{video}_00000000", [frame.frame_index for frame in frames], heat)
    scores = evaluate(data, perfect)
    # More than a tenth of all pixels sound here, so the threshold is 1 and keeps exactly them.
    assert scores.threshold == 1.0
    assert scores.rows["Total"]["CIoU"].value == 100
    assert scores.rows["Total"]["CIoU"].low == 100
    assert scores.rows["Off-screen"]["TN"].value == 100


def test_boxes_and_masks_are_different_truths(
    data: EvaluationSet, predictions: Predictions
) -> None:
    by_mask, by_box = (evaluate(data, predictions, kind) for kind in ("mask", "box"))
    assert by_mask.threshold == by_box.threshold
    assert by_mask.rows["Total"]["CIoU"].value != by_box.rows["Total"]["CIoU"].value
    box = data.frames[0].truth(SIZE_HW, "box")
    assert box.sum() == 400


def test_a_short_set_is_refused_and_when_allowed_lists_what_is_missing(
    data: EvaluationSet, predictions: Predictions, tmp_path: Path
) -> None:
    (tmp_path / "heat" / "video000002_00000000.npz").unlink()
    with pytest.raises(AvatarBuildError, match=r"2 of 6 labelled frames have no prediction"):
        evaluate(data, predictions)
    scores = evaluate(data, predictions, max_missing=2)
    assert set(scores.left_out.values()) == {"no prediction"}
    assert scores.rows["Total"]["CIoU"].n == 3
    assert "2 frames left out" in to_markdown(scores)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"frame_index": np.arange(2)}, "not predictions"),
        ({"frame_index": np.arange(2), "heatmap": np.zeros((3, 7, 7))}, r"\(2,\), heatmap \(3,"),
        ({"frame_index": np.array([3, 3]), "heatmap": np.zeros((2, 7, 7))}, "there twice"),
        (
            {"frame_index": np.array([3]), "heatmap": np.full((1, 2, 2), np.nan)},
            "frame 3 holds NaN",
        ),
        ({"frame_index": np.array([3]), "heatmap": np.zeros((1, 2, 2), int)}, "heatmap floats"),
    ],
)
def test_bad_predictions_are_named(
    data: EvaluationSet, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "video000001_00000000.npz", **arrays)
    with pytest.raises(AvatarBuildError, match=message) as caught:
        evaluate(data, Predictions(tmp_path))
    assert "video000001_00000000.npz" in str(caught.value)


def test_every_format_tells_the_same_numbers(data: EvaluationSet, predictions: Predictions) -> None:
    scores = evaluate(data, predictions)
    total = scores.rows["Total"]["CIoU"].value
    assert json.loads(FORMATS["json"](scores))["rows"]["Total"]["CIoU"]["value"] == total
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](scores))))
    assert float(next(r["percent"] for r in rows if r["set"] == "Total")) == total
    assert f"| Total | CIoU | {total:.2f} |" in to_markdown(scores)
    assert f"{total:.2f}" in to_latex(scores)
    assert to_latex(scores).count("&") == 11


def test_a_folder_that_is_no_release_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no release here"):
        read_release(tmp_path)
    folder = write_release(tmp_path / "r")
    path = folder / "annotations" / "instances.json"
    document = json.loads(path.read_text())
    document["images"][0]["clip_id"] = "../../etc/x"
    path.write_text(json.dumps(document))
    with pytest.raises(AvatarBuildError, match="is no clip id"):
        read_release(folder)
    del document["images"][0]["clip_id"]
    path.write_text(json.dumps(document))
    with pytest.raises(AvatarBuildError, match="clip_id"):
        read_release(folder)
