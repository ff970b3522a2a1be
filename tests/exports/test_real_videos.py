"""Real videos through the whole chain to a release that verifies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pycocotools.coco import COCO

from exports import load_release
from pipeline.cli import cli


def typed(*words: str) -> None:
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_real_frames_export_and_verify(shared: Path, tmp_path: Path) -> None:
    videos = shared / "data/raw_videos"
    root = str(tmp_path / "ws")
    typed("init", root, "--profile", "offline")
    place = ("--workspace", root, "--set", "run.workers=1")
    typed(
        "download",
        *place,
        *("--list", str(videos / "vggsound_subset.csv"), "--limit", "3"),
        *("--source-template", f"{videos}/{{video_id}}.mp4"),
        *("--max-failed", "100%"),
    )
    typed("sample", *place)
    typed("propose", *place)
    typed("label", "accept", *place)
    typed("segment", *place)
    typed("export", *place, "--version", "0.1", "--unverified")
    folder = tmp_path / "ws/releases/0.1"
    typed("export", "--verify", str(folder))
    opened = load_release(folder)
    assert len(opened) > 0
    coco = COCO(str(folder / "annotations/instances.json"))
    for frame in opened:
        assert frame.image().shape[:2] == frame.mask().shape
        for thing in frame.instances:
            theirs = coco.annToMask(coco.loadAnns([thing.id])[0]).astype(bool)
            np.testing.assert_array_equal(theirs, thing.mask())
    assert json.loads((folder / "statistics.json").read_bytes())["frames"]["total"] == len(opened)
