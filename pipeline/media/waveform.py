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

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media.container import Media
from pipeline.media.sound import Channels, UnreadSamples, one_channel, sound_blocks
from pipeline.media.timeline import Timeline, exact


def waveform(
    media: Media,
    timeline: Timeline,
    start_s: float,
    end_s: float,
    rate_hz: int,
    channels: Channels = "first",
) -> NDArray[np.float32]:
    """The sound in ``[start_s, end_s)``, of one channel.

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
    wave, rate = _decoded(media, timeline.start, start, end, channels)
    if not np.isfinite(wave).all():
        raise MediaError("undecodable", f"{media.path.name}: its sound is not finite")
    samples = resampled(wave, rate, rate_hz)
    return samples.astype(np.float32) / np.float32(2**15)


def _decoded(
    media: Media, zero: Fraction, start: Fraction, end: Fraction, channels: Channels
) -> tuple[NDArray[np.float32], int]:
    """The span at the file's own rate, and that rate."""
    name = media.path.name
    wave = np.zeros(0, np.float32)
    rate = first = heard = 0
    unread = UnreadSamples()
    for position, block in sound_blocks(media, zero, start, end):
        if not rate:
            rate = block.sample_rate
            first = heard = ceil(start * rate)
            wave = np.zeros(ceil(end * rate) - first, np.float32)
        until = min(position + block.samples, first + len(wave))
        for part in unread.take(max(position, first), until):
            sound = one_channel(block, channels)[part.start - position : part.stop - position]
            wave[part.start - first : part.stop - first] = sound
            heard = max(heard, part.stop)
    if heard == first:
        text = f"{name}: no sound from {float(start):g} to {float(end):g} s"
        raise MediaError("no_audio", text)
    return wave[: heard - first], rate


def resampled(wave: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.int16]:
    """A waveform ``(samples,)`` at another rate, in 16 bits."""
    frame = AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    resampler = AudioResampler(format="s16", layout="mono", rate=wanted)
    parts = [part for given in (frame, None) for part in resampler.resample(given)]
    return np.concatenate([part.to_ndarray()[0] for part in parts]).astype(np.int16, copy=False)
