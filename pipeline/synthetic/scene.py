"""The parts of a video of the demo: actors, sounds, a camera, and how actors move.

Everything that decides a pixel or a sample stands in a ``Scene``, so that the truth file can hold
it and an object's exact silhouette can be drawn again later.

Lengths are pixels of the frame, times seconds from the first frame. A place in the world is where
it shows while the camera stands at (0, 0); an actor's place is the middle of its foot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

Motion = Literal["bounce", "shake", "sway"]
Background = Literal["meadow", "room", "street", "stage", "beach", "forest", "night"]

CATEGORIES: dict[str, tuple[str, Motion]] = {
    "dog": ("dog barking", "bounce"),
    "cat": ("cat meowing", "bounce"),
    "frog": ("frog croaking", "bounce"),
    "bird": ("canary calling", "bounce"),
    "baby crying": ("baby crying", "bounce"),
    "car": ("vehicle horn, car horn, honking", "shake"),
    "alarm clock": ("alarm clock ringing", "shake"),
    "drum kit": ("playing drum kit", "shake"),
    "violin": ("playing violin, fiddle", "sway"),
    "guitar": ("playing acoustic guitar", "sway"),
}
"""Target category to the VGGSound label its videos carry, and how the thing moves as it sounds."""

_STRIKE_S = 0.35
"""A movement dies down with this time constant; by the next stroke a tenth of it is left."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Actor(_Part):
    """A drawn thing. Actors later in a scene's list stand in front of earlier ones."""

    name: str
    category: str
    x: float
    y: float
    size: float
    """Height of its square drawing, pixels."""
    colour: str = ""
    """``#rrggbb`` of its main part; empty for the drawing's own."""
    flip: bool = False
    """Drawn looking the other way."""
    width: float = 1.0
    """Width over height, of the drawing's own: below 1 slimmer, above 1 stouter."""
    walk_px_s: float = 0.0
    """Pixels it walks to the right in a second (left: below 0); what walks throws no shadow."""


class Sound(_Part):
    """A stretch of sound, made of strokes; the actor moves with each."""

    actor: str | None
    """Name of the actor that makes it; none when its source is off screen."""
    category: str
    onsets: tuple[float, ...]
    """Seconds at which each stroke begins, ascending; the first is the start of the sound."""
    end_s: float
    muted: bool = False
    """The actor moves with the strokes, and nothing is heard."""

    @property
    def start_s(self) -> float:
        """Seconds at which it begins."""
        return self.onsets[0]

    def stroke(self, time_s: float) -> float | None:
        """Return the seconds since the latest stroke began; none outside of the sound."""
        if not self.start_s <= time_s < self.end_s:
            return None
        return time_s - max(onset for onset in self.onsets if onset <= time_s)


class Camera(_Part):
    """A slow pan: a swing to and fro on both axes, and a steady drift to the right."""

    swing_px: float
    period_s: float
    phase: float
    """Radians."""
    drift_px_s: float = 0.0

    def at(self, time_s: float) -> tuple[float, float]:
        """Return where the camera stands, ``(x, y)``."""
        angle = 2 * math.pi * time_s / self.period_s + self.phase
        x = self.swing_px * math.sin(angle) + self.drift_px_s * time_s
        return x, 0.2 * self.swing_px * math.sin(1.7 * angle)


@dataclass(frozen=True)
class Pose:
    """The difference of an actor from its drawing at rest."""

    dx: float = 0.0
    dy: float = 0.0
    turn: float = 0.0
    """Degrees about the foot."""
    stretch: float = 1.0
    """Height over the height at rest; the width shrinks as the height grows."""
    loud: bool = False
    """The stroke has just been struck: mouths are open, sticks are down."""


class Scene(_Part):
    """A video: its picture, its sounds and its actors."""

    video_id: str
    label: str
    split: str
    duration_s: float
    fps: int
    gop_s: float
    """Longest distance between two keyframes, seconds."""
    background: Background
    seed: int
    """Draws the background's texture and the voices."""
    camera: Camera
    actors: tuple[Actor, ...]
    sounds: tuple[Sound, ...]
    width: int = 640
    height: int = 360

    @property
    def num_frames(self) -> int:
        """Presented frames."""
        return round(self.duration_s * self.fps)

    @cached_property
    def _by_actor(self) -> dict[str, list[Sound]]:
        return {a.name: [s for s in self.sounds if s.actor == a.name] for a in self.actors}

    def pose(self, actor: Actor, time_s: float) -> Pose:
        """Return the pose of ``actor``: exactly at rest whenever it does not sound."""
        for sound in self._by_actor[actor.name]:
            since = sound.stroke(time_s)
            if since is not None:
                return _struck(CATEGORIES[actor.category][1], actor.size, since)
        return Pose()


def _struck(motion: Motion, size: float, since_s: float) -> Pose:
    """Return the pose ``since_s`` seconds after a stroke; largest about 0.1 s after it."""
    left = math.exp(-since_s / _STRIKE_S)
    loud = since_s < 0.3
    if motion == "bounce":
        swing = 2 * math.pi * 2.2 * since_s
        hop = 0.2 * size * left * abs(math.sin(swing))
        return Pose(dy=-hop, stretch=1 - 0.1 * left * math.cos(2 * swing), loud=loud)
    if motion == "shake":
        swing = math.sin(2 * math.pi * 5 * since_s)
        return Pose(dx=0.07 * size * left * swing, turn=7 * left * swing, loud=loud)
    return Pose(turn=17 * left * math.sin(2 * math.pi * 2.4 * since_s), loud=loud)
