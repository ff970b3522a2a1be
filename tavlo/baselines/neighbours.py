"""The table of clips that look or sound alike, for the positives of cross-modal alignment.

Any pretrained encoders will do (paper, 3.2): those of another model here, or vectors from
elsewhere. The table is one file, made once for a training list.
"""

from __future__ import annotations

import zipfile
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError, UsageError, numpy_says
from pipeline.files import replacing, sha256_of

_BLOCK = 1024
"""Clips compared with all others at once: 144,000 others take 600 MB."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest clips of each clip, by picture and by sound."""

    clip_ids: list[str]
    pictures: NDArray[np.int32]
    """Numbers of clips, nearest first, ``(n, k)``."""
    sounds: NDArray[np.int32]
    """The same, by sound."""

    def __post_init__(self) -> None:
        self._place: dict[str, int]
        object.__setattr__(self, "_place", {name: i for i, name in enumerate(self.clip_ids)})

    def draw(
        self, clip_id: str, available: Container[str], rng: np.random.Generator
    ) -> tuple[str, str]:
        """Draw one clip that looks like this one, and one that sounds like it.

        Args:
            clip_id: in the table.
            available: clips that may be drawn.
            rng: of the clip.

        Raises:
            AvatarBuildError: the table knows nothing of the clip, or none of its neighbours is
                available.
        """
        if clip_id not in self._place:
            raise AvatarBuildError(
                "it is not in the table of neighbours; make the table from this training list."
            )
        drawn = []
        for kind, table in (("looks", self.pictures), ("sounds", self.sounds)):
            names = [self.clip_ids[number] for number in table[self._place[clip_id]]]
            near = [name for name in names if name in available]
            if not near:
                raise AvatarBuildError(
                    f"none of the {len(names)} clips it {kind} like is trained on; make the table"
                    " of neighbours with more of them."
                )
            drawn.append(near[int(rng.integers(len(near)))])
        return drawn[0], drawn[1]

    def save(self, file: str | Path) -> None:
        """Write it, whole or not at all."""
        names = np.array(self.clip_ids)
        with replacing(Path(file)) as path, path.open("wb") as stream:
            np.savez_compressed(stream, clip_ids=names, pictures=self.pictures, sounds=self.sounds)


def find_neighbours(
    clip_ids: Sequence[str], pictures: NDArray[Any], sounds: NDArray[Any], count: int
) -> Neighbours:
    """Find the nearest clips by cosine, a clip itself left out.

    Args:
        clip_ids: as the training list has them.
        pictures: a vector of each clip's picture, ``(n, d)``.
        sounds: a vector of each clip's sound, ``(n, e)``.
        count: neighbours of each; the paper does not say how many.

    Raises:
        UsageError: the sizes do not fit, a clip is there twice, or a vector has no direction.
    """
    number = len(clip_ids)
    if len(set(clip_ids)) != number:
        raise UsageError("neighbours: a clip is there twice.")
    if not len(pictures) == len(sounds) == number or not 1 <= count < number:
        raise UsageError(
            f"neighbours: {number} clips, {len(pictures)} pictures, {len(sounds)} sounds, {count}"
            " neighbours of each; there must be a picture and a sound of each and fewer neighbours"
            " than clips."
        )
    tables = [_nearest(vectors, count) for vectors in (pictures, sounds)]
    return Neighbours(list(clip_ids), *tables)


def read_neighbours(path: Path) -> Neighbours:
    """Read a table.

    Raises:
        UsageError: there is none, or it is none.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = [str(name) for name in stored["clip_ids"]]
            tables = [np.asarray(stored[name], np.int32) for name in ("pictures", "sounds")]
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no table of neighbours.") from error
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: not a table of neighbours ({numpy_says(error)}).") from error
    for table in tables:
        fits = table.ndim == 2 and len(table) == len(names) and table.shape[1] > 0
        if not fits or table.min() < 0 or table.max() >= len(names):
            raise UsageError(f"{path}: not a table of neighbours: {table.shape} for {len(names)}.")
    return Neighbours(names, *tables)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a table's file.

    Raises:
        UsageError: there is none.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise UsageError(f"{path}: no table of neighbours ({error.strerror}).") from error


def _nearest(vectors: NDArray[Any], count: int) -> NDArray[np.int32]:
    given = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise UsageError("neighbours: a vector is zero, NaN or infinite.")
    unit = given / lengths
    found = np.empty((len(unit), count), np.int32)
    for start in range(0, len(unit), _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf  # itself
        near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        near.sort(axis=1)  # equals in the list's order, whatever the partition did
        order = np.argsort(-np.take_along_axis(cosines, near, 1), axis=1, kind="stable")
        found[start : start + _BLOCK] = np.take_along_axis(near, order, 1)
    return found
