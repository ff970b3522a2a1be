"""What ``tune`` learns from reviews, and what that is worth on videos it did not learn from.

    python -m benchmarks.tuning [--worlds 8] [--videos DIR --models DIR] --out tuning.json

The drawn world is drawn several times over, each time with other textures, cameras and strokes, and
reviewed by the simulated annotator; so are real frames whose sounding things are known by eye
(``DIR`` of the videos as in ``benchmarks.perception``). ``held_out`` counts every video under
thresholds learnt from the half of the videos it is not in. Odd about the drawn world: the same
scenes come again in each of its worlds, so one half is more like the other than real videos are.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.perception import things

TAGGER = "efficientat-mn04-as"
DETECTOR = "yolox-nano"
EYE_S = 0.02
"""A judged frame is this near to the one it was judged on."""


def draw(folder: Path, worlds: int) -> Path:
    """Draw the world's usable videos so many times, with their list and truth; its folder."""
    from pipeline.synthetic.render import encode
    from pipeline.synthetic.truth import Truth, truth_of
    from pipeline.synthetic.world import REJECTED_IDS, TRUNCATED_ID, scenes

    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    drawn = [
        scene.model_copy(update={"video_id": f"{scene.video_id[:9]}{seed:02d}"})
        for seed in range(worlds)
        for scene in scenes(seed)
        if scene.sounds and scene.video_id not in (*REJECTED_IDS, TRUNCATED_ID)
    ]
    for scene in drawn:
        if not (videos / f"{scene.video_id}.mp4").exists():
            encode(scene, videos / f"{scene.video_id}.mp4")
    with (videos / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([s.video_id, 0, s.label, s.split] for s in drawn)
    truth = Truth(videos={scene.video_id: truth_of(scene) for scene in drawn}, scenes={})
    (folder / "truth.json").write_text(json.dumps(truth))
    return videos


def by_eye(videos: Path, workspace: Any) -> dict[str, Any]:
    """Make the truth of the frames that were judged by eye; of the others nothing is said."""
    from pipeline.records.schema import Video

    found: dict[str, Any] = {}
    for video in workspace.rows(Video):
        mine = [thing for thing in things(videos) if thing.video_id == video.video_id]
        if not mine:
            continue
        length = round(video.duration_s * video.fps) + 2
        objects, sounds = [], []
        for number, thing in enumerate(mine):
            boxes: list[list[float] | None] = [None] * length
            at = round(thing.time_s * video.fps)  # times by eye are rounded
            boxes[max(0, at - 1) : at + 2] = [thing.bbox] * (at + 2 - max(0, at - 1))
            name = f"{thing.category} {number}"
            objects.append({"name": name, "category": thing.category, "boxes": boxes})
            span = {"start_s": thing.time_s - EYE_S, "end_s": thing.time_s + EYE_S}
            sounds.append({"object": name, "category": thing.category, **span})
        size = {"width": video.width, "height": video.height}
        found[video.video_id] = {"fps": video.fps, **size, "objects": objects, "sounds": sounds}
    return {"videos": found}


def review(workspace: Any, truth: Path) -> None:
    """Let the simulated annotator review every frame it knows the truth of."""
    from labeling.automatic.simulated import SimulatedConfig
    from pipeline.run.runner import RunOptions, run_stage

    run_stage(workspace, "simulate", RunOptions(), config=SimulatedConfig(truth=str(truth)))


def proposed(videos: Path, root: Path, *settings: str) -> Any:
    """Make a workspace of the videos, with proposals by the settings."""
    from pipeline.cli.python import Workspace

    Workspace.create(root, "offline")
    template = f"download.source_template={videos.resolve()}/{{video_id}}.mp4"
    workspace = Workspace(root, [template, *settings])
    (listed,) = videos.glob("*.csv")
    workspace.download(listed)
    for stage in ("sample", "propose"):
        workspace.run(stage)
    return workspace


def learnt(workspace: Any, *, min_videos: int) -> dict[str, Any]:
    """Tune at two allowances, and return what each is worth."""
    from stages.propose.tuning import tune

    rows = {}
    for max_loss in (0.0, 0.02):
        found = tune(workspace, max_loss, min_videos).as_dict()
        rows[f"max_loss {max_loss:g}, min_videos {min_videos}"] = {
            "frames": found["frames"],
            "thresholds": len(found["thresholds"]),
            **{name: found[name] for name in ("before", "after", "held_out")},
        }
    return rows


def main() -> None:
    """Draw, propose, review, tune, and write what it was worth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--folder", type=Path, help="Where drawn videos are, to use them again.")
    parser.add_argument("--out", type=Path, default=Path("tuning.json"))
    asked = parser.parse_args()
    from pipeline.models.catalogue import MODELS
    from pipeline.models.register import add

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch) / "world"
        choices: dict[str, list[str]] = {"vggsound-label + motion": []}
        if asked.models:
            for name in (TAGGER, DETECTOR):
                add(name, asked.models / MODELS[name].files[0].name)
            choices[f"{TAGGER} + motion"] = [f"hear.tagger={TAGGER}"]
        drawn = draw(folder, asked.worlds)
        for number, (name, settings) in enumerate(choices.items()):
            workspace = proposed(drawn, Path(scratch) / f"ws{number}", *settings)
            review(workspace, folder / "truth.json")
            results[f"drawn, {name}"] = learnt(workspace, min_videos=5)
        if asked.videos and asked.models:
            chosen = f'propose.detectors=["{DETECTOR}", "motion"]'
            settings = [f"hear.tagger={TAGGER}", chosen]
            workspace = proposed(asked.videos, Path(scratch) / "real", *settings)
            truth = Path(scratch) / "by_eye.json"
            truth.write_text(json.dumps(by_eye(asked.videos, workspace)))
            review(workspace, truth)
            results[f"real, {TAGGER} + {DETECTOR} + motion"] = learnt(workspace, min_videos=2)
    asked.out.write_text(json.dumps({"machine": describe(), "results": results}, indent=1))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
