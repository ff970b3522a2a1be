"""The demo's ground truth: what is where, and what sounds when, to the pixel and the sample.

``truth.json`` is ``{"videos": {video_id: VideoTruth}, "scenes": {video_id: Scene}}``. The first
part is all a reader needs; the second is what it takes to draw an object's silhouette again.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.drawing import box_of, silhouettes
from pipeline.synthetic.scene import Scene

_ROUNDED = 0.05
"""Fraction of a frame by which a time may fall short of its frame: times come rounded to ms."""


class ObjectTruth(TypedDict):
    """A drawn thing."""

    name: str
    category: str
    boxes: list[list[int] | None]
    """``[x, y, w, h]`` of what can be seen of it, per presented frame."""


class SoundTruth(TypedDict):
    """A stretch of sound; ``object`` is none when its source is off screen."""

    object: str | None
    category: str
    start_s: float
    end_s: float


class VideoTruth(TypedDict):
    """The truth of a video."""

    fps: int
    width: int
    height: int
    objects: list[ObjectTruth]
    sounds: list[SoundTruth]


class Truth(TypedDict):
    """The whole file."""

    videos: dict[str, VideoTruth]
    scenes: dict[str, dict[str, Any]]


def truth_of(scene: Scene) -> VideoTruth:
    """Draw every silhouette of a scene and say where it is."""
    boxes: dict[str, list[list[int] | None]] = {actor.name: [] for actor in scene.actors}
    for index in range(scene.num_frames):
        for name, mask in silhouettes(scene, index).items():
            boxes[name].append(box_of(mask))
    return VideoTruth(
        fps=scene.fps,
        width=scene.width,
        height=scene.height,
        objects=[
            ObjectTruth(name=actor.name, category=actor.category, boxes=boxes[actor.name])
            for actor in scene.actors
        ],
        sounds=[
            SoundTruth(
                object=sound.actor,
                category=sound.category,
                start_s=sound.start_s,
                end_s=sound.end_s,
            )
            for sound in scene.sounds
            if not sound.muted
        ],
    )


def frame_at(video: VideoTruth, time_s: float) -> int:
    """Return the index of the presented frame that is on the screen at ``time_s``."""
    return int(time_s * video["fps"] + _ROUNDED)


def truth_box(truth: Truth, video_id: str, name: str, time_s: float) -> list[int] | None:
    """Return the box around what is seen at ``time_s``, ``[x, y, w, h]``; none if nothing is."""
    video = truth["videos"][video_id]
    boxes = {entry["name"]: entry["boxes"] for entry in video["objects"]}
    return boxes[name][frame_at(video, time_s)]


def truth_mask(truth: Truth, video_id: str, name: str, time_s: float) -> NDArray[np.bool_]:
    """Draw again what can be seen of the object at ``time_s``, ``(height, width)``, exactly."""
    scene = Scene.model_validate(truth["scenes"][video_id])
    return silhouettes(scene, frame_at(truth["videos"][video_id], time_s))[name]


def sounding(truth: Truth, video_id: str, time_s: float) -> list[str]:
    """Return the names of the drawn objects that sound at ``time_s``; no sources off screen."""
    video = truth["videos"][video_id]
    heard = {s["object"] for s in video["sounds"] if s["start_s"] <= time_s < s["end_s"]}
    return [entry["name"] for entry in video["objects"] if entry["name"] in heard]
