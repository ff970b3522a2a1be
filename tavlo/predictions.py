"""Heatmaps of any model, as files: one npz per clip.

``<clip_id>.npz`` holds ``frame_index`` ``(n,)`` and ``heatmap`` ``(n, y, x)``, of any resolution
and scale. That is all another lab's model needs to be scored.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError, UsageError
from tavlo.release import LabelledFrame

GRID_HW = (224, 224)
"""Heatmaps are compared on this grid, as the published models' are."""

Heatmap = NDArray[np.float32]


class Predictions:
    """The heatmaps of a folder.

    Args:
        folder: of ``<clip_id>.npz`` files.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no folder of predictions.")
        self._folder = folder
        self._clip = lru_cache(maxsize=2)(self._read_clip)

    def has(self, frame: LabelledFrame) -> bool:
        """Whether a heatmap of the frame is there."""
        return frame.frame_index in self._clip(frame.clip_id)

    def heatmaps(self, frames: Sequence[LabelledFrame]) -> Iterator[Heatmap]:
        """The heatmaps of frames, one at a time, on ``GRID_HW``."""
        for frame in frames:
            yield upsample(self._clip(frame.clip_id)[frame.frame_index])

    def _read_clip(self, clip_id: str) -> dict[int, Heatmap]:
        path = self._folder / f"{clip_id}.npz"
        if not path.exists():
            return {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                index, heat = arrays["frame_index"], arrays["heatmap"]
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise AvatarBuildError(
                f"{path}: not predictions: it must hold frame_index (n,) and heatmap (n, y, x):"
                f" {error}"
            ) from error
        return _checked(path, index, heat)

    def save(self, clip_id: str, frame_index: Sequence[int], heatmap: NDArray[Any]) -> None:
        """Write one clip's heatmaps, whole or not at all."""
        path = self._folder / f"{clip_id}.npz"
        beside = path.with_suffix(".tmp.npz")
        np.savez_compressed(
            beside, frame_index=np.asarray(frame_index), heatmap=np.asarray(heatmap, np.float32)
        )
        beside.replace(path)


def upsample(heatmap: Heatmap) -> Heatmap:
    """Bilinear to ``GRID_HW``, pixel centres aligned (corners are not)."""
    rows, columns = GRID_HW
    if heatmap.shape == GRID_HW:
        return heatmap
    return np.asarray(
        cv2.resize(heatmap, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32
    )


def _checked(path: Path, index: NDArray[Any], heat: NDArray[Any]) -> dict[int, Heatmap]:
    if index.ndim != 1 or heat.ndim != 3 or len(index) != len(heat):
        raise AvatarBuildError(
            f"{path}: frame_index is {index.shape}, heatmap {heat.shape}; they must be (n,) and"
            " (n, y, x)."
        )
    if not np.issubdtype(heat.dtype, np.floating) or not np.issubdtype(index.dtype, np.integer):
        raise AvatarBuildError(f"{path}: frame_index must be integers, heatmap floats.")
    if not np.isfinite(heat).all():
        frame = int(index[~np.isfinite(heat).all((1, 2))][0])
        raise AvatarBuildError(f"{path}: the heatmap of frame {frame} holds NaN or infinity.")
    if len(set(index.tolist())) != len(index):
        raise AvatarBuildError(f"{path}: a frame_index is there twice.")
    return {int(i): np.asarray(h, np.float32) for i, h in zip(index, heat, strict=True)}
