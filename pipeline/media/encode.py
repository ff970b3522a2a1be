"""Encode pictures as a small MP4: a few in a silent loop, or a whole clip with its sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media.picture import Picture

REPEATABLE = {"threads": "1", "mbtree": "0"}
"""Options with which libx264 gives the same bytes for the same pictures.

With macroblock trees its AVX-512 code reads behind its buffers: of 60 encodes of one clip, each
after other use of the heap, one came out different; none of 360 without them.
"""
_TICK = Fraction(1, 90_000)
"""Of a film's times, seconds."""
Timed = tuple[Fraction, NDArray[np.uint8]]
"""When a picture is shown, seconds, and its colours ``(height, width, 3)``."""


def encode(pictures: Iterable[Picture], fps: float, target: Path) -> None:
    """Write the pictures as displayed, each shown for one frame of ``fps``, as H.264 without sound.

    A side of odd length loses its last row or column: H.264's colours need even ones.

    Raises:
        MediaError: ``empty_span`` when there is no picture, and what decoding them raises.
        OSError: the target cannot be written.
    """
    rate = Fraction(fps).limit_denominator(1001)
    timed = ((number / rate, picture.rgb()) for number, picture in enumerate(pictures))
    _write(timed, rate, 1 / rate, target, None, 0)


def encode_film(
    pictures: Iterable[Timed],
    fps: float,
    target: Path,
    sound: NDArray[np.float32],
    rate_hz: int,
) -> None:
    """Write pictures at their own times with a sound, as H.264 and AAC.

    Args:
        pictures: in the order of their times, all of one size; odd sides lose a row or column.
        fps: about how many there are in a second; it guides the encoder alone.
        target: an MP4 file; replaced.
        sound: mono in [-1, 1], ``(samples,)``; its first sample is heard at time 0.
        rate_hz: its samples per second.

    Raises:
        MediaError: ``empty_span`` when there is no picture.
        OSError: the target cannot be written.
    """
    rate = Fraction(fps).limit_denominator(1001)
    _write(pictures, rate, _TICK, target, sound, rate_hz)


def _write(
    pictures: Iterable[Timed],
    rate: Fraction,
    tick: Fraction,
    target: Path,
    sound: NDArray[np.float32] | None,
    rate_hz: int,
) -> None:
    written = 0
    with av.open(
        str(target.absolute()), "w", format="mp4", options={"movflags": "faststart"}
    ) as mp4:
        stream: Any = mp4.add_stream("libx264", rate=rate, options={"crf": "20", **REPEATABLE})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = tick
        voice: Any = None
        if sound is not None:
            voice = mp4.add_stream("aac", rate=rate_hz, layout="mono")
        for time, rgb in pictures:
            height, width = (side - side % 2 for side in rgb.shape[:2])
            if not written:
                stream.width, stream.height = width, height
            image = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(rgb[: stream.height, : stream.width]), format="rgb24"
            )
            image.pts, image.time_base = round(time / tick), tick
            mp4.mux(stream.encode(image))
            written += 1
        if written:
            mp4.mux(stream.encode(None))
            if sound is not None:
                _add_sound(mp4, voice, sound, rate_hz)
    if not written:
        target.unlink(missing_ok=True)
        raise MediaError("empty_span", f"{target.name}: no picture to show")


def _add_sound(mp4: OutputContainer, voice: Any, sound: NDArray[np.float32], rate_hz: int) -> None:
    for start, block in _blocks(sound, voice.codec_context.frame_size or 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block[None]), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
        mp4.mux(voice.encode(frame))
    mp4.mux(voice.encode(None))


def _blocks(sound: NDArray[np.float32], size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for start in range(0, len(sound), size):
        yield start, sound[start : start + size]
