"""The demo's world: who stands where and sounds when, in which video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.scene import CATEGORIES, Actor, Background, Camera, Scene, Sound


@dataclass(frozen=True)
class _Cue:
    """A sound before its strokes are placed."""

    actor: str | None
    category: str
    start_s: float
    end_s: float
    every_s: float = 1.0


GONE_ID = "goneForever"
"""A row of the list whose video the server does not have."""

TRUNCATED_ID = "cutOffVideo"
"""A video of which the server has the first part only."""

HTML_ID = "htmlNotMp4_"
"""A web page under a video's name."""

REJECTED_IDS = ("squarePict1", "shortGuitar")
"""Sound videos that the candidate filter turns away: 480x360, and 6 s."""


def scenes(seed: int = 0) -> list[Scene]:
    """Return every video of the world, with those that are rejected or cut off."""
    return [
        *_one_sounds(seed),
        *_several_sound(seed),
        *_one_of_many(seed),
        *_nobody_in_view(seed),
        *_set_aside(seed),
    ]


def _one_sounds(seed: int) -> Iterator[Scene]:
    """Yield Single-sound: one thing is heard, and it is in view."""
    yield _scene(
        seed,
        "dogInMeadow",
        "meadow",
        20,
        [_actor("cat", 150, 285, 105), _actor("dog", 400, 325, 160)],
        [_Cue("dog", "dog", 1.0, 19.0)],
    )
    yield _scene(
        seed,
        "-drumsSolo1",
        "stage",
        22,
        [_actor("drum kit", 330, 330, 205), _actor("guitar", 530, 325, 150)],
        [_Cue("drum kit", "drum kit", 4.0, 22.0, 0.9)],
        fps=30,
    )
    yield _scene(
        seed,
        "violinStage",
        "stage",
        20,
        [_actor("violin", 260, 330, 190), _actor("drum kit", 490, 310, 150)],
        [_Cue("violin", "violin", 0.5, 20.0, 1.1)],
    )
    yield _scene(
        seed,
        "carHonk_st1",
        "street",
        20,
        [_actor("dog", 180, 300, 100, "#8d5a3b"), _actor("car", 390, 345, 200)],
        [_Cue("car", "car", 2.0, 17.0, 1.2)],
        fps=30,
        drift_px_s=9.0,
    )
    yield _scene(
        seed,
        "longQuiet_1",
        "room",
        44,
        [_actor("alarm clock", 190, 300, 120), _actor("cat", 430, 320, 140, "#8f8fa3")],
        [_Cue("cat", "cat", 1.0, 12.0, 1.1), _Cue("alarm clock", "alarm clock", 31.0, 42.0)],
    )


def _several_sound(seed: int) -> Iterator[Scene]:
    """Yield Mixed-sound: two at once, both in view or one off screen; then cross-event."""
    yield _scene(
        seed,
        "dogAndDrums",
        "stage",
        20,
        [_actor("drum kit", 210, 325, 180), _actor("dog", 470, 330, 150)],
        [_Cue("drum kit", "drum kit", 0.5, 20.0), _Cue("dog", "dog", 1.0, 20.0)],
    )
    yield _scene(
        seed,
        "violGuitDuo",
        "room",
        20,
        [_actor("guitar", 220, 325, 180), _actor("violin", 440, 330, 180)],
        [_Cue("guitar", "guitar", 0.0, 19.0, 1.1), _Cue("violin", "violin", 0.6, 19.5, 1.2)],
        fps=30,
    )
    yield _scene(
        seed,
        "babyOffBird",
        "meadow",
        20,
        [_actor("frog", 500, 300, 100), _actor("bird", 280, 325, 140)],
        [_Cue("bird", "bird", 0.5, 20.0), _Cue(None, "baby crying", 1.0, 19.0, 1.1)],
    )
    yield _scene(
        seed,
        "catThenBird",
        "meadow",
        24,
        [_actor("bird", 440, 300, 120), _actor("cat", 210, 330, 155)],
        [
            _Cue(name, name, start, start + 3.6)
            for start, name in ((0.5, "cat"), (4.5, "bird"), (8.5, "cat"), (12.5, "bird"))
        ]
        + [_Cue("cat", "cat", 16.5, 20.1), _Cue("bird", "bird", 20.4, 24.0)],
    )
    yield _scene(
        seed,
        "clockBabyX1",
        "room",
        20,
        [_actor("alarm clock", 200, 310, 125), _actor("baby crying", 430, 330, 160)],
        [
            _Cue("alarm clock", "alarm clock", 0.5, 5.0),
            _Cue("baby crying", "baby crying", 5.0, 10.0),
            _Cue("alarm clock", "alarm clock", 10.0, 14.0),
            _Cue("baby crying", "baby crying", 14.0, 20.0),
        ],
        fps=30,
    )


def _one_of_many(seed: int) -> Iterator[Scene]:
    """Yield Multi-entity: one of several look-alikes sounds, before another or behind it."""
    yield _scene(
        seed,
        "twoDogs_one",
        "room",
        20,
        [_actor("dog", 200, 320, 150, name="dog left"), _actor("dog", 440, 325, 150, name="dog")],
        [_Cue("dog", "dog", 1.0, 20.0, 0.9)],
    )
    yield _scene(
        seed,
        "threeFrogs1",
        "meadow",
        20,
        [
            _actor("frog", 230, 300, 130, name="frog behind"),
            _actor("frog", 310, 330, 140, name="frog front"),
            _actor("frog", 500, 320, 135, name="frog right", flip=True),
        ],
        [_Cue("frog behind", "frog", 0.5, 11.0), _Cue("frog right", "frog", 11.0, 20.0)],
        fps=30,
    )
    yield _scene(
        seed,
        "carsAndHorn",
        "street",
        20,
        [
            _actor("car", 170, 325, 155, "#3f7fc1", name="car left"),
            _actor("car", 470, 345, 165, "#3f7fc1", name="car right", flip=True),
        ],
        [_Cue("car left", "car", 1.0, 19.0, 1.1)],
    )


def _nobody_in_view(seed: int) -> Iterator[Scene]:
    """Yield Off-screen: what is heard is not in the picture, and what is in it keeps still."""
    yield _scene(
        seed,
        "hornOffScrn",
        "street",
        20,
        [_actor("cat", 220, 320, 130), _actor("bird", 450, 310, 110)],
        [_Cue(None, "car", 1.0, 19.0, 1.1)],
    )
    yield _scene(
        seed,
        "babyOffRoom",
        "room",
        20,
        [_actor("violin", 200, 325, 165), _actor("dog", 440, 325, 140)],
        [_Cue(None, "baby crying", 0.5, 20.0, 1.1)],
    )
    yield _scene(
        seed,
        "silentMeadw",
        "meadow",
        20,
        [_actor("frog", 200, 310, 120), _actor("dog", 430, 325, 150)],
        [],
        label="frog croaking",
    )


def _set_aside(seed: int) -> Iterator[Scene]:
    """Yield videos that no clip can come from: too small a picture, too short, cut off."""
    yield _scene(
        seed,
        REJECTED_IDS[0],
        "street",
        12,
        [_actor("bird", 240, 320, 130)],
        [_Cue("bird", "bird", 0.5, 12.0)],
        width=480,
    )
    yield _scene(
        seed,
        REJECTED_IDS[1],
        "stage",
        6,
        [_actor("guitar", 320, 330, 180)],
        [_Cue("guitar", "guitar", 0.0, 6.0)],
    )
    yield _scene(
        seed,
        TRUNCATED_ID,
        "stage",
        20,
        [_actor("drum kit", 320, 330, 190)],
        [_Cue("drum kit", "drum kit", 0.0, 20.0)],
    )


def _actor(
    category: str,
    x: float,
    y: float,
    size: float,
    colour: str = "",
    *,
    name: str = "",
    flip: bool = False,
) -> Actor:
    return Actor(
        name=name or category, category=category, x=x, y=y, size=size, colour=colour, flip=flip
    )


def _scene(
    seed: int,
    video_id: str,
    background: Background,
    duration_s: float,
    actors: list[Actor],
    cues: list[_Cue],
    *,
    fps: int = 25,
    drift_px_s: float = 0.0,
    width: int = 640,
    label: str = "",
) -> Scene:
    rng = np.random.default_rng([seed, *video_id.encode()])
    return Scene(
        video_id=video_id,
        label=label or CATEGORIES[cues[0].category][0],
        split="test" if rng.random() < 0.3 else "train",
        duration_s=duration_s,
        fps=fps,
        gop_s=float(rng.integers(2, 6)),
        background=background,
        seed=int(rng.integers(2**31)),
        camera=Camera(
            swing_px=float(rng.uniform(24, 40)),
            period_s=float(rng.uniform(14, 20)),
            phase=float(rng.uniform(0, 2 * math.pi)),
            drift_px_s=drift_px_s,
        ),
        actors=tuple(actors),
        sounds=tuple(
            Sound(
                actor=cue.actor,
                category=cue.category,
                onsets=_onsets(cue, rng),
                end_s=cue.end_s,
            )
            for cue in cues
        ),
        width=width,
    )


def _onsets(cue: _Cue, rng: np.random.Generator) -> tuple[float, ...]:
    """Make strokes ``every_s`` apart, give or take a twelfth; none in the last half of a gap."""
    onsets = [cue.start_s]
    while onsets[-1] + 1.5 * cue.every_s < cue.end_s:
        onsets.append(round(onsets[-1] + cue.every_s * float(rng.uniform(11, 13)) / 12, 3))
    return tuple(onsets)
