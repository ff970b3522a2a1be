"""Videos with sound of every kind, and a slow second definition of how loud they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.media import Media, SoundTrack, read_timeline
from tests.video_factory import RATE, bursts

STEREO = np.stack([bursts(6, [1.5, 4.2]), -0.5 * bursts(6, [0.5, 3.1])])

SOUNDS: dict[str, dict[str, Any]] = {
    "stereo.mp4": {"sound": STEREO},
    "late_picture.mp4": {"sound": STEREO, "start_s": 3.2, "frames": 70},
    "late_sound.mp4": {"sound": STEREO, "sound_start_s": 2.3},
    "short_sound.mp4": {"sound": STEREO[:, : 3 * RATE + 5000]},
    "gap.mp4": {"sound": STEREO, "sound_gap": (2.1, 1.7), "frames": 200},
    "gap.mkv": {
        "sound": STEREO,
        "sound_gap": (2.1, 1.7),
        "frames": 200,
        "sound_codec": "pcm_s16le",
    },
    "wide.mkv": {"sound": STEREO, "sound_codec": "pcm_s32le"},
    "bytes.mkv": {"sound": STEREO, "sound_codec": "pcm_u8"},
    "float.mkv": {"sound": STEREO, "sound_codec": "pcm_f32le"},
    "flac.mkv": {"sound": STEREO, "sound_codec": "flac"},
    "opus.webm": {
        "sound": STEREO,
        "sound_codec": "libopus",
        "codec": "libvpx-vp9",
        "options": {"deadline": "realtime", "cpu-used": "8"},
    },
}
"""Recipes of videos whose sound begins, ends, breaks off and is coded in every way."""

SHIFTS_MS: dict[str, Callable[[int], int]] = {
    "all_early": lambda _: -700,
    "all_late": lambda _: 700,
    "overlap": lambda number: -450 if number >= 40 else 0,
    "one_ahead": lambda number: 2000 if number == 30 else 0,
    "one_far_ahead": lambda number: 20_000 if number == 30 else 0,
    "one_behind": lambda number: -1500 if number == 50 else 0,
    "halves_exchanged": lambda number: 3000 if number < 60 else -3000,
    "scattered": lambda number: 1000 * (number * 7 % 3) - 1000,
}
"""Milliseconds by which packets are said to come later, by their number."""


def waveform(path: Path) -> tuple[NDArray[np.float64], int]:
    """The whole mono waveform placed by timestamp, NaN where there is none, from video time 0."""
    with av.open(str(path)) as container:
        zero = min(f.pts * f.time_base for f in container.decode(video=0) if f.time_base)  # type: ignore[operator]
    with av.open(str(path)) as container:
        placed = []
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().astype(np.float64)
            if not frame.format.is_planar:
                samples = samples.reshape(-1, frame.layout.nb_channels).T
            scale = {"s16": 2**15, "s32": 2**31, "u8": 2**7}.get(frame.format.name.rstrip("p"), 1)
            samples = (samples - 128 if frame.format.name.startswith("u8") else samples) / scale
            assert frame.pts is not None
            assert frame.time_base is not None
            rate = frame.sample_rate
            time = frame.pts * frame.time_base - zero
            placed.append((int(time * rate // 1), samples.mean(axis=0)))
    wave = np.full(max(at + len(samples) for at, samples in placed), np.nan)
    for at, samples in placed:
        times = np.arange(at, at + len(samples))
        free = times[times >= 0]
        free = free[np.isnan(wave[free])]
        wave[free] = samples[free - at]
    return wave, rate


def reference_rms(wave: NDArray[np.float64], rate: int, seconds: int) -> list[float]:
    values = []
    for second in range(seconds):
        part = wave[second * rate : (second + 1) * rate]
        values.append(float(np.sqrt(np.nansum(part**2) / rate)))
    return values


def assert_rms_is_the_reference(path: Path) -> None:
    media = Media(path)
    track = SoundTrack.of_video(media, read_timeline(media), 100)
    found = track.span(0, track.seconds).rms_per_second()
    wave, rate = waveform(path)
    # A container that counts in milliseconds rounds where a sample lies by up to that much.
    tolerance = 2e-4 if path.suffix != ".mp4" else 1e-6
    assert found == pytest.approx(reference_rms(wave, rate, track.seconds), abs=tolerance)
    assert found.max() > 0.004
