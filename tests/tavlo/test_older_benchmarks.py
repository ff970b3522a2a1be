"""Older benchmarks, imported and scored, against their evaluators' truths and slow numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from exports.importers.import_release import import_release
from pipeline.errors import AvatarBuildError, UsageError
from tavlo.baselines.interface import GRID, ImageModel, Picture, PostProcessing, Sound
from tavlo.evaluation.evaluation_set import EvaluationSet, read_release
from tavlo.evaluation.floors import FIXED_MAP
from tavlo.evaluation.older_benchmarks import (
    benchmark_table,
    consensus,
    evaluate_benchmark,
    retrieve,
    select_test_split,
    union,
    write_benchmark_scores,
)
from tavlo.evaluation.predictions import Predictions
from tavlo.metrics.localisation import ciou
from tavlo.metrics.older_metrics import detection
from tavlo.published.published_tables import read_runs
from tests.conftest import ROOT
from tests.tavlo.older_sets import BOXES, picture_file, vggss

HALF = PostProcessing("bilinear", True, "min-max", "rank", ">=")


def predicted(data: EvaluationSet, folder: Path, post: PostProcessing = HALF) -> Predictions:
    """Smooth noise for every sample."""
    folder.mkdir()
    found, rng = Predictions(folder), np.random.default_rng(1)
    for clip in sorted({frame.clip_id for frame in data.frames}):
        index = [frame.frame_index for frame in data.frames if frame.clip_id == clip]
        heat = [cv2.resize(rng.random((5, 5)).astype(np.float32), (GRID, GRID)) for _ in index]
        found.save(clip, index, np.stack(heat))
    found.describe({"name": "noise", "post": asdict(post)})
    return found


@pytest.fixture(scope="module")
def fixture() -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Arrays and annotations of the folder AVATAR_PARITY names."""
    parity = Path(os.environ.get("AVATAR_PARITY", ROOT.parent / "shared" / "parity"))
    folder = parity / "metrics"
    if not (folder / "gt.json").exists():
        pytest.skip("no parity fixtures: set AVATAR_PARITY or put them in ../shared/parity")
    return dict(np.load(folder / "data.npz")), json.loads((folder / "gt.json").read_text()), folder


@pytest.mark.parametrize("size_hw", [None, (360, 640), (131, 257)])
def test_vggss_truths_are_its_evaluators_whatever_the_images_size(
    fixture: Any, tmp_path: Path, size_hw: tuple[int, int] | None
) -> None:
    arrays, annotated, _ = fixture
    (tmp_path / "source").mkdir()
    (tmp_path / "source/vggss.json").write_text(json.dumps(annotated["vggss_json"]))
    if size_hw is not None:
        for row in annotated["vggss_json"]:
            picture_file(tmp_path / "source" / f"{row['file']}.jpg", 9, size_hw)
    import_release(tmp_path / "source", tmp_path / "vggss-1")
    data = read_release(tmp_path / "vggss-1")
    truth = np.unpackbits(arrays["gt_vggss"], axis=-1)[..., :GRID]
    place = {row["file"][:11]: number for number, row in enumerate(annotated["vggss_json"])}
    for frame in data.frames:
        np.testing.assert_array_equal(union(frame), truth[place[frame.video_id]])
    assert len(data.frames) == len(place)


def given(
    data: EvaluationSet, maps: NDArray[Any], folder: Path, post: PostProcessing
) -> Predictions:
    """The fixtures' maps as predictions of the samples in order of their ids."""
    folder.mkdir()
    found = Predictions(folder)
    for frame, heat in zip(data.frames, maps.astype(np.float32), strict=True):
        found.save(frame.clip_id, [frame.frame_index], heat[None])
    found.describe({"post": asdict(post)})
    return found


def test_a_set_imported_and_scored_gets_its_evaluators_numbers(
    fixture: Any, tmp_path: Path
) -> None:
    arrays, annotated, folder = fixture
    results = json.loads((folder / "results.json").read_text())
    for name in ("vggss", "flickr"):
        (tmp_path / name).mkdir()
    (tmp_path / "vggss/vggss.json").write_text(json.dumps(annotated["vggss_json"]))
    for name, text in json.loads((folder / "flickr_xml_all.json").read_text()).items():
        (tmp_path / "flickr" / f"{name}.xml").write_text(text)
    sets = {}
    for name in ("vggss", "flickr"):
        import_release(tmp_path / name, tmp_path / f"{name}-1")
        sets[name] = read_release(tmp_path / f"{name}-1")
    inverted = PostProcessing("opencv-bilinear", False, "inverted min-max", "rank", ">")
    for name, post, published in (
        ("vggss", HALF, results["ezvsl_A"]["vggss"]),
        ("flickr", HALF, results["ezvsl_A"]["flickr"]),
        ("vggss", inverted, results["sslalignment_A"]),
    ):
        place = tmp_path / f"{name}-{post.comparison.replace('>', 'gt')}"
        scores = evaluate_benchmark(sets[name], given(sets[name], arrays["maps"], place, post))
        (row,) = scores.rows.values()
        success = published.get("ap50", published.get("cIoU"))
        auc = published.get("auc", published.get("AUC"))
        assert row["cIoU"].value == pytest.approx(100 * success)
        assert row["AUC"].value == pytest.approx(100 * auc)
        assert row["mean cIoU"].value == pytest.approx(100 * published["mean_ciou"])
        assert row["cIoU"].n == 40
        if "cIoU_adap" in published:
            assert row["adaptive cIoU"].value == pytest.approx(100 * published["cIoU_adap"])
            assert row["adaptive AUC"].value == pytest.approx(100 * published["AUC_adap"])


@pytest.mark.parametrize("size_hw", [None, (256, 256), (97, 331)])
def test_flickr_truths_are_its_evaluators(
    fixture: Any, tmp_path: Path, size_hw: tuple[int, int] | None
) -> None:
    arrays, _, folder = fixture
    source = tmp_path / "source"
    source.mkdir()
    for path in sorted((folder / "flickr_xml").iterdir()):
        (source / path.name).write_bytes(path.read_bytes())
        if size_hw is not None:
            picture_file(source / f"{path.stem}.jpg", 9, size_hw)
    import_release(source, tmp_path / "flickr-1")
    data = read_release(tmp_path / "flickr-1")
    for number, frame in enumerate(data.frames):
        np.testing.assert_array_equal(consensus(frame), arrays["gt_flickr_x2"][number] / 2)


def test_a_set_is_scored_as_its_authors_do(tmp_path: Path) -> None:
    data = vggss(tmp_path, BOXES, pairs=2)
    found = predicted(data, tmp_path / "heat")
    scores = evaluate_benchmark(data, found)
    values, adaptive, sure, seen = [], [], [], []
    for frame in data.frames:
        heat = found.heatmap(frame.clip_id, frame.frame_index)
        flat = np.sort(heat.ravel())
        low, high = flat[0], flat[-1]
        sure.append(float(((flat - low) / (high - low))[-(flat.size // 4) :].mean()))
        seen.append(not frame.off_screen)
        truth = union(frame) if frame.instances else np.zeros((GRID, GRID))
        values.append(ciou(heat >= flat[int(flat.size * 0.5)], truth) if seen[-1] else 0.0)
        if seen[-1]:
            adaptive.append(ciou(heat >= flat[flat.size - int(truth.sum())], truth))
    right = [value for value, visible in zip(values, seen, strict=True) if visible]
    row = scores.rows["VGG-SS"]
    assert row["cIoU"].value == pytest.approx(100 * np.mean(np.array(right) >= 0.5))
    assert row["mean cIoU"].value == pytest.approx(100 * np.mean(right))
    assert row["adaptive cIoU"].value == pytest.approx(100 * np.mean(np.array(adaptive) >= 0.5))
    assert row["cIoU"].n == 4
    by_hand = detection(values, sure, seen)
    extended = scores.rows["Extended VGG-SS"]
    assert extended["AP"].value == pytest.approx(100 * by_hand.average_precision, abs=1e-6)
    assert extended["max-F1"].value == pytest.approx(100 * by_hand.f1_curve.max())
    assert extended["LocAcc"].value == row["cIoU"].value
    assert (extended["AP"].n, extended["LocAcc"].n) == (6, 4)


def test_the_fixed_map_of_a_set_is_compared_as_the_models_heatmaps_are(tmp_path: Path) -> None:
    data = vggss(tmp_path, BOXES, pairs=2)
    scores = evaluate_benchmark(data, predicted(data, tmp_path / "heat"))
    floor = scores.floors[FIXED_MAP]
    assert floor.keys() == scores.rows.keys()
    wanted = []
    for frame in data.frames:
        others = [f for f in data.frames if f.video_id != frame.video_id and f.instances]
        heat = np.mean([union(f) for f in others], axis=0).astype(np.float32)
        if frame.instances:
            wanted.append(ciou(HALF.predict(heat), union(frame)))
    row = floor["VGG-SS"]
    assert row["mean cIoU"].value == pytest.approx(100 * np.mean(wanted))
    assert row["mean cIoU"].n == scores.rows["VGG-SS"]["mean cIoU"].n
    table = benchmark_table(scores)
    assert table.columns == ["", "value", "n", FIXED_MAP]
    (line,) = [line for line in table.rows if line[0] == "VGG-SS mean cIoU"]
    assert line[-1] == row["mean cIoU"].value
    assert any("looks at nothing" in note for note in table.notes)


def test_what_is_missing_stands_beside_the_numbers(tmp_path: Path) -> None:
    data = vggss(tmp_path, [*BOXES, [[0.5, 0.5, 0.4, 0.9]]])
    found = predicted(data, tmp_path / "heat")
    (tmp_path / "heat" / f"{data.frames[1].clip_id}.npz").unlink()
    with pytest.raises(AvatarBuildError, match="No prediction for 1 of 4 labelled frames"):
        evaluate_benchmark(data, found)
    scores = evaluate_benchmark(data, Predictions(tmp_path / "heat"), max_missing=1)
    assert scores.left_out == {
        "video000004_000004": "no_usable_box",
        data.frames[1].frame_id: "no prediction",
    }
    table = benchmark_table(scores)
    assert {row[2] for row in table.rows} == {"3"}
    assert "2 samples left out:" in table.notes
    write_benchmark_scores(scores, tmp_path / "out")
    (run,) = read_runs([f"noise={tmp_path}/out/scores.json"]).values()
    assert run.numbers["VGG-SS", "cIoU"] == (scores.rows["VGG-SS"]["cIoU"].value, 3)
    assert "video000004_000004: no_usable_box" in (tmp_path / "out/scores.md").read_text()


def test_heatmaps_without_post_processing_are_compared_the_usual_way_and_it_is_said(
    tmp_path: Path,
) -> None:
    data = vggss(tmp_path, BOXES)
    found = predicted(data, tmp_path / "heat")
    stated = evaluate_benchmark(data, found)
    (tmp_path / "heat/model.json").unlink()
    silent = evaluate_benchmark(data, found)
    assert silent.rows == stated.rows
    assert "states no post-processing" in silent.notes[0]
    found.describe({"post": {"threshold": "rank"}})
    with pytest.raises(AvatarBuildError, match=r"model\.json: post is no post-processing"):
        evaluate_benchmark(data, found)


def test_an_image_of_is3_succeeds_when_both_its_sounds_do(tmp_path: Path) -> None:
    source = tmp_path / "source"
    rows = []
    for pair in range(2):
        picture_file(source / f"images/a b_c_{pair}.png", 50, (224, 224))
        for which, box in ((1, [0, 0, 224, 112]), (2, [0, 112, 224, 224])):
            name = f"a b_c_{pair}_{which}"
            rows.append({"image": f"a b_c_{pair}.png", "audio": f"{name}.wav", "gt_box": box})
    (source / "IS3_annotation.json").write_text(json.dumps(rows))
    import_release(source, tmp_path / "is3-1")
    data = read_release(tmp_path / "is3-1")
    (tmp_path / "heat").mkdir()
    found = Predictions(tmp_path / "heat")
    for frame in data.frames:
        heat = np.zeros((1, GRID, GRID), np.float32)
        upper = frame.instances[0].bbox[1] == 0
        # The second image's second sound is put where the first one is.
        heat[0, : GRID // 2 if upper or frame.video.label.endswith("1") else None] = 1
        if not upper and frame.video.label.endswith("0"):
            heat[0] = np.linspace(0, 1, GRID)[:, None]
        found.save(frame.clip_id, [frame.frame_index], heat)
    row = evaluate_benchmark(data, found).rows["IS3"]
    assert (row["cIoU"].value, row["cIoU"].n) == (75, 4)
    assert (row["iIoU"].value, row["iIoU"].n) == (50, 2)


def test_avsbench_counts_frames_without_a_source_in_its_miou(tmp_path: Path) -> None:
    source = tmp_path / "source"
    mask = np.zeros((224, 224), np.uint8)
    mask[:112] = 255
    for second, shown in ((1, mask), (2, np.zeros_like(mask))):
        path = source / f"gt_masks/test/dog/vid_{second}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), shown)
    import_release(source, tmp_path / "avs-1")
    data = read_release(tmp_path / "avs-1")
    (tmp_path / "heat").mkdir()
    found = Predictions(tmp_path / "heat")
    heat = np.zeros((2, GRID, GRID), np.float32)
    heat[:, :56] = 1
    found.save(data.frames[0].clip_id, [1, 2], heat)
    row = evaluate_benchmark(data, found).rows["AVSBench"]
    # Half of the mask; and three quarters of an empty frame are left alone.
    assert row["mIoU"].value == pytest.approx(100 * (0.5 + 0.75) / 2, abs=1e-4)
    assert (row["mIoU"].n, row["F-score"].n) == (2, 1)
    assert row["F-score"].value == pytest.approx(100 * 1.3 * 0.5 / (0.3 + 0.5), abs=1e-4)


def test_of_a_set_with_splits_the_test_split_is_scored(tmp_path: Path) -> None:
    source = tmp_path / "source"
    mask = np.zeros((224, 224), np.uint8)
    mask[:112] = 255
    for split, name, spelt in (("test", "a", "a.mp4"), ("train", "b", "b")):
        for folder, stem in (("gt_masks", name), ("visual_frames", spelt)):
            path = source / folder / split / name / f"{stem}_1.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), mask)
    (source / "meta.csv").write_text("name,length,category,split\na,5,dog,test\nb,5,dog,train\n")
    import_release(source, tmp_path / "avs-1")
    data = read_release(tmp_path / "avs-1")
    assert len(data.frames) == 2
    (frame,) = select_test_split(data).frames
    assert frame.video_id == "a"
    # Pictures of multi-source videos are spelt otherwise than their masks.
    assert (data.folder / frame.row.file_name).is_file()
    train = EvaluationSet("x", True, data.frames[1:], frozenset(), data.folder, "AVSBench")
    with pytest.raises(AvatarBuildError, match=r"no sample of the test split \(there is train\)"):
        select_test_split(train)


class Shade(ImageModel):
    """Its vectors tell pictures by shade and sounds by level: samples of the same number pair."""

    name = "shade"
    sample_rate_hz = 16_000
    window_s = 1.0
    post = HALF

    def heatmaps(self, pictures: Sequence[Picture], sounds: Sequence[Sound]) -> NDArray[np.float32]:
        raise NotImplementedError

    def embeddings(
        self, pictures: Sequence[Picture], sounds: Sequence[Sound]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        seen = [round((float(picture.mean()) - 20) / 10) for picture in pictures]
        heard = [round(float(sound.mean()) * 100) - 1 for sound in sounds]
        return np.eye(8, dtype=np.float32)[seen], np.eye(8, dtype=np.float32)[heard]


def test_retrieval_pairs_each_picture_with_its_own_sound(tmp_path: Path) -> None:
    data = vggss(tmp_path, BOXES, pairs=2)
    rows, failed = retrieve(data, Shade())
    for direction in ("audio to image", "image to audio"):
        assert (rows[direction]["R@1"].value, rows[direction]["R@1"].n) == (100, 4)
    assert failed == {}
    (data.folder / "audio/video000001_00001.wav").unlink()
    with pytest.raises(AvatarBuildError, match="1 of 4 labelled frames cannot be predicted"):
        retrieve(data, Shade())
    rows, failed = retrieve(data, Shade(), max_missing=1)
    assert rows["audio to image"]["R@1"].n == 3
    assert list(failed.values()) == ["no sound in the release"]


def test_training_lists_are_held_against_the_samples_scored(tmp_path: Path) -> None:
    data = vggss(tmp_path, BOXES, pairs=1)
    listed = tmp_path / "train.csv"
    listed.write_text("id,start\nvideo000000,0\nvideo000001_1000_11000\nzzzzzzzzzzz_000001\n")
    scores = evaluate_benchmark(data, predicted(data, tmp_path / "heat"), train_lists=[listed])
    (found,) = scores.leaks
    assert (found.list_ids, found.shared, found.of_set) == (3, 2, 50.0)
    assert found.of_list == pytest.approx(200 / 3)
    assert "2 of its 3 videos (66.67 %) are in the scored set" in "".join(
        benchmark_table(scores).notes
    )
    write_benchmark_scores(scores, tmp_path / "out")
    (run,) = read_runs([f"noise={tmp_path}/out/scores.json"]).values()
    assert run.leaks == ["66.67 % of train.csv is 50.0 % of vggss-1"]
    with pytest.raises(UsageError, match="nowhere"):
        evaluate_benchmark(
            data, predicted(data, tmp_path / "h2"), train_lists=[tmp_path / "nowhere"]
        )


def test_a_release_that_is_no_such_set_says_which_are(tmp_path: Path) -> None:
    data = vggss(tmp_path, BOXES)
    found = predicted(data, tmp_path / "heat")
    ours = EvaluationSet(data.name, True, data.frames, frozenset(), data.folder, "")
    with pytest.raises(UsageError, match="VGG-SS, Flickr-SoundNet, IS3, AVSBench"):
        evaluate_benchmark(ours, found)
