"""What a mask by ``grabcut`` costs and how near it is to GrabCut without shortcuts, on real boxes.

    python -m benchmarks.grabcut --videos DIR [--models DIR] --out grabcut.json

The boxes are those that ``motion`` proposes in the frames sampled of the videos (``DIR`` as for
``benchmarks.perception``), and with ``--models`` those of ``yolox-nano`` and ``motion`` too; every
``--every``-th of them. The reference is GrabCut at full size: the box and half of its sides around
it, five rounds, small parts left out. From where its k-means begins is chance, so the reference
stands beside itself with other seeds, and with a grey level of noise on the picture: no shortcut
can agree with it better than that, but by luck.

CPU seconds on one thread, of every way in turn, box by box. IoU where both ways found something.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.perception import boxes_by, missing_weights, sampled
from pipeline.cli.python import Workspace
from pipeline.config import SegmentConfig
from pipeline.records.boxes import to_pixels
from pipeline.records.schema import Frame, Proposal
from pipeline.workspace.recorded import frame_bytes
from stages.backends.frame_image import decode_frame_image
from stages.backends.grabcut import GrabCutSegmenter
from stages.backends.interfaces import Hint, Image

Box = list[float]
Mask = NDArray[np.bool_]

ROUNDS = 5
SEEDS = (0, 1, 2)
REFERENCE = f"full size, {ROUNDS} rounds, seed 0"
MODES = 5
"""Colour modes of either side, each of which wants a pixel."""
COMBINATIONS = (
    "vggsound-label+motion+grabcut",
    "efficientat-mn04-as+yolox-nano+motion+grabcut",
)
"""Those of ``benchmarks.perception`` whose boxes are cut; the second with models alone."""


def boxes(videos: Path, models: Path | None, every: int) -> Iterator[tuple[Image, Box]]:
    """Yield every so-manieth proposed box of the videos, with its frame."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        sampled(videos, root)
        for number, combination in enumerate(COMBINATIONS if models else COMBINATIONS[:1]):
            if missing := missing_weights(combination, models):
                raise SystemExit(f"{models} lacks {', '.join(missing)}")
            workspace = Workspace(shutil.copytree(root, f"{root}-{number}"), boxes_by(combination))
            workspace.run("hear")
            workspace.run("propose")
            frames = {frame.frame_id: frame for frame in workspace.rows(Frame)}
            for row in workspace.rows(Proposal)[::every]:
                frame = frames[row.frame_id]
                data = frame_bytes(workspace.storage, frame)
                yield decode_frame_image(data, frame), list(row.bbox)


def reference(image: Image, box: Box, seed: int) -> Mask:
    """Cut a box at full size, whatever it costs; an empty mask where there is nothing to learn."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), bool)
    inner = to_pixels(box, width, height)
    if inner is None:
        return mask
    x0, y0, x1, y1 = inner
    across, down = max(10, round((x1 - x0) / 2)), max(10, round((y1 - y0) / 2))
    left, top = max(0, x0 - across), max(0, y0 - down)
    view = np.ascontiguousarray(image[top : y1 + down, left : x1 + across, ::-1])
    states = np.full(view.shape[:2], cv2.GC_BGD, np.uint8)
    states[y0 - top : y1 - top, x0 - left : x1 - left] = cv2.GC_PR_FGD
    inside = (x1 - x0) * (y1 - y0)
    if min(inside, states.size - inside) < MODES:
        return mask
    colours = np.zeros((1, 13 * MODES)), np.zeros((1, 13 * MODES))
    cv2.setRNGSeed(seed)
    cv2.grabCut(view, states, (0, 0, 1, 1), *colours, ROUNDS, cv2.GC_INIT_WITH_MASK)
    thing = np.isin(states, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(thing, connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    mask[top : top + len(view), left : left + view.shape[1]] = (areas >= 0.1 * areas.max())[
        parts
    ] & (thing > 0)
    return mask


def noisy(image: Image) -> Image:
    """Move each value by one grey level at most, which nobody sees."""
    moved = image + np.random.default_rng(0).integers(-1, 2, image.shape)
    return np.asarray(np.clip(moved, 0, 255), np.uint8)


def measure(videos: Path, models: Path | None, every: int) -> dict[str, Any]:
    """Cut every box in every way."""
    cv2.setNumThreads(1)
    segmenter = GrabCutSegmenter(SegmentConfig())
    ways: dict[str, Callable[[Image, Box], Mask]] = {
        f"full size, {ROUNDS} rounds, seed {seed}": partial(reference, seed=seed) for seed in SEEDS
    }
    ways["a grey level of noise, seed 0"] = lambda image, box: reference(noisy(image), box, 0)
    ways["grabcut"] = lambda image, box: segmenter.refine(segmenter.embed(image), Hint(box)).mask
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    ious: dict[str, list[float]] = {name: [] for name in ways}
    alone = dict.fromkeys(ways, 0)
    for image, box in boxes(videos, models, every):
        masks = {}
        for name, cut in ways.items():
            began = time.process_time()
            masks[name] = cut(image, box)
            seconds[name].append(time.process_time() - began)
        true = masks[REFERENCE]
        for name, mask in masks.items():
            if mask.any() and true.any():
                ious[name].append(float((mask & true).sum() / (mask | true).sum()))
            else:
                alone[name] += bool(mask.any() != true.any())
    mean = {name: float(np.mean(spent)) for name, spent in seconds.items()}
    return {
        "boxes": len(seconds[REFERENCE]),
        "ways": {
            name: {
                "cpu_s_mean": round(mean[name], 3),
                "cpu_s_median": round(float(np.median(seconds[name])), 3),
                "cpu_of_reference": round(mean[name] / mean[REFERENCE], 2),
                "iou_mean": round(float(np.mean(ious[name])), 4),
                "iou_median": round(float(np.median(ious[name])), 4),
                "found_by_one_alone": alone[name],
            }
            for name in ways
        },
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    found = measure(args.videos, args.models, args.every)
    what = "masks by grabcut on real boxes: CPU seconds of a mask, and IoU with the reference"
    document = {"what": what, "machine": describe(), "load": round(load, 1), **found}
    args.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
