"""The metrics of localisation (AVATAR paper, section 5.1, and the papers before it).

Everything here is a plain function over arrays. ``y x`` are rows and columns of a heatmap. A
heatmap is any real number per pixel; a prediction is the pixels at or above a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.floating[Any]]
Pixels = NDArray[np.bool_]
Comparison = Literal[">=", ">"]

CURVE = np.array([0.05 * step for step in range(21)])
"""Thresholds of the success curve; float products, so the seventh is 0.30000000000000004."""


def ciou(predicted: Pixels, truth: NDArray[Any]) -> float:
    """Compute the consensus intersection over union of one frame (Senocak et al. 2018).

    sum(P G) / (sum(G) + sum(P where G = 0)): with a truth of zeros and ones the usual IoU.

    Args:
        predicted: P, ``(y, x)``.
        truth: G in ``[0, 1]``, ``(y, x)``; fractions where annotators disagree.

    Returns:
        In ``[0, 1]``; NaN when nothing is predicted and nothing is there.

    >>> ciou(np.array([[True, True, False]]), np.array([[0.0, 1.0, 1.0]]))
    0.3333333333333333
    """
    hit = float(truth[predicted].sum(dtype=np.float64))
    outside = int(np.count_nonzero(predicted & (truth == 0)))
    total = float(truth.sum(dtype=np.float64)) + outside
    return hit / total if total else float("nan")


@dataclass(frozen=True)
class Localisation:
    """The summary of some frames' cIoUs. Fractions, not percentages."""

    n: int
    ciou: float
    """Mean cIoU: the AVATAR paper's CIoU."""
    success: float
    """Fraction of frames with cIoU >= 0.5: what older papers call cIoU, AP50 or CIoU."""
    auc: float
    """Area under the fraction of frames with cIoU >= threshold, thresholds 0, 0.05, ..., 1."""


def localisation(cious: Iterable[float]) -> Localisation:
    """Summarise frames.

    Args:
        cious: one per frame. NaN, a frame with neither prediction nor truth, counts in n and as
            no success, and makes the mean NaN: leave such frames out before, and say so.

    Raises:
        ValueError: there are none; a table cell without frames is empty, not zero.

    >>> found = localisation([1.0, 0.5])
    >>> found.n, found.ciou, found.success, round(found.auc, 4)
    (2, 0.75, 1.0, 0.7625)
    """
    values = np.fromiter(cious, np.float64)
    if not len(values):
        raise ValueError("no frames to summarise")
    fractions = (values[:, None] >= CURVE).mean(0)
    return Localisation(
        n=len(values),
        ciou=float(values.mean()),
        success=float((values >= 0.5).mean()),
        auc=float(np.trapezoid(fractions, CURVE)),
    )


def auc_of_each(cious: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each frame's part of the AUC, whose mean it is: trapezoids over its step function."""
    return np.asarray(np.trapezoid((cious[:, None] >= CURVE).astype(float), CURVE, axis=1))


def min_max(heatmap: Real) -> Real:
    """Stretch one heatmap to [0, 1]; a flat one stays as it is."""
    low, high = heatmap.min(), heatmap.max()
    return heatmap if low == high else (heatmap - low) / (high - low)


def predict(heatmap: Real, threshold: float, comparison: Comparison = ">=") -> Pixels:
    """Return the pixels that count as sounding.

    EZ-VSL and SLAVC take pixels equal to the threshold in, SSL-TIE, LVS and SSLalignment leave them
    out; on flat and quantised maps that decides everything.
    """
    return heatmap >= threshold if comparison == ">=" else heatmap > threshold


def rank_threshold(heatmap: Real, fraction: float) -> float:
    """Return the value below which ``fraction`` of one heatmap's pixels lie, by ascending rank.

    >>> rank_threshold(np.arange(10.0), 0.5)
    5.0
    """
    flat = heatmap.reshape(-1)
    return float(np.sort(flat)[int(len(flat) * fraction)])


def top_fraction_threshold(
    heatmaps: Callable[[], Iterable[Real]], fraction: float, buckets: int = 1 << 16
) -> float:
    """Return the smallest of the top ``fraction`` of all frames' pixels: exact, in few bytes.

    A float32's bits order like its value once the sign is dealt with, so two passes of counting
    suffice: the upper 16 bits find the bucket, the lower 16 bits the value in it.

    Args:
        heatmaps: called twice, for the same frames each time; float32, or less precise.
        fraction: in (0, 1].
        buckets: of each pass.

    Raises:
        ValueError: no pixels, a fraction out of range, or NaN.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: {fraction} is not in (0, 1]")
    coarse = np.zeros(buckets, np.int64)
    for heatmap in heatmaps():
        if np.isnan(heatmap).any():
            raise ValueError("a heatmap holds NaN")
        coarse += np.bincount(_ordered_bits(heatmap) >> 16, minlength=buckets)
    total = int(coarse.sum())
    if not total:
        raise ValueError("no heatmaps")
    wanted = max(1, round(total * fraction))
    above = np.cumsum(coarse[::-1])[::-1]  # pixels in this bucket or higher ones
    bucket = int(np.flatnonzero(above >= wanted)[-1])
    still = wanted - int(above[bucket] - coarse[bucket])
    fine = np.zeros(buckets, np.int64)
    for heatmap in heatmaps():
        bits = _ordered_bits(heatmap)
        fine += np.bincount(bits[bits >> 16 == bucket] & 0xFFFF, minlength=buckets)
    low = int(np.flatnonzero(np.cumsum(fine[::-1])[::-1] >= still)[-1])
    return _value_of((bucket << 16) | low)


def _ordered_bits(heatmap: Real) -> NDArray[np.uint32]:
    """Return unsigned integers in the order of the float32 values."""
    # -0.0 would sort below 0.0; adding zero makes them one.
    bits = (np.ascontiguousarray(heatmap, np.float32).reshape(-1) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value_of(ordered: int) -> float:
    bits = ordered & 0x7FFFFFFF if ordered >> 31 else ~ordered & 0xFFFFFFFF
    return float(np.array(bits, np.uint32).view(np.float32))
