"""The paper's tables, against the same numbers computed the long way."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.release.read import read_document
from pipeline.release.scenario_rules import SCENARIOS
from tavlo.evaluation.evaluate import FORMATS, evaluate, frames_csv, to_latex, to_markdown
from tavlo.evaluation.evaluation_set import EvaluationSet, read_release
from tavlo.evaluation.predictions import Predictions
from tavlo.published.published_tables import DROP
from tests.tavlo.release_factory import FRAMES, SIZE_HW, ellipse, make_release


@pytest.fixture
def data(tmp_path: Path) -> EvaluationSet:
    return read_release(make_release(tmp_path / "release", clips=False, images=False))


@pytest.fixture
def predictions(tmp_path: Path) -> Predictions:
    """Noise on a coarse grid, of another size per clip."""
    (tmp_path / "heat").mkdir()
    found = Predictions(tmp_path / "heat")
    rng = np.random.default_rng(0)
    for number, video in enumerate(("video000001", "video000002", "video000003")):
        index = [i for name, i, _ in FRAMES if name == video]
        heat = rng.normal(size=(len(index), 7 + number, 7)).astype(np.float32)
        found.save(f"{video}_00000000", index, heat)
    return found


def slow_tables(folder: Path) -> dict[tuple[str, str], float]:
    """Everything at once in memory, one loop per cell."""
    heat = {}
    for video, index, _ in FRAMES:
        arrays = np.load(folder / f"{video}_00000000.npz")
        coarse = arrays["heatmap"][arrays["frame_index"].tolist().index(index)]
        heat[video, index] = cv2.resize(coarse, (224, 224), interpolation=cv2.INTER_LINEAR)

    def top(keys: list[tuple[str, int]], fraction: float) -> float:
        pixels = np.sort(np.concatenate([heat[key].ravel() for key in keys]))
        return float(pixels[len(pixels) - round(len(pixels) * fraction)])

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
                    union = np.maximum(union, ellipse(*box))
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
    assert set(scores.rows) == {*SCENARIOS, "Total", "Cross-event", DROP, "Off-screen"}
    drop = slow["Cross-event", "CIoU"] - slow["Total", "CIoU"]
    assert scores.rows[DROP]["CIoU"].value == pytest.approx(drop)
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
    assert box.sum() == 1600


def test_a_short_set_is_refused_and_when_allowed_lists_what_is_missing(
    data: EvaluationSet, predictions: Predictions, tmp_path: Path
) -> None:
    (tmp_path / "heat" / "video000002_00000000.npz").unlink()
    with pytest.raises(AvatarBuildError, match="No prediction for 2 of 6 labelled frames"):
        evaluate(data, predictions)
    scores = evaluate(data, predictions, max_missing=2)
    assert set(scores.left_out.values()) == {"no prediction"}
    assert scores.rows["Total"]["CIoU"].n == 3
    assert "2 frames left out" in " ".join(to_markdown(scores).split())


def as_parquet(folder: Path) -> Path:
    """The same predictions as a data frame of lists writes them."""
    target = folder.with_name("parquet")
    target.mkdir()
    for path in folder.glob("*.npz"):
        arrays = np.load(path)
        columns = {"frame_index": arrays["frame_index"], "heatmap": arrays["heatmap"].tolist()}
        pyarrow.parquet.write_table(pyarrow.table(columns), target / f"{path.stem}.parquet")
    return target


def test_parquet_scores_as_npz_does(
    data: EvaluationSet, predictions: Predictions, tmp_path: Path
) -> None:
    folder = as_parquet(tmp_path / "heat")
    assert evaluate(data, Predictions(folder)) == evaluate(data, predictions)
    shutil.copy(tmp_path / "heat" / "video000001_00000000.npz", folder)
    with pytest.raises(AvatarBuildError, match=r"video000001_00000000.parquet too"):
        evaluate(data, Predictions(folder))


@pytest.mark.parametrize(
    ("heatmap", "message"),
    [
        ([[[0.0, 1.0]], [[0.0]]], "equally long rows"),
        ([[[0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]], "equally long rows"),
        ([[0.0], [1.0]], "not a list of rows"),
        ([0.5, 0.5], "not a list of rows"),
        ([[[0.0, None]], [[0.0, 1.0]]], "NaN"),
        ([None, [[0.0, 1.0]]], "equally long rows"),
    ],
)
def test_bad_parquet_is_named(
    data: EvaluationSet, tmp_path: Path, heatmap: list[Any], message: str
) -> None:
    table = pyarrow.table({"frame_index": [3, 40], "heatmap": heatmap})
    pyarrow.parquet.write_table(table, tmp_path / "video000001_00000000.parquet")
    with pytest.raises(AvatarBuildError, match=message) as caught:
        evaluate(data, Predictions(tmp_path))
    assert "video000001_00000000.parquet" in str(caught.value)


def test_scores_carry_what_made_the_predictions(
    data: EvaluationSet, predictions: Predictions, tmp_path: Path
) -> None:
    assert evaluate(data, predictions).model == {}
    predictions.describe({"model": "ezvsl", "window_s": 5.0})
    scores = evaluate(data, predictions)
    assert scores.model == {"model": "ezvsl", "window_s": 5.0}
    assert "ezvsl" in " ".join(to_markdown(scores).split())
    (tmp_path / "heat" / "model.json").write_text("[1]")
    with pytest.raises(AvatarBuildError, match="not a JSON object"):
        evaluate(data, predictions)


def test_each_frames_own_numbers_make_the_table(
    data: EvaluationSet, predictions: Predictions
) -> None:
    scores = evaluate(data, predictions)
    rows = list(csv.DictReader(io.StringIO(frames_csv(scores))))
    assert len(rows) == len(FRAMES)
    for name in (*SCENARIOS, "Total", "Cross-event"):
        mean = np.mean([float(row[name]) for row in rows if row[name]])
        assert scores.rows[name]["CIoU"].value == pytest.approx(100 * mean)
    (off_screen,) = [float(row["Off-screen"]) for row in rows if row["Off-screen"]]
    assert scores.rows["Off-screen"]["TN"].value == pytest.approx(100 * off_screen)


def test_the_bootstrap_draws_videos_and_pairs_subset_with_total(
    data: EvaluationSet, predictions: Predictions
) -> None:
    scores = evaluate(data, predictions)
    value = {frame.frame_id: frame.values for frame in scores.per_frame}
    videos = sorted({frame.video_id for frame in scores.per_frame})
    rng = np.random.default_rng(0)
    totals, drops = [], []
    for draw in rng.integers(0, len(videos), (1000, len(videos))):
        frames = [f for v in draw for f in scores.per_frame if f.video_id == videos[v]]
        total = [value[f.frame_id]["Total"] for f in frames if "Total" in f.values]
        cross = [value[f.frame_id]["Cross-event"] for f in frames if "Cross-event" in f.values]
        totals.append(100 * np.mean(total))
        if cross:
            drops.append(100 * (np.mean(cross) - np.mean(total)))
    cell, drop = scores.rows["Total"]["CIoU"], scores.rows[DROP]["CIoU"]
    assert [cell.low, cell.high] == pytest.approx(np.percentile(totals, [2.5, 97.5]))
    assert [drop.low, drop.high] == pytest.approx(np.percentile(drops, [2.5, 97.5]))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"frame_index": np.arange(2)}, "not predictions"),
        ({"frame_index": np.array([{}])}, r"heatmap \(n, y, x\): not an \.npz of numbers$"),
        ({"frame_index": np.arange(2), "heatmap": np.zeros((3, 7, 7))}, r"\(2,\), heatmap \(3,"),
        ({"frame_index": np.array([3, 3]), "heatmap": np.zeros((2, 7, 7))}, "there twice"),
        (
            {"frame_index": np.array([3]), "heatmap": np.full((1, 2, 2), np.nan)},
            "frame 3 holds NaN",
        ),
        ({"frame_index": np.array([3]), "heatmap": np.zeros((1, 2, 2), int)}, "heatmap floats"),
        ({"frame_index": np.array([3]), "heatmap": np.zeros((1, 0, 2))}, "are empty"),
        ({"frame_index": np.array([3]), "heatmap": np.full((1, 2, 2), 1e300)}, "frame 3 holds"),
    ],
)
def test_bad_predictions_are_named(
    data: EvaluationSet, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "video000001_00000000.npz", **arrays)
    with pytest.raises(AvatarBuildError, match=message) as caught:
        evaluate(data, Predictions(tmp_path))
    assert "video000001_00000000.npz" in str(caught.value)


def test_a_folder_of_two_models_heatmaps_is_not_scored(
    data: EvaluationSet, predictions: Predictions, tmp_path: Path
) -> None:
    clips = sorted({frame.clip_id for frame in data.frames})
    one = Predictions.begin(tmp_path / "one", {"name": "one"})
    other = Predictions.begin(tmp_path / "other", {"name": "other"})
    for clip in clips:
        index = [frame.frame_index for frame in data.frames if frame.clip_id == clip]
        for found in (one, other):
            found.save(clip, index, np.random.default_rng(0).random((len(index), 3, 3)))
    evaluate(data, Predictions(tmp_path / "one"))
    for source in (tmp_path / "other", tmp_path / "heat"):
        shutil.copytree(tmp_path / "one", tmp_path / "mixed", dirs_exist_ok=True)
        shutil.copy(source / f"{clips[1]}.npz", tmp_path / "mixed")
        for about in (True, False):
            if not about:
                (tmp_path / "mixed" / "model.json").unlink()
            with pytest.raises(AvatarBuildError, match=rf"{clips[1]}\.npz: made by .*one model"):
                evaluate(data, Predictions(tmp_path / "mixed"))


def test_heatmaps_under_another_clips_name_are_not_scored(
    data: EvaluationSet, tmp_path: Path
) -> None:
    clips = sorted({frame.clip_id for frame in data.frames})
    found = Predictions.begin(tmp_path, {"name": "one"})
    found.save(clips[0], list(range(50)), np.random.default_rng(0).random((50, 3, 3)))
    for clip in clips[1:]:
        shutil.copy(tmp_path / f"{clips[0]}.npz", tmp_path / f"{clip}.npz")
    with pytest.raises(AvatarBuildError, match=f"these are heatmaps of clip {clips[0]}"):
        evaluate(data, Predictions(tmp_path))


def test_constant_heatmaps_are_counted_and_said(
    data: EvaluationSet, predictions: Predictions
) -> None:
    assert evaluate(data, predictions).constant == 0
    predictions.save("video000003_00000000", [7, 45], np.full((2, 3, 3), 0.5))
    scores = evaluate(data, Predictions(predictions._folder))
    assert scores.constant == 2
    assert "2 of 6 heatmaps are constant" in " ".join(to_markdown(scores).split())


def test_every_format_tells_the_same_numbers(data: EvaluationSet, predictions: Predictions) -> None:
    scores = evaluate(data, predictions)
    total = scores.rows["Total"]["CIoU"].value
    assert json.loads(FORMATS["json"](scores))["rows"]["Total"]["CIoU"]["value"] == total
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](scores))))
    assert float(next(r["percent"] for r in rows if r["set"] == "Total")) == total
    assert f"| Total | CIoU | {total:.2f} |" in " ".join(to_markdown(scores).split())
    assert f"{total:.2f}" in to_latex(scores)
    assert to_latex(scores).count("&") == 11


def test_a_folder_that_is_no_release_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No release at"):
        read_release(tmp_path)
    folder = make_release(tmp_path / "r", clips=False, images=False)
    path = folder / "annotations" / "instances.json"
    document = json.loads(path.read_text())
    document["images"][0]["clip_id"] = "../../etc/x"
    path.write_text(json.dumps(document))
    with pytest.raises(AvatarBuildError, match=r"images\.0\.clip_id: is not written"):
        read_release(folder)
    del document["images"][0]["clip_id"]
    path.write_text(json.dumps(document))
    with pytest.raises(AvatarBuildError, match="clip_id"):
        read_release(folder)


def test_labels_without_what_no_score_needs_are_read_as_those_of_a_whole_release(
    tmp_path: Path,
) -> None:
    folder = make_release(tmp_path / "r", clips=False, images=False)
    whole = read_release(folder)
    path = folder / "annotations" / "instances.json"
    document = json.loads(path.read_text())
    # As 'synth' wrote worlds before, with a column of a later version.
    del document["licenses"], document["videos"], document["categories"]
    document["info"] = {"version": "1.0", "verified": True, "world": {"fps": 8}}
    for image in document["images"]:
        for name in ("license", "event_time_s", "event_rms", "verified", "review_ids"):
            del image[name]
        image["of_a_later_version"] = 1
    for row in document["annotations"]:
        for name in ("annotated_bbox", "frame_id", "clip_id", "mask_source", "iscrowd"):
            del row[name]
    path.write_text(json.dumps(document))
    found = read_release(folder)
    assert [frame.frame_id for frame in found.frames] == [f.frame_id for f in whole.frames]
    for frame, expected in zip(found.frames, whole.frames, strict=True):
        assert np.array_equal(frame.mask(), expected.mask())
        assert all(map(np.array_equal, frame.boxes((9, 9)), expected.boxes((9, 9))))
    assert read_document(folder, labels=True).info.provenance["synth"]["config"]["fps"] == 8
    with pytest.raises(AvatarBuildError, match="export --verify"):
        read_document(folder)


def with_a_frame_twice(document: Any) -> None:
    document["images"].append({**document["images"][0], "id": 999, "off_screen": True})


def with_an_instance_twice(document: Any) -> None:
    document["annotations"].append(document["annotations"][0])


def without_the_instances(document: Any) -> None:
    document["annotations"].clear()


def without_the_videos(document: Any) -> None:
    document["videos"].clear()


def off_screen_with_instances(document: Any) -> None:
    rows = {row["image_id"] for row in document["annotations"]}
    next(row for row in document["images"] if row["id"] in rows)["off_screen"] = True


def with_a_box_of(*values: float) -> Callable[[Any], None]:
    return lambda document: document["annotations"][0].update(bbox=list(values))


def of_no_scenario(document: Any) -> None:
    document["annotations"][0]["scenario"] = "Some-sound"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_a_frame_twice, "is there 2 times"),
        (with_an_instance_twice, "is there 2 times"),
        (without_the_instances, "is not off-screen and has none"),
        (off_screen_with_instances, "is off-screen and has annotations"),
        (without_the_videos, "video video000001 is not in the release"),
        (with_a_box_of(1.0, 2.0), r"annotations\.0\.bbox: .* at least 4 items"),
        (with_a_box_of(1.0, 2.0, math.nan, 4.0), r"annotations\.0\.bbox\.2: .* finite number"),
        (with_a_box_of(1.0, 2.0, 1e308, 4.0), "is no box"),
        (of_no_scenario, r"annotations\.0\.scenario: .*'Some-sound'"),
    ],
)
def test_a_release_that_contradicts_itself_is_not_scored_on(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    folder = make_release(tmp_path / "release", clips=False, images=False)
    path = folder / "annotations" / "instances.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(AvatarBuildError, match=message):
        read_release(folder)


@pytest.mark.parametrize("text", ["null", "[]", '{"images": 5}', "[" * 100_000, "\xff"])
@pytest.mark.parametrize("name", ["annotations/instances.json", "subsets/cross_event.txt"])
def test_a_file_of_a_release_that_is_something_else_is_one_line(
    tmp_path: Path, name: str, text: str
) -> None:
    folder = make_release(tmp_path / "release", clips=False, images=False)
    (folder / name).write_bytes(text.encode("latin-1"))
    (folder / "CHECKSUMS.sha256").write_bytes(b"\xff\xfe")
    if name.endswith("json") or text == "\xff":
        with pytest.raises(AvatarBuildError, match=Path(name).name):
            read_release(folder)


@pytest.mark.parametrize("name", ["annotations/instances.json", "subsets/cross_event.txt"])
@pytest.mark.parametrize("change", ["changed", "gone"])
def test_ground_truth_that_is_not_the_released_one_is_not_scored_on(
    tmp_path: Path, name: str, change: str
) -> None:
    folder = make_release(tmp_path / "release", clips=False, images=False)
    file = folder / name
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "CHECKSUMS.sha256").write_text(f"{digest}  {name}\n")
    read_release(folder)
    if change == "changed":
        file.write_text(file.read_text() + "\n")
        with pytest.raises(AvatarBuildError, match="not the file that was released"):
            read_release(folder)
    else:
        file.unlink()
        with pytest.raises(AvatarBuildError, match="is missing"):
            read_release(folder)
