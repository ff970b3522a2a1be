"""How far the links between a clip's boxes are right, and what they cost and spare.

    python -m benchmarks.tracks --videos DIR --models DIR --out tracks.json

Three worlds. *Walking*: drawn clips of 10 s whose exact truth is known: things that stand, walk or
cross, look-alikes among them, on a panning camera, some cut in the middle to a scene with
look-alikes in the same places; boxes are the true ones, 4 % off on each side, one in twelve
missing, now and then a false one. Its seeds are not those the thresholds were chosen on. *Demo*:
the demo's world through the package's own stages, boxes by ``motion``, the simulated annotator in
place of people. *Real* (with ``--videos``): as ``benchmarks.perception`` has it, with the detectors
whose weights are in ``--models``.

A pair is two boxes in different frames of a clip. Precision is the part of the linked pairs that
show one thing, recall the part of the pairs of one thing that are linked; boxes that show nothing
known count for neither, and are told apart. CPU seconds are those of linking alone, video decoding
included, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import describe
from benchmarks.perception import SAME_FRAME_S, missing_weights, sampled, things
from labeling.automatic.simulated import Truth, corrected, scene_at
from pipeline.cli.python import Workspace
from pipeline.config import PROFILES, ProposeConfig
from pipeline.media.encode import encode_film
from pipeline.records.boxes import iou_matrix
from pipeline.records.schema import Clip, Frame, Proposal, Video
from pipeline.synthetic.drawing import Painter, box_of, silhouettes
from pipeline.synthetic.render import render_world
from pipeline.synthetic.scene import CATEGORIES, Actor, Camera, Scene, Sound
from pipeline.workspace.settings_file import render_value
from stages.propose.linking.flow_linker import FlowLinker
from stages.propose.linking.tracks import linked

os.environ.setdefault("OMP_NUM_THREADS", "1")

FPS, SECONDS, FRAMES = 25, 10, 5
KINDS = ("stand", "walk", "cross", "look-alikes", "cut")
FIRST_SEED = 1000
SAME_IOU = 0.5
"""A box that overlaps a true one this much, the most of its frame, shows that thing."""

LINKS = ProposeConfig()
FLOW = FlowLinker(LINKS)
Shown = dict[str, str | None]
"""The thing each box shows, by ``proposal_id``; none: nothing known."""


def walking_scene(kind: str, rng: np.random.Generator) -> tuple[Scene, Scene | None]:
    """Draw the lots of a clip, and of what follows a cut."""

    def actor(name: str, category: str, x: float, walk: float = 0.0, size: float = 0.0) -> Actor:
        return Actor(
            name=name,
            category=category,
            x=x,
            y=float(rng.uniform(300, 345)),
            size=size or float(rng.uniform(70, 170)),
            walk_px_s=walk,
            flip=bool(rng.random() < 0.5),
        )

    one, two, three = (str(name) for name in rng.permutation(list(CATEGORIES))[:3])
    speed = float(rng.uniform(15, 55))
    alike = float(rng.uniform(80, 140))
    meets_s = float(rng.uniform(3, 7))
    actors = {
        "stand": [actor("a", one, 180), actor("b", two, 430), actor("c", two, 570, 0, 90)],
        "walk": [actor("a", one, 80, speed), actor("b", two, 560, -speed), actor("c", three, 320)],
        "cross": [
            actor("a", one, 320 - speed * meets_s, speed, alike),
            actor("b", one, 320 + speed * meets_s, -speed, alike),
        ],
        "look-alikes": [actor(name, one, 150 + 140 * n, 0, 115) for n, name in enumerate("abc")],
        "cut": [actor("a", one, 200, float(rng.uniform(-20, 20))), actor("b", two, 450)],
    }[kind]
    scene = Scene(
        video_id="v",
        label="",
        split="",
        duration_s=SECONDS,
        fps=FPS,
        gop_s=3,
        background=("meadow", "room", "street", "stage")[int(rng.integers(4))],
        seed=int(rng.integers(2**31)),
        camera=Camera(
            swing_px=float(rng.uniform(0, 40)),
            period_s=float(rng.uniform(8, 20)),
            phase=float(rng.uniform(0, 6)),
            drift_px_s=float(rng.choice([0, 0, 8, 20])),
        ),
        actors=tuple(actors),
        sounds=tuple(
            Sound(
                actor=actor.name,
                category=actor.category,
                onsets=tuple(np.cumsum(rng.uniform(0.8, 1.4, 6)).tolist()),
                end_s=SECONDS,
            )
            for actor in actors[:2]
        ),
    )
    if kind != "cut":
        return scene, None
    others = [
        one.model_copy(
            update={"name": f"{one.name}2", "size": one.size * float(rng.uniform(0.85, 1.15))}
        )
        for one in actors
    ]
    elsewhere = "room" if scene.background != "room" else "street"
    changes = {"background": elsewhere, "actors": tuple(others), "sounds": ()}
    return scene, scene.model_copy(update=changes)


def walking(folder: Path, number: int) -> Iterator[tuple[str, Counter[str], float, int]]:
    """Yield the kind, the counts, the CPU seconds and the boxes of drawn clips."""
    for seed in range(FIRST_SEED, FIRST_SEED + number):
        rng = np.random.default_rng(seed)
        kind = KINDS[seed % len(KINDS)]
        before, after = walking_scene(kind, rng)
        cut = int(rng.integers(60, 190)) if after else SECONDS * FPS
        parts = [(before, Painter(before)), *([(after, Painter(after))] if after else [])]

        def at(index: int) -> tuple[Scene, Painter]:
            return parts[index >= cut]  # noqa: B023  used before the next seed

        path = folder / f"{seed}.mp4"
        pictures = (
            (Fraction(index, FPS), np.ascontiguousarray(at(index)[1].frame(index)[:, :, ::-1]))
            for index in range(SECONDS * FPS)
        )
        encode_film(pictures, FPS, path, None, 0, options={"preset": "superfast", "crf": "26"})
        chosen = events(rng)
        frames = [
            _frame(f"v_{index:04d}", index / FPS, before.width, before.height) for index in chosen
        ]
        shown: Shown = {}
        boxes = {
            frame.frame_id: _noisy(at(index)[0], index, frame, shown, rng)
            for index, frame in zip(chosen, frames, strict=True)
        }
        tracks, spent = timed_links(boxes, frames, path)
        yield kind, counted_pairs(boxes, tracks, shown), spent, len(shown)


def events(rng: np.random.Generator) -> list[int]:
    """Draw the pictures of a clip that its frames are, in order."""
    while True:
        chosen = np.sort(rng.integers(3, SECONDS * FPS - 3, FRAMES))
        if np.diff(chosen).min() >= 0.7 * FPS:
            return [int(index) for index in chosen]


def _frame(name: str, time_s: float, width: int, height: int) -> Frame:
    return Frame(
        frame_id=name,
        clip_id="v",
        video_id="v",
        frame_index=0,
        time_s=time_s,
        event_time_s=time_s,
        event_rms=0.1,
        event_rank=0,
        sharpness=1.0,
        path="",
        width=width,
        height=height,
    )


def _noisy(
    scene: Scene, index: int, frame: Frame, shown: Shown, rng: np.random.Generator
) -> list[Proposal]:
    """Return a frame's boxes as a detector might have them, and note what they show."""
    category = {actor.name: actor.category for actor in scene.actors}
    found: list[tuple[str | None, str, list[float]]] = []
    for name, mask in silhouettes(scene, index).items():
        box = box_of(mask)
        if box is not None and min(box[2:]) >= 14 and rng.random() >= 1 / 12:
            wide, tall = box[2:]
            off = rng.normal(0, 0.04, 4) * [wide, tall, wide, tall]
            found.append((name, category[name], (np.array(box) + off).tolist()))
    if rng.random() < 0.4:
        place = [*rng.uniform((0, 100), (500, 220)), *rng.uniform(40, 130, 2)]
        found.append((None, scene.actors[0].category, [float(side) for side in place]))
    rows = []
    for number, (thing, kind, sides) in enumerate(found):
        name = f"p_{index}_{number}"
        shown[name] = thing
        rows.append(_proposal(name, frame, kind, sides))
    return rows


def _proposal(name: str, frame: Frame, category: str, box: list[float]) -> Proposal:
    return Proposal(
        proposal_id=name,
        frame_id=frame.frame_id,
        bbox=box,
        detector="drawn",
        detector_class=category,
        detector_score=0.5,
        categories=[category],
        audible=True,
        audio_score=1.0,
    )


def timed_links(
    boxes: Mapping[str, Sequence[Proposal]], frames: Sequence[Frame], path: Path
) -> tuple[dict[str, int], float]:
    """Link the boxes of a clip; return their tracks and the CPU seconds it took."""
    started = time.process_time()
    tracks = linked(boxes, frames, nullcontext(path), FLOW, LINKS.link_iou)
    return tracks, time.process_time() - started


def counted_pairs(
    boxes: Mapping[str, Sequence[Proposal]], tracks: Mapping[str, int], shown: Shown
) -> Counter[str]:
    """Count the pairs of a clip: rightly and wrongly linked, missed, linked to nothing known."""
    found: Counter[str] = Counter(right=0, wrong=0, missed=0, unknown=0)
    for one, other in combinations(boxes.values(), 2):
        for first in one:
            for second in other:
                together = tracks[first.proposal_id] == tracks[second.proposal_id]
                things_shown = shown.get(first.proposal_id), shown.get(second.proposal_id)
                if None in things_shown:
                    found["unknown"] += together
                elif things_shown[0] == things_shown[1]:
                    found["right" if together else "missed"] += 1
                else:
                    found["wrong"] += together
    return found


def best_shown(boxes: Sequence[Proposal], true: Mapping[str, Sequence[float]]) -> Shown:
    """Return what boxes of a frame show: a thing is shown by the one box that fits it best."""
    shown: Shown = {row.proposal_id: None for row in boxes}
    if boxes and true:
        overlaps = iou_matrix([*true.values()], [row.bbox for row in boxes])
        for name, row in zip(true, overlaps, strict=True):
            if row.max() >= SAME_IOU:
                shown[boxes[int(row.argmax())].proposal_id] = name
    return shown


def clips_of(
    workspace: Workspace, videos: Path
) -> Iterator[tuple[list[Frame], dict[str, list[Proposal]], dict[str, int], float]]:
    """Link each clip's boxes again; yield frames in time, boxes, tracks and CPU seconds."""
    every, rows = workspace.rows(Frame), workspace.rows(Proposal)
    recorded = {row.proposal_id: row.track_id for row in rows}
    for clip in workspace.rows(Clip):
        frames = sorted((f for f in every if f.clip_id == clip.clip_id), key=lambda f: f.time_s)
        boxes = {f.frame_id: [r for r in rows if r.frame_id == f.frame_id] for f in frames}
        path = videos / f"{clip.video_id}.mp4"
        tracks, spent = timed_links(boxes, frames, path)
        assert {name: recorded[name] for name in tracks} == tracks, "the stage's own links"
        yield frames, boxes, tracks, spent


def summary(pairs: Counter[str]) -> dict[str, Any]:
    """Return the counts of pairs with precision and recall."""
    linked_pairs, of_one = pairs["right"] + pairs["wrong"], pairs["right"] + pairs["missed"]
    return {
        **pairs,
        "precision": round(pairs["right"] / linked_pairs, 4) if linked_pairs else None,
        "recall": round(pairs["right"] / of_one, 4) if of_one else None,
    }


def in_walking_world(folder: Path, number: int) -> dict[str, Any]:
    """Measure the drawn clips of exact truth."""
    by_kind: dict[str, Counter[str]] = {}
    every: Counter[str] = Counter()
    seconds, boxes = [], 0
    for kind, pairs, spent, count in walking(folder, number):
        by_kind.setdefault(kind, Counter()).update(pairs)
        every.update(pairs)
        seconds.append(spent)
        boxes += count
    return {
        "clips": number,
        "boxes": boxes,
        "cpu_s_per_clip": round(float(np.mean(seconds)), 3),
        "all": summary(every),
        **{kind: summary(by_kind[kind]) for kind in KINDS if kind in by_kind},
    }


def in_demo_world(folder: Path) -> dict[str, Any]:
    """Measure the demo's world, and what carrying answers from frame to frame would spare.

    A shown box needs no hand where it is linked to one of an earlier frame and the annotator's
    answer to that, kept with category and scenario, or removed, is right for it, too, as it lies.
    """
    world = render_world(folder / "world")
    template = f"download.source_template={world.videos.resolve()}/{{video_id}}.mp4"
    Workspace.create(folder / "demo", "offline")
    workspace = Workspace(folder / "demo", [template])
    workspace.download(world.csv)
    for stage in ("sample", "hear", "propose"):
        workspace.run(stage)
    truth = Truth.model_validate_json(world.truth.read_bytes())
    pairs: Counter[str] = Counter()
    later: Counter[str] = Counter(shown=0, linked=0, no_hand=0)
    seconds = []
    for frames, boxes, tracks, spent in clips_of(workspace, world.videos):
        seconds.append(spent)
        shown: Shown = {}
        said: dict[int, object] = {}
        for place, frame in enumerate(frames):
            scene = scene_at(truth.videos[frame.video_id], frame)
            shown |= best_shown(boxes[frame.frame_id], scene.boxes)
            audible = [row for row in boxes[frame.frame_id] if row.audible]
            answers = {one.proposal_id: one for one in corrected(scene, audible)}
            now = {}
            for row in audible:
                answer, track = answers.get(row.proposal_id), tracks[row.proposal_id]
                now[track] = (answer.category, answer.scenario) if answer else "removed"
                if place:
                    as_it_lies = answer is None or answer.origin == "kept"
                    same = track in said and said[track] == now[track]
                    later.update(shown=1, linked=track in said, no_hand=same and as_it_lies)
            said |= now
        pairs.update(counted_pairs(boxes, tracks, shown))
    return {
        "clips": len(seconds),
        "cpu_s_per_clip": round(float(np.mean(seconds)), 3),
        **summary(pairs),
        "boxes_shown_after_the_first_frame": later["shown"],
        "linked_to_an_earlier_frame": round(later["linked"] / later["shown"], 3),
        "need_no_hand": round(later["no_hand"] / later["shown"], 3),
    }


def in_real_videos(folder: Path, videos: Path, models: Path | None) -> dict[str, Any]:
    """Measure the videos whose sounding things are known by eye, in two frames each."""
    combination = "efficientat-mn04-as+yolox-nano+motion+grabcut"
    os.environ["AVATAR_BUILD_MODELS"] = f"{folder}/models"
    sampled(videos, folder / "real")
    typed: list[str] = []
    if not missing_weights(combination, models):
        light = {**PROFILES["light"]["propose"], "detectors": ["yolox-nano", "motion"]}
        typed = ["hear.tagger=efficientat-mn04-as"]
        typed += [f"propose.{key}={render_value(value)}" for key, value in light.items()]
    workspace = Workspace(folder / "real", typed)
    for stage in ("hear", "propose"):
        workspace.run(stage)
    known = things(videos)
    pairs: Counter[str] = Counter()
    later: Counter[str] = Counter(shown=0, linked=0)
    seconds = []
    for frames, boxes, tracks, spent in clips_of(workspace, videos):
        seconds.append(spent)
        shown: Shown = {}
        seen: set[int] = set()
        for place, frame in enumerate(frames):
            audible = [row for row in boxes[frame.frame_id] if row.audible]
            for category, box in _by_eye(known, frame).items():
                named = [row for row in audible if category in row.categories]
                shown |= best_shown(named, {category: box})
            of_frame = {tracks[row.proposal_id] for row in audible}
            if place:
                later.update(shown=len(of_frame), linked=len(of_frame & seen))
            seen |= of_frame
        pairs.update(counted_pairs(boxes, tracks, shown))
    truth = by_eye_alone(known, videos, workspace)
    return {
        "detectors": workspace.config.propose.detectors,
        "clips": len(seconds),
        "cpu_s_per_clip": round(float(np.mean(seconds)), 3),
        **summary(pairs),
        "boxes_shown_after_the_first_frame": later["shown"],
        "linked_to_an_earlier_frame": round(later["linked"] / later["shown"], 3),
        "of_boxes_by_eye": truth,
    }


def _by_eye(known: Sequence[Any], frame: Frame) -> dict[str, list[float]]:
    return {
        thing.category: thing.bbox
        for thing in known
        if thing.video_id == frame.video_id and abs(thing.time_s - frame.time_s) <= SAME_FRAME_S
    }


def by_eye_alone(known: Sequence[Any], videos: Path, workspace: Workspace) -> dict[str, Any]:
    """Link the boxes drawn by eye themselves: two frames of a video, one thing each."""
    result: dict[str, str] = {}
    sizes = {row.video_id: (row.width, row.height) for row in workspace.rows(Video)}
    for name in dict.fromkeys(thing.video_id for thing in known):
        mine = sorted((one for one in known if one.video_id == name), key=lambda one: one.time_s)
        if name not in sizes or len(mine) != 2:
            continue
        frames, boxes = [], {}
        for number, thing in enumerate(mine):
            time_s = _nearest(videos / f"{name}.mp4", thing.time_s)
            base = _frame(f"{name}_{number}", time_s, *sizes[name])
            frames.append(base)
            boxes[base.frame_id] = [
                _proposal(f"p_{number}", base, thing.category, [float(x) for x in thing.bbox])
            ]
        tracks, _ = timed_links(boxes, frames, videos / f"{name}.mp4")
        result[name] = "linked" if len(set(tracks.values())) == 1 else "broken"
    return {"linked": sum(one == "linked" for one in result.values()), "videos": result}


def _nearest(path: Path, time_s: float) -> float:
    """Return the time of the picture that is shown nearest to a rounded time."""
    from pipeline.media import Media, read_timeline

    timeline = read_timeline(Media(path))
    times = [float(timeline.time(index)) for index in range(len(timeline.pts))]
    return min(times, key=lambda found: abs(found - time_s))


def main() -> None:
    """Measure the worlds asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    results: dict[str, Any] = {"machine": describe()}
    with tempfile.TemporaryDirectory(prefix="avatar-bench-") as name:
        folder = Path(name)
        results["walking"] = in_walking_world(folder, asked.clips)
        print(json.dumps(results["walking"]), flush=True)
        results["demo"] = in_demo_world(folder)
        print(json.dumps(results["demo"]), flush=True)
        if asked.videos:
            results["real"] = in_real_videos(folder, asked.videos, asked.models)
            print(json.dumps(results["real"]), flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
