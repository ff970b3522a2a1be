"""The bootstrap over videos; a video's frames are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DRAWS = 1000


class Bootstrap:
    """Draws of videos with replacement, the same for every number.

    Args:
        videos: the video of each frame.
        seed: of the draws.
    """

    def __init__(self, videos: Sequence[str], seed: int) -> None:
        names, self._video = np.unique(videos, return_inverse=True)
        drawn = np.random.default_rng(seed).integers(0, len(names), (_DRAWS, len(names)))
        self._times = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
        """The number of times each draw holds each video."""

    def means(self, frames: Sequence[int] | slice, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the mean of some frames' values in each draw; NaN in a draw without them."""
        video = self._video[frames]
        sums = np.bincount(video, values, self._times.shape[1])
        counts = self._times @ np.bincount(video, minlength=self._times.shape[1])
        means = np.full(len(counts), np.nan)
        np.divide(self._times @ sums, counts, out=means, where=counts > 0)
        return means


def interval(means: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the 95 % interval of draws; those that are NaN do not count."""
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(low), float(high)
