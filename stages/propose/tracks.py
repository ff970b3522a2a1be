"""Link the boxes of one thing in a clip's frames: tracks.

Boxes are carried from frame to frame along the optical flow (``carrying``), there and back. A box
continues the track whose last box is carried onto it, one to one, so that the sum of their IoU is
largest (Hungarian assignment); pairs under ``propose.link_iou``, and those of different categories,
are none. A track may miss frames where its thing was not found. A box that continues none begins a
track of its own. Links are kept where they are sure: what is in doubt begins anew, as a thing that
has two tracks costs a look, and two things in one a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.media import Media, Picture, decode_pictures, read_timeline
from pipeline.media.timeline import Timeline, exact
from pipeline.records.schema import Frame, Proposal, track_id
from stages.backends.motion.evidence import Grey
from stages.propose.carrying import Box, Floats, carried_overlaps, flows

_WORK_PX = 320
"""Longest side of the pictures that flow is looked for in; bounds its cost."""

_EVERY_S = Fraction(1, 20)
"""Pictures nearer than this to the last one are passed over: every second one of 25 or 30/s."""

_MOST_PICTURES = 300
"""The pictures of a clip, about, whatever its length and frame rate: bounds the memory."""

_NEAR_S = Fraction(1, 1000)
"""A frame and the picture it was taken from are this near, for times are rounded."""


def linked(
    boxes: Mapping[str, Sequence[Proposal]],
    frames: Sequence[Frame],
    video: AbstractContextManager[Path],
    min_iou: float,
) -> dict[str, int]:
    """Return the track of each box of a clip, by ``proposal_id``.

    Args:
        boxes: by ``frame_id``; frames may be missing.
        frames: of the clip, in any order.
        video: gives the path of its file; asked only where two frames have boxes.
        min_iou: least IoU of a box carried along with the one it meets.

    Raises:
        InputError: the video is lost or cannot be decoded, or a frame is not in it.
    """
    seen = sorted((one for one in frames if boxes.get(one.frame_id)), key=lambda one: one.time_s)
    rows = [boxes[one.frame_id] for one in seen]
    overlaps: dict[tuple[int, int], Floats] = {}
    if len(seen) > 1:
        with video as path:
            overlaps = _overlaps(path, seen, rows)
    numbers = tracks([len(found) for found in rows], overlaps, min_iou)
    first: dict[int, str] = {}
    found = {}
    for of_frame, own in zip(rows, numbers, strict=True):
        for row, number in zip(of_frame, own, strict=True):
            found[row.proposal_id] = track_id(first.setdefault(number, row.proposal_id))
    return found


def tracks(
    counts: Sequence[int], overlaps: Mapping[tuple[int, int], Floats], min_iou: float
) -> list[list[int]]:
    """Tell apart the tracks of a clip's boxes.

    Args:
        counts: boxes of each frame, in order of time.
        overlaps: for two frames, the earlier first, how far each box there, carried here, is each
            box here: IoU in [0, 1].
        min_iou: what is less is no link.

    Returns:
        The track of each box of each frame, from 0 in the order they begin.

    >>> tracks([1, 2], {(0, 1): np.array([[0.2, 0.9]])}, 0.5)
    [[0], [1, 0]]
    """
    found: list[list[int]] = []
    last: list[tuple[int, int]] = []  # frame and box that each track was seen in last
    for frame, count in enumerate(counts):
        likeness = np.array(
            [overlaps[earlier, frame][box] for earlier, box in last], np.float64
        ).reshape(len(last), count)
        of_frame = [-1] * count
        for number, box in matched(likeness, min_iou):
            of_frame[box] = number
        for box in range(count):
            if of_frame[box] < 0:
                of_frame[box] = len(last)
                last.append((frame, box))
            last[of_frame[box]] = frame, box
        found.append(of_frame)
    return found


def matched(likeness: Floats, least: float) -> list[tuple[int, int]]:
    """Pair rows and columns one to one so that the sum over the pairs is largest.

    Args:
        likeness: of each row and column.
        least: pairs that are less alike are none.

    Returns:
        Row and column of each pair, by rows.

    >>> matched(np.array([[0.9, 0.8], [0.7, 0.1]]), 0.5)
    [(0, 1), (1, 0)]
    """
    worth = np.where(likeness >= least, likeness, 0.0)
    possible = worth > 0
    if (possible.sum(axis=0) > 1).any() or (possible.sum(axis=1) > 1).any():
        from scipy.optimize import linear_sum_assignment  # which takes longer than a small run

        rows, columns = linear_sum_assignment(worth, maximize=True)
    else:
        rows, columns = np.nonzero(possible)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if possible[row, column]]


def may_be_one(one: Proposal, other: Proposal) -> bool:
    """Say whether two boxes may show one thing: of a class of one detector, or of a category."""
    same_class = (one.detector, one.detector_class) == (other.detector, other.detector_class)
    return same_class or not set(one.categories).isdisjoint(other.categories)


def _overlaps(
    path: Path, frames: Sequence[Frame], rows: Sequence[Sequence[Proposal]]
) -> dict[tuple[int, int], Floats]:
    """Return how far each box of a frame is each box of a later one; by numbers of frames."""
    media = Media(path)
    timeline = read_timeline(media)
    places = [_index(timeline, frame) for frame in frames]
    read = _Read(media, timeline, places)
    between = list(flows(iter(read)))
    boxes: dict[int, list[Box]] = {}
    of_place: dict[int, Sequence[Proposal]] = {}
    for index, frame, found in zip(places, frames, rows, strict=True):
        if index not in read.places:
            raise _not_there(frame)
        scale = _scale(frame.width, frame.height)
        boxes[read.places[index]] = [[side * scale for side in row.bbox] for row in found]
        of_place[read.places[index]] = found

    def alike(place: int, one: int, other: int) -> bool:
        return may_be_one(of_place[place][one], of_place[place][other])

    carried = carried_overlaps(between, boxes, alike)
    number = {read.places[index]: number for number, index in enumerate(places)}
    return {
        (number[i], number[j]): np.where(_possible(of_place[i], of_place[j]), likeness, 0.0)
        for (i, j), likeness in carried.items()
    }


def _possible(rows: Sequence[Proposal], columns: Sequence[Proposal]) -> list[list[bool]]:
    return [[may_be_one(row, column) for column in columns] for row in rows]


class _Read:
    """The pictures between a clip's first frame and its last, grey and small.

    Args:
        media: the video.
        timeline: its.
        wanted: indices that are not passed over, ascending.
    """

    def __init__(self, media: Media, timeline: Timeline, wanted: Sequence[int]) -> None:
        self._media, self._timeline, self._wanted = media, timeline, frozenset(wanted)
        self._range = range(wanted[0], wanted[-1] + 1)
        span = timeline.time(wanted[-1]) - timeline.time(wanted[0])
        self._every = max(_EVERY_S, span / _MOST_PICTURES)
        self.places: dict[int, int] = {}
        """The number of each wanted picture that was read among those that were."""

    def __iter__(self) -> Iterator[Grey]:
        count, last = 0, None
        pictures = decode_pictures(self._media, self._timeline, [self._range], any_size=True)
        for picture in pictures:
            wanted = picture.index in self._wanted
            soon = last is not None and picture.time - last < self._every
            if not wanted and (soon or picture.damaged):
                continue
            if wanted:
                self.places[picture.index] = count
            count, last = count + 1, picture.time
            yield _small(picture)


def _small(picture: Picture) -> Grey:
    luma = picture.luma()
    scale = _scale(*picture.size)
    if scale == 1.0:
        return np.ascontiguousarray(luma)
    small = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)


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
