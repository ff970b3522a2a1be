"""A mask of a thing in one frame, as it would lie in another: moved and stretched with its box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.records.rle import Mask


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
