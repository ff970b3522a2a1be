"""A workspace of real videos, proposed on by a real detector with random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.workspace import Workspace
from stages.download.import_list import import_list
from tests.pipeline.one_process import in_one_process

DETECTOR = "yolov8n-oiv7"


def sampled(root: Path, shared: Path, limit: int) -> Workspace:
    """The first videos of the list with their clips, frames and sounds."""
    videos = shared / "data" / "raw_videos"
    template = f"download.source_template='{videos}/{{video_id}}.mp4'"
    Workspace.create(root, "offline")
    workspace = Workspace(root, [template])
    import_list(workspace, videos / "vggsound_subset.csv", (), limit)
    with pytest.MonkeyPatch.context() as patch:
        in_one_process(patch)
        for stage in ("download", "sample", "hear"):
            run_stage(workspace, stage, RunOptions(workers=1))
    return workspace


def settings(*more: str) -> list[str]:
    """Those of the detector, and more."""
    return [f"propose.detector={DETECTOR}", "propose.image_px=320", "run.workers=1", *more]


def propose(root: Path, *more: str, redo: bool = False) -> Workspace:
    """Run the stage as the command does."""
    workspace = Workspace(root, settings(*more))
    run_stage(workspace, "propose", RunOptions(workers=1, redo=redo))
    return workspace


if __name__ == "__main__":
    propose(Path(sys.argv[1]))
