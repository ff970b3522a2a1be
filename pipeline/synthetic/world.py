"""The demo's world: who stands where and sounds when, in which video."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from pipeline.synthetic.scene import CATEGORIES, Actor, Background, Camera, Scene, Sound

GONE_ID = "goneForever"
"""A row of the list whose video the server does not have."""

TRUNCATED_ID = "cutOffVideo"
"""A video of which the server has the first part only."""

HTML_ID = "htmlNotMp4_"
"""A web page under a video's name."""

REJECTED_IDS = ("squarePict1", "shortGuitar")
"""Sound videos that the candidate filter turns away: 480x360, and 6 s."""


class _Video(NamedTuple):
    """A video before its camera, its texture and its strokes are drawn."""

    video_id: str
    background: Background
    duration_s: float
    fps: int = 25
    drift_px_s: float = 0.0
    width: int = 640
    label: str = ""
    """The label in the list; empty for that of the first sound."""


class _Cue(NamedTuple):
    """A sound before its strokes are placed."""

    source: str
    """Name of the actor that makes it, or the category of a source that is off screen."""
    start_s: float
    end_s: float
    every_s: float = 1.0


def _actor(category: str, x: float, y: float, size: float, **others: Any) -> Actor:
    """Make an actor, named like its category if not otherwise."""
    return Actor(category=category, x=x, y=y, size=size, **{"name": category, **others})


_WORLD: list[tuple[_Video, list[Actor], list[_Cue]]] = [
    # Single-sound: one thing is heard, and it is in view.
    (
        _Video("dogInMeadow", "meadow", 20),
        [_actor("cat", 150, 285, 105), _actor("dog", 400, 325, 160)],
        [_Cue("dog", 1.0, 19.0)],
    ),
    (
        _Video("-drumsSolo1", "stage", 22, fps=30),
        [_actor("drum kit", 330, 330, 205), _actor("guitar", 530, 325, 150)],
        [_Cue("drum kit", 4.0, 22.0, 0.9)],
    ),
    (
        _Video("violinStage", "stage", 20),
        [_actor("violin", 260, 330, 190), _actor("drum kit", 490, 310, 150)],
        [_Cue("violin", 0.5, 20.0, 1.1)],
    ),
    (
        _Video("carHonk_st1", "street", 20, fps=30, drift_px_s=9.0),
        [_actor("dog", 180, 300, 100, colour="#8d5a3b"), _actor("car", 390, 345, 200)],
        [_Cue("car", 2.0, 17.0, 1.2)],
    ),
    (
        _Video("longQuiet_1", "room", 44),
        [_actor("alarm clock", 190, 300, 120), _actor("cat", 430, 320, 140, colour="#8f8fa3")],
        [_Cue("cat", 1.0, 12.0, 1.1), _Cue("alarm clock", 31.0, 42.0)],
    ),
    # Mixed-sound: two at once, both in view or one off screen; then cross-event.
    (
        _Video("dogAndDrums", "stage", 20),
        [_actor("drum kit", 210, 325, 180), _actor("dog", 470, 330, 150)],
        [_Cue("drum kit", 0.5, 20.0), _Cue("dog", 1.0, 20.0)],
    ),
    (
        _Video("violGuitDuo", "room", 20, fps=30),
        [_actor("guitar", 220, 325, 180), _actor("violin", 440, 330, 180)],
        [_Cue("guitar", 0.0, 19.0, 1.1), _Cue("violin", 0.6, 19.5, 1.2)],
    ),
    (
        _Video("babyOffBird", "meadow", 20),
        [_actor("frog", 500, 300, 100), _actor("bird", 280, 325, 140)],
        [_Cue("bird", 0.5, 20.0), _Cue("baby crying", 1.0, 19.0, 1.1)],
    ),
    (
        _Video("catThenBird", "meadow", 24),
        [_actor("bird", 440, 300, 120), _actor("cat", 210, 330, 155)],
        [
            _Cue("cat", 0.5, 4.1),
            _Cue("bird", 4.5, 8.1),
            _Cue("cat", 8.5, 12.1),
            _Cue("bird", 12.5, 16.1),
            _Cue("cat", 16.5, 20.1),
            _Cue("bird", 20.4, 24.0),
        ],
    ),
    (
        _Video("clockBabyX1", "room", 20, fps=30),
        [_actor("alarm clock", 200, 310, 125), _actor("baby crying", 430, 330, 160)],
        [
            _Cue("alarm clock", 0.5, 5.0),
            _Cue("baby crying", 5.0, 10.0),
            _Cue("alarm clock", 10.0, 14.0),
            _Cue("baby crying", 14.0, 20.0),
        ],
    ),
    # Multi-entity: one of several look-alikes sounds, before another or behind it.
    (
        _Video("twoDogs_one", "room", 20),
        [_actor("dog", 200, 320, 150, name="dog left"), _actor("dog", 440, 325, 150)],
        [_Cue("dog", 1.0, 20.0, 0.9)],
    ),
    (
        _Video("threeFrogs1", "meadow", 20, fps=30),
        [
            _actor("frog", 230, 300, 130, name="frog behind"),
            _actor("frog", 310, 330, 140, name="frog front"),
            _actor("frog", 500, 320, 135, name="frog right", flip=True),
        ],
        [_Cue("frog behind", 0.5, 11.0), _Cue("frog right", 11.0, 20.0)],
    ),
    (
        _Video("carsAndHorn", "street", 20),
        [
            _actor("car", 170, 325, 155, colour="#3f7fc1", name="car left"),
            _actor("car", 470, 345, 165, colour="#3f7fc1", name="car right", flip=True),
        ],
        [_Cue("car left", 1.0, 19.0, 1.1)],
    ),
    # Off-screen: what is heard is not in the picture, and what is in it keeps still.
    (
        _Video("hornOffScrn", "street", 20),
        [_actor("cat", 220, 320, 130), _actor("bird", 450, 310, 110)],
        [_Cue("car", 1.0, 19.0, 1.1)],
    ),
    (
        _Video("babyOffRoom", "room", 20),
        [_actor("violin", 200, 325, 165), _actor("dog", 440, 325, 140)],
        [_Cue("baby crying", 0.5, 20.0, 1.1)],
    ),
    (
        _Video("silentMeadw", "meadow", 20, label="frog croaking"),
        [_actor("frog", 200, 310, 120), _actor("dog", 430, 325, 150)],
        [],
    ),
    # No clip can come from these: too small a picture, too short, cut off.
    (
        _Video(REJECTED_IDS[0], "street", 12, width=480),
        [_actor("bird", 240, 320, 130)],
        [_Cue("bird", 0.5, 12.0)],
    ),
    (
        _Video(REJECTED_IDS[1], "stage", 6),
        [_actor("guitar", 320, 330, 180)],
        [_Cue("guitar", 0.0, 6.0)],
    ),
    (
        _Video(TRUNCATED_ID, "stage", 20),
        [_actor("drum kit", 320, 330, 190)],
        [_Cue("drum kit", 0.0, 20.0)],
    ),
]


def scenes(seed: int = 0) -> list[Scene]:
    """Return every video of the world, with those that are rejected or cut off."""
    return [_scene(seed, *row) for row in _WORLD]


def _scene(seed: int, video: _Video, actors: list[Actor], cues: list[_Cue]) -> Scene:
    rng = np.random.default_rng([seed, *video.video_id.encode()])
    category = {actor.name: actor.category for actor in actors}
    return Scene(
        video_id=video.video_id,
        label=video.label or CATEGORIES[category.get(cues[0].source, cues[0].source)][0],
        split="test" if rng.random() < 0.3 else "train",
        duration_s=video.duration_s,
        fps=video.fps,
        gop_s=float(rng.integers(2, 6)),
        background=video.background,
        seed=int(rng.integers(2**31)),
        camera=Camera(
            swing_px=float(rng.uniform(24, 40)),
            period_s=float(rng.uniform(14, 20)),
            phase=float(rng.uniform(0, 2 * math.pi)),
            drift_px_s=video.drift_px_s,
        ),
        actors=tuple(actors),
        sounds=tuple(
            Sound(
                actor=cue.source if cue.source in category else None,
                category=category.get(cue.source, cue.source),
                onsets=_onsets(cue, rng),
                end_s=cue.end_s,
            )
            for cue in cues
        ),
        width=video.width,
    )


def _onsets(cue: _Cue, rng: np.random.Generator) -> tuple[float, ...]:
    """Make strokes ``every_s`` apart, give or take a twelfth; none in the last half of a gap."""
    onsets = [cue.start_s]
    while onsets[-1] + 1.5 * cue.every_s < cue.end_s:
        onsets.append(round(onsets[-1] + cue.every_s * float(rng.uniform(11, 13)) / 12, 3))
    return tuple(onsets)
