"""A workspace with frames to label: one drawn video and what the stages said of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from labeling.projects.annotator_clips import make_around, make_loop
from pipeline.files import sha256_of
from pipeline.records import rle
from pipeline.records.schema import (
    TABLES,
    Clip,
    Frame,
    Instance,
    Mask,
    Proposal,
    Record,
    Review,
    Sounds,
    Video,
)
from pipeline.workspace.commit import Commit, Generation, Input
from pipeline.workspace.recorded import note_file
from pipeline.workspace.workspace import Workspace
from tests.rows import clip, frame, proposal, sounds, video
from tests.video_factory import bursts, make_video

VOCABULARY = ["cat", "dog", "lion"]


def name(index: int = 10) -> str:
    """The id of one of its frames; the first is 10."""
    return frame(index).frame_id


@cache
def film() -> bytes:
    """A video of 4 s, drawn once."""
    with TemporaryDirectory() as folder:
        path = make_video(Path(folder, "v.mp4"), frames=100, fps=25, sound=bursts(4.0, [2.0]))
        return path.read_bytes()


def fill(workspace: Workspace, frames: int = 3) -> Workspace:
    """Give it a video of 4 s and so many frames of it, each with one proposal, ``p_<index>``."""
    source = workspace.storage.path(video().path)
    source.write_bytes(film())
    shown = [frame(10 + number) for number in range(frames)]
    for row in shown:
        draw(workspace.storage.path(row.path), row.frame_index)
    boxes = [
        proposal(f"p_{row.frame_index}", frame_id=row.frame_id, bbox=[10.0, 20.0, 100.0, 80.0])
        for row in shown
    ]
    commit(workspace, "download", Video, [video()])
    commit(workspace, "sample", Clip, [clip(end_s=4.0)])
    commit(workspace, "choose", Frame, shown)
    commit(workspace, "hear", Sounds, [sounds()])
    commit(workspace, "propose", Proposal, boxes)
    return workspace


def fill_clips(workspace: Workspace, clips: int, frames: int = 5) -> Workspace:
    """Give it so many clips of the same video, each of so many frames with one proposal.

    What annotators watch is there already, as links to that of the first frame.
    """
    source = workspace.storage.path(video().path)
    source.write_bytes(film())
    names = [f"{video().video_id}_{number:08d}" for number in range(clips)]
    first = frame(10)
    draw(workspace.storage.path(first.path), 10)
    shown = [
        frame(
            10 + place,
            clip_id=one,
            frame_id=f"{one}_{10 + place:04d}",
            path=first.path,
        )
        for one in names
        for place in range(frames)
    ]
    boxes = [
        proposal(f"p_{row.frame_id}", frame_id=row.frame_id, bbox=[10.0, 20.0, 100.0, 80.0])
        for row in shown
    ]
    commit(workspace, "download", Video, [video()])
    commit(workspace, "sample", Clip, [clip(clip_id=one, end_s=4.0) for one in names])
    commit(workspace, "choose", Frame, shown)
    commit(workspace, "hear", Sounds, [sounds(clip_id=one) for one in names])
    commit(workspace, "propose", Proposal, boxes)
    config, storage = workspace.config.label, workspace.storage
    half, last = config.context_half_s, shown[frames - 1].time_s
    begin, end = max(0.0, first.time_s - half), min(4.0, last + half)
    made = {row.frame_id: make_loop(storage, row, video(), config) for row in shown[:frames]}
    around = make_around(storage, names[0], video(), begin, end)
    digests = {file: sha256_of(storage.path(file)) for file in [*made.values(), around]}
    for row in shown[frames:]:
        like = shown[row.frame_index - 10].frame_id
        _link(workspace, made[like], made[like].replace(like, row.frame_id), digests)
    for one in names[1:]:
        _link(workspace, around, around.replace(names[0], one), digests)
    return workspace


def _link(workspace: Workspace, there: str, name: str, digests: dict[str, str]) -> None:
    os.link(workspace.storage.path(there), workspace.storage.path(name))
    note_file(workspace.storage, name, digests[there])


def commit(workspace: Workspace, stage: str, record: type[Record], rows: Sequence[Record]) -> None:
    """Put rows into a table as a stage does, as one more file."""
    ledger = workspace.ledger(stage)
    ledger.begin(Generation(stage, 1, {}, {}, {}))
    ordinal = len(ledger.commits())
    whole = Commit(
        unit=f"{ordinal:06d}-x",
        ordinal=ordinal,
        stage=stage,
        stage_key="",
        unit_key="",
        input=Input((), ""),
        files=(),
        counts={"input": 0, "ok": 0, "dropped": 0, "failed": 0},
        code_revision="",
        versions={},
        started="",
        wall_s=0.0,
        cpu_s=0.0,
    )
    ledger.commit(whole, {record.table: (TABLES[record.table], list(rows))}, "test")


def add_reviews(workspace: Workspace, *reviews: Review) -> None:
    """One more file of reviews, as a labeling server's answers come in."""
    commit(workspace, "pull", Review, reviews)


def segment(workspace: Workspace, stage: str = "segment") -> None:
    """Masks for the instances as they are now, in place of the former."""
    ledger = workspace.ledger("segment")
    ledger.retire(ledger.commits(), "former")
    commit(workspace, stage, Mask, [mask_of(row, pixels()) for row in workspace.rows(Instance)])


def pixels(left: int = 10) -> Any:
    """A square of 40x40 in a frame, ``(180, 320)``."""
    mask = np.zeros((180, 320), dtype=bool)
    mask[20:60, left : left + 40] = True
    return mask


def mask_of(instance: Instance, drawn: Any, **changes: Any) -> Mask:
    """The mask of an instance with these pixels, ``(height, width)``, as ``grabcut`` has it."""
    packed = rle.encode(drawn)
    values: dict[str, Any] = {
        "instance_id": instance.instance_id,
        "frame_id": instance.frame_id,
        "rle": packed,
        "area": rle.area(packed),
        "bbox": rle.bbox(packed),
        "source": "grabcut",
        "model_digest": "",
        "predicted_iou": None,
        "verified": False,
    }
    return Mask(**(values | changes))


def categories(workspace: Workspace) -> dict[str, str]:
    """What sounds in each frame that has instances, by frame."""
    return {row.frame_id: row.audio_visual_category for row in workspace.rows(Instance)}


def draw(path: Path, seed: int) -> None:
    """A picture of 320x180."""
    pixels = np.random.default_rng(seed).integers(0, 255, (18, 32, 3), np.uint8)
    picture = cv2.resize(pixels, (320, 180), interpolation=cv2.INTER_CUBIC)
    assert cv2.imwrite(str(path), picture)


def review(frame: str, category: str, day: int, **changes: Any) -> Review:
    values: dict[str, Any] = {
        "review_id": f"r_{frame}_{day}",
        "frame_id": frame,
        "kind": "boxes",
        "annotator": "7",
        "annotation_id": f"{day}",
        "updated_at": f"2026-01-{day:02d}T00:00:00+00:00",
        "lead_time_s": 3.0,
        "decision": "labelled",
        "reject_reasons": [],
        "off_screen_category": None,
        "instances": [
            {
                "bbox": [1.0, 2.0, 3.0, 4.0],
                "category": category,
                "scenario": "Single-sound",
                "origin": "added",
                "proposal_id": None,
            }
        ],
        "verified": True,
    }
    return Review.model_validate(values | changes)


def sample(workspace: Workspace, *frame_ids: str) -> None:
    """Commit frames, as sampling does."""
    commit(workspace, "sample", Frame, [frame(frame_id=name) for name in frame_ids])


OLD = [10.0, 20.0, 100.0, 80.0]
NEAR, FAR = [12.0, 20.0, 100.0, 80.0], [200.0, 20.0, 100.0, 80.0]
"""Where the detector's box was, and where another detector finds it."""


def propose(workspace: Workspace, rows: list[Proposal]) -> None:
    """Redo ``propose``: the old proposals go, these come."""
    ledger = workspace.ledger("propose")
    ledger.retire(ledger.commits(), "redone")
    commit(workspace, "propose", Proposal, rows)


def detect(workspace: Workspace, boxes: dict[int, list[float]]) -> None:
    """Redo it with another detector."""
    rows = [
        proposal(f"p_other_{index}", frame_id=name(index), bbox=bbox, detector="other")
        for index, bbox in boxes.items()
    ]
    propose(workspace, rows)
