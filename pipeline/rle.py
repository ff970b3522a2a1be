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
from pipeline.schema import Rle

Mask = NDArray[np.bool_]
"""``(height, width)``, true inside."""

Polygon = list[float]
"""``[x0, y0, x1, y1, ...]`` in pixels; the last corner joins the first."""

_Point = tuple[int, int]


def encode(mask: NDArray[Any]) -> Rle:
    """A mask, ``(height, width)`` of truth values, as run lengths."""
    packed = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    height, width = packed["size"]
    return Rle(size=[int(height), int(width)], counts=packed["counts"].decode("ascii"))


def decode(rle: Rle) -> Mask:
    """The mask of run lengths, ``(height, width)``.

    Raises:
        InputError: ``bad_rle`` when the runs do not add up to the size.
    """
    height, width = rle.size
    try:
        runs = _runs(rle.counts)
    except (IndexError, UnicodeEncodeError) as error:
        raise InputError("bad_rle", f"not COCO run lengths: {rle.counts[:40]!r}") from error
    if min(height, width, *runs, 0) < 0 or sum(runs) != height * width:
        raise InputError(
            "bad_rle", f"runs cover {sum(runs)} pixels of {width}x{height} = {height * width}"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T.copy()


def area(rle: Rle) -> int:
    """Pixels inside."""
    return int(coco.area(_packed(rle)))


def bbox(rle: Rle) -> list[float]:
    """The mask's own box ``[x, y, w, h]``; zeros when the mask is empty."""
    return [float(value) for value in coco.toBbox(_packed(rle))]


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
    """The outlines of a mask, one polygon per thing, largest first.

    Args:
        mask: ``(height, width)`` of truth values.
        tolerance_px: how far an outline may move to save corners; with 0 the polygons are exact:
            ``from_polygons(to_polygons(mask), ...)`` is the mask.
    """
    inside = np.ascontiguousarray(mask, dtype=np.uint8)
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
    ordered = sorted(polygons, key=lambda points: (-_spanned(points), points))
    return [[float(value) for point in points for value in point] for points in ordered]


def _packed(rle: Rle) -> dict[str, Any]:
    return {"size": list(rle.size), "counts": rle.counts.encode("ascii")}


def _runs(counts: str) -> list[int]:
    """COCO's text to run lengths: 5 bits a character, from the third on against two before."""
    runs: list[int] = []
    data = counts.encode("ascii")
    place = 0
    while place < len(data):
        value, shift, more = 0, 0, True
        while more:
            bits = data[place] - 48
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            place += 1
            shift += 5
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _loops(inside: NDArray[np.uint8]) -> list[list[_Point]]:
    """Closed walks along pixel edges, one corner per pixel, the mask to the right of the way.

    Where two pixels touch at a corner the walk stays with its own pixel.
    """
    padded = np.pad(inside, 1).astype(np.int8)
    down = np.diff(padded, axis=0)[:, 1:-1]  # at y: row y less row y - 1
    across = np.diff(padded, axis=1)[1:-1]
    steps: dict[_Point, list[_Point]] = {}
    for edges, start, step in (
        (down == 1, (0, 0), (1, 0)),
        (down == -1, (1, 0), (-1, 0)),
        (across == -1, (0, 0), (0, 1)),
        (across == 1, (0, 1), (0, -1)),
    ):
        for y, x in np.argwhere(edges).tolist():
            steps.setdefault((x + start[0], y + start[1]), []).append(step)
    loops = []
    for corner in sorted(steps):
        while steps[corner]:
            loops.append(_walk(steps, corner))
    return loops


def _walk(steps: dict[_Point, list[_Point]], start: _Point) -> list[_Point]:
    """Take steps from ``start`` until the loop closes, using them up."""
    (x, y), step = start, steps[start].pop()
    first = step
    loop = [start]
    while True:
        x, y = x + step[0], y + step[1]
        right = (-step[1], step[0])
        if (x, y) == start and (not steps[x, y] or right == first):
            return loop
        choices = steps[x, y]
        step = right if right in choices else choices[-1]
        choices.remove(step)
        loop.append((x, y))


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
    """The points where the walk turns."""
    turns = []
    for place, (x, y) in enumerate(points):
        (before_x, before_y) = points[place - 1]
        (after_x, after_y) = points[(place + 1) % len(points)]
        ahead = (_sign(x - before_x), _sign(y - before_y))
        if ahead != (_sign(after_x - x), _sign(after_y - y)):
            turns.append((x, y))
    return turns


def _simplified(points: list[_Point], tolerance_px: float) -> list[_Point]:
    kept = cv2.approxPolyDP(np.array(points, dtype=np.int32), tolerance_px, True).reshape(-1, 2)
    return [(int(x), int(y)) for x, y in kept] if len(kept) >= 3 else points


def _spanned(points: list[_Point]) -> float:
    """Area inside a closed walk (Gauss's shoelace formula); holes count against it."""
    x, y = np.array(points, dtype=np.float64).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
