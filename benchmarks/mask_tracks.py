"""How alike the masks of a thing in a clip's frames are, and what one that is right says of others.

    python -m benchmarks.mask_tracks --videos DIR --out mask_tracks.json

Drawn clips whose exact truth is known, as ``benchmarks.tracks`` has them. A person has decided the
boxes, so these are the true ones, and has made the first frame's mask right. Measured for the same
thing in the later frames, against the truth: the segmenter's mask; the first frame's, moved and
stretched with its box; and the segmenter's answer to points from that, as ``label backend`` gives
it. *Where not alike*: of the masks that the moved one does not overlap by ``label.alike_iou``.

A mask needs no hand from an IoU of ``RIGHT_IOU`` with the truth on. For bounds of
``label.alike_iou``: how many later masks of the segmenter's are alike to its first one, and how
many of these need no hand where the first needs none. And of the demo's world and of real videos
(``--videos``), boxes by ``motion`` and the rule of ``label accept``, masks by ``grabcut``: how many
tasks their masks are, by frame and by clip.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.perception import sampled
from benchmarks.tracks import FIRST_SEED, FPS, KINDS, SECONDS, events, walking_scene
from labeling.projects.mask_project import MaskQuestions
from pipeline.cli.python import Workspace
from pipeline.config import LabelConfig, SegmentConfig
from pipeline.records.moved_masks import moved, overlap, points_of
from pipeline.records.rle import Mask
from pipeline.synthetic.drawing import Painter, box_of, silhouettes
from pipeline.synthetic.render import render_world
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import SEGMENTERS, Hint, Refiner, make_backend

os.environ.setdefault("OMP_NUM_THREADS", "1")

RIGHT_IOU = 0.85
BOUNDS = (0.7, 0.75, 0.8, 0.85, 0.9)


@dataclass
class Seen:
    """A thing in one frame."""

    box: list[float]
    true: Mask
    own: Mask
    """The segmenter's."""
    embedding: Any


def things(number: int, segmenter: Refiner) -> Iterator[list[Seen]]:
    """Yield each thing of drawn clips in the frames it is seen in, in order."""
    for seed in range(FIRST_SEED, FIRST_SEED + number):
        rng = np.random.default_rng(seed)
        before, after = walking_scene(KINDS[seed % len(KINDS)], rng)
        cut = int(rng.integers(60, 190)) if after else SECONDS * FPS
        painter = Painter(before)
        seen: dict[str, list[Seen]] = {}
        for index in events(rng):
            if index >= cut:
                break
            picture = np.ascontiguousarray(painter.frame(index)[:, :, ::-1])
            embedding = segmenter.embed(picture)
            for name, true in silhouettes(before, index).items():
                box = box_of(true)
                if box is not None and min(box[2:]) >= 14:
                    sides = [float(side) for side in box]
                    own = segmenter.refine(embedding, Hint(sides)).mask
                    seen.setdefault(name, []).append(Seen(sides, true, own, embedding))
        yield from (found for found in seen.values() if len(found) > 1)


def iou(one: Mask, other: Mask) -> float:
    """Return the IoU of two masks; 0 when both are empty."""
    return overlap(one, [0, 0, 1, 1], other, [0, 0, 1, 1])


def measure(number: int, segmenter: Refiner, alike_iou: float) -> dict[str, Any]:
    """Measure so many drawn clips."""
    ious: dict[str, list[float]] = {name: [] for name in ("segmenter", "moved", "prompted")}
    agrees: list[bool] = []
    first_right: list[bool] = []
    likeness: list[float] = []
    for first, *later in things(number, segmenter):
        for one in later:
            carried = moved(first.true, first.box, one.box, one.true.shape[:2])
            prompted = segmenter.refine(
                one.embedding, Hint(one.box, points_of(carried, one.box))
            ).mask
            agrees.append(iou(carried, one.own) >= alike_iou)
            ious["segmenter"].append(iou(one.own, one.true))
            ious["moved"].append(iou(carried, one.true))
            ious["prompted"].append(iou(prompted, one.true))
            first_right.append(iou(first.own, first.true) >= RIGHT_IOU)
            likeness.append(overlap(first.own, first.box, one.own, one.box))
    right = np.array(ious["segmenter"]) >= RIGHT_IOU
    alike = np.array(likeness)
    known = np.array(first_right)
    return {
        "clips": number,
        "masks_after_the_first": len(right),
        "right_iou": RIGHT_IOU,
        "all": _told(ious, np.ones(len(right), bool)),
        "where_not_alike": _told(ious, ~np.array(agrees)),
        "by_alike_iou": {
            str(bound): {
                "alike": _share(alike >= bound),
                "alike_where_first_right": _share((alike >= bound)[known]),
                "right_of_these": _share(right[(alike >= bound) & known]),
            }
            for bound in BOUNDS
        },
    }


def _told(ious: dict[str, list[float]], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """Sum up the masks that are chosen."""
    found = {name: np.array(rows)[chosen] for name, rows in ious.items()}
    return {
        "masks": int(chosen.sum()),
        "need_no_hand": {name: _share(rows >= RIGHT_IOU) for name, rows in found.items()},
        "mean_iou": {name: round(float(rows.mean()), 3) for name, rows in found.items()},
    }


def _share(values: NDArray[np.bool_]) -> float | None:
    return round(float(values.mean()), 3) if len(values) else None


def in_demo_world(folder: Path) -> Workspace:
    """Make the demo's world up to boxes by rule and their masks."""
    world = render_world(folder / "world")
    template = f"download.source_template={world.videos.resolve()}/{{video_id}}.mp4"
    Workspace.create(folder / "demo", "offline")
    workspace = Workspace(folder / "demo", [template])
    workspace.download(world.csv)
    workspace.run("sample")
    return with_masks(workspace)


def with_masks(workspace: Workspace) -> Workspace:
    """Take proposals by the shipped rule, and segment them."""
    for stage in ("hear", "propose", "accept", "segment"):
        workspace.run(stage)
    return workspace


def asked_of(workspace: Workspace) -> dict[str, Any]:
    """Count the tasks that a workspace's masks are, by frame and by clip."""
    by_clip = Workspace(workspace.storage.url, ["label.task=clip"])
    questions = MaskQuestions(by_clip, [])
    frames = questions.frames()
    groups = questions.groups(frames)
    return {
        "clips": len({frame.clip_id for frame in frames}),
        "frames": len(frames),
        "tasks_by_clip": len(groups),
        "frames_beside_another": sum(len(others) for _, others in groups),
    }


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--segmenter", default="grabcut", choices=list(SEGMENTERS))
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    segmenter: Refiner = make_backend(
        SEGMENTERS, options.segmenter, SegmentConfig(segmenter=options.segmenter)
    )
    segmenter.fingerprint()
    segmenter.open(Storage(Path()))
    bound = LabelConfig().alike_iou
    found = {
        "machine": describe(),
        "segmenter": options.segmenter,
        "alike_iou": bound,
        "drawn": measure(options.clips, segmenter, bound),
    }
    with tempfile.TemporaryDirectory() as folder:
        found["demo"] = asked_of(in_demo_world(Path(folder)))
        if options.videos:
            sampled(options.videos, Path(folder, "real"))
            found["real"] = asked_of(with_masks(Workspace(Path(folder, "real"))))
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
