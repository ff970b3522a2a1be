"""The bootstrap over videos: a video's frames are not independent.

Both models' scores of a frame depend on the frame, so the difference of two is far better known
than either number: videos are drawn, and each draw gives both models' means.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError, UsageError
from tavlo.metrics.localisation import auc_of_each

_DRAWS = 1000


@dataclass(frozen=True)
class Cell:
    """A number of a table with its interval."""

    value: float
    """Percent."""
    low: float
    """Lower end of the 95 % interval, by bootstrap over videos."""
    high: float
    n: int
    """Frames."""

    @classmethod
    def of(cls, value: float, draws: NDArray[np.float64], n: int) -> Self:
        """Turn a fraction and its draws into percent; draws that are NaN do not count."""
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        return cls(100 * value, 100 * float(low), 100 * float(high), n)


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


def paired_difference(
    first: Path, second: Path, metric: str, row: str = "Total", seed: int = 0
) -> Cell:
    """Subtract a model's scores from another's, frame by frame, by their ``frames.csv``.

    Args:
        first: of the model compared with.
        second: of the other.
        metric: ``CIoU`` or ``AUC``.
        row: of the tables: a scenario, ``Cross-event``, or all frames with a visible source.
        seed: of the bootstrap.

    Raises:
        UsageError: a file is missing.
        AvatarBuildError: they do not hold the same frames.
    """
    names, videos, before = _of_row(first, row)
    others, _, after = _of_row(second, row)
    if names != others:
        lone = len(set(names) ^ set(others))
        raise AvatarBuildError(f"{second}: not the frames of {first} ({lone} are in one only).")
    if metric == "AUC":
        before, after = auc_of_each(before), auc_of_each(after)
    change = after - before
    draws = Bootstrap(videos, seed).means(slice(None), change)
    return Cell.of(float(change.mean()), draws, len(change))


def _of_row(path: Path, row: str) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Read frame ids, their videos and their cIoU, in the order of the file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            frames = [frame for frame in csv.DictReader(file) if frame.get(row)]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}. 'evaluate --out' writes it.") from error
    if not frames:
        raise AvatarBuildError(f"{path}: no frame of {row} with a cIoU in it.")
    values = np.array([float(frame[row]) for frame in frames])
    return [f["frame_id"] for f in frames], [f["video_id"] for f in frames], values
