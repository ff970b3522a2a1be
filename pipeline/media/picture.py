"""Decoded frames: exactly those of a sequential decode, at the cost of the few that are wanted.

Frames are asked for by their index in the timeline. Decoding starts at the last keyframe shown at
or before the first of them, so pictures that lead a keyframe of an open group are never taken
from behind it. On the way there, pictures that no other refers to are passed over. What the decoder
marks as damaged, and what it decodes from then on up to the next keyframe, is marked here:
concealment paints sharp-edged blocks. Pixels that are not square are made square.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from av import FFmpegError
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media.container import Media, video_stream
from pipeline.media.disposable import disposable_packets
from pipeline.media.timeline import Timeline, exact, read_timeline
from pipeline.pictures import encode_image

_SQUARE = Fraction(1, 100)
"""Pixels this near to square are square: sites scale to even sizes and write down what is left,
such as 321:320 at 640x360, where stretching by a pixel or two would only blur."""

_MAX_PIXEL_ASPECT = 10
"""Longest pixel believed, width over height or the other way; films and broadcasts stay below 3."""


@dataclass(frozen=True)
class Picture:
    """A decoded frame, converted only when asked."""

    index: int
    """Number in the video's timeline."""
    time: Fraction
    """Seconds from the video's first frame."""
    damaged: bool
    """The decoder could not decode it, or something it was given before since a keyframe."""
    frame: VideoFrame
    pixel_aspect: Fraction = Fraction(1)
    """Width over height of a decoded pixel as displayed."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as displayed, pixels."""
        size = self._square_width, self.frame.height
        return size[::-1] if _orientation(self.frame)[0] else size

    @property
    def _square_width(self) -> int:
        width = self.frame.width
        return width if self.pixel_aspect == 1 else max(1, round(width * self.pixel_aspect))

    def luma(self) -> NDArray[np.uint8]:
        """Return the luma plane as displayed, ``(height, width)``; see :func:`luma_plane`."""
        return self._displayed(luma_plane(self.frame))

    def rgb(self) -> NDArray[np.uint8]:
        """Return the colours as displayed, ``(height, width, 3)``."""
        return self._displayed(self.frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))

    def _displayed(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        width, height = self._square_width, self.frame.height
        if width != self.frame.width:
            how = cv2.INTER_AREA if width < self.frame.width else cv2.INTER_CUBIC
            image = cv2.resize(image, (width, height), interpolation=how).astype(
                np.uint8, copy=False
            )
        return _oriented(image, self.frame)

    def sharpness(self) -> float:
        """Return the variance of the 3x3 Laplacian of the 8-bit luma (edges mirrored), as decoded.

        As decoded, for frames of one video are compared, and making pixels square would add a blur
        of its own. 16-bit arithmetic is exact here, and four times as fast as OpenCV's CV_64F.
        """
        _, deviation = cv2.meanStdDev(cv2.Laplacian(luma_plane(self.frame), cv2.CV_16S))
        return float(deviation[0, 0]) ** 2

    def encode(self, image_format: str, jpeg_quality: int) -> bytes:
        """Return the picture as displayed, as the bytes of a ``jpg`` or ``png`` file."""
        return encode_image(self.rgb(), image_format, jpeg_quality)


def decode_pictures(
    media: Media, timeline: Timeline, ranges: Iterable[range], *, any_size: bool = False
) -> Iterator[Picture]:
    """Decode the frames of ``ranges``: ascending, disjoint ranges of timeline indices.

    A frame the decoder cannot deliver at all is missing from the result. All are of one size as
    displayed: ``media.size``, or else that of the first; with ``any_size`` of whichever they have.

    Raises:
        MediaError: ``undecodable``, ``too_slow``, ``size_changes``, ``pixel_aspect``.
    """
    size = media.size
    with media.open() as container:
        run = _Run(media, timeline, container)
        for wanted in ranges:
            index = wanted.start
            while index < wanted.stop:  # a frame is only decoded if somebody wants it
                picture = run.picture(index)
                if picture is None or picture.index >= wanted.stop:
                    break
                size = size or picture.size
                if picture.size != size and not any_size:
                    raise _other_size(media, picture, size)
                yield picture
                index = picture.index + 1


def _other_size(media: Media, picture: Picture, size: tuple[int, int]) -> MediaError:
    found, wanted = "{}x{}".format(*picture.size), "{}x{}".format(*size)
    text = f"{media.path.name}: shows {found} at {float(picture.time):.3f} s, not {wanted}"
    return MediaError("size_changes", text)


def frames_between(path: Path, start_s: float, end_s: float) -> Iterator[Picture]:
    """Decode the frames of a video shown at ``start_s <= time <= end_s``, in order.

    Raises:
        MediaError: as ``read_timeline`` and ``decode_pictures`` do.
    """
    media = Media(path)
    timeline = read_timeline(media)
    yield from decode_pictures(
        media, timeline, [timeline.between(exact(start_s), exact(end_s), closed=True)]
    )


class _Decoded(NamedTuple):
    """A frame as it came out of the decoder."""

    number: int
    """The number of the frame in the timeline."""
    damaged: bool
    frame: VideoFrame


class _Run:
    """A decoder under way."""

    def __init__(self, media: Media, timeline: Timeline, container: InputContainer) -> None:
        self._media = media
        self._timeline = timeline
        self._container = container
        self._stream = video_stream(container)
        self._pixels = Pixels(self._stream, media.path.name)
        self._is_disposable = disposable_packets(self._stream)
        self._decoded: Iterator[_Decoded] = iter(())
        self._current: _Decoded | None = None
        """The last frame out; None before and after all."""
        self._on_the_way = range(0)
        """Times, in the file's units, of what is decoded for the sake of what comes later."""
        self._passed_over = False
        """Something was, since decoding last began."""

    def picture(self, index: int) -> Picture | None:
        """Return the first picture from ``index`` on that the decoder delivers, if any."""
        if self._current is not None and self._current.number == index - 1:
            self._advance()
        else:
            self._reach(index)
        if self._passed_over and (self._current is None or self._current.number != index):
            # Perhaps for want of those: some decoders learn from them in what order to show.
            self._is_disposable = self._current = None
            self._reach(index)
        if self._current is None:
            return None
        found, damaged, frame = self._current
        return Picture(found, self._timeline.time(found), damaged, frame, self._pixels.aspect())

    def _advance(self) -> None:
        self._current = next(self._decoded, None)

    def _reach(self, index: int) -> None:
        """Go to the first frame at or after ``index``; seek when that is shorter."""
        pts, keys = self._timeline.pts, self._timeline.key_pts
        key = max(0, int(np.searchsorted(keys, pts[index], side="right")) - 1)
        if self._current is not None and pts[self._current.number] >= keys[key]:
            self._on_the_way = range(int(pts[self._current.number]) + 1, int(pts[index]))
            self._skip_to(index)
            return
        # The index may point behind the keyframe, or the keyframe may need a run-up (intra
        # refresh): then its own picture is missing or damaged, and an earlier one must do.
        for attempt in sorted({key, max(0, key - 1), 0}, reverse=True):
            entry = int(np.searchsorted(pts, keys[attempt]))
            self._on_the_way = range(int(pts[min(entry, index)]) + 1, int(pts[index]))
            self._decoded = self._from_keyframe(int(keys[attempt]))
            self._advance()
            self._skip_to(entry)
            if self._current and self._current.number == entry and not self._current.damaged:
                break
        self._skip_to(index)

    def _skip_to(self, index: int) -> None:
        while self._current is not None and self._current.number < index:
            self._advance()

    def _from_keyframe(self, key_pts: int) -> Iterator[_Decoded]:
        self._container.seek(key_pts, stream=self._stream)
        pts, keys = self._timeline.pts, self._timeline.key_pts
        self._passed_over = damaged = False
        last = -1
        for packet in self._container.demux(self._stream):
            self._media.check_time()
            on_the_way = packet.pts in self._on_the_way
            if on_the_way and self._is_disposable and self._is_disposable(packet):
                self._passed_over = True
                continue
            frames = decode_packet(packet)
            if frames is None:
                damaged = True
                continue
            for frame in frames:
                self._media.counts.frames += 1
                if frame.pts is None:
                    continue
                if _place(keys, frame.pts) is not None:
                    damaged = False
                damaged = damaged or frame.is_corrupt
                index = _place(pts, frame.pts)
                # Where the parts of an edit list meet, two share a time.
                if index is not None and index != last:
                    last = index
                    yield _Decoded(index, damaged, frame)


class Pixels:
    """The shape of a stream's pixels as libav's players have it.

    What the container says stands; where it says nothing, or nothing else than the codec, the
    codec's word of the moment counts, which may change on the way.

    Args:
        stream: before anything of it is decoded.
        name: the file's, for errors.
    """

    def __init__(self, stream: VideoStream, name: str) -> None:
        self._codec = stream.codec_context
        self._name = name
        self._told = self._codec.sample_aspect_ratio
        self._shown = _or_square(stream.sample_aspect_ratio)
        self._follows = self._shown == _or_square(self._told)
        self._check()

    def aspect(self) -> Fraction:
        """Return the width over the height of the pixels of what was decoded last.

        Raises:
            MediaError: ``pixel_aspect``.
        """
        told = self._codec.sample_aspect_ratio
        if self._follows and told != self._told:
            self._told, self._shown = told, _or_square(told)
            self._check()
        return self._shown

    def _check(self) -> None:
        shown, most = self._shown, _MAX_PIXEL_ASPECT
        if not shown.denominator <= most * shown.numerator <= most * most * shown.denominator:
            text = f"{self._name}: pixels of {shown.numerator}:{shown.denominator}"
            raise MediaError("pixel_aspect", f"{text}, over {most}:1 either way")


def _or_square(aspect: Fraction | None) -> Fraction:
    if aspect is None or aspect <= 0 or abs(aspect - 1) <= _SQUARE:
        return Fraction(1)
    return aspect


def _place(ascending: NDArray[np.int64], value: int) -> int | None:
    at = int(np.searchsorted(ascending, value))
    return at if at < len(ascending) and int(ascending[at]) == value else None


def decode_packet(packet: Packet[VideoStream]) -> list[VideoFrame] | None:
    """Return the frames that come out when ``packet`` goes in; None when the decoder refuses it."""
    try:
        return packet.decode()
    except FFmpegError:
        return None


def luma_plane(frame: VideoFrame) -> NDArray[np.uint8]:
    """Return the 8-bit luma of a frame as decoded, ``(height, width)``, a view where possible.

    More than 8 bits are shifted down (10 bits: divided by 4 and cut off); the range (limited or
    full) stays as it is. Formats without a luma plane of their own (RGB, packed, palette) go
    through libswscale's gray.
    """
    luma = frame.format.components[0]
    whole = frame.format.is_planar or len(frame.format.components) == 1
    if whole and luma.is_luma and not frame.format.is_rgb:
        if luma.bits == 8:
            return _first_plane(frame, np.uint8)
        # By name: P010 and its kin are as deep, but keep their bits at the top of the 16.
        if luma.bits > 8 and re.fullmatch(r"(yuv|gray).*le", frame.format.name):
            deep = _first_plane(frame, np.uint16)
            return (deep >> (luma.bits - 8)).astype(np.uint8)
    return frame.to_ndarray(format="gray").astype(np.uint8, copy=False)


def _first_plane(frame: VideoFrame, kind: type[np.uint8] | type[np.uint16]) -> NDArray[Any]:
    plane = frame.planes[0]
    samples: NDArray[Any] = np.frombuffer(memoryview(plane), np.dtype(kind))
    return samples.reshape(frame.height, -1)[:, : frame.width]


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return how to display a frame: transpose it, then mirror left-right, then upside down.

    The display matrix is 3x3, row-major, 16.16 fixed point; a point (x, y) is shown at
    (a x + c y, b x + d y) with a, b, c, d its upper left corner, row by row. Of angles between,
    the nearest right angle is taken.
    """
    side_data = cast(SideDataContainer, frame.side_data)
    if SideDataType.DISPLAYMATRIX not in side_data:
        return False, False, False
    matrix = np.frombuffer(memoryview(side_data[SideDataType.DISPLAYMATRIX]), np.int32)
    a, b, _, c, d = (int(n) for n in matrix[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _oriented(image: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
    transpose, mirror, flip = _orientation(frame)
    if transpose:
        image = image.swapaxes(0, 1)
    return image[:: -1 if flip else 1, :: -1 if mirror else 1]
