"""The picture inside a frame with bars: black, plain, or a zoomed and blurred copy of the picture.

Bars stand still where the picture moves, hold the sharpest lines of the frame, and a blurred copy
even moves, so a detector of motion has to leave them out first.

- A **plain** bar is of one level, along its lines and in time; letters on it (subtitles, a logo)
  are allowed, so long as plain lines follow before the picture.
- A **blurred** bar is told by several things at once, as soft backgrounds are common: the same
  width on both sides, no fine detail beside the picture's, a straight line from end to end between
  them, and that it shows the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.backends.motion.evidence import Grey

_PLAIN_LEVELS = 6
"""Grey levels about a bar's own that are still the bar: coding noise stays below."""

_PLAIN_LINE = 0.97
"""Fraction of a line at the bar's level that makes the line plain."""

_WRITTEN_LINE = 0.5
"""The same for a line with letters on it, which belongs to a bar if plain lines follow."""

_LEAST_SIDE = 0.25
"""Least side of the picture inside, as a fraction of the frame's; else there are no bars."""

_STEP_LEVELS = 4.0
"""Grey levels between the two sides of a boundary at which a pixel of it is seen."""

_STEP_LINE = 0.4
"""Fraction of a boundary's pixels that must be seen; the picture may be as dull as its copy here
and there."""

_SOFT = 0.25
"""Fine detail of a blurred bar, as a fraction of the picture's, at most."""

_SOFT_LEVELS = 2.5
"""The same in grey levels."""

_LIKE = 0.5
"""Least correlation of the bars with what they are a copy of, zoomed and blurred."""

_REACH = 7
"""Lines on either side of a boundary into which its own detail is spread."""

_LEAST_BLURRED = 15
"""Fewest lines of a blurred bar, at working size."""

_UNEVEN_PX = 2
"""Pixels by which two bars may differ; the picture is centred on even sizes."""


def picture_inside(pictures: Sequence[Grey]) -> tuple[int, int, int, int]:
    """Return ``(x, y, width, height)`` of the picture without its bars; all of it without bars.

    Args:
        pictures: a frame and neighbours of it in time, all of one size.
    """
    stack = np.stack(pictures)
    top, bottom = _plain_bars(stack)
    left, right = _plain_bars(stack[:, top:bottom].transpose(0, 2, 1))
    stack = stack[:, top:bottom, left:right]
    side = _blurred_bars(stack.transpose(0, 2, 1))
    if side:
        left, right = left + side, right - side
    else:
        side = _blurred_bars(stack)
        top, bottom = top + side, bottom - side
    return left, top, right - left, bottom - top


def _plain_bars(stack: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the first line of the picture and the one behind its last; lines are axis 1."""
    lines = stack.shape[1]
    first, last = _plain_depth(stack), lines - _plain_depth(stack[:, ::-1])
    return (first, last) if last - first >= _LEAST_SIDE * lines else (0, lines)


def _plain_depth(stack: NDArray[np.uint8]) -> int:
    """Return how many lines from the first on are a bar."""
    level = float(np.median(stack[:, 0]))
    least, most = math.ceil(level - _PLAIN_LEVELS), math.floor(level + _PLAIN_LEVELS)
    at_level = (stack >= max(0, least)) & (stack <= min(255, most))
    share = at_level.mean(axis=2).min(axis=0)  # of each line, in the picture where it is least
    written = share >= _WRITTEN_LINE
    reach = len(written) if written.all() else int(written.argmin())
    plain = np.flatnonzero(share[:reach] >= _PLAIN_LINE)
    return int(plain[-1]) + 1 if len(plain) else 0


def _blurred_bars(stack: NDArray[np.uint8]) -> int:
    """Return the number of lines of each of two equal blurred bars; lines are axis 1."""
    lines = stack.shape[1]
    widths = range(_LEAST_BLURRED, int(lines * (1 - _LEAST_SIDE) / 2))
    if not widths:
        return 0  # two bars and a picture take more lines
    pictures = np.ascontiguousarray(stack)
    # Between two lines, one apart: where the picture begins, from end to end and in all pictures.
    steps = (cv2.absdiff(one[2:], one[:-2]) for one in pictures)
    seen = np.min([(step > _STEP_LEVELS).mean(axis=1) for step in steps], axis=0)
    boundaries = [near for near in widths if seen[near - 1] >= _STEP_LINE]
    if not boundaries:
        return 0
    middle = pictures[len(pictures) // 2].astype(np.float32)
    detail = np.abs(_soft(middle, 1.0) - _soft(middle, 3.0))
    # Of each line the detail that three quarters of it stay below: a logo does not count.
    fine = np.percentile(detail, 75, axis=1)
    if max(np.median(fine[4:12]), np.median(fine[-12:-4])) > _SOFT_LEVELS:
        return 0
    best, strength = 0, 0.0
    for near in boundaries:
        for far in range(near - _UNEVEN_PX, near + _UNEVEN_PX + 1):
            there = lines - 1 - far
            line = min(float(seen[near - 1]), float(seen[min(there - 1, lines - 3)]))
            if line < _STEP_LINE or line <= strength:
                continue
            ends = fine[4 : near - _REACH + 1], fine[there + _REACH : -4]
            if any(_mostly_above(end, _SOFT_LEVELS) for end in ends):
                continue  # told without sorting
            soft = min(_SOFT_LEVELS, _SOFT * float(np.median(fine[near:there])))
            if max(np.percentile(end, 75) for end in ends) <= soft:
                best, strength = max(near, far) + 1, line
    return best if best and _is_copy(middle, best) else 0


def _mostly_above(values: NDArray[Any], level: float) -> bool:
    """Say whether the 75th percentile is surely above a level: the value below it is."""
    return bool(np.count_nonzero(values <= level) <= (len(values) - 1) * 3 // 4)


def _is_copy(picture: NDArray[np.float32], side: int) -> bool:
    """Say whether the bars show the picture between them, spread over the whole frame.

    Args:
        picture: lines are axis 0.
        side: lines of each bar.
    """
    lines, length = picture.shape
    inside = picture[side : lines - side]
    grown = round(length * lines / len(inside))  # as much as the lines had to grow
    bars = np.r_[0 : side - _UNEVEN_PX, lines - side - _UNEVEN_PX : lines]
    wide = cv2.resize(inside, (grown, lines), interpolation=cv2.INTER_AREA)
    cut = (grown - length) // 2
    for spread in (wide[:, cut : cut + length], cv2.resize(inside, (length, lines))):
        copy, shown = _soft(spread.astype(np.float32), lines / 25)[bars], _soft(picture, 3.0)[bars]
        likeness = np.corrcoef(copy.ravel(), shown.ravel())[0, 1]
        if likeness >= _LIKE:
            return True
    return False


def _soft(picture: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return cv2.GaussianBlur(picture, (0, 0), sigma).astype(np.float32, copy=False)
