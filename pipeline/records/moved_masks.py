"""A mask of a thing in one frame, as it would lie in another: moved and stretched with its box.

The box is what people decided, so it says more of where the thing went than the pictures between.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.records.boxes import to_pixels
from pipeline.records.rle import Mask

POINTS = 4
"""Points that say where a thing is, and as many that say where it is not."""

_LEAST_PX = 3.0
"""How far from a mask's outline a point lies at least: nearer ones say nothing for certain."""

Point = tuple[float, float, bool]
"""The place x, y in pixels, and whether the thing is there."""


def moved(mask: Mask, box: Sequence[float], to: Sequence[float], size_hw: tuple[int, int]) -> Mask:
    """Return a mask moved and stretched as its box is.

    Args:
        mask: of the thing, ``(height, width)`` of its frame.
        box: the thing's ``[x, y, w, h]`` in pixels of that frame.
        to: its box in the other frame, in pixels of that.
        size_hw: height and width of the other frame.

    >>> mask = np.zeros((4, 4), bool)
    >>> mask[0, :2] = True
    >>> moved(mask, [0, 0, 2, 2], [2, 1, 2, 2], (3, 4)).astype(int)
    array([[0, 0, 0, 0],
           [0, 0, 1, 1],
           [0, 0, 0, 0]])
    """
    rows, down = _from(size_hw[0], mask.shape[0], box[1], box[3], to[1], to[3])
    columns, across = _from(size_hw[1], mask.shape[1], box[0], box[2], to[0], to[2])
    found: Mask = mask[np.ix_(rows, columns)] & down[:, None] & across
    return found


def _from(
    count: int, there: int, start: float, side: float, to: float, to_side: float
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the pixel that each pixel of an axis comes from, and whether there is one."""
    # Pixels are counted at their middles.
    places = np.floor((np.arange(count) + 0.5 - to) * (side / to_side) + start)
    inside = (places >= 0) & (places < there)
    return np.where(inside, places, 0).astype(np.intp), inside


def overlap(mask: Mask, box: Sequence[float], other: Mask, to: Sequence[float]) -> float:
    """Return the IoU of a mask, moved with its box, and another; 0 when both are empty."""
    size = other.shape[0], other.shape[1]
    here = moved(mask, box, to, size)
    either = np.count_nonzero(here | other)
    return np.count_nonzero(here & other) / either if either else 0.0


def points_of(mask: Mask, box: Sequence[float]) -> list[Point]:
    """Return points that tell a mask within its box: the deepest of both sides of its outline.

    >>> mask = np.zeros((40, 80), bool)
    >>> mask[:, :40] = True
    >>> points = points_of(mask, [0, 0, 80, 40])
    >>> [(x < 40, inside) for x, _, inside in points] == [(True, True)] * 4 + [(False, False)] * 4
    True
    """
    height, width = mask.shape
    x0, y0, x1, y1 = to_pixels(box, width, height) or (0, 0, 0, 0)
    found = []
    for side, inside in ((mask, True), (~mask, False)):
        # A rim of nothing: what touches the box's edge is no deeper for it.
        left = np.pad(side[y0:y1, x0:x1].astype(np.uint8), 1)
        for _ in range(POINTS):
            depth = cv2.distanceTransform(left, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            deepest = float(depth.max())
            if deepest < _LEAST_PX:
                break
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
            found.append((float(x + x0) - 0.5, float(y + y0) - 0.5, inside))
            # The next one lies elsewhere.
            cv2.circle(left, (int(x), int(y)), int(deepest), 0, cv2.FILLED)
    return found
