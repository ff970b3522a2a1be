"""What a mask by ``grabcut`` costs and how near it is to GrabCut without shortcuts.

    python -m benchmarks.grabcut --videos DIR [--models DIR] --out grabcut.json

The boxes are those that ``motion`` proposes in the frames sampled of the videos (``DIR`` as for
``benchmarks.perception``), and with ``--models`` those of ``yolox-nano`` and ``motion`` too; every
``--every``-th of them. The reference is ``grabcut`` with all its rules and no shortcut: every box
at full size, five rounds. From where its k-means begins is chance, so the reference stands beside
itself with other seeds, and with a grey level of noise on the picture: which shows how much of a
difference is chance.

CPU seconds on one thread, of every way in turn, box by box. IoU where both ways found something.
Then the same against what is drawn, of true boxes in drawn pictures of two sizes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.mask_tracks import iou
from benchmarks.perception import boxes_by, missing_weights, sampled
from benchmarks.tracks import FIRST_SEED, KINDS, events, walking_scene
from pipeline.cli.python import Workspace
from pipeline.config import SegmentConfig
from pipeline.records.schema import Frame, Proposal
from pipeline.synthetic.drawing import Painter, box_of, silhouettes
from pipeline.synthetic.scene import Scene
from pipeline.workspace.recorded import frame_bytes
from stages.backends.frame_image import decode_frame_image
from stages.backends.grabcut.cutting import GrabCut
from stages.backends.interfaces import Hint, Image

Box = list[float]
Mask = NDArray[np.bool_]

REFERENCE = "full size, 5 rounds, seed 0"
NOISE = "a grey level of noise, seed 0"
COMBINATIONS = (
    "vggsound-label+motion+grabcut",
    "efficientat-mn04-as+yolox-nano+motion+grabcut",
)
"""Those of ``benchmarks.perception`` whose boxes are cut; the second with models alone."""


class Unhurried(GrabCut):
    """``grabcut`` without its shortcuts.

    Args:
        seed: of its k-means.
    """

    whole_px = math.inf
    settled = -1.0

    def __init__(self, seed: int) -> None:
        super().__init__(SegmentConfig(grabcut_iterations=5))
        self.seed = seed


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


def noisy(image: Image) -> Image:
    """Move each value by one grey level at most, which nobody sees."""
    moved = image + np.random.default_rng(0).integers(-1, 2, image.shape)
    return np.asarray(np.clip(moved, 0, 255), np.uint8)


def cut(segmenter: GrabCut, image: Image, box: Box) -> tuple[Mask, float]:
    """Return the mask of a box, and the CPU seconds it took."""
    began = time.process_time()
    mask = segmenter.refine(segmenter.embed(image), Hint(box)).mask
    return mask, time.process_time() - began


def measure(videos: Path, models: Path | None, every: int) -> dict[str, Any]:
    """Cut every box in every way."""
    ways: dict[str, GrabCut] = {
        REFERENCE: Unhurried(0),
        "full size, 5 rounds, seed 1": Unhurried(1),
        "full size, 5 rounds, seed 2": Unhurried(2),
        NOISE: Unhurried(0),
        "grabcut": GrabCut(SegmentConfig()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    ious: dict[str, list[float]] = {name: [] for name in ways}
    alone = dict.fromkeys(ways, 0)
    for image, box in boxes(videos, models, every):
        masks = {}
        for name, segmenter in ways.items():
            seen = noisy(image) if name == NOISE else image
            masks[name], spent = cut(segmenter, seen, box)
            seconds[name].append(spent)
        true = masks[REFERENCE]
        for name, mask in masks.items():
            if mask.any() and true.any():
                ious[name].append(iou(mask, true))
            else:
                alone[name] += bool(mask.any() != true.any())
    mean = {name: float(np.mean(spent)) for name, spent in seconds.items()}
    return {
        "boxes": len(seconds[REFERENCE]),
        "ways": {
            name: {
                "cpu_s_mean": round(mean[name], 3),
                "cpu_s_median": round(float(np.median(seconds[name])), 3),
                "cpu_s_most": round(max(seconds[name]), 3),
                "cpu_of_reference": round(mean[name] / mean[REFERENCE], 2),
                "iou_mean": round(float(np.mean(ious[name])), 4),
                "iou_median": round(float(np.median(ious[name])), 4),
                "found_by_one_alone": alone[name],
            }
            for name in ways
        },
    }


def drawn(clips: int, times: int) -> Iterator[tuple[Image, Box, Mask]]:
    """Yield the things of drawn clips, so many times as large as 640x360, and what they cover."""
    for seed in range(FIRST_SEED, FIRST_SEED + clips):
        rng = np.random.default_rng(seed)
        scene = enlarged(walking_scene(KINDS[seed % len(KINDS)], rng)[0], times)
        painter = Painter(scene)
        for index in events(rng):
            picture = np.ascontiguousarray(painter.frame(index)[:, :, ::-1])
            for true in silhouettes(scene, index).values():
                box = box_of(true)
                if box is not None and min(box[2:]) >= 14 * times:
                    yield picture, [float(side) for side in box], true


def enlarged(scene: Scene, times: int) -> Scene:
    """Return a scene with everything so many times as large."""
    by_px = ("x", "y", "size", "walk_px_s")
    actors = (
        actor.model_copy(update={name: times * getattr(actor, name) for name in by_px})
        for actor in scene.actors
    )
    camera = {name: times * getattr(scene.camera, name) for name in ("swing_px", "drift_px_s")}
    changes = {
        "width": times * scene.width,
        "height": times * scene.height,
        "actors": tuple(actors),
        "camera": scene.camera.model_copy(update=camera),
    }
    return scene.model_copy(update=changes)


def against_truth(clips: int, times: int) -> dict[str, Any]:
    """Hold the masks of true boxes against what is drawn."""
    ways = {REFERENCE: Unhurried(0), "grabcut": GrabCut(SegmentConfig())}
    ious: dict[str, list[float]] = {name: [] for name in ways}
    seconds = dict.fromkeys(ways, 0.0)
    for image, box, true in drawn(clips, times):
        for name, segmenter in ways.items():
            mask, spent = cut(segmenter, image, box)
            ious[name].append(iou(mask, true))
            seconds[name] += spent
    count = len(ious[REFERENCE])
    return {
        "size": [640 * times, 360 * times],
        "boxes": count,
        "ways": {
            name: {
                "cpu_s_mean": round(seconds[name] / count, 3),
                "iou_mean": round(float(np.mean(ious[name])), 4),
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
    parser.add_argument("--clips", type=int, default=45, help="drawn clips")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    cv2.setNumThreads(1)
    found = measure(args.videos, args.models, args.every)
    sizes = ((1, args.clips), (3, args.clips // 3))  # in the large, a mask costs ten times as much
    found["drawn"] = [against_truth(clips, times) for times, clips in sizes]
    what = "masks by grabcut: CPU seconds of a mask, and IoU with the reference and with the truth"
    document = {"what": what, "machine": describe(), "load": round(load, 1), **found}
    args.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
