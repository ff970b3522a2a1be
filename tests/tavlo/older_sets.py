"""Releases of the older benchmarks, made of drawn files as their authors lay them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from exports.importers.import_release import import_release
from tavlo.evaluation.evaluation_set import EvaluationSet, read_release
from tests.video_factory import write_wav


def picture_file(path: Path, shade: int, size_hw: tuple[int, int] = (120, 160)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size_hw, 3), shade, np.uint8))


def vggss(folder: Path, boxes: Sequence[list[list[float]]], *, pairs: int = 0) -> EvaluationSet:
    """Samples with picture and sound, and negative pairs of each with the next."""
    source = folder / "source"
    source.mkdir(parents=True)
    names = [f"video{number:06d}_{number:06d}" for number in range(len(boxes))]
    rows = [{"file": n, "class": "dog", "bbox": b} for n, b in zip(names, boxes, strict=True)]
    (source / "vggss.json").write_text(json.dumps(rows))
    for number, name in enumerate(names):
        picture_file(source / f"{name}.jpg", 10 * number + 20)
        write_wav(source / f"{name}.wav", np.full((16_000, 1), (number + 1) / 100), 16_000)
    lines = [f"{names[n]},{names[n + 1]},non-sounding" for n in range(pairs)]
    (source / "vggss_test_plus_silent.csv").write_text("\n".join(["video,audio,label", *lines]))
    import_release(source, folder / "vggss-1")
    return read_release(folder / "vggss-1")


BOXES = [
    [[0.1, 0.1, 0.8, 0.7]],
    [[0.0, 0.0, 0.5, 0.5], [0.3, 0.3, 0.9, 0.9]],
    [[0.2, 0.6, 0.9, 1.0]],
    [[0.5, 0.1, 0.95, 0.95]],
]
