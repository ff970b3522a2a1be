"""Masks as run lengths and as polygons.

Run lengths are COCO's, which count down columns. Polygons run along pixel edges, so corners are
whole numbers, and a hole is reached from the outline by a seam walked there and back. The reading
that COCO's tools know (fill each polygon, take the union) then gives back the very same pixels,
holes included, and things that touch at a corner only are polygons of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from pipeline.errors import InputError
from pipeline.records.schema import Rle

Mask = NDArray[np.bool_]
"""``(height, width)``, true inside."""

Polygon = list[float]
"""``[x0, y0, x1, y1, ...]`` in pixels; the last corner joins the first."""

_Point = tuple[int, int]

_EAST, _WEST, _SOUTH, _NORTH = 1, 2, 4, 8
_RIGHT = {_EAST: _SOUTH, _SOUTH: _WEST, _WEST: _NORTH, _NORTH: _EAST}
_LAST = [1 << max(0, bits.bit_length() - 1) for bits in range(16)]
"""The highest step of each set of steps."""


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
    runs = _runs(rle.counts)
    if runs is None:
        raise InputError("bad_rle", f"not COCO run lengths: {rle.counts[:40]!r}")
    pixels = height * width
    fits = min(height, width) >= 0 and bool(((runs >= 0) & (runs <= pixels)).all())
    if not fits or int(runs.sum()) != pixels:
        covered = sum(runs.tolist())
        raise InputError("bad_rle", f"runs cover {covered} pixels of {width}x{height} = {pixels}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T.copy()


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


def to_polygons(mask: NDArray[Any], tolerance_px: float = 0.0) -> list[Polygon]:
    """Trace the outlines of a mask, one polygon per thing, largest first.

    Args:
        mask: ``(height, width)`` of truth values.
        tolerance_px: how far an outline may move to save corners; with 0 the polygons are exact:
            ``from_polygons(to_polygons(mask), ...)`` is the mask.
    """
    whole = np.asarray(mask, dtype=bool).astype(np.uint8)
    left, top, wide, high = cv2.boundingRect(whole)
    if not wide:
        return []
    # All that follows is a matter of the mask's own box; most masks fill a small part of theirs.
    inside = np.ascontiguousarray(whole[top : top + high, left : left + wide])
    count, labels = cv2.connectedComponents(inside, connectivity=4)
    outlines: list[list[list[_Point]]] = [[] for _ in range(count)]
    for loop in _loops(inside):
        (x0, y0), (x1, y1) = loop[0], loop[1]
        # The mask lies to the right of the way: below a step east, left of a step south, ...
        pixel = {(1, 0): (y0, x0), (0, 1): (y0, x0 - 1), (-1, 0): (y0 - 1, x1), (0, -1): (y1, x0)}
        outlines[labels[pixel[x1 - x0, y1 - y0]]].append(loop)
    polygons = [_corners(_joined(loops, inside)) for loops in outlines if loops]
    if tolerance_px > 0:
        polygons = [_simplified(points, tolerance_px) for points in polygons]
    # Holes count against the area that is walked around.
    ordered = sorted(
        polygons, key=lambda points: (-cv2.contourArea(np.array(points, np.int32)), points)
    )
    return [
        [float(value) for x, y in points for value in (x + left, y + top)] for points in ordered
    ]


def _packed(rle: Rle) -> dict[str, Any]:
    return {"size": list(rle.size), "counts": rle.counts.encode("ascii")}


def _runs(counts: str) -> NDArray[np.int64] | None:
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


def _loops(inside: NDArray[np.uint8]) -> list[list[_Point]]:
    """Walk along pixel edges and back, a corner per pixel, the mask to the right of the way.

    Where two pixels touch at a corner the walk stays with its own pixel.
    """
    padded = np.pad(inside, 1).astype(np.int8)
    down = np.diff(padded, axis=0)[:, 1:-1]  # at y: row y less row y - 1
    across = np.diff(padded, axis=1)[1:-1]
    height, width = inside.shape
    steps = np.zeros((height + 1, width + 1), dtype=np.uint8)
    steps[:, :-1] |= np.where(down == 1, _EAST, 0).astype(np.uint8)
    steps[:, 1:] |= np.where(down == -1, _WEST, 0).astype(np.uint8)
    steps[:-1] |= np.where(across == -1, _SOUTH, 0).astype(np.uint8)
    steps[1:] |= np.where(across == 1, _NORTH, 0).astype(np.uint8)
    left = bytearray(steps.tobytes())
    by_column, row = np.nonzero(steps.T)
    loops = []
    for corner in (row * (width + 1) + by_column).tolist():
        while left[corner]:
            y, x = np.divmod(_walk(left, corner, width + 1), width + 1)
            loops.append(list(zip(x.tolist(), y.tolist(), strict=True)))
    return loops


def _walk(steps: bytearray, start: int, wide: int) -> list[int]:
    """Take steps from ``start`` until the loop closes, using them up.

    Args:
        steps: the steps that leave each corner, as bits; a corner has at most two.
        start: a place in it.
        wide: corners per row.
    """
    move = {_EAST: 1, _WEST: -1, _SOUTH: wide, _NORTH: -wide}
    at, step = start, _LAST[steps[start]]
    steps[at] ^= step
    first = step
    loop = [start]
    while True:
        at += move[step]
        right = _RIGHT[step]
        choices = steps[at]
        if at == start and (not choices or right == first):
            return loop
        step = right if choices & right else _LAST[choices]
        steps[at] = choices ^ step
        loop.append(at)


def _joined(loops: list[list[_Point]], inside: NDArray[np.uint8]) -> list[_Point]:
    """One closed walk over an outline and its holes, each hole joined by a seam to its left.

    From the top of a hole's leftmost edge the mask reaches left without a gap until another edge
    of the same thing. That edge lies further left, so its loop has been joined before.
    """
    outline, *holes = sorted(loops, key=min)
    for hole in holes:
        x, y = min(hole)
        end = x - 1
        while end > 0 and inside[y - 1, end - 1] and inside[y, end - 1]:
            end -= 1
        place, first = outline.index((end, y)), hole.index((x, y))
        around = [*hole[first:], *hole[:first], (x, y)]
        outline[place + 1 : place + 1] = [*around, (end, y)]
    return outline


def _corners(points: list[_Point]) -> list[_Point]:
    """Return the points where the walk turns."""
    way = np.array(points, dtype=np.int64)
    before = np.sign(way - np.roll(way, 1, axis=0))
    turns = (before != np.roll(before, -1, axis=0)).any(axis=1)
    return [points[place] for place in np.flatnonzero(turns).tolist()]


def _simplified(points: list[_Point], tolerance_px: float) -> list[_Point]:
    kept = cv2.approxPolyDP(np.array(points, dtype=np.int32), tolerance_px, True).reshape(-1, 2)
    return [(int(x), int(y)) for x, y in kept] if len(kept) >= 3 else points
