"""The voices: each category has its own, struck once per stroke and fading until the next.

A stroke sets in within 15 ms, so that its energy peaks where the actor starts to move, and never
fades to nothing before the sound ends: every tenth of a second of a sound is audible.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.scene import Scene, Sound

RATE_HZ = 44_100

Wave = NDArray[np.float64]

_PEAK = 0.42
"""Largest value of one voice; two at once stay below 1."""

_RISE_S, _FADE_S = 0.015, 0.2
_LEFT_OVER = 0.14
"""Fraction of a stroke that does not fade before the next."""

_SCALE = (0, 4, 7, 9, 12, 9, 7, 4)
"""Semitones of the melody that instruments walk through, stroke by stroke."""


def soundtrack(scene: Scene) -> NDArray[np.float32]:
    """Return a scene's sound, left and right ``(2, samples)``, in [-1, 1]; exactly 0 in silence."""
    track = np.zeros((2, round(scene.duration_s * RATE_HZ)))
    for number, sound in enumerate(scene.sounds):
        if sound.muted:
            continue
        mono = _voice(sound, len(track[0]), np.random.default_rng([scene.seed, number]))
        right = _side(scene, sound)
        track += np.stack([mono * (1 - right), mono * right]) * 2
    return track.astype(np.float32)


def _side(scene: Scene, sound: Sound) -> float:
    """Return how far to the right it is heard, around 0.5; the two channels' mean never changes."""
    for actor in scene.actors:
        if actor.name == sound.actor:
            return 0.5 + 0.2 * (min(max(actor.x / scene.width, 0.0), 1.0) - 0.5)
    return 0.5


def _voice(sound: Sound, length: int, rng: np.random.Generator) -> Wave:
    track = np.zeros(length)
    ends = [*sound.onsets[1:], sound.end_s]
    for number, (start_s, end_s) in enumerate(zip(sound.onsets, ends, strict=True)):
        start, end = round(start_s * RATE_HZ), min(round(end_s * RATE_HZ), length)
        time = np.arange(end - start) / RATE_HZ
        raw = VOICES[sound.category](time, number, rng)
        loudness = np.minimum(time / _RISE_S, 1)
        loudness *= (1 - _LEFT_OVER) * np.exp(-time / _FADE_S) + _LEFT_OVER
        loudness *= np.minimum((end_s - start_s - time) / 0.005, 1)
        # All voices about equally loud, however peaky, and none above the largest value.
        track[start:end] = _PEAK * np.tanh(raw / raw.std()) * loudness
    return track


def _tone(hz: Wave | float, time: Wave, harmonics: tuple[float, ...]) -> Wave:
    """Make the harmonics of a pitch that may glide; ``hz`` per sample or constant."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hz, time.shape)) / RATE_HZ
    waves = [a * np.sin((k + 1) * phase) for k, a in enumerate(harmonics)]
    return np.asarray(np.sum(waves, axis=0))


def _pitch(base_hz: float, number: int) -> float:
    return float(base_hz * 2 ** (_SCALE[number % len(_SCALE)] / 12))


def _dog(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    since = time % 0.32
    hz = 190 + 330 * np.exp(-since / 0.07)
    woof = _tone(hz, time, (1, 0.8, 0.9, 0.5, 0.4, 0.2))
    return (woof + 0.5 * rng.standard_normal(time.size)) * np.exp(-since / 0.14)


def _cat(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    hz = 520 + 330 * np.sin(np.pi * np.minimum(time / 0.7, 1)) + 10 * np.sin(40 * time)
    return _tone(hz, time, (0.5, 1, 0.7, 0.35, 0.2))


def _frog(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    rattle = 0.15 + np.clip(np.sin(2 * np.pi * 28 * time), 0, 1) ** 2
    return _tone(150 + 60 * np.minimum(time / 0.25, 1), time, (1, 0.9, 0.8, 0.7, 0.3)) * rattle


def _bird(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    trill = 3200 + 700 * np.sin(2 * np.pi * 17 * time) + 300 * (number % 3)
    return _tone(trill, time, (1, 0.15)) * (0.45 + 0.55 * np.cos(2 * np.pi * 8.5 * time) ** 2)


def _baby(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    hz = 430 + 150 * np.sin(np.pi * np.minimum(time / 0.9, 1)) + 14 * np.sin(2 * np.pi * 6 * time)
    return _tone(hz, time, (0.7, 0.6, 1, 0.8, 0.3, 0.2))


def _car(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    brass = (1, 0.7, 0.6, 0.45, 0.3, 0.2)
    return _tone(370, time, brass) + _tone(466, time, brass)


def _alarm_clock(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    ring = _tone(2100, time, (1,)) + 0.7 * _tone(2790, time, (1,)) + 0.4 * _tone(4310, time, (1,))
    return ring * np.exp(-(time % 0.05) / 0.03)


def _drum_kit(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    kick = _tone(50 + 110 * np.exp(-time / 0.04), time, (1, 0.3))
    beat = time % 0.25
    snare = rng.standard_normal(time.size) * np.exp(-beat / 0.06)
    return kick + 0.7 * snare


def _violin(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    hz = _pitch(440, number) * (1 + 0.008 * np.sin(2 * np.pi * 5.6 * time))
    return _tone(hz, time, tuple(1 / k for k in range(1, 13)))


def _guitar(time: Wave, number: int, rng: np.random.Generator) -> Wave:
    strings = [_pitch(196 * ratio, number) for ratio in (1, 1.26, 1.5, 2)]
    plucks = []
    for delay, hz in zip((0.0, 0.012, 0.024, 0.036), strings, strict=True):
        late = np.clip(time - delay, 0, None)
        partials = [
            np.sin(2 * np.pi * k * hz * late) * np.exp(-late * 1.5 * k) / k for k in range(1, 8)
        ]
        plucks.append(np.sum(partials, axis=0))
    return np.asarray(np.sum(plucks, axis=0))


VOICES: dict[str, Callable[[Wave, int, np.random.Generator], Wave]] = {
    "dog": _dog,
    "cat": _cat,
    "frog": _frog,
    "bird": _bird,
    "baby crying": _baby,
    "car": _car,
    "alarm clock": _alarm_clock,
    "drum kit": _drum_kit,
    "violin": _violin,
    "guitar": _guitar,
}
"""Category to its voice: seconds since the stroke, the stroke's number, a generator; any scale."""
