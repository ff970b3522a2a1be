"""Candidate boxes in the evidence of motion, and how each stands out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.records.boxes import iou_matrix
from stages.backends.motion.evidence import Evidence

Box = tuple[int, int, int, int]
"""x, y, width, height at working size."""

BoxT = TypeVar("BoxT", bound=Sequence[float])

_MIN_LEVELS = 1.5
"""Evidence above this counts; compression noise stays below."""

_LEVELS = (0.0, 0.15, 0.3, 0.5)
"""Heights at which regions are cut, between _MIN_LEVELS and the frame's strongest evidence."""

_GAPS_PX = (2, 5, 9, 15, 25, 40)
"""Parts up to twice this apart, at working size, are one region: of a face only eyes and mouth
move, of a player both hands."""

_WIDE_PX = 25
"""Gaps from here on join what may be several things."""

_JOINED = 0.85
"""Factor of the score of a region so joined: things before groups where both stand out."""

_SLIVER = 5
"""A side this many times the other is an edge's more often than a thing's."""

_SLIVERS = 0.3
"""Factor of the score of such a region."""

_MIN_SIDE_PX = 4
"""Smallest region, at working size."""

_MOST = 5
"""Regions of a frame. Nothing is known of them but that they move; more would be more to remove."""

_SAME = 0.5
"""IoU above which two regions are one, the better."""


def moving_regions(evidence: Evidence) -> list[tuple[Box, float]]:
    """Return the best boxes with their scores, in [0, 1], best first."""
    strongest = float(np.percentile(evidence, 99.5))
    if strongest <= _MIN_LEVELS:
        return []
    sums = cv2.integral(evidence, sdepth=cv2.CV_64F).astype(np.float64, copy=False)
    scores: dict[Box, float] = {}
    for level in _LEVELS:
        hot = evidence > _MIN_LEVELS + (strongest - _MIN_LEVELS) * level
        spots, places = _spots(hot)
        distance = cv2.distanceTransform((~hot).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        for gap in _GAPS_PX:
            boxes = list(_joined(spots, places, distance <= gap))
            for box in boxes:
                if box not in scores and min(box[2:]) >= _MIN_SIDE_PX:
                    joined = _JOINED if gap >= _WIDE_PX else 1.0
                    scores[box] = joined * _score(sums, box)
            if len(boxes) == 1:
                break  # all is joined: wider gaps give the same box
    return best_of(list(scores.items()))


def best_of(
    scored: Sequence[tuple[BoxT, float]], taken: Sequence[Sequence[float]] = ()
) -> list[tuple[BoxT, float]]:
    """Choose the best boxes that repeat no better one, best first.

    Args:
        scored: boxes ``x, y, width, height`` with their scores.
        taken: boxes chosen already, which count among the most there may be.
    """
    best: list[tuple[BoxT, float]] = []
    ranked = sorted(scored, key=lambda one: (-one[1], tuple(one[0])))
    boxes = [box for box, _ in ranked]
    is_new: NDArray[np.bool_] = np.all(iou_matrix(boxes, taken) <= _SAME, axis=1)
    for place, (box, score) in enumerate(ranked):
        if len(taken) + len(best) >= _MOST:
            break
        if is_new[place]:
            best.append((box, score))
            is_new &= iou_matrix(boxes, [box])[:, 0] <= _SAME
    return best


def _spots(hot: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the connected parts of the hot pixels.

    Returns:
        Their boxes, ``(n, 4)`` of left, top, right and bottom, and the place of a pixel of each.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot.astype(np.uint8), connectivity=8)
    left, top, width, height = stats[1:, :4].astype(np.int64).T
    pixels = np.flatnonzero(hot)
    places = np.zeros(count, np.int64)
    places[labels.ravel()[pixels]] = pixels
    return np.stack((left, top, left + width, top + height), axis=1), places[1:]


def _joined(
    spots: NDArray[np.int64], places: NDArray[np.int64], near: NDArray[np.bool_]
) -> Iterator[Box]:
    """Yield the box of the spots in each connected part of what is near one."""
    parts = cv2.connectedComponents(near.astype(np.uint8), connectivity=8)[1]
    part_of = parts.ravel()[places]
    order = np.argsort(part_of, kind="stable")
    starts = np.flatnonzero(np.diff(part_of[order], prepend=0))
    least = np.minimum.reduceat(spots[order, :2], starts)
    most = np.maximum.reduceat(spots[order, 2:], starts)
    for left, top, right, bottom in np.hstack((least, most)).tolist():
        yield left, top, right - left, bottom - top


def _score(sums: NDArray[np.float64], box: Box) -> float:
    """Return how much a box stands out, in [0, 1].

    Its mean evidence against that of a margin of a quarter of its size all around, how strong the
    evidence is, and (weakly) how much of the frame's evidence it holds: whole things before parts.

    Args:
        sums: the evidence's integral image, ``(height + 1, width + 1)``.
        box: to judge.
    """
    x, y, w, h = box
    rows, columns = (side - 1 for side in sums.shape)
    margin_x, margin_y = max(3, round(w / 4)), max(3, round(h / 4))
    left, right = max(0, x - margin_x), min(columns, x + w + margin_x)
    top, bottom = max(0, y - margin_y), min(rows, y + h + margin_y)
    held, wide = _sum(sums, x, y, x + w, y + h), _sum(sums, left, top, right, bottom)
    mean = held / (w * h)
    around = (wide - held) / max(1, (right - left) * (bottom - top) - w * h)
    contrast = max(0.0, (mean - around) / (mean + around))
    strength = mean / (mean + _MIN_LEVELS)
    score = contrast * strength**0.5 * (held / float(sums[-1, -1])) ** 0.25
    sliver = _SLIVERS if max(w, h) > _SLIVER * min(w, h) else 1.0
    return float(min(1.0, max(0.0, sliver * score)))


def _sum(sums: NDArray[np.float64], left: int, top: int, right: int, bottom: int) -> float:
    corners = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return float(corners)
