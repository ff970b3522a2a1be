"""Carry boxes along the optical flow of what lies between the frames of a clip.

Dense flow (DIS) between two pictures in a row says where every pixel went, there and back. A box is
carried by a grid of points inside of it: they follow the flow, those that it does not lead back to
where they came from are given up, and so are those that leave the others, as what passes in front
takes them along. The box goes where the rest went: their median shift and spread (the Median Flow
tracker of Kalal, Mikolajczyk and Matas, ICPR 2010, with dense flow). One that has lost half of its
points gets new ones where it is, and one with next to none is lost.

No box is carried over a cut. Nor is one of two alike things that come to overlap on the way:
whether they passed each other or turned back, flow cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.records.boxes import iou_matrix
from stages.backends.motion.evidence import Grey, dense_flow
from stages.propose.linking.linkers import Floats

Box = Sequence[float]
"""``[x, y, w, h]`` in pixels of the pictures."""

Alike = Callable[[int, int, int], bool]
"""Called with a picture's place and two of its boxes: whether their things may be confused."""

_FINEST = 1
"""DIS stops at half the pictures' size, where its patches are as wide as a thing of 32 pixels of a
640x360 frame; it does so at a quarter by default, and loses those of 60."""

_GRID = 8
"""Points of a box on either side."""

_INNER = 0.8
"""The part of a box's sides the points are spread over: a thing seldom fills its box's rim."""

_RETURNS_PX = 1.0
"""A point that the flow there and back misses by more, on either axis, is given up."""

_LEAVES = 0.25
"""So is one that is this far from where the others would have it, in sides of the box."""

_RENEWED = 0.5
"""The fraction of its points under which a box gets new ones."""

_LOST = 0.125
"""The fraction of its points under which a box is lost."""

_APART, _MET = 0.1, 0.2
"""IoU of two boxes under which they are apart, and from which on they have met."""

_CUT_RETURNS = 0.15
"""The fraction of a picture's points that must be led back; fewer are a cut."""

_CUT_RESIDUE = 0.3
"""What the flow leaves unexplained of a picture, in its contrast; more is a cut. The cuts of the
videos this was looked at on leave 0.42 to 1.9, a camera shaken by hand 0.26."""

_LEAST_CONTRAST = 2.0
"""Grey levels of contrast under which a picture shows nothing."""

_EVERY_PX = 6
"""The points a cut is looked for at are this far apart."""


@dataclass(frozen=True)
class Flow:
    """The flow between two pictures in a row, at half of their size."""

    onwards: NDArray[np.float32]
    """``(h, w, 2)``: where each pixel of the first went, in pixels of the pictures."""
    back: NDArray[np.float32]
    """The same from the second to the first."""
    size_wh: tuple[int, int]
    """Width and height of the pictures."""
    is_cut: bool

    def reversed(self) -> Flow:
        """Return the flow from the second to the first."""
        return Flow(self.back, self.onwards, self.size_wh, self.is_cut)


def flows(pictures: Iterator[Grey]) -> Iterator[Flow]:
    """Yield the flow between each picture and the next; a change of size is a cut."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    dis.setFinestScale(_FINEST)
    for one, other in pairwise(pictures):
        size = one.shape[1], one.shape[0]
        if one.shape != other.shape:
            nothing = np.zeros((1, 1, 2), np.float32)
            yield Flow(nothing, nothing, size, is_cut=True)
            continue
        # What is above its finest scale was made larger again: nothing is lost with it.
        half = (-(-size[0] // 2), -(-size[1] // 2))
        onwards, back = (
            cv2.resize(dense_flow(*two, dis), half, interpolation=cv2.INTER_AREA).astype(np.float32)
            for two in ((one, other), (other, one))
        )
        flow = Flow(onwards, back, size, is_cut=False)
        yield replace(flow, is_cut=_is_cut(one, other, flow))


def carried_overlaps(
    between: Sequence[Flow], boxes: Mapping[int, Sequence[Box]], alike: Alike
) -> dict[tuple[int, int], Floats]:
    """Hold the boxes of each picture, carried along, against those of the others.

    Args:
        between: the flow from picture to picture.
        boxes: by the place of their picture, from 0.
        alike: tells which boxes of a picture may be confused.

    Returns:
        For two places, the earlier first, the IoU of each box there with each here: of the earlier
        carried to the later picture and of the later carried back, the lower. 0 where one is lost.
    """
    last = len(between)
    there = _carried(between, boxes, alike)
    turned = [flow.reversed() for flow in reversed(between)]
    back = _carried(
        turned,
        {last - place: found for place, found in boxes.items()},
        lambda place, one, other: alike(last - place, one, other),
    )
    found = {}
    for (i, j), earlier in there.items():
        later = back[last - j, last - i]
        found[i, j] = np.minimum(_iou(earlier, boxes[j]), _iou(later, boxes[i]).T)
    return found


def _iou(carried: Sequence[Box | None], boxes: Sequence[Box]) -> Floats:
    return iou_matrix([[0.0] * 4 if box is None else box for box in carried], boxes)


def _carried(
    between: Sequence[Flow], boxes: Mapping[int, Sequence[Box]], alike: Alike
) -> dict[tuple[int, int], list[Box | None]]:
    """Return the boxes of each picture as they are carried to each later one; none: lost."""
    places = sorted(place for place, found in boxes.items() if found)
    under_way = _UnderWay()
    seeded: dict[int, int] = {}
    found: dict[tuple[int, int], list[Box | None]] = {}
    for place in range(places[0], places[-1] + 1) if places else ():
        if place in places:
            for earlier, first in seeded.items():
                numbers = range(first, first + len(boxes[earlier]))
                found[earlier, place] = [under_way.now(number) for number in numbers]
            seeded[place] = len(under_way.boxes)
            count = len(boxes[place])
            confused = [
                [one != other and alike(place, one, other) for other in range(count)]
                for one in range(count)
            ]
            under_way.add(boxes[place], np.array(confused, bool))
        if place < places[-1]:
            under_way.follow(between[place])
    return found


class _UnderWay:
    """Boxes that are carried along, and their points.

    Axes: n boxes, p points of a box, 2 x and y.
    """

    def __init__(self) -> None:
        self.boxes = np.zeros((0, 4))
        """Where each was when its points were spread."""
        points = np.zeros((0, _GRID * _GRID, 2))
        self._spread, self._points = points, points
        self._alive = np.zeros(points.shape[:2], bool)
        self._confused = np.zeros((0, 0), bool)
        """Pairs that would be confused and began apart."""
        self._met = np.zeros(0, bool)

    def add(self, boxes: Sequence[Box], confused: NDArray[np.bool_]) -> None:
        """Take up the boxes of a picture; ``confused`` are the pairs that are alike."""
        n, new = len(self.boxes), np.asarray(boxes, np.float64)
        points = _points(new)
        self.boxes = np.concatenate([self.boxes, new])
        self._spread = np.concatenate([self._spread, points])
        self._points = np.concatenate([self._points, points])
        self._alive = np.concatenate([self._alive, np.ones(points.shape[:2], bool)])
        self._met = np.concatenate([self._met, np.zeros(len(new), bool)])
        pairs = np.zeros((n + len(new), n + len(new)), bool)
        pairs[:n, :n] = self._confused
        pairs[n:, n:] = confused & (iou_matrix(new, new) < _APART)
        self._confused = pairs

    def now(self, number: int) -> list[float] | None:
        """Return where a box is; none when it is lost or has met one that is alike."""
        alive = self._alive[number]
        if self._met[number] or np.count_nonzero(alive) < _LOST * alive.size:
            return None
        before, after = self._spread[number][alive], self._points[number][alive]
        middle = _median(before)
        apart = np.linalg.norm(before - middle, axis=1)
        far = np.linalg.norm(after - _median(after), axis=1)
        wide = apart > 0
        grown = float(_median(far[wide] / apart[wide])) if wide.any() else 1.0
        shift = _median(after - middle - (before - middle) * grown)
        x, y, w, h = self.boxes[number]
        left, top = middle + shift + (np.array([x, y]) - middle) * grown
        return [float(left), float(top), float(w * grown), float(h * grown)]

    def follow(self, flow: Flow) -> None:
        """Follow the flow to the next picture."""
        if flow.is_cut:
            self._alive[:] = False
        if not self._alive.any():
            return
        points = self._points.reshape(-1, 2)
        onwards = _at(flow.onwards, points)
        there = points + onwards
        missed = np.abs(onwards + _at(flow.back, there)).max(axis=1)
        inside = (there >= 0).all(axis=1) & (there < flow.size_wh).all(axis=1)
        self._points = there.reshape(self._points.shape)
        self._alive &= (inside & (missed < _RETURNS_PX)).reshape(self._alive.shape)
        way = self._points - self._spread
        shift = _medians(way, self._alive)
        sides = np.sqrt(self.boxes[:, 2] * self.boxes[:, 3])
        strayed = np.abs(way - shift[:, None]).max(axis=2) >= _LEAVES * sides[:, None]
        self._alive &= ~strayed
        self._note_meetings(shift)
        left = self._alive.mean(axis=1)
        for number in np.flatnonzero((left < _RENEWED) & (left >= _LOST)).tolist():
            if (box := self.now(number)) is not None:
                self.boxes[number] = box
                new = _points(self.boxes[[number]])[0]
                self._spread[number] = self._points[number] = new
                self._alive[number] = True

    def _note_meetings(self, shift: Floats) -> None:
        """Mark the boxes that have come to overlap one they would be confused with."""
        if self._confused.any():
            here = self.boxes.copy()
            here[:, :2] += shift
            alive: NDArray[np.bool_] = np.asarray(self._alive.any(axis=1))
            near = iou_matrix(here, here) >= _MET
            self._met |= (near & self._confused & alive & alive[:, None]).any(axis=1)


def _points(boxes: Floats) -> Floats:
    """Spread points over the inner part of boxes, ``(n, p, 2)``."""
    steps = ((np.arange(_GRID) + 0.5) / _GRID - 0.5) * _INNER + 0.5
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(1, -1, 2)
    spread: Floats = boxes[:, None, :2] + grid * boxes[:, None, 2:]
    return spread


def _at(field: NDArray[Any], points: Floats, scale: float = 0.5) -> Floats:
    """Return what a field has at points, ``(n, 2)``; between its pixels by their distance.

    Args:
        field: ``(h, w, ...)``.
        points: in pixels of the pictures.
        scale: pixels of the field for one of the pictures.
    """
    # Pixels are counted at their middles.
    columns, rows = (((points + 0.5) * scale - 0.5).astype(np.float32)).T
    found = cv2.remap(
        field, columns.copy(), rows.copy(), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(found, np.float64).reshape(len(points), *field.shape[2:])


def _median(values: Floats) -> Floats:
    """Return the median along the first axis: NumPy's, which takes longer for so few."""
    ordered = np.sort(values, axis=0)
    middle: Floats = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    return middle


def _medians(values: Floats, counts: NDArray[np.bool_]) -> Floats:
    """Return the lower median of the values that count, ``(n, p, 2)`` to ``(n, 2)``; none: 0."""
    number = counts.sum(axis=1)
    ordered = np.sort(np.where(counts[..., None], values, np.inf), axis=1)
    middle = ordered[np.arange(len(values)), np.maximum(number - 1, 0) // 2]
    found: Floats = np.where(number[:, None] > 0, middle, 0.0)
    return found


def _is_cut(one: Grey, other: Grey, flow: Flow) -> bool:
    """Say whether the flow between two pictures explains neither."""
    points = _everywhere(*flow.size_wh)
    onwards = _at(flow.onwards, points)
    there = points + onwards
    missed = np.abs(onwards + _at(flow.back, there)).max(axis=1)
    unexplained = np.abs(_at(other, there, 1.0) - _some(one)).mean()
    contrast = max(_contrast(one), _contrast(other))
    residue = unexplained / max(contrast, _LEAST_CONTRAST)
    return bool((missed < _RETURNS_PX).mean() < _CUT_RETURNS or residue > _CUT_RESIDUE)


def _contrast(picture: Grey) -> float:
    luma = _some(picture)
    return float(np.abs(luma - _median(luma)).mean())


def _some(picture: Grey) -> Floats:
    """Return the grey levels of the points that a cut is looked for at."""
    first = _EVERY_PX // 2
    return picture[first::_EVERY_PX, first::_EVERY_PX].ravel().astype(np.float64)


@lru_cache(maxsize=1)
def _everywhere(width: int, height: int) -> Floats:
    """Return the points of a picture that a cut is looked for at, ``(n, 2)``."""
    first = _EVERY_PX // 2
    rows, columns = np.mgrid[first:height:_EVERY_PX, first:width:_EVERY_PX]
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)
