"""Encode pictures as a small MP4: a few in a silent loop, or a whole clip with its sound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media.picture import Picture
from pipeline.media.waveform import LAYOUTS, audio_frame, resample

REPEATABLE = {"threads": "1", "mbtree": "0"}
"""Options with which libx264 gives the same bytes for the same pictures.

With macroblock trees its AVX-512 code reads behind its buffers: of 60 encodes of one clip, each
after other use of the heap, one came out different; none of 360 without them.
"""
_TICK = Fraction(1, 90_000)
"""The unit of a film's times, seconds."""
_AAC_RATE_HZ = 48_000
_AAC_BITS = 4
"""Bits per sample: 192 kbit/s a channel at 48 kHz. White noise, the hardest case, then keeps 98 %
of its RMS; with the encoder's usual 1.4 it loses 18 %.
"""
Timed = tuple[Fraction, NDArray[np.uint8]]
"""A picture: its time in seconds, and its colours ``(height, width, 3)``."""


def encode(pictures: Iterable[Picture], fps: float, target: Path) -> None:
    """Write the pictures as displayed, each shown for one frame of ``fps``, as H.264 without sound.

    A side of odd length loses its last row or column: H.264's colours need even ones.

    Raises:
        MediaError: ``empty_span`` when there is no picture, and what decoding them raises.
        OSError: the target cannot be written.
    """
    rate = Fraction(fps).limit_denominator(1001)
    timed = ((number / rate, picture.rgb()) for number, picture in enumerate(pictures))
    encode_film(timed, fps, target, None, 0, tick=1 / rate)


def encode_film(
    pictures: Iterable[Timed],
    fps: float,
    target: Path,
    sound: NDArray[np.float32] | None,
    rate_hz: int,
    *,
    lead: int = 0,
    options: Mapping[str, str] = MappingProxyType({}),
    tick: Fraction = _TICK,
) -> None:
    """Write pictures at their own times with a sound, as H.264 and AAC.

    Args:
        pictures: in the order of their times, all of one size; odd sides lose a row or column.
        fps: about how many there are in a second; it guides the encoder alone.
        target: an MP4 file; replaced.
        sound: in [-1, 1], ``(samples,)`` or ``(channels, samples)`` of at most two; None: silent.
        rate_hz: its samples per second.
        lead: how many of its samples come before time 0 and are hidden.
        options: of the picture's encoder, in place of the usual ones.
        tick: the unit of the times in the file, seconds.

    Raises:
        MediaError: ``empty_span`` when there is no picture.
        OSError: the target cannot be written.
    """
    rate = Fraction(fps).limit_denominator(1001)
    wanted = {"crf": "20", **REPEATABLE, **options}
    with av.open(
        str(target.absolute()), "w", format="mp4", options={"movflags": "faststart"}
    ) as mp4:
        stream: Any = mp4.add_stream("libx264", rate=rate, options=wanted)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = tick
        voice: Any = None
        if sound is not None:
            sound, rate_hz, lead = _for_aac(np.atleast_2d(sound), rate_hz, lead)
            voice = _add_voice(mp4, len(sound), rate_hz)
        written = encode_pictures(mp4, stream, pictures, tick)
        if written and sound is not None:
            _add_sound(mp4, voice, sound, rate_hz, lead)
    if not written:
        target.unlink(missing_ok=True)
        raise MediaError("empty_span", f"{target.name}: no picture to show")


def encode_pictures(
    file: OutputContainer, stream: Any, pictures: Iterable[Timed], tick: Fraction
) -> int:
    """Encode pictures into a stream as large as the first of them; return how many there were."""
    written = 0
    for time, rgb in pictures:
        if not written:
            stream.height, stream.width = (side - side % 2 for side in rgb.shape[:2])
        image = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(rgb[: stream.height, : stream.width]), format="rgb24"
        )
        image.pts, image.time_base = round(time / tick), tick
        file.mux(stream.encode(image))
        written += 1
    if written:
        file.mux(stream.encode(None))
    return written


def _for_aac(
    sound: NDArray[np.float32], rate_hz: int, lead: int
) -> tuple[NDArray[np.float32], int, int]:
    """Return the sound at a rate AAC has: its own, or the highest one of common players."""
    if rate_hz in (av.Codec("aac", "w").audio_rates or ()):
        return sound, rate_hz, lead
    resampled = resample(sound, rate_hz, _AAC_RATE_HZ, "fltp")
    return resampled, _AAC_RATE_HZ, round(lead * _AAC_RATE_HZ / rate_hz)


def _add_voice(mp4: OutputContainer, channels: int, rate_hz: int) -> Any:
    """Add AAC that keeps loudness: all frequencies, and noise as it was, not other noise."""
    options = {"aac_pns": "0", "cutoff": str(rate_hz // 2)}
    voice: Any = mp4.add_stream("aac", rate=rate_hz, layout=LAYOUTS[channels], options=options)
    voice.bit_rate = _AAC_BITS * rate_hz * channels
    return voice


def _add_sound(
    mp4: OutputContainer, voice: Any, sound: NDArray[np.float32], rate_hz: int, lead: int
) -> None:
    size = voice.codec_context.frame_size or 1024
    for start in range(0, sound.shape[1], size):
        mp4.mux(voice.encode(audio_frame(sound[:, start : start + size], start - lead, rate_hz)))
    mp4.mux(voice.encode(None))
