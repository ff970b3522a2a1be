"""Boxes ``[x, y, w, h]``: overlap and clipping.

Pixels are squares: a box covers ``[x, x + w) x [y, y + h)``, so a box of one pixel has w = h = 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

Boxes = Sequence[Sequence[float]] | _Floats


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two boxes, in [0, 1]; 0 when both are empty.

    >>> iou([0, 0, 2, 2], [1, 0, 2, 2])
    0.3333333333333333
    """
    return float(iou_matrix([a], [b])[0, 0])


def iou_matrix(a: Boxes, b: Boxes) -> _Floats:
    """Return the IoU of every box of ``a`` with every box of ``b``, ``(len(a), len(b))``.

    >>> iou_matrix([[0, 0, 2, 2]], [[0, 0, 2, 2], [2, 0, 2, 2]]).tolist()
    [[1.0, 0.0]]
    """
    left, right = _boxes(a)[:, None], _boxes(b)[None]
    low = np.maximum(left[..., :2], right[..., :2])
    high = np.minimum(left[..., :2] + left[..., 2:], right[..., :2] + right[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = left[..., 2:].prod(-1) + right[..., 2:].prod(-1) - shared
    overlaps: _Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps


def clip(box: Sequence[float], width: int, height: int) -> list[float] | None:
    """Return the part of a box inside an image; none when nothing of it is.

    >>> clip([-2, 1, 5, 9], 640, 4)
    [0.0, 1.0, 3.0, 3.0]
    >>> clip([640, 0, 5, 5], 640, 360) is None
    True
    """
    x, y, w, h = (float(value) for value in box)
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(float(width), x + w), min(float(height), y + h)
    if right <= left or bottom <= top:
        return None
    return [left, top, right - left, bottom - top]


def to_pixels(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return the whole pixels a box touches in an image, ``(x0, y0, x1, y1)`` with open ends.

    >>> to_pixels([0.5, 1, 2, 2], 640, 360)
    (0, 1, 3, 3)
    """
    inside = clip(box, width, height)
    if inside is None:
        return None
    x, y, w, h = inside
    return math.floor(x), math.floor(y), math.ceil(x + w), math.ceil(y + h)


def _boxes(boxes: Boxes) -> _Floats:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
