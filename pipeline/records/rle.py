"""Masks as run lengths and as polygons.

Run lengths are COCO's, which count down columns. Polygons run along pixel edges, so corners are
whole numbers, and a hole is reached from the outline by a seam walked there and back. The reading
that COCO's tools know (fill each polygon, take the union) then gives back the very same pixels,
holes included, and things that touch at a corner only are polygons of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from pipeline.errors import InputError
from pipeline.records.schema import Rle

Mask = NDArray[np.bool_]
"""``(height, width)``, true inside."""

Polygon = list[float]
"""``[x0, y0, x1, y1, ...]`` in pixels; the last corner joins the first."""

_Numbers = NDArray[np.int64]


def encode(mask: NDArray[Any]) -> Rle:
    """Encode a mask, ``(height, width)`` of truth values, as run lengths."""
    packed = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    height, width = packed["size"]
    return Rle(size=[int(height), int(width)], counts=packed["counts"].decode("ascii"))


def decode(rle: Rle) -> Mask:
    """Decode run lengths into a mask, ``(height, width)``.

    Raises:
        InputError: ``bad_rle`` when the runs do not add up to the size.
    """
    height, width = rle.size
    runs = _checked_runs(rle)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T.copy()


def measure(rle: Rle) -> tuple[int, list[float]]:
    """Return the area and the own box ``[x, y, w, h]`` of run lengths that may be anybody's.

    Raises:
        InputError: ``bad_rle`` when the runs do not add up to the size.
    """
    x, top, bottom = _columns(rle)
    if not len(x):
        return 0, [0.0] * 4
    box = (x.min(), top.min(), x.max() + 1 - x.min(), bottom.max() - top.min())
    return int((bottom - top).sum()), [float(side) for side in box]


def area(rle: Rle) -> int:
    """Count the pixels inside."""
    return int(coco.area(_packed(rle)))


def bbox(rle: Rle) -> list[float]:
    """Return the mask's own box ``[x, y, w, h]``; zeros when the mask is empty."""
    return [float(value) for value in coco.toBbox(_packed(rle))]


def iou(a: Rle, b: Rle) -> float:
    """Intersection over union of two masks of one size, in [0, 1]; 0 when both are empty."""
    return float(coco.iou([_packed(a)], [_packed(b)], [False])[0, 0])


def from_polygons(polygons: Sequence[Polygon], height: int, width: int) -> Rle:
    """Fill each polygon and take the union, as COCO's tools do.

    Raises:
        InputError: ``bad_polygon`` for one with fewer than three corners or half a corner.
    """
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise InputError("bad_polygon", f"{len(polygon)} numbers: three corners need six")
    if not polygons:
        return encode(np.zeros((height, width), dtype=bool))
    merged = coco.merge(coco.frPyObjects([list(p) for p in polygons], height, width))
    return Rle(size=[height, width], counts=merged["counts"].decode("ascii"))


def to_polygons(rle: Rle, tolerance_px: float = 0.0) -> list[Polygon]:
    """Trace the outlines of a mask, one polygon per thing, largest first.

    Args:
        rle: the mask.
        tolerance_px: how far an outline may move to save corners; with 0 the polygons are exact:
            ``from_polygons(to_polygons(rle), ...)`` is the mask.

    Raises:
        InputError: ``bad_rle`` when the runs do not add up to the size.
    """
    import cv2

    corners, loops = _outlines(rle)
    outlines = [corners[loop] for loop in loops]
    if tolerance_px > 0:
        outlines = [_simplified(points, tolerance_px) for points in outlines]
    # Holes count against the area that is walked around.
    measured = [
        (-cv2.contourArea(points), points.ravel().astype(float).tolist()) for points in outlines
    ]
    return [polygon for _, polygon in sorted(measured)]


def _packed(rle: Rle) -> dict[str, Any]:
    return {"size": list(rle.size), "counts": rle.counts.encode("ascii")}


def _checked_runs(rle: Rle) -> _Numbers:
    height, width = rle.size
    runs = _runs(rle.counts)
    if runs is None:
        raise InputError("bad_rle", f"not COCO run lengths: {rle.counts[:40]!r}")
    pixels = height * width
    fits = min(height, width) >= 0 and bool(((runs >= 0) & (runs <= pixels)).all())
    if not fits or int(runs.sum()) != pixels:
        covered = sum(runs.tolist())
        raise InputError("bad_rle", f"runs cover {covered} pixels of {width}x{height} = {pixels}")
    return runs


def _columns(rle: Rle) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Return what of the mask lies in each column: ``x``, its first ``y`` and the one after it.

    A run that goes on in the next column is one piece in each.
    """
    ends = np.cumsum(_checked_runs(rle))
    first, stop = ends[: len(ends) // 2 * 2 : 2], ends[1::2]
    some = stop > first
    first, stop = first[some], stop[some]
    height = max(rle.size[0], 1)
    begin = first // height
    pieces = (stop - 1) // height + 1 - begin
    x = np.repeat(begin - np.cumsum(pieces) + pieces, pieces) + np.arange(pieces.sum())
    top = np.maximum(np.repeat(first, pieces) - x * height, 0)
    bottom = np.minimum(np.repeat(stop, pieces) - x * height, height)
    return x, top, bottom


def _runs(counts: str) -> _Numbers | None:
    """Read COCO's text as run lengths; none when it is no such text.

    Five bits a character, the lowest first, a sixth bit while more follow; the last one's fifth bit
    is the sign. From the fourth on a run is told as the difference to the one two before.
    """
    if not counts:
        return np.zeros(0, dtype=np.int64)
    try:
        data = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return None
    if data.min() < 0 or data.max() > 63 or data[-1] & 0x20:
        return None
    last = np.flatnonzero(data & 0x20 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if lengths.max() > 10:  # 50 bits: no image has so many pixels
        return None
    shift = 5 * (np.arange(len(data)) - np.repeat(first, lengths))
    runs = np.add.reduceat((data & 0x1F) << shift, first)
    runs -= np.where(data[last] & 0x10, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _outlines(rle: Rle) -> tuple[NDArray[np.int32], list[list[int]]]:
    """Walk around each thing, the mask to the right of the way, and stop where the way turns.

    Where two pixels touch at a corner the walk stays with its own pixel. A hole is walked between a
    seam from the left, from the edge that is met first, and the way back along it.

    Returns:
        Points, ``(number, 2)`` of x and y, and the walk around each thing as places in it.
    """
    x, y, turn = _turns(rle)
    # A column's corners are the ends of its edges, two and two; so are a row's.
    vertical = np.arange(len(x)) ^ 1
    of_row = np.lexsort((np.arange(len(x)) % 2 ^ (turn > 0), x, y))
    horizontal = np.empty_like(of_row)
    horizontal[of_row] = of_row[vertical]
    after = np.where(turn > 0, horizontal, vertical)
    # The first corner of each walk is its leftmost, the topmost of these.
    first, jump = np.minimum(np.arange(len(x)), after), after
    for _ in range(len(x).bit_length()):
        jump = jump[jump]
        first = np.minimum(first, first[jump])
    heads = np.flatnonzero(first == np.arange(len(x)))
    things, holes = heads[turn[heads] > 0], heads[turn[heads] < 0]
    following, seams = _joined(x, y, after, holes[np.argsort(y[holes])])
    points = np.concatenate((np.stack((x, y), axis=1), seams)).astype(np.int32)
    return points, [_walk(following, start) for start in things.tolist()]


def _turns(rle: Rle) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Return the corners of a mask, down the columns: ``x``, ``y`` and the kind of turn.

    The kind is the number of pixels of the four around that lie in the mask to the north-west and
    south-east, less those to the north-east and south-west: above 0 the way goes on along the row,
    below along the column. Where two pixels touch at a corner there are two corners, the first the
    upper pixel's.
    """
    x, top, bottom = _columns(rle)
    tall = rle.size[0] + 1
    places = np.concatenate((x * tall + top, x * tall + bottom))
    kinds = np.repeat((1, -1), len(x))
    # Each column's ends count again, the other way round, for the column to the right.
    places, kinds = np.concatenate((places, places + tall)), np.concatenate((kinds, -kinds))
    order = np.argsort(places, kind="stable")
    places, kinds = places[order], kinds[order]
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    kinds = np.add.reduceat(kinds, starts)
    times: _Numbers = np.abs(kinds)
    x, y = np.divmod(np.repeat(places[starts], times), tall)
    return x, y, np.repeat(kinds, times)


def _joined(
    x: _Numbers, y: _Numbers, after: _Numbers, holes: _Numbers
) -> tuple[list[int], NDArray[np.int64]]:
    """Join each hole to the loop that a seam to its left meets.

    From the top of a hole's leftmost edge the mask reaches left without a gap until a vertical edge
    of the same thing, whose way goes north.

    Args:
        x: the column of each corner, in order, so that two and two are the ends of an edge.
        y: their rows, from the top down in each column.
        after: the next corner of each.
        holes: their first corners, from the top down.

    Returns:
        The next point of each, and the points that came to the corners.
    """
    following = after.tolist()
    before = np.argsort(after).tolist()
    top, bottom = y[0::2], y[1::2]
    seams: list[tuple[int, int]] = []

    def join(one: int, other: int) -> None:
        following[one], before[other] = other, one

    for hole in holes.tolist():
        at = y[hole]
        left = (top[: hole // 2] <= at) & (at <= bottom[: hole // 2])
        edge = int(np.flatnonzero(left)[-1])
        upper, lower, last = 2 * edge, 2 * edge + 1, before[hole]
        if at == y[upper]:  # and there the way turned west, where it comes back
            join(last, following[upper])
            join(upper, hole)
        elif at == y[lower]:  # and to there the way came from the west, where it goes on
            join(before[lower], hole)
            join(last, lower)
        else:
            there, back = len(following), len(following) + 1
            following += [hole, following[lower]]
            before += [lower, last]
            seams += [(int(x[upper]), int(at))] * 2
            join(back, following[lower])
            join(lower, there)
            join(there, hole)
            join(last, back)
    return following, np.array(seams, dtype=np.int64).reshape(-1, 2)


def _walk(following: list[int], start: int) -> list[int]:
    loop, at = [start], following[start]
    while at != start:
        loop.append(at)
        at = following[at]
    return loop


def _simplified(points: NDArray[np.int32], tolerance_px: float) -> NDArray[np.int32]:
    import cv2

    kept = cv2.approxPolyDP(points, tolerance_px, True).reshape(-1, 2)
    return kept.astype(np.int32, copy=False) if len(kept) >= 3 else points
