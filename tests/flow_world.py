"""A workspace that went through the whole flow on three short drawn videos, made once a session."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

from exports import Release
from pipeline import Workspace
from pipeline.synthetic.render import encode
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.world import scenes
from tests.pipeline.one_process import in_one_process

LENGTH_S = 11.0


@dataclass(frozen=True)
class Flow:
    """Where the files lie and what was made of them."""

    videos: Path
    listed: Path
    workspace: Workspace
    release: Release


def shortened(scene: Scene, video_id: str) -> Scene:
    """The first seconds of a scene, under another name."""
    sounds = tuple(
        sound.model_copy(
            update={
                "onsets": tuple(at for at in sound.onsets if at < LENGTH_S - 0.5),
                "end_s": min(sound.end_s, LENGTH_S),
            }
        )
        for sound in scene.sounds
    )
    return scene.model_copy(update={"video_id": video_id, "duration_s": LENGTH_S, "sounds": sounds})


def draw(folder: Path) -> tuple[Path, Path]:
    """Two short videos and one that is too short, and their list."""
    by_id = {scene.video_id: scene for scene in scenes()}
    chosen = [
        shortened(by_id["dogInMeadow"], "dogInMeadow"),
        shortened(by_id["carHonk_st1"], "-1pRmoJIGQc"),
        by_id["shortGuitar"].model_copy(update={"sounds": (), "duration_s": 1.0}),
    ]
    videos, listed = folder / "videos", folder / "vggsound.csv"
    videos.mkdir(parents=True)
    for scene in chosen:
        encode(scene, videos / f"{scene.video_id}.mp4")
    with listed.open("w", newline="") as stream:
        csv.writer(stream).writerows([s.video_id, 0, s.label, s.split] for s in chosen)
    return videos, listed


def run_flow(folder: Path) -> Flow:
    """Everything from the list to a release, from Python."""
    videos, listed = draw(folder)
    root = folder / "ws"
    Workspace.create(root, "offline")
    template = f"download.source_template={videos}/{{video_id}}.mp4"
    workspace = Workspace(root, [template])
    assert workspace.download(listed, dry_run=True).counts["input"] == 0
    with pytest.MonkeyPatch.context() as patch:
        in_one_process(patch)
        assert workspace.download(listed, workers=1).counts["ok"] == 2
        for stage in ("sample", "propose", "accept", "segment"):
            summary = workspace.run(stage, workers=1)
            assert summary.counts["ok"] == summary.counts["input"] > 0, summary
    return Flow(videos, listed, workspace, workspace.export("0.1", unverified=True))
