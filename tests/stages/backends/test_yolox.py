"""YOLOX from ONNX files: the authors' where it is here, and networks that answer as told."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import ProposeConfig
from pipeline.errors import InputError, UsageError
from pipeline.models.register import add
from pipeline.records.boxes import iou
from pipeline.records.schema import Proposal
from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from stages.backends.interfaces import FrameInput
from stages.backends.yolox import YoloxDetector, decoded, detections, load_network, prepare
from stages.propose.preview import preview_settings
from stages.propose.propose_boxes import ProposeBoxes
from stages.taxonomy import load_taxonomy, seen_classes
from tests.conftest import ROOT
from tests.rows import frame, video
from tests.stages.backends.onnx_file import write_onnx
from tests.stages.proposed import sampled

pytest.importorskip("onnxruntime")

NAME = "yolox-nano"
PLACES = 52 * 52 + 26 * 26 + 13 * 13
DOG, CAT = seen_classes("coco").index("dog"), seen_classes("coco").index("cat")


def nothing() -> NDArray[np.float32]:
    return np.zeros((1, PLACES, 85), np.float32)


def answer(*things: tuple[int, int, float]) -> NDArray[np.float32]:
    """An answer with a box of 64x32 pixels of the input's at a place of the finest grid."""
    raw = nothing()
    for place, label, score in things:
        raw[0, place, :5] = (0.5, 0.5, math.log(64 / 8), math.log(32 / 8), 1.0)
        raw[0, place, 5 + label] = score
    return raw


def image(width: int = 320, height: int = 180) -> FrameInput:
    pixels = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    return FrameInput(frame(1), lambda: pixels, video())


def detector(**changes: Any) -> YoloxDetector:
    values = {"detectors": [NAME], "device": "cpu"} | changes
    found = YoloxDetector(ProposeConfig(**values))
    found.open(Storage("unused"))
    return found


def test_boxes_are_of_cocos_classes_and_in_frame_pixels(tmp_path: Path) -> None:
    add(NAME, write_onnx(tmp_path / "a.onnx", answer((52 * 20 + 30, DOG, 0.75))))
    for width, height, scale in ((320, 180, 1.3), (180, 320, 1.3), (640, 360, 0.65)):
        ((only,),) = detector().detect([image(width, height)])
        assert (only.name, round(only.score, 6)) == ("dog", 0.75)
        centre_x, centre_y = 30.5 * 8, 20.5 * 8
        wanted = [centre_x - 32, centre_y - 16, 64, 32]
        assert only.bbox == pytest.approx([side / scale for side in wanted], abs=1e-3)


def test_the_image_is_scaled_into_the_upper_left_with_blue_first() -> None:
    pixels = np.zeros((180, 320, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = 200, 10
    given, scale = prepare(pixels, 416)
    assert (given.shape, str(given.dtype), scale) == ((1, 3, 416, 416), "float32", 1.3)
    assert [given[0, plane, 233, 415] for plane in range(3)] == [10, 0, 200]
    assert (given[0, :, 234:] == 114).all(), "the rest is grey"


def test_a_place_that_fits_two_classes_gives_two_boxes_and_one_class_one(tmp_path: Path) -> None:
    raw = answer((1000, DOG, 0.9), (1001, DOG, 0.8), (1000, CAT, 0.6))
    add(NAME, write_onnx(tmp_path / "a.onnx", raw))
    (found,) = detector().detect([image()])
    assert [(d.name, round(d.score, 3)) for d in found] == [("dog", 0.9), ("cat", 0.6)]
    (sure,) = detector(raw_score=0.7, min_score=0.7).detect([image()])
    assert [d.name for d in sure] == ["dog"]
    (few,) = detector(raw_boxes=1, raw_iou=0.95).detect([image()])
    assert [round(d.score, 3) for d in few] == [0.9]


def test_decoding_equals_the_rule_read_aloud() -> None:
    raw = np.random.default_rng(3).normal(0, 1, (PLACES, 85)).astype(np.float32)
    wanted = []
    row = 0
    for stride in (8, 16, 32):
        for y in range(416 // stride):
            for x in range(416 // stride):
                width, height = (math.exp(float(raw[row, k])) * stride for k in (2, 3))
                left = (float(raw[row, 0]) + x) * stride - width / 2
                top = (float(raw[row, 1]) + y) * stride - height / 2
                wanted.append([left, top, width, height])
                row += 1
    np.testing.assert_allclose(decoded(raw, 416), wanted, rtol=1e-9)


def kept_of(boxes: list[list[float]], scores: list[float], max_iou: float) -> list[int]:
    """Take the best box, strike what it covers, repeat."""
    left, kept = sorted(range(len(boxes)), key=lambda place: -scores[place]), []
    while left:
        best, *rest = left
        kept.append(best)
        left = [place for place in rest if iou(boxes[place], boxes[best]) <= max_iou]
    return kept


@pytest.mark.parametrize("seed", range(3))
def test_suppression_equals_its_definition_class_by_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = np.zeros((PLACES, 85), np.float32)
    for place in rng.choice(52 * 52, 150, replace=False):
        raw[place, :4] = [*rng.uniform(0, 1, 2), *rng.uniform(1, 3, 2)]
        raw[place, 4] = 1
        raw[place, 5 + rng.choice([DOG, CAT])] = rng.uniform(0.05, 1)
    config = ProposeConfig(raw_score=0.1, min_score=0.1, raw_iou=0.5)
    found = detections(raw, 416, 2.0, config)
    boxes = decoded(raw, 416) / 2
    wanted = set()
    for label, name in ((DOG, "dog"), (CAT, "cat")):
        places = np.flatnonzero(raw[:, 5 + label] >= 0.1)
        scores = raw[places, 5 + label].tolist()
        kept = kept_of(boxes[places].tolist(), scores, 0.5)
        wanted |= {(name, round(scores[k], 6), tuple(boxes[places[k]].round(6))) for k in kept}
    assert len(found) == len(wanted) < 150
    assert {(d.name, round(d.score, 6), tuple(np.round(d.bbox, 6))) for d in found} == wanted
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)


def test_frames_are_answered_in_order_and_on_their_own(tmp_path: Path) -> None:
    add(NAME, write_onnx(tmp_path / "a.onnx", answer((700, DOG, 0.5))))
    sizes = [image(320, 180), image(180, 320), image(640, 640)]
    one = detector()
    alone = [found for item in sizes for found in one.detect([item])]
    assert list(one.detect(sizes)) == alone


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_fails_its_frame(tmp_path: Path, value: float) -> None:
    raw = answer((700, DOG, 0.5))
    raw[0, 10, 2] = value
    add(NAME, write_onnx(tmp_path / "a.onnx", raw))
    with pytest.raises(InputError, match="not_a_number"):
        list(detector().detect([image()]))


SMALL = np.zeros((1, 2100, 85), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"takes": (1, 3, 320, 320)}, r"it takes \[1, 3, 320, 320\] .*takes \[1, 3, 416, 416\]"),
        ({"takes": (1, 3, "h", "w")}, r"it takes \[1, 3, 'h', 'w'\]"),
        ({"answer": SMALL}, r"it gives \[1, 2100, 85\] .*gives \[1, 3549, 85\]"),
        ({"answer": np.zeros((1, PLACES, 25), np.float32)}, r"gives \[1, 3549, 25\] .*80 classes"),
        ({"size": 20_200_000}, r"20\.2 MB, so it is another model: yolox-nano has about 3\.7 MB"),
        ({"opset": 9999}, r"no ONNX network that can be read \(.*till opset"),
        ({"operator": "MakeCoffee"}, r"no ONNX network that can be read \(.*MakeCoffee"),
    ],
)
def test_a_foreign_file_stops_the_run_before_any_worker_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_onnx(tmp_path / "a.onnx", **({"answer": nothing()} | changes))
    refused(path, message)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x80\x04pickle", None])
def test_a_broken_file_does_too(tmp_path: Path, content: bytes | None) -> None:
    path = write_onnx(tmp_path / "a.onnx", nothing())
    path.write_bytes(path.read_bytes()[:-100_000] if content is None else content)
    refused(path, r"no ONNX network that can be read|it takes nothing")


def refused(path: Path, message: str) -> None:
    add(NAME, path)
    with pytest.raises(UsageError, match=message) as caught:
        ProposeBoxes(ProposeConfig(detectors=["motion", NAME])).fingerprint()
    assert str(path) in str(caught.value)
    assert "models fetch yolox-nano" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_of_categories_without_cocos_columns_is_refused_before_any_worker(
    tmp_path: Path,
) -> None:
    add(NAME, write_onnx(tmp_path / "a.onnx", nothing()))
    mine = tmp_path / "mine.csv"
    mine.write_text(
        "category,group,openimages_classes,audioset_classes,vggsound_classes,notes,"
        "openimages_generic\ndog,animal,Dog,Bark,,,\n"
    )
    stage = ProposeBoxes(ProposeConfig(detectors=[NAME], taxonomy=str(mine)))
    with pytest.raises(UsageError, match=r"mine\.csv: no columns coco_classes and coco_generic"):
        stage.fingerprint()


# With the real file.


@pytest.fixture(scope="module")
def weights() -> Path:
    folder = Path(os.environ.get("AVATAR_MODELS", ROOT.parent / "shared" / "models"))
    if not (folder / "yolox_nano.onnx").exists():
        pytest.skip("no weights of YOLOX: set AVATAR_MODELS or put them in ../shared/models")
    return folder / "yolox_nano.onnx"


def test_the_authors_file_is_taken_for_its_own_variant_alone(weights: Path) -> None:
    load_network(weights, NAME)
    for other in ("yolox-tiny", "yolox-s", "yolox-m", "yolox-l", "yolox-x"):
        with pytest.raises(UsageError, match=f"{other} "):
            load_network(weights, other)


def test_the_whole_stage_runs_on_real_videos_with_motion_beside_it(
    tmp_path: Path, weights: Path, shared: Path, one_process: None
) -> None:
    add(NAME, weights)
    workspace = sampled(tmp_path / "ws", shared, limit=4)

    def proposed(*detectors: str) -> list[Proposal]:
        said = [f"propose.detectors={list(detectors)}", "propose.classes=generic"]
        workspace = Workspace(tmp_path / "ws", said)
        run_stage(workspace, "propose", RunOptions(workers=1, redo=True))
        return workspace.rows(Proposal)

    alone = proposed(NAME)
    assert {row.detector for row in alone} == {NAME}
    coco = load_taxonomy().of_seen("coco", generic=True)
    for row in alone:
        assert set(row.categories) <= set(coco[row.detector_class])
        assert row.bbox[0] + row.bbox[2] <= 640.001
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "ws").rglob("cache/**/*.json")}
    both = proposed(NAME, "motion")
    assert {row.detector for row in both} == {NAME, "motion"}
    heard = {row.proposal_id for row in alone if row.audible}
    assert heard <= {row.proposal_id for row in both}, "motion pushes none of them out"
    known = {name for found in coco.values() for name in found}
    for row in both:
        if row.detector == "motion":
            assert not known & set(row.categories), "only what COCO has no class for"
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "ws").rglob("cache/**/*.json")}
    assert kept.items() <= after.items(), "no kept answer was made again"
    said = preview_settings(
        Workspace(tmp_path / "ws"), ["propose.min_score=0.4", "propose.max_boxes=3"]
    )
    assert said.unanswered == 0
    stricter = Workspace(tmp_path / "ws", ["propose.min_score=0.4", "propose.max_boxes=3"])
    run_stage(stricter, "propose", RunOptions(workers=1, redo=True))
    ids_before, ids_after = (
        {row.proposal_id for row in rows} for rows in (both, stricter.rows(Proposal))
    )
    assert said.boxes == (len(ids_after - ids_before), len(ids_before - ids_after))
    always = preview_settings(Workspace(tmp_path / "ws"), ["propose.motion=always"])
    assert always.unanswered > 0, "motion has not looked at every frame"
    assert workspace.config.propose.detectors == ["motion"]
