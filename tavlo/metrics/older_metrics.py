"""The metrics before AVATAR beside cIoU: for sets with negatives, masks, pairs, retrieval.

Plain functions over arrays, each as its first paper's evaluator has it, oddities included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tavlo.metrics.localisation import CURVE, Pixels, Real

Floats = NDArray[np.float64]

# Sets with negatives (SLAVC, Mo and Morgado 2022)


@dataclass(frozen=True)
class Detection:
    """Localisation where some samples have no visible source. Fractions, not percentages."""

    n: int
    negatives: int
    average_precision: float
    f1_curve: Floats
    """F1 at every tenth of the ascending confidences."""
    precision: float
    """The precision over all samples, whatever the confidence: negatives are always wrong."""
    location_accuracy: float
    """LocAcc: the same over the samples with a visible source; NaN when there is none."""


def detection(
    cious: Sequence[float],
    confidences: Sequence[float],
    visible: Sequence[bool],
    least_ciou: float = 0.5,
) -> Detection:
    """Score samples of which some have no visible source.

    A sample at or above a confidence is right when its source is visible and its cIoU reaches
    ``least_ciou``, else wrong; a visible source below it is missed.

    Args:
        cious: one per sample; of negatives it does not count. NaN is none.
        confidences: that there is a source, of any scale.
        visible: whether there is one.
        least_ciou: from which on it is found.

    Raises:
        ValueError: there are no samples.
    """
    right = (np.asarray(cious, np.float64) >= least_ciou) & np.asarray(visible, bool)
    sure, seen = np.asarray(confidences, np.float64), np.asarray(visible, bool)
    if not len(sure):
        raise ValueError("no samples to summarise")
    n, ascending = len(sure), np.sort(sure)
    # Down from the second most confident sample: the evaluator never uses the top one.
    walked = ascending[:-1][:: -max(1, n // 200)]
    curve = np.array([_precision_recall(right, sure, seen, at) for at in walked]).reshape(-1, 2)
    precision, recall = curve[:, 0], curve[:, 1]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # Nothing is credited from recall 0 to the first one.
    area = float((envelope[:-1] * np.diff(recall)).sum())
    tenths = [_precision_recall(right, sure, seen, at) for at in ascending[:: max(1, n // 10)]]
    return Detection(
        n=n,
        negatives=int((~seen).sum()),
        average_precision=area,
        f1_curve=np.array([2 * p * r / (p + r) if p + r else 0.0 for p, r in tenths]),
        precision=float(right.mean()),
        location_accuracy=float(right[seen].mean()) if seen.any() else float("nan"),
    )


def _precision_recall(
    right: NDArray[np.bool_], sure: Floats, seen: NDArray[np.bool_], at: float
) -> tuple[float, float]:
    """Return precision and recall; each is 1 where nothing could be wrong or missed."""
    called = sure >= at
    found, claimed = int((right & called).sum()), int(called.sum())
    missed = int((seen & ~called).sum())
    precision = found / claimed if claimed else 1.0
    return precision, found / (found + missed) if found + missed else 1.0


# Several sounds of one image (Senocak et al., IS3)


def interactive(names: Sequence[str], cious: Sequence[float]) -> tuple[float, float, int]:
    """Compute iIoU and iAUC: an image succeeds when all its sounds are localised.

    Args:
        names: of the image, one per sound.
        cious: of each sound.

    Returns:
        The fraction of images of which every cIoU is at least 0.5; the area under that fraction
        over the thresholds of the AUC; the number of images.

    >>> interactive(["a", "a", "b"], [0.7, 0.2, 0.9])[0]
    0.5
    """
    worst: dict[str, float] = {}
    for name, value in zip(names, cious, strict=True):
        worst[name] = min(worst.get(name, np.inf), np.nan_to_num(value))
    least = np.array(list(worst.values()))
    fractions = (least[:, None] >= CURVE).mean(0)
    return float((least >= 0.5).mean()), float(np.trapezoid(fractions, CURVE)), len(least)


# Masks (AVSBench, Zhou et al. 2022)

_BETA_SQUARED = 0.3
_LEVELS = np.linspace(0, 1 - 1e-10, 255).astype(np.float32)


class Segmentation:
    """mIoU and F-score of AVSBench, a frame at a time.

    The F-score is a mean over the frames with a source at each of 255 thresholds, then the best
    threshold's: over the whole set, not per batch, so that the batch size does not matter.
    """

    def __init__(self) -> None:
        self.ious: list[float] = []
        self._f = np.zeros(len(_LEVELS))
        self._with_source = 0

    def add(self, probability: Real, mask: Pixels) -> None:
        """Take one frame in.

        Args:
            probability: ``(y, x)`` in [0, 1]; above 0.5 counts as sounding for the IoU.
            mask: ``(y, x)``; where it is empty the IoU is the fraction of pixels predicted so.
        """
        predicted = probability > 0.5
        if not mask.any():
            self.ious.append(float((~predicted).mean()))
            return
        both, either = (predicted & mask).sum(), (predicted | mask).sum()
        self.ious.append(float(both / (either + 1e-7)))
        # How many thresholds each pixel reaches; a threshold's prediction is all that reach it.
        reached = np.searchsorted(_LEVELS, probability.astype(np.float32).reshape(-1), "right")
        inside = mask.reshape(-1)
        hits, claims = (
            np.bincount(values, minlength=len(_LEVELS) + 1)[::-1].cumsum()[::-1][1:]
            for values in (reached[inside], reached)
        )
        precision, recall = hits / (claims + 1e-20), hits / inside.sum()
        bottom = _BETA_SQUARED * precision + recall
        top = (1 + _BETA_SQUARED) * precision * recall
        self._f += np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        self._with_source += 1

    def scores(self) -> tuple[float, float]:
        """Return mIoU and F-score, the latter NaN when no frame has a source.

        Raises:
            ValueError: there are no frames.
        """
        if not self.ious:
            raise ValueError("no frames to summarise")
        best = float(self._f.max()) / self._with_source if self._with_source else float("nan")
        return float(np.mean(self.ious)), best


# Cross-modal retrieval

_ROUNDING = 1e-9
"""Products of float64 vectors of length one agree to 1e-15 in any order of adding."""


def recall_at(queries: NDArray[Any], gallery: NDArray[Any], k: Sequence[int]) -> dict[int, float]:
    """Return the fraction of queries whose own pair is among the k most similar, by cosine.

    Ties: a pair counts as found when fewer than k rivals are more similar by more than rounding
    (1e-9), so rivals that are as similar as the pair do not push it out.

    Args:
        queries: ``(n, d)``.
        gallery: ``(n, d)``; row i is the pair of query i.
        k: depths.

    Raises:
        ValueError: there are none, not as many, or a vector is zero or not finite.
    """
    if len(queries) != len(gallery) or not len(queries):
        raise ValueError(f"{len(queries)} queries and {len(gallery)} answers")
    ask, answer = _unit(queries), _unit(gallery)
    own = (ask * answer).sum(1)
    rank = np.zeros(len(ask), np.int64)
    for start in range(0, len(ask), 512):
        part = slice(start, start + 512)
        similar = ask[part] @ answer.T
        rank[part] = (similar > own[part, None] + _ROUNDING).sum(1)
    return {depth: float((rank < depth).mean()) for depth in k}


def _unit(vectors: NDArray[Any]) -> Floats:
    wide = np.asarray(vectors, np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise ValueError("a vector is zero or not finite")
    unit: Floats = wide / length
    return unit
