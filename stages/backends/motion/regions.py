"""Candidate boxes in the evidence of motion, and how each stands out."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.backends.motion.evidence import Evidence

_MIN_LEVELS = 1.5
"""Evidence above this counts; compression noise stays below."""

_LEVELS = (0.0, 0.15, 0.3, 0.5)
"""Heights at which regions are cut, between _MIN_LEVELS and the frame's strongest evidence."""

_GAPS_PX = (2, 5, 9, 15)
"""Parts up to twice this apart, at working size, are one region."""

_MIN_SIDE_PX = 4
"""Smallest region, at working size."""


def moving_regions(
    evidence: Evidence,
) -> Iterator[tuple[tuple[int, int, int, int], float]]:
    """Find candidate boxes ``(x, y, w, h)`` at working size with their scores, in [0, 1]."""
    strongest = float(np.percentile(evidence, 99.5))
    if strongest <= _MIN_LEVELS:
        return
    seen = set()
    for level in _LEVELS:
        hot = evidence > _MIN_LEVELS + (strongest - _MIN_LEVELS) * level
        for gap in _GAPS_PX:
            for box in _connected(hot, gap):
                if box not in seen and min(box[2:]) >= _MIN_SIDE_PX:
                    seen.add(box)
                    yield box, _score(evidence, box)


def _connected(hot: NDArray[np.bool_], gap: int) -> list[tuple[int, int, int, int]]:
    """Return boxes of what connects once gaps are closed by a disc of radius ``gap``."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1))
    padded = np.pad(hot, gap).astype(np.uint8)  # else closing reaches to the image's edge
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)[gap:-gap, gap:-gap]
    stats = cv2.connectedComponentsWithStats(np.ascontiguousarray(closed), connectivity=8)[2]
    return [(x, y, w, h) for x, y, w, h, _ in stats[1:].tolist()]


def _score(evidence: Evidence, box: tuple[int, int, int, int]) -> float:
    """Return how much a box stands out, in [0, 1].

    Its mean evidence against that of a margin of a quarter of its size all around, how strong the
    evidence is, and (weakly) how much of the frame's evidence it holds: whole things before parts.
    """
    x, y, w, h = box
    margin_x, margin_y = max(3, round(w / 4)), max(3, round(h / 4))
    inner = evidence[y : y + h, x : x + w]
    outer = evidence[
        max(0, y - margin_y) : y + h + margin_y, max(0, x - margin_x) : x + w + margin_x
    ]
    held, mean = float(inner.sum()), float(inner.mean())
    around = (float(outer.sum()) - held) / max(1, outer.size - inner.size)
    contrast = max(0.0, (mean - around) / (mean + around))
    strength = mean / (mean + _MIN_LEVELS)
    score = contrast * strength**0.5 * (held / float(evidence.sum())) ** 0.25
    return float(min(1.0, max(0.0, score)))
