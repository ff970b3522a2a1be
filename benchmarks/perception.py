"""What each choice of ears and eyes finds on real videos whose sounding things are known by eye.

    python -m benchmarks.perception --videos DIR --models DIR --out perception.json

``DIR`` of the videos holds ``<id>.mp4``, a list in VGGSound's columns (``*.csv``) and
``ground_truth.json``: frames by ``video_id`` and ``time_s``, each with ``instances`` of
``category`` and ``bbox`` ``[x, y, w, h]`` in pixels. ``DIR`` of the models holds the publishers'
files under their own names; a combination whose weights are not there says so in place of figures.

The videos go through the package's own stages with the shipped settings of a profile. CPU seconds
are those of the stage's rows in this process, on one thread, with the model open already; per clip
that has a row in ``clips``. A mask is asked for every box that is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe

os.environ.setdefault("OMP_NUM_THREADS", "1")

COMBINATIONS = (
    "vggsound-label+motion+grabcut",
    "efficientat-mn04-as+motion+grabcut",
    "efficientat-mn04-as+yolox-nano+grabcut",
    "efficientat-mn04-as+yolox-nano+motion+grabcut",
    "efficientat-mn10-as+dfine-small-obj365+motion+edgetam",
)
"""Tagger, detectors and segmenter, joined by ``+``; the first is the profile ``offline``, the last
is ``light``."""

SAME_FRAME_S = 0.02
"""A frame of the ground truth and a chosen one this near in time are one."""

FOUND_IOU = 0.5

LABELLED_S = 10.0
"""What the list's label speaks of, from the video's start."""


@dataclass(frozen=True)
class Thing:
    """A sounding thing by eye."""

    video_id: str
    time_s: float
    category: str
    bbox: list[float]


def things(videos: Path) -> list[Thing]:
    """Read the ground truth beside the videos."""
    found = json.loads((videos / "ground_truth.json").read_text())
    return [
        Thing(frame["video_id"], frame["time_s"], one["category"], one["bbox"])
        for frame in found["frames"]
        for one in frame["instances"]
    ]


def sampled(videos: Path, root: Path) -> None:
    """Make a workspace with the clips and frames of the videos, by the shipped settings."""
    from pipeline.cli.python import Workspace

    template = f"download.source_template={videos.resolve()}/{{video_id}}.mp4"
    Workspace.create(root, "offline")
    workspace = Workspace(root, [template])
    (listed,) = sorted(videos.glob("*.csv"))
    workspace.download(listed)
    workspace.run("sample")


def split(combination: str) -> tuple[str, list[str], str]:
    """Return tagger, detectors and segmenter."""
    tagger, *detectors, segmenter = combination.split("+")
    return tagger, detectors, segmenter


def missing_weights(combination: str, models: Path | None) -> list[str]:
    """Register what the folder holds of a combination's weights; return the names of the rest."""
    from pipeline.models.catalogue import MODELS
    from pipeline.models.register import add

    tagger, detectors, segmenter = split(combination)
    missing = []
    for name in (tagger, *detectors, segmenter):
        if name not in MODELS:
            continue
        files = MODELS[name].files
        path = models / (files[0].name if len(files) == 1 else name) if models else None
        if path is None or not path.exists():
            missing.append(name)
        else:
            add(name, path)
    return missing


def boxes_by(combination: str) -> list[str]:
    """Return the settings of ``hear`` and ``propose`` of a combination."""
    from pipeline.config import PROFILES
    from pipeline.workspace.settings_file import render_value

    tagger, detectors, _ = split(combination)
    typed = [f"hear.tagger={tagger}", f"propose.detectors={render_value(detectors)}"]
    if any(name != "motion" for name in detectors):
        light = {**PROFILES["light"]["propose"], "detectors": detectors}
        typed += [f"propose.{key}={render_value(value)}" for key, value in light.items()]
    return typed


def measure(combination: str, videos: Path, base: Path) -> dict[str, Any]:
    """Run one combination over the sampled workspace ``base`` and judge it."""
    import shutil

    from pipeline.cli.python import Workspace

    segmenter = split(combination)[-1]
    root = base.with_name("one")
    shutil.copytree(base, root)
    try:
        typed = [
            *boxes_by(combination),
            f"segment.segmenter={segmenter}",
            # Every box is asked about, so that each mask is one the stage would be asked for.
            "label.accept_score=0",
            "label.accept_max=100",
        ]
        workspace = Workspace(root, typed)
        seconds = {"hear": stage_seconds(workspace, "hear")}
        workspace.run("hear")
        unlinked = Workspace(root, [*typed, "propose.link=none"])
        seconds["boxes"] = stage_seconds(unlinked, "propose")
        # The detectors' answers are kept, and not asked for again.
        seconds["links"] = stage_seconds(workspace, "propose")
        for stage in ("propose", "accept"):
            workspace.run(stage)
        seconds["segment"] = stage_seconds(workspace, "segment")
        workspace.run("segment")
        return judged(workspace, things(videos), seconds)
    finally:
        shutil.rmtree(root)


def stage_seconds(workspace: Any, name: str) -> float:
    """CPU seconds of a stage's rows in this process, without opening its model."""
    import cv2

    from pipeline.flow import STAGES
    from pipeline.records.schema import TABLES
    from pipeline.run.stage import WorkerContext
    from pipeline.workspace.workspace import Lookups

    step = STAGES[name]
    stage = step.load()(getattr(workspace.config, step.section))
    with tempfile.TemporaryDirectory(dir=workspace.storage.path("commits")) as scratch:
        storage = workspace.storage
        stage.open(WorkerContext(storage, Path(scratch), Lookups(storage)))
        cv2.setNumThreads(1)
        rows = workspace.rows(TABLES[stage.spec.reads])
        batch = stage.spec.batch_size
        started = time.process_time()
        for first in range(0, len(rows), batch):
            list(stage.process(rows[first : first + batch]))
        spent = time.process_time() - started
        stage.close()
    return spent


def judged(workspace: Any, truth: list[Thing], seconds: dict[str, float]) -> dict[str, Any]:
    """Hold the tables of a workspace against the ground truth."""
    from pipeline.records.boxes import iou
    from pipeline.records.schema import Clip, Frame, Instance, Proposal, Sounds, Video
    from stages.taxonomy import load_taxonomy

    taxonomy = load_taxonomy(workspace.config.hear.taxonomy)
    clips, frames = workspace.rows(Clip), workspace.rows(Frame)
    label = {video.video_id: video.label for video in workspace.rows(Video)}
    active: dict[str, set[str]] = {}
    for row in workspace.rows(Sounds):
        found = {one.category for one in row.categories if one.active}
        active.setdefault(row.clip_id, set()).update(found)
    heard = []
    for clip in clips:
        by_eye = {
            thing.category
            for thing in truth
            if thing.video_id == clip.video_id and clip.start_s <= thing.time_s < clip.end_s
        }
        # Where no frame was judged by eye, the list's label says what sounds in the first 10 s.
        if not by_eye and clip.start_s < LABELLED_S / 2:
            by_eye = set(taxonomy.of_vggsound(label[clip.video_id]))
        if by_eye:
            heard.append(bool(by_eye & active.get(clip.clip_id, set())))
    boxes: dict[str, list[Any]] = {}
    for box in workspace.rows(Proposal):
        boxes.setdefault(box.frame_id, []).append(box)
    hit = Counter({"asked": 0, "box": 0, "named": 0, "not sampled": 0})
    per_category: dict[str, Counter[str]] = {}
    for thing in truth:
        frame = next(
            (
                one
                for one in frames
                if one.video_id == thing.video_id and abs(one.time_s - thing.time_s) <= SAME_FRAME_S
            ),
            None,
        )
        if frame is None:
            hit["not sampled"] += 1
            continue
        over = [b for b in boxes.get(frame.frame_id, []) if iou(b.bbox, thing.bbox) >= FOUND_IOU]
        named = any(thing.category in b.categories for b in over)
        hit.update({"asked": 1, "box": bool(over), "named": named})
        own = per_category.setdefault(thing.category, Counter())
        own.update({"asked": 1, "box": bool(over), "named": named})
    masks = Counter(row.kind for row in workspace_failures(workspace, "segment"))
    instances = len(workspace.rows(Instance))
    total = sum(map(len, boxes.values()))
    return {
        "clips": len(clips),
        "frames": len(frames),
        "heard": [sum(heard), len(heard)],
        "things": [hit["asked"], hit["not sampled"]],
        "recall_named": round(hit["named"] / max(1, hit["asked"]), 3),
        "recall_box": round(hit["box"] / max(1, hit["asked"]), 3),
        "boxes_per_frame": round(total / max(1, len(frames)), 2),
        "audible_per_frame": round(
            sum(b.audible for mine in boxes.values() for b in mine) / max(1, len(frames)), 2
        ),
        "frames_without_a_box": len(frames) - len(boxes),
        "masks": instances,
        "masks_failed": dict(masks),
        "cpu_s_per_clip": {
            name: round(spent / max(1, len(clips)), 3) for name, spent in seconds.items()
        },
        "by_category": {
            name: [own["named"], own["box"], own["asked"]]
            for name, own in sorted(per_category.items())
        },
    }


def workspace_failures(workspace: Any, stage: str) -> list[Any]:
    """Return the failed rows of a stage."""
    from pipeline.run.status import failed_rows

    return list(failed_rows(workspace, stage))


def table(results: dict[str, Any]) -> str:
    """Write the results as a table in Markdown."""
    head = (
        "| tagger + detectors + segmenter | heard | recall, right category | recall, box"
        " | boxes/frame | masks failed | CPU s/clip: hear | boxes | links | segment |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    lines = []
    for name, row in results.items():
        if isinstance(row, str):
            lines.append(f"| {name} | {row} | | | | | | | | |")
            continue
        cpu = row["cpu_s_per_clip"]
        failed = sum(row["masks_failed"].values())
        lines.append(
            f"| {name} | {row['heard'][0]}/{row['heard'][1]} | {row['recall_named']:.2f}"
            f" | {row['recall_box']:.2f} | {row['boxes_per_frame']:.1f}"
            f" | {failed}/{row['masks']} | {cpu['hear']:.2f} | {cpu['boxes']:.2f}"
            f" | {cpu['links']:.2f} | {cpu['segment']:.2f} |"
        )
    return head + "\n".join(lines)


def main() -> None:
    """Measure the combinations asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--combination", nargs="*", default=list(COMBINATIONS))
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="avatar-bench-") as folder:
        os.environ["AVATAR_BUILD_MODELS"] = f"{folder}/models"
        base = Path(folder, "ws")
        sampled(asked.videos, base)
        for name in asked.combination:
            missing = missing_weights(name, asked.models)
            if missing:
                results[name] = f"not run: no weights of {', '.join(missing)}"
            else:
                results[name] = measure(name, asked.videos, base)
            print(name, json.dumps(results[name]), flush=True)
    print(table(results))
    if asked.out:
        kept = {"machine": describe(), "combinations": results}
        asked.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
