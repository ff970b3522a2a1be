"""The time of each frame of a video, read from its packets: nothing is decoded.

A decoder gives every shown packet back as one frame with the packet's timestamp, so a frame is
known by its index here before anything is decoded, and a seek can be held against it. Packets an
edit list hides are not shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media.container import MAX_DURATION_S, Media, video_stream

PUNCTUAL_S = 0.05
"""A file that starts within this of 0 starts at 0: codecs warm up and frames are reordered."""


@dataclass(frozen=True)
class Timeline:
    """The presented frames of a video, numbered from 0 in the order they are shown."""

    pts: NDArray[np.int64]
    """Presentation time of each frame in ``time_base``, ascending without repeats."""
    key_pts: NDArray[np.int64]
    """Times of the packets a decoder can start at, hidden ones too, ascending."""
    time_base: Fraction
    """Seconds per unit."""
    end: Fraction
    """Seconds from the first frame to the end of the last one."""

    @property
    def start(self) -> Fraction:
        """Time 0 on the file's own clock, seconds."""
        return int(self.pts[0]) * self.time_base

    def time(self, index: int) -> Fraction:
        """Return the time of frame ``index``, seconds from the first frame."""
        return int(self.pts[index] - self.pts[0]) * self.time_base

    def between(self, start: Fraction, stop: Fraction, *, closed: bool = False) -> range:
        """Return the frames shown at ``start <= time < stop``; with ``closed`` also at ``stop``."""
        return range(self._count_before(start), self._count_before(stop, or_at=closed))

    def _count_before(self, time: Fraction, *, or_at: bool = False) -> int:
        units = time / self.time_base + int(self.pts[0])
        # Integers against a fraction: the first index at or after it is the one after its ceiling.
        bound = units.__floor__() + 1 if or_at else units.__ceil__()
        return int(np.searchsorted(self.pts, bound))


def exact(seconds: float) -> Fraction:
    """Return the fraction a time means that was written as a decimal or rounded to a float.

    >>> exact(0.1), exact(1 / 30), exact(1001 / 30000)
    (Fraction(1, 10), Fraction(1, 30), Fraction(1001, 30000))
    """
    return Fraction(seconds).limit_denominator(1_000_000)


def read_timeline(media: Media) -> Timeline:
    """Pass over the video's packets once.

    Raises:
        MediaError: ``missing_pts``, ``bad_timestamps``, ``undecodable``, and what opening raises.
    """
    shown: list[int] = []
    keys: list[int] = []
    last = last_duration = 0
    name = media.path.name
    with media.open() as container:
        stream = video_stream(container)
        time_base = stream.time_base
        assert time_base is not None
        hides = stream.codec_context.name == "vp8"
        for packet in container.demux(stream):
            media.check_time()
            pts = packet.pts
            if pts is None:
                if packet.size == 0:
                    continue  # the end
                raise MediaError("missing_pts", f"{name}: a video packet without a timestamp")
            if packet.is_keyframe:
                keys.append(pts)
            if packet.is_discard or (hides and not _vp8_shows(packet)):
                continue
            shown.append(pts)
            if pts >= last or len(shown) == 1:
                last, last_duration = pts, packet.duration or 0
        claimed = file_end(container)
    if not shown or not keys:
        raise MediaError("undecodable", f"{name}: no {'keyframe' if shown else 'frame'} in it")
    times = np.unique(np.array(shown, np.int64))
    _check_span(times, last_duration, time_base, name)
    end = _end(times, last_duration, time_base, claimed)
    return Timeline(times, np.unique(np.array(keys, np.int64)), time_base, end)


def _vp8_shows(packet: Packet[VideoStream]) -> bool:
    # RFC 6386, 9.1: bit 4 of the first byte is show_frame; alternate references have it off.
    return bool(bytes(packet)[0] & 0x10)


def _check_span(pts: NDArray[np.int64], duration: int, time_base: Fraction, name: str) -> None:
    seconds = (int(pts[-1]) - int(pts[0]) + duration) * time_base
    if duration < 0 or seconds > MAX_DURATION_S:
        text = f"{name}: timestamps span {float(seconds):.0f} s, over {MAX_DURATION_S} s"
        raise MediaError("bad_timestamps", text)


def _end(
    pts: NDArray[np.int64], last_duration: int, time_base: Fraction, claimed: Fraction | None
) -> Fraction:
    """Return the end of the last frame, seconds from the first.

    A player holds the last frame while the sound runs on. Up to one frame more is granted, where
    the file is that long: cameras and cutters often end the picture a frame before the sound, and
    a 10 s file of 299 frames is still a 10 s file. A header that claims more is not believed.
    """
    end = (int(pts[-1] - pts[0]) + last_duration) * time_base
    if claimed is None:
        return end
    step = int(np.median(np.diff(pts))) if len(pts) > 1 else last_duration
    claimed -= int(pts[0]) * time_base
    return max(end, min(claimed, end + step * time_base))


def file_end(container: InputContainer) -> Fraction | None:
    """Return the file's end on its own clock, as the header has it.

    Of a file that starts late Matroska's headers hold the end or the length, and so do MP4's, whose
    tracks know better.
    """
    if container.duration is None:
        return None
    start = Fraction(container.start_time or 0, 1_000_000)
    duration = Fraction(container.duration, 1_000_000)
    if start <= PUNCTUAL_S:
        return start + duration
    ends = [
        (stream.start_time + stream.duration) * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.duration and stream.time_base is not None
    ]
    return max(ends, default=duration if duration > start else start + duration)
