"""The difference of two models on the same frames, with an interval.

Both models' scores of a frame depend on the frame, so the difference is far better known than
either number: videos are drawn, and each draw gives both models' means.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError, UsageError
from tavlo.metrics.bootstrap import Bootstrap, interval
from tavlo.metrics.localisation import auc_of_each


@dataclass(frozen=True)
class Difference:
    """The second minus the first, percent points."""

    value: float
    low: float
    """Lower end of the 95 % interval, by bootstrap over videos."""
    high: float
    n: int
    """Frames."""


def paired_difference(
    first: Path, second: Path, metric: str, row: str = "Total", seed: int = 0
) -> Difference:
    """Compare ``frames.csv`` of two evaluations, frame by frame.

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
    low, high = interval(Bootstrap(videos, seed).means(slice(None), change))
    return Difference(100 * float(change.mean()), 100 * low, 100 * high, len(change))


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
