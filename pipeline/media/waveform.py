"""The waveform of a span at a model's sample rate.

Resampled by libswresample's windowed sinc (anti-aliased, linear phase), to 16 bits. Published
models of sound hear the first of several channels: what ``ffmpeg -ar`` and a selection of the first
channel give, the way their training sets were made; a mix would be another input than theirs.
Whatever has no authors to follow hears the mean, as ``sample`` measures loudness: what is in one
channel alone is not missed. In the mean, and so in ``sample``, channels of opposite phase are
silence.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any, Literal

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media.container import Media
from pipeline.media.sound import Channels, one_channel, read_span
from pipeline.media.timeline import Timeline, exact

LAYOUTS = {1: "mono", 2: "stereo"}
"""Names of the arrangements of channels we write, by their number."""


def waveform(
    media: Media,
    timeline: Timeline,
    start_s: float,
    end_s: float,
    rate_hz: int,
    channels: Channels = "first",
) -> NDArray[np.float32]:
    """Return the sound in ``[start_s, end_s)``, of one channel.

    A gap in the sound is silence; sound that ends before the span does gives a shorter array.

    Args:
        media: the file.
        timeline: the video's, whose first frame is time 0.
        start_s: where the span begins, seconds.
        end_s: where it ends.
        rate_hz: wanted samples per second.
        channels: which of several is heard.

    Returns:
        ``(samples,)`` in [-1, 1], multiples of 2 ** -15.

    Raises:
        MediaError: ``no_audio`` when the file or the span has no sound, ``undecodable``, and what
            ``sound_blocks`` raises.
    """
    start, end = exact(start_s), exact(end_s)
    wave, rate, found = read_span(
        media,
        timeline.start,
        start,
        end,
        lambda rate: range(ceil(start * rate), ceil(end * rate)),
        lambda block: one_channel(block, channels)[None],
    )
    if not found:
        text = f"{media.path.name}: no sound from {float(start):g} to {float(end):g} s"
        raise MediaError("no_audio", text)
    return to_unit(resample(wave[:, :found], rate, rate_hz, "s16")[0])


def to_unit(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Scale samples of 16 bits to [-1, 1]."""
    return samples.astype(np.float32) / np.float32(2**15)


def resample(
    wave: NDArray[np.float32], rate: int, wanted: int, sample_format: Literal["s16", "fltp"]
) -> NDArray[Any]:
    """Bring a waveform of one or two channels, ``(channels, samples)``, to another rate."""
    resampler = AudioResampler(format=sample_format, layout=LAYOUTS[len(wave)], rate=wanted)
    frame = audio_frame(wave, 0, rate)
    parts = [part.to_ndarray() for given in (frame, None) for part in resampler.resample(given)]
    return np.concatenate(parts, axis=1)


def audio_frame(wave: NDArray[Any], start: int, rate_hz: int) -> AudioFrame:
    """Make a frame of samples from number ``start`` on: floats, or 16 bits of one channel."""
    kind = "fltp" if wave.dtype == np.float32 else "s16"
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(wave), kind, LAYOUTS[len(wave)])
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
    return frame
