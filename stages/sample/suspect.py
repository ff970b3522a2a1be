"""Pictures that are broken in the source itself: blocks of a decoder that lost its way.

A video that was decoded from a damaged stream once, concealed, and encoded again decodes without an
error. Its blocks have hard edges, and sharpness loves them. They stand on the 8x8 grid of the
codecs, as steps between flat sides, both ways at once, and more of them there than half a cell
beside the grid, where a picture's own edges stand as often. They are new where the picture is
unlike others of its clip:

- ``blocks``: unlike every picture of the same scene, 0.3 s and more away;
- ``jump``: unlike one nearer than that, however things moved between the two.

A picture without others of its scene is judged by its neighbours alone. A cut changes the whole
picture and a flash its brightness, which is no jump; fast motion, captions and fades bring no steps
that prefer the grid.

What it cannot see: smears without edges, blocks of a source that was scaled by no whole number
since, and damage that stays through all pictures near it where things also move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_GRID_PX = 8
"""Side of a cell: the smallest transform that all common codecs have, and a part of the larger."""

_STEP_LEVELS = 14
"""Grey levels of a cell's edge, on average, from which on it is a step."""

_FLAT = 2.5
"""A step is this many times what it is two pixels beside it, on either side."""

_AROUND = 5
"""Cells on a side of the square in which steps are counted: damage is in one place."""

_MOVED = 3
"""Cells on a side of the square in which other pictures' steps count as these: things move."""

_BROKEN = 3
"""New steps each way in a square, from which on a picture is suspect."""

_LINES = 2
"""Lines of the grid each way that they stand on at least: a frame's corner has one."""

_UNLIKE = 6
"""Grey levels by which a cell differs from the same place in every other picture, if it is new."""

_JUMP_LEVELS = 18
"""Grey levels by which a cell differs from a near picture that was moved onto it."""

_CUT = 0.6
"""Fraction of the cells above which a jump is a cut."""

_SAME_SCENE = 0.75
"""Least correlation of two pictures of one scene."""

_MOST_CELLS = 0.6
"""Fraction of the cells that suffices instead: a smashed part spoils the correlation."""

_APART_S = 0.3
"""Seconds to the pictures of its scene; nearer ones may carry the same damage."""

_FEWEST = 3
"""Fewest pictures of its scene to be held against."""

_MOST = 12
"""Most of them; evenly chosen."""

_MOST_NEAR = 6
"""Most pictures near it; evenly chosen."""

_THUMB = (160, 90)
"""Width and height in which motion is measured, of any picture: DIS crashes on wide ones."""


@dataclass(frozen=True)
class Look:
    """The steps and levels of a picture, to judge it and others by."""

    time_s: float
    steps: NDArray[np.bool_]
    """Cells whose right and lower edge is a step, ``(2, rows, columns)``."""
    beside: NDArray[np.bool_]
    """Cells with a step half a cell past that edge."""
    small: NDArray[np.float32]
    """Grey levels by cell."""
    thumb: NDArray[np.uint8]
    """The picture, 160x90."""

    @cached_property
    def counts(self) -> NDArray[np.float32]:
        """The steps in the square around each cell, ``(2, rows, columns)``."""
        return _count(self.steps)

    @cached_property
    def centred(self) -> NDArray[np.float32]:
        """The levels about their mean."""
        levels: NDArray[np.float32] = self.small - self.small.mean()
        return levels

    @cached_property
    def norm(self) -> np.floating:
        """The root of the sum of their squares."""
        return np.linalg.norm(self.centred)


def look_at(luma: NDArray[np.uint8], time_s: float) -> Look:
    """Measure one picture.

    Args:
        luma: as decoded, ``(height, width)``.
        time_s: its time in the source.
    """
    rows, columns = (side // _GRID_PX for side in luma.shape)
    cut = np.ascontiguousarray(luma[: rows * _GRID_PX, : columns * _GRID_PX])
    steps, beside = np.stack([_steps(cut, 1), _steps(cut, 0)], axis=1)
    small = cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    thumb = cv2.resize(cut, _THUMB, interpolation=cv2.INTER_AREA)
    return Look(time_s, steps, beside, small, thumb.astype(np.uint8, copy=False))


def suspicion(look: Look, others: Sequence[Look]) -> str | None:
    """Say why a picture may be broken; none where nothing speaks for it.

    Args:
        look: of the picture.
        others: of its clip, of any times; its own may be among them.

    Returns:
        ``blocks``, ``jump``, or none.
    """
    alike = [one for one in others if one.small.shape == look.small.shape]
    far = [one for one in alike if abs(one.time_s - look.time_s) > _APART_S]
    near = [one for one in alike if 0 < abs(one.time_s - look.time_s) <= _APART_S]
    scene = [one for one in far if _same_scene(look, one)]
    if len(scene) >= _FEWEST and _breaks(look, _evenly(scene, _MOST), _unlike):
        return "blocks"
    if any(_breaks(look, [one], _jumped) for one in _evenly(near, _MOST_NEAR)):
        return "jump"
    return None


def _breaks(
    look: Look, others: list[Look], differing: Callable[[Look, list[Look]], NDArray[np.bool_]]
) -> bool:
    """Say whether steps where it differs are more than others have, and than beside the grid."""
    counts = [one.counts for one in others]
    usual = _spread(np.median(counts, axis=0) if len(counts) > 1 else counts[0])
    if not (look.counts - usual >= _BROKEN).all(axis=0).any():
        return False  # spares the rest, nearly always
    where = differing(look, others)
    new = look.steps & where
    excess = _count(new) - usual - _spread(_count(look.beside & where))
    lines = np.stack([_lines(new[0]), _lines(new[1].T).T])
    return bool(((excess >= _BROKEN) & (lines >= _LINES)).all(axis=0).any())


def _unlike(look: Look, scene: list[Look]) -> NDArray[np.bool_]:
    """Say which cells differ from the same place in every other picture."""
    least = np.min([np.abs(one.small - look.small) for one in scene], axis=0)
    found: NDArray[np.bool_] = least > _UNLIKE
    return found


def _jumped(look: Look, near: list[Look]) -> NDArray[np.bool_]:
    """Say which cells motion from a near picture does not explain, nor a change of brightness.

    None where it is a cut.
    """
    to, of = look.thumb, near[0].thumb
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(
        to, of, np.zeros((*to.shape, 2), np.float32)
    )
    rows, columns = np.indices(to.shape, np.float32)
    moved = cv2.remap(
        of,
        columns + flow[..., 0],
        rows + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )

    def unlike(other: NDArray[Any]) -> NDArray[np.float32]:
        difference = to.astype(np.float32) - other
        found: NDArray[np.float32] = np.abs(difference - _median(difference))
        return found

    left = np.minimum(unlike(moved), unlike(of))
    size = look.small.shape[::-1]
    cells = cv2.resize(left, size, interpolation=cv2.INTER_AREA) > _JUMP_LEVELS
    if cells.mean() > _CUT:
        return np.zeros_like(cells)
    return cv2.dilate(cells.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _steps(cut: NDArray[np.uint8], axis: int) -> NDArray[np.bool_]:
    """Say where there is a step from cell to cell along an axis, and where half a cell past that.

    Args:
        cut: whole cells.
        axis: 0 for steps at lower edges, 1 for those at right edges.

    Returns:
        ``(2, rows, columns)``: at the edges, and past them.
    """
    size = [side // _GRID_PX for side in cut.shape]
    found = np.zeros((2, *size), np.bool_)
    size[axis] -= 1  # past the last cell there is nothing
    if not size[axis]:
        return found
    edge, half = _GRID_PX - 1, _GRID_PX // 2
    # Two pixels away from each of the two places lie the ones that a step must stand out from.
    places = range(edge - 2, edge + half + 3, 2)
    px: dict[int, Any]
    if axis == 0:
        down = cv2.absdiff(cut[:-1], cut[1:])
        px = {place: down[place::_GRID_PX][: size[0]] for place in places}
    else:
        across = cv2.absdiff(cut[:, :-1], cut[:, 1:])
        columns = ((place, across[:, place::_GRID_PX][:, : size[1]]) for place in places)
        px = {place: np.ascontiguousarray(column) for place, column in columns}
    inside = found[:, : size[0], : size[1]]
    for place, there in zip((edge, edge + half), inside, strict=True):
        step = _by_cell(px[place], size)
        beside = _by_cell(cv2.max(px[place - 2], px[place + 2]), size)
        there[:] = (step > _STEP_LEVELS) & (step > _FLAT * beside)
    return found


def _by_cell(levels: NDArray[Any], size: Sequence[int]) -> NDArray[np.float32]:
    """Return the means of eight pixels each, ``size`` rows and columns of them."""
    rows, columns = size
    mean = cv2.resize(levels.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return mean.astype(np.float32, copy=False)


def _count(steps: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Count the steps of the square around each cell, either way for itself."""
    return np.stack([_sum(one.astype(np.float32), _AROUND, _AROUND) for one in steps])


def _lines(steps: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Count the columns that hold a step in the square around each cell."""
    held = np.minimum(_sum(steps.astype(np.float32), _AROUND, 1), 1)
    return _sum(held, 1, _AROUND)


def _sum(levels: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    found = cv2.boxFilter(
        levels, -1, (columns, rows), normalize=False, borderType=cv2.BORDER_CONSTANT
    )
    return found.astype(np.float32, copy=False)


def _spread(counts: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the largest count near each cell."""
    near = np.ones((_MOVED, _MOVED), np.uint8)
    return np.stack([cv2.dilate(one.astype(np.float32), near) for one in counts])


def _evenly(looks: Sequence[Look], most: int) -> list[Look]:
    places = np.linspace(0, len(looks) - 1, min(len(looks), most)).round().astype(int)
    return [looks[place] for place in places]


def _same_scene(one: Look, other: Look) -> bool:
    """Say whether two pictures show one scene: alike as a whole or, if damaged, in most cells."""
    if float((one.centred * other.centred).sum()) > _SAME_SCENE * float(one.norm * other.norm):
        return True
    difference = one.small - other.small
    alike = np.abs(difference - _median(difference)) <= _UNLIKE
    return bool(alike.mean() >= _MOST_CELLS)


def _median(levels: NDArray[np.float32]) -> np.float32:
    """Return what ``np.median`` does, in a third of its time: it is asked of every pair.

    >>> _median(np.array([[4, 1], [2, 9]], np.float32)), _median(np.array([4, 9, 1], np.float32))
    (np.float32(3.0), np.float32(4.0))
    """
    half, odd = divmod(levels.size, 2)
    ordered = np.partition(levels, (half - 1 + odd, half), axis=None)
    middle: np.float32 = ordered[half] if odd else (ordered[half - 1] + ordered[half]) / 2
    return middle
