"""The ways in which boxes of a clip's frames are linked: their interface, and where one is chosen.

A linker looks at the pictures between a clip's frames and says how far a box of one frame, carried
to a later one, is each box there; ``tracks`` makes tracks of that. One joins with its class, one
line in ``LINKERS`` and its name in ``propose.link``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.media import Media, Picture, decode_pictures, read_timeline
from pipeline.media.timeline import Timeline, exact
from pipeline.records.schema import Frame, Proposal
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Backend, make_backend
from stages.backends.motion.evidence import Grey
from stages.propose.carrying import Box, Floats, carried_overlaps, flows

_WORK_PX = 320
"""Longest side of the pictures that flow is looked for in; bounds its cost."""

_EVERY_S = Fraction(1, 20)
"""Pictures nearer than this to the last one are passed over: every second one of 25 or 30/s."""

_MOST_PICTURES = 300
"""The pictures of a clip, about, whatever its length and frame rate: bounds the cost."""

_NEAR_S = Fraction(1, 1000)
"""A frame and the picture it was taken from are this near, for times are rounded."""

Place = tuple[int, int]
"""The number of a frame, and of a box in it."""

Likeness = Callable[[int, Sequence[Place]], Floats]
"""Called for each frame after the first, in order, with its number and the box that each track was
seen in last: returns IoU in [0, 1] of each of these, carried here, with each box here, ``(tracks,
boxes)``. 0 where one is lost."""

Shown = tuple[Picture, int | None]
"""A picture, and the number of the frame that was taken from it; none: it lies between."""


@dataclass(frozen=True)
class ClipBoxes:
    """The boxes of a clip's frames, and the pictures between the frames."""

    frames: Sequence[Frame]
    """Two or more, in order of time."""
    rows: Sequence[Sequence[Proposal]]
    """The boxes of each; none has none."""
    pictures: Iterable[Shown]
    """Read as they are taken, once."""


class Linker(Backend, Protocol):
    """A backend that carries boxes from frame to frame."""

    def carried(self, clip: ClipBoxes) -> Likeness:
        """Return what tells how far boxes, carried along, are others.

        Raises:
            InputError: the video cannot be decoded, or a frame is not in it; also when called.
        """
        ...


class FlowLinker:
    """Carry boxes along the optical flow, there and back; see ``carrying``."""

    name = "flow"
    has_weights = False

    def __init__(self, config: ProposeConfig) -> None:
        """Keep nothing: no setting changes what flow is."""

    def fingerprint(self) -> Mapping[str, str]:
        """Return nothing: the stage's version is this linker's, too."""
        return {}

    def open(self, storage: Storage) -> None:
        """Load nothing."""

    def carried(self, clip: ClipBoxes) -> Likeness:
        """Carry all boxes to all frames before the first is asked for."""
        places: list[int] = []  # of each frame among the pictures

        def greys() -> Iterator[Grey]:
            for place, (picture, number) in enumerate(clip.pictures):
                if number is not None:
                    places.append(place)
                yield small(picture)

        between = list(flows(greys()))
        boxes: dict[int, list[Box]] = {}
        of_place: dict[int, Sequence[Proposal]] = {}
        for place, frame, rows in zip(places, clip.frames, clip.rows, strict=True):
            scale = _scale(frame.width, frame.height)
            boxes[place] = [[side * scale for side in row.bbox] for row in rows]
            of_place[place] = rows

        def alike(place: int, one: int, other: int) -> bool:
            return may_be_one(of_place[place][one], of_place[place][other])

        overlaps = carried_overlaps(between, boxes, alike)

        def likeness(frame: int, seen: Sequence[Place]) -> Floats:
            here = places[frame]
            return np.array([overlaps[places[earlier], here][box] for earlier, box in seen])

        return likeness


LINKERS = {
    "flow": "stages.propose.linkers:FlowLinker",
    "sam2": "stages.propose.sam2_linker:Sam2Linker",
}


def make_linker(config: ProposeConfig) -> Linker | None:
    """Make the linker of the settings; none where boxes are not linked."""
    if config.link == "none":
        return None
    linker: Linker = make_backend(LINKERS, config.link, config)
    return linker


def may_be_one(one: Proposal, other: Proposal) -> bool:
    """Say whether two boxes may show one thing: of a class of one detector, or of a category."""
    same_class = (one.detector, one.detector_class) == (other.detector, other.detector_class)
    return same_class or not set(one.categories).isdisjoint(other.categories)


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
    scale = _scale(*picture.size)
    if scale == 1.0:
        return np.ascontiguousarray(luma)
    resized = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return resized.astype(np.uint8, copy=False)


def _scale(width: int, height: int) -> float:
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
