"""Drawn films of things that stand, walk and cross, with proposals of their true boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import ProposeConfig
from pipeline.media.encode import encode_film
from pipeline.records.schema import Proposal
from pipeline.run.stage import Ok, Outcome
from pipeline.synthetic.drawing import Painter, box_of, silhouettes
from pipeline.synthetic.scene import Actor, Camera, Scene, Sound
from stages.backends.interfaces import Detection
from stages.propose.propose_boxes import ProposeBoxes
from tests.rows import context, frame, proposal, sounds, video
from tests.stages.recorded_detector import Recorded

FPS = 25
SIZE = 320, 180
AT = (4, 34, 60, 90, 120)
"""The frames that are sampled."""

Pictures = Callable[[int], NDArray[np.uint8]]
Things = Mapping[str, Sequence[float]]
"""Boxes by the names of what they show."""


def scene(*actors: Actor, background: Any = "meadow", **changes: Any) -> Scene:
    """Five seconds of actors, each of which moves with a sound of its own."""
    strokes = tuple(
        Sound(actor=one.name, category=one.category, onsets=(0.5, 2.0, 3.5), end_s=5.0)
        for one in actors
    )
    values: dict[str, Any] = {
        "video_id": "v",
        "label": "",
        "split": "",
        "duration_s": 5.0,
        "fps": FPS,
        "gop_s": 2.0,
        "background": background,
        "seed": 3,
        "camera": Camera(swing_px=6, period_s=9, phase=1),
        "actors": actors,
        "sounds": strokes,
        "width": SIZE[0],
        "height": SIZE[1],
    }
    return Scene(**(values | changes))


def actor(name: str, category: str, x: float, walk: float = 0.0, size: float = 70.0) -> Actor:
    return Actor(name=name, category=category, x=x, y=165, size=size, walk_px_s=walk)


def true_boxes(drawn: Scene, index: int) -> dict[str, list[float]]:
    boxes = {name: box_of(mask) for name, mask in silhouettes(drawn, index).items()}
    return {name: [float(side) for side in box] for name, box in boxes.items() if box}


def filmed(path: Path, picture: Pictures, count: int = 125) -> Path:
    """Encode pictures, ``(height, width, 3)`` RGB."""
    timed = ((Fraction(index, FPS), picture(index)) for index in range(count))
    encode_film(timed, FPS, path, None, 0)
    return path


def painted(drawn: Scene) -> Pictures:
    painter = Painter(drawn)
    return lambda index: np.ascontiguousarray(painter.frame(index)[:, :, ::-1])


def rows(drawn: Mapping[int, Things], categories: Mapping[str, str]) -> dict[str, list[Proposal]]:
    """A proposal of each thing, named like it and its frame, by frame."""
    return {
        frame(index).frame_id: [
            proposal(
                f"{name}@{index}",
                frame_id=frame(index).frame_id,
                bbox=list(box),
                detector_class=categories[name],
                categories=[categories[name]],
            )
            for name, box in things.items()
        ]
        for index, things in drawn.items()
    }


def things_by_track(found: Mapping[str, int]) -> list[set[str]]:
    """The things each track shows, of proposals that are named ``thing@frame``."""
    by_track: dict[int, set[str]] = {}
    for name, track in found.items():
        by_track.setdefault(track, set()).add(name.partition("@")[0])
    return list(by_track.values())


STANDING = scene(actor("dog", "dog", 90), actor("other", "dog", 230))
VIDEOS = ("vvvvvvvvvvv", "wwwwwwwwwww")
FRAMES = [frame(index, name) for name in VIDEOS for index in AT]


def film_of_what_stands(folder: Path) -> Path:
    """The videos of two things that stand, and the sampled pictures; the folder."""
    picture = painted(STANDING)
    for name in VIDEOS:
        path = folder / video(name).path
        path.parent.mkdir(parents=True, exist_ok=True)
        filmed(path, picture)
        for index in AT:
            place = folder / frame(index, name).path
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place), picture(index)[:, :, ::-1])
    return folder


@dataclass(frozen=True)
class Way:
    """A way of linking, and boxes that it links to one track for each of a frame."""

    link: str
    boxes: Callable[[int], list[list[float]]]


WAYS = {
    "flow": Way("flow", lambda index: [*true_boxes(STANDING, index).values()]),
    # The network of random numbers that goes with it finds everything everywhere.
    "sam2": Way("sam2", lambda index: [[8.0, 4.0, 300.0, 170.0]]),
}


def opened(folder: Path, scratch: Path, way: Way, **settings: Any) -> ProposeBoxes:
    """The stage over a copy of the film, with a detector that knows what is there."""
    root = scratch / "ws"
    if not root.exists():
        root.mkdir(parents=True)
        for path in sorted(folder.rglob("*.*")):
            place = root / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    stage = ProposeBoxes(
        ProposeConfig.model_validate({"link": way.link, "device": "cpu"} | settings)
    )
    stage.detectors = [
        Recorded(
            {
                row.frame_id: [
                    Detection(box, "moving region", 0.9) for box in way.boxes(row.frame_index)
                ]
                for row in FRAMES
            }
        )
    ]
    known: dict[str, Any] = {
        "videos": [video(name) for name in VIDEOS],
        "sounds": [sounds(name) for name in VIDEOS],
        "frames": FRAMES,
    }
    stage.open(context(root, **known))
    return stage


def boxes_of(outcomes: Iterable[Outcome]) -> dict[str, list[Proposal]]:
    return {
        one.id: [row for row in one.rows if isinstance(row, Proposal)]
        for one in outcomes
        if isinstance(one, Ok)
    }
