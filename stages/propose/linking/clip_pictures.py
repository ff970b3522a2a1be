"""The pictures between a clip's frames, as linkers look at them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.media import Media, Picture, decode_pictures, read_timeline
from pipeline.media.timeline import Timeline, exact
from pipeline.records.schema import Frame
from stages.backends.motion.evidence import Grey

_WORK_PX = 320
"""Longest side of the pictures that flow is looked for in; bounds its cost."""

_EVERY_S = Fraction(1, 20)
"""Pictures nearer than this to the last one are passed over: every second one of 25 or 30/s."""

_MOST_PICTURES = 300
"""The pictures of a clip, about, whatever its length and frame rate: bounds the cost."""

_NEAR_S = Fraction(1, 1000)
"""A frame and the picture it was taken from are this near, for times are rounded."""

Shown = tuple[Picture, int | None]
"""A picture, and the number of the frame that was taken from it; none: it lies between."""


def read_pictures(
    path: Path, frames: Sequence[Frame], beat: Callable[[], None]
) -> Generator[Shown, None, None]:
    """Yield the pictures from the first of a clip's frames to the last.

    Args:
        path: the video's file.
        frames: of the clip, in order of time.
        beat: called for each picture.

    Raises:
        InputError: the video cannot be decoded, or a frame is not in it.
    """
    media = Media(path)
    timeline = read_timeline(media)
    places = [_index(timeline, frame) for frame in frames]
    numbers = {index: number for number, index in enumerate(places)}
    first, end = places[0], places[-1]
    every = max(_EVERY_S, (timeline.time(end) - timeline.time(first)) / _MOST_PICTURES)
    met, last = 0, None
    pictures = decode_pictures(media, timeline, [range(first, end + 1)], any_size=True)
    for picture in pictures:
        if picture.index > places[met]:
            break
        number = numbers.get(picture.index)
        soon = last is not None and picture.time - last < every
        if number is None and (soon or picture.damaged):
            continue
        met += number is not None
        last = picture.time
        beat()
        yield picture, number
    if met < len(frames):
        raise _not_there(frames[met])


def small(picture: Picture) -> Grey:
    """Return a picture grey and small, as flow is looked for in it."""
    luma = picture.luma()
    scale = scale_of(*picture.size)
    if scale == 1.0:
        return np.ascontiguousarray(luma)
    resized = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return resized.astype(np.uint8, copy=False)


def scale_of(width: int, height: int) -> float:
    """Return the scale, at most 1, at which flow is looked for in pictures of a size."""
    return min(1.0, _WORK_PX / max(width, height))


def _index(timeline: Timeline, frame: Frame) -> int:
    """Return the picture a frame was taken from."""
    time = exact(frame.time_s)
    near = timeline.between(time - _NEAR_S, time + _NEAR_S, closed=True)
    if not near:
        raise _not_there(frame)
    return min(near, key=lambda index: abs(timeline.time(index) - time))


def _not_there(frame: Frame) -> InputError:
    text = f"no picture of the video is shown at {frame.time_s:.3f} s, where the frame was taken"
    return InputError("frame_not_in_source", text)
