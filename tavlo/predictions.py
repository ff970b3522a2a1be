"""Heatmaps of any model, as files: one npz or Parquet per clip.

``<clip_id>.npz`` holds ``frame_index`` ``(n,)`` and ``heatmap`` ``(n, y, x)``, of any resolution
and scale; ``<clip_id>.parquet`` has a row per frame, ``frame_index`` an integer and ``heatmap`` a
list of rows of numbers. That is all another lab's model needs to be scored. ``model.json`` beside
them may say what made them; scores carry it along.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
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

ABOUT = "model.json"

Heatmap = NDArray[np.float32]


class Predictions:
    """The heatmaps of a folder.

    Args:
        folder: of ``<clip_id>.npz`` or ``<clip_id>.parquet`` files.

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

    def indices(self, clip_id: str) -> list[int]:
        """The frames of a clip that have a heatmap, ascending; most often the labelled ones."""
        return sorted(self._clip(clip_id))

    def heatmap(self, clip_id: str, frame_index: int) -> Heatmap:
        """One of them, on ``GRID_HW``."""
        return upsample(self._clip(clip_id)[frame_index])

    def about(self) -> dict[str, Any]:
        """What ``model.json`` says of the model; nothing where there is none.

        Raises:
            AvatarBuildError: it is no JSON object.
        """
        path = self._folder / ABOUT
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise AvatarBuildError(f"{path}: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise AvatarBuildError(f"{path}: not a JSON object.")
        return found

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write ``model.json``: name, checkpoint, post-processing, whatever tells runs apart."""
        text = json.dumps(dict(about), indent=1, sort_keys=True)
        (self._folder / ABOUT).write_text(f"{text}\n", encoding="utf-8")

    def heatmaps(self, frames: Sequence[LabelledFrame]) -> Iterator[Heatmap]:
        """The heatmaps of frames, one at a time, on ``GRID_HW``."""
        for frame in frames:
            yield upsample(self._clip(frame.clip_id)[frame.frame_index])

    def _read_clip(self, clip_id: str) -> dict[int, Heatmap]:
        found = [self._folder / f"{clip_id}{ending}" for ending in _READERS]
        found = [path for path in found if path.exists()]
        if len(found) > 1:
            raise AvatarBuildError(f"{found[0]}: there is {found[1].name} too. Remove one of them.")
        if not found:
            return {}
        (path,) = found
        try:
            index, heat = _READERS[path.suffix](path)
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
        # Floats hardly shrink, and an evaluation reads them four times.
        np.savez(
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


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["frame_index"], arrays["heatmap"]


def _read_parquet(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    from pyarrow import compute, parquet, types

    table = parquet.ParquetFile(path).read()
    index = table.column("frame_index").combine_chunks()
    frames = table.column("heatmap").combine_chunks()
    if not (types.is_nested(frames.type) and types.is_nested(frames.type.value_type)):
        raise ValueError(f"heatmap is {frames.type}, not a list of rows")
    rows = frames.flatten()
    heights = compute.list_value_length(frames).unique().to_pylist()
    widths = compute.list_value_length(rows).unique().to_pylist()
    if len(heights) != 1 or len(widths) != 1 or None in (*heights, *widths) or index.null_count:
        raise ValueError("its heatmaps are not lists of equally long rows, all of one size")
    values = rows.flatten().to_numpy(zero_copy_only=False)  # a null becomes NaN
    return index.to_numpy(), values.reshape(len(frames), heights[0], widths[0])


_READERS = {".npz": _read_npz, ".parquet": _read_parquet}


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
