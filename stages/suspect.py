"""Pictures that are broken in the source itself: blocks of a decoder that lost its way.

A video that was decoded from a damaged stream once, concealed, and encoded again decodes without an
error. Its blocks have hard edges, and sharpness loves them. A picture is held against others of its
clip, half a second and more away, which show the same scene: blocks stand on the 8x8 grid of the
codecs, as steps between flat sides, where the others have none, and where the picture is unlike all
of them. A picture without others of its scene (a cut, fast motion) is not judged.

What it cannot see: smears without edges, a clip that is broken throughout, and blocks of a source
that was scaled by no whole number since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_GRID_PX = 8
"""Side of a cell: the smallest transform that all common codecs have, and a part of the larger."""

_STEP_LEVELS = 14
"""Grey levels of a cell's edge, on average, from which on it is a step."""

_FLAT = 2.5
"""A step is this many times what it is two pixels beside it, on either side."""

_AROUND = 9
"""Cells on a side of the square in which steps are counted: damage is in one place."""

_MOVED = 5
"""Cells on a side of the square in which other pictures' steps count as these: things move."""

_UNLIKE = 6
"""Grey levels by which a cell differs from the same place in every other picture, if it is new."""

_SAME_SCENE = 0.75
"""Least correlation of two pictures of one scene."""

_MOST_CELLS = 0.6
"""Fraction of the cells that suffices instead: a smashed part spoils the correlation."""

_APART_S = 0.3
"""Seconds to the pictures it is held against; nearer ones carry the same damage."""

_FEWEST = 3
"""Fewest pictures to be held against."""

_MOST = 12
"""Most of them; evenly chosen."""

_BROKEN = 0.12
"""New steps per cell, of two possible, in the worst place, from which on a picture is suspect."""


@dataclass(frozen=True)
class Look:
    """The steps and levels of a picture, to judge it and others by."""

    time_s: float
    steps: NDArray[np.float32]
    """Steps per cell, 0 to 2, on the right and on the lower edge, ``(rows, columns)``."""
    small: NDArray[np.float32]
    """Grey levels by cell."""


def look_at(luma: NDArray[np.uint8], time_s: float) -> Look:
    """Measure one picture.

    Args:
        luma: as decoded, ``(height, width)``.
        time_s: its time in the source.
    """
    rows, columns = (side // _GRID_PX for side in luma.shape)
    cut = np.ascontiguousarray(luma[: rows * _GRID_PX, : columns * _GRID_PX])
    steps = np.zeros((rows, columns), np.float32)
    steps[:, :-1] += _steps(cut)
    steps[:-1] += _steps(np.ascontiguousarray(cut.T)).T
    small = cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA)
    return Look(time_s, steps, small.astype(np.float32))


def suspicion(look: Look, others: Sequence[Look]) -> str | None:
    """Say why a picture may be broken; none where nothing speaks for it.

    Args:
        look: of the picture.
        others: of its clip, of any times; its own may be among them.

    Returns:
        ``blocks``, or none.
    """
    far = [one for one in others if abs(one.time_s - look.time_s) > _APART_S]
    scene = [one for one in far if _same_scene(look, one)]
    if len(scene) < _FEWEST:
        return None
    chosen = np.linspace(0, len(scene) - 1, min(len(scene), _MOST)).round().astype(int)
    scene = [scene[place] for place in chosen]
    usual = np.median([_density(one.steps) for one in scene], axis=0).astype(np.float32)
    usual = cv2.dilate(usual, np.ones((_MOVED, _MOVED), np.uint8)).astype(np.float32)
    unlike = np.min([np.abs(one.small - look.small) for one in scene], axis=0) > _UNLIKE
    new = _density(np.where(unlike, look.steps, 0).astype(np.float32)) - usual
    return "blocks" if float(new.max()) >= _BROKEN else None


def _steps(luma: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Say where a cell's right edge is a step, ``(rows, columns - 1)``."""
    at = np.arange(_GRID_PX, luma.shape[1], _GRID_PX)
    rows = luma.shape[0] // _GRID_PX

    def levels(column: NDArray[np.int_]) -> NDArray[np.uint8]:
        return cv2.absdiff(luma[:, column], luma[:, column - 1]).astype(np.uint8, copy=False)

    def by_cell(found: NDArray[np.uint8]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = found.reshape(rows, _GRID_PX, len(at)).mean(axis=1)
        return mean

    step = by_cell(levels(at))
    beside = by_cell(np.maximum(levels(at - 2), levels(at + 2)))
    found: NDArray[np.bool_] = (step > _STEP_LEVELS) & (step > _FLAT * beside)
    return found


def _density(steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the steps per cell of the square around each cell."""
    around = cv2.blur(steps, (_AROUND, _AROUND), borderType=cv2.BORDER_CONSTANT)
    return around.astype(np.float32, copy=False)


def _same_scene(one: Look, other: Look) -> bool:
    """Say whether two pictures show one scene: alike as a whole or, if damaged, in most cells."""
    if one.small.shape != other.small.shape:
        return False
    first, second = one.small - one.small.mean(), other.small - other.small.mean()
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    if float((first * second).sum()) > _SAME_SCENE * norm:
        return True
    difference = one.small - other.small
    alike = np.abs(difference - np.median(difference)) <= _UNLIKE
    return bool(alike.mean() >= _MOST_CELLS)
