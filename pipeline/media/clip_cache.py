"""A clip as training reads it: every frame, small, with its sound, in one file.

Decoding the source at full size and shrinking it again each epoch costs 3 to 4 times as much as
decoding a small copy. Of the small copies, H.264 with a keyframe every 30 frames is both smaller
and cheaper than all keyframes, and a tenth of the size of JPEGs (the measurements are in
``benchmarks/results/clip_cache.json``). The sound is stored without loss, as what a spectrogram
needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.files import replacing
from pipeline.media.container import Media
from pipeline.media.encode import REPEATABLE, Timed, encode_pictures
from pipeline.media.picture import decode_pictures
from pipeline.media.timeline import exact, read_timeline
from pipeline.media.waveform import audio_frame, to_unit, waveform

SIZE_PX = 224
"""Width and height; the picture is stretched to it, as the field's models have it."""
RATE_HZ = 16_000
"""Samples of sound per second."""
_VIDEO = {
    "preset": "veryfast",
    "crf": "18",
    "tune": "fastdecode",
    "g": "30",
    "bf": "0",
    **REPEATABLE,
}


@dataclass(frozen=True)
class ClipTensors:
    """A clip in memory."""

    frames: NDArray[np.uint8]
    """RGB, ``(t, SIZE_PX, SIZE_PX, 3)``."""
    waveform: NDArray[np.float32]
    """Mono in [-1, 1] at ``RATE_HZ``, ``(samples,)``."""


@dataclass(frozen=True)
class CachedClipFacts:
    """The facts of a cached clip."""

    num_frames: int
    loudest_rms: float
    """RMS of its loudest second, in [0, 1]."""


def write_cached_clip(media: Media, start_s: float, end_s: float, target: Path) -> CachedClipFacts:
    """Write the clip ``[start_s, end_s)`` of a video as a cached clip, whole or not at all.

    The same clip gives the same bytes. Its sound is the mean of the channels.

    Args:
        media: the source.
        start_s: seconds from the source's first frame.
        end_s: where the clip ends.
        target: a ``.mkv``; replaced.

    Returns:
        How many frames, and how loud.

    Raises:
        MediaError: ``no_audio``, ``undecodable``, ``damaged`` when a frame of the clip is.
    """
    timeline = read_timeline(media)
    span = timeline.between(exact(start_s), exact(end_s))
    sound = waveform(media, timeline, start_s, end_s, RATE_HZ, "mean")
    rate = Fraction(len(span)) / (exact(end_s) - exact(start_s))

    def pictures() -> Iterator[Timed]:
        for number, shown in enumerate(decode_pictures(media, timeline, [span])):
            if shown.damaged:
                raise MediaError("damaged", f"{media.path.name}: a frame at {float(shown.time)} s")
            # Evenly spaced, whatever the source's times are: training reads frames by number.
            small = cv2.resize(shown.rgb(), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
            yield number / rate, np.asarray(small, np.uint8)

    options = {"fflags": "+bitexact"}
    with (
        replacing(target) as staged,
        av.open(str(staged), "w", format="matroska", options=options) as file,
    ):
        picture = file.add_stream("libx264", rate=rate.limit_denominator(1000), options=_VIDEO)
        picture.pix_fmt = "yuv420p"
        voice = file.add_stream("flac", rate=RATE_HZ, layout="mono")
        voice.codec_context.format = "s16"
        encode_pictures(file, picture, pictures(), 1 / rate)
        samples = (sound * 2**15).astype(np.int16)[None]
        file.mux(voice.encode(audio_frame(samples, 0, RATE_HZ)))
        file.mux(voice.encode(None))
    seconds = np.split(sound.astype(np.float64), range(RATE_HZ, len(sound), RATE_HZ))
    loudest = max(float(np.sqrt(np.mean(second**2))) for second in seconds)
    return CachedClipFacts(len(span), loudest)


def read_cached_clip(path: Path) -> ClipTensors:
    """Read a cached clip; the same file gives the same arrays on any worker.

    Raises:
        MediaError: as ``Media.open`` does; ``undecodable`` too when it ends before it should.
    """
    frames: list[NDArray[np.uint8]] = []
    sound: list[NDArray[np.int16]] = []
    with Media(path).open() as file:
        for stream in (file.streams.video[0], file.streams.audio[0]):
            stream.codec_context.thread_count = 1
        # The header's duration is written last of all.
        whole_s = (file.duration or 0) / 1_000_000
        rate = file.streams.video[0].average_rate or Fraction(1)
        for frame in file.decode(file.streams.video[0], file.streams.audio[0]):
            if isinstance(frame, av.VideoFrame):
                frames.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
            elif isinstance(frame, av.AudioFrame):
                sound.append(frame.to_ndarray()[0].astype(np.int16, copy=False))
    if not frames or not sound or len(frames) / rate < whole_s - 1 / rate:
        raise MediaError("undecodable", f"{path.name}: ends after {len(frames)} frames")
    return ClipTensors(np.stack(frames), to_unit(np.concatenate(sound)))
