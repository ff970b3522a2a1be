"""A workspace with frames to label: one drawn video and what the stages said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from pipeline.ledger import Generation
from pipeline.schema import TABLES, Clip, Frame, Proposal, Record, Sounds, Video
from pipeline.workspace import Workspace
from tests.labeling.test_settle import COMMIT
from tests.rows import clip, frame, proposal, sounds, video
from tests.video_factory import bursts, make_video

VOCABULARY = ["cat", "dog", "lion"]


def fill(workspace: Workspace, frames: int = 3) -> Workspace:
    """Give it a video of 4 s and so many frames of it, each with one proposal, ``p_<index>``."""
    source = workspace.storage.path(video().path)
    make_video(source, frames=100, fps=25, sound=bursts(4.0, [2.0]))
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


def commit(workspace: Workspace, stage: str, record: type[Record], rows: Sequence[Record]) -> None:
    """Put rows into a table as a stage does."""
    ledger = workspace.ledger(stage)
    ledger.begin(Generation(stage, 1, {}, {}, {}))
    whole = replace(COMMIT, unit="000000-x", stage=stage)
    ledger.commit(whole, {record.table: (TABLES[record.table], list(rows))}, "test")


def draw(path: Path, seed: int) -> None:
    """A picture of 320x180."""
    pixels = np.random.default_rng(seed).integers(0, 255, (18, 32, 3), np.uint8)
    picture = cv2.resize(pixels, (320, 180), interpolation=cv2.INTER_CUBIC)
    assert cv2.imwrite(str(path), picture)
