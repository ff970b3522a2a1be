"""Our YOLOX against what the authors' own file answers about real frames.

The fixtures are read from the folder ``yolox`` of ``AVATAR_PARITY`` (or that folder itself), the
weights from ``AVATAR_MODELS``. Which frames, the fixtures say; which network, the size of its rows.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.config import ProposeConfig
from stages.backends.yolox import detections, load_network, prepare, side_px
from tests.conftest import ROOT

pytest.importorskip("onnxruntime")

RAW_RTOL = 2e-3
"""Of the largest absolute value."""
SCORE_ATOL = 2e-3
BOX_ATOL_PX = 1.0
SETTINGS = ProposeConfig(raw_score=0.25, min_score=0.25, raw_iou=0.45)
"""The bounds of the fixtures' boxes."""


@pytest.fixture(scope="module")
def folder() -> Path:
    parity = Path(os.environ.get("AVATAR_PARITY", ROOT.parent / "shared" / "parity"))
    for folder in (parity / "yolox", parity):
        if (folder / "boxes.json").exists():
            return folder
    pytest.skip("no parity fixtures: set AVATAR_PARITY or put them in ../shared/parity")


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, tuple[Any, Any, list[dict[str, Any]], Any, int]]:
    """Of each frame: the raw answer, the fixture's rows of it, its boxes, our scale and side."""
    models = Path(os.environ.get("AVATAR_MODELS", ROOT.parent / "shared" / "models"))
    with np.load(folder / "io.npz") as stored:
        io = dict(stored)
    found = {}
    for name, boxes in json.loads((folder / "boxes.json").read_text()).items():
        image = cv2.imread(str(folder / f"{name}.png"))
        assert image is not None
        for size in ("nano", "tiny", "s", "m", "l", "x"):
            path, variant = models / f"yolox_{size}.onnx", f"yolox-{size}"
            side = side_px(variant)
            if path.exists() and _could_be(io[f"{name}_rows"], side):
                break
        else:
            pytest.skip("no weights of YOLOX: set AVATAR_MODELS or put them in ../shared/models")
        network = load_network(path, variant)
        pixels, scale = prepare(image[:, :, ::-1].astype(np.uint8), side)
        (raw,) = network.run(None, {network.get_inputs()[0].name: pixels})
        parts = {part: io[f"{name}_{part}"] for part in ("rows", "raw", "sum")}
        found[name] = (raw[0], parts, boxes, scale, side)
    return found


def _could_be(rows: Any, side: int) -> bool:
    return int(rows.max()) < sum((side // stride) ** 2 for stride in (8, 16, 32))


def test_the_raw_answer_is_the_authors(answers: dict[str, Any]) -> None:
    assert answers
    for raw, parts, *_ in answers.values():
        wanted = parts["raw"]
        atol = RAW_RTOL * np.abs(wanted).max()
        np.testing.assert_allclose(raw[parts["rows"]], wanted, rtol=0, atol=atol)
        sums = [raw.sum(dtype=np.float64), np.abs(raw).sum(dtype=np.float64)]
        np.testing.assert_allclose(sums, parts["sum"], rtol=RAW_RTOL)


def test_the_boxes_are_the_authors_to_a_pixel(answers: dict[str, Any]) -> None:
    for raw, _, boxes, scale, side in answers.values():
        ours = detections(raw, side, scale, SETTINGS)
        wanted = sorted(boxes, key=lambda one: -one["score"])
        assert [d.name for d in ours] == [one["name"] for one in wanted]
        for d, one in zip(ours, wanted, strict=True):
            assert d.score == pytest.approx(one["score"], abs=SCORE_ATOL)
            assert d.bbox == pytest.approx(one["bbox"], abs=BOX_ATOL_PX)
