"""Clips as batches of tensors: the same clip gives the same tensors on any worker.

Nothing here has a state that a worker could have in another way. Which clips make a step follows
from the seed and the step; a clip's augmentation from the seed, the epoch and its id.

Clips of a batch may differ in length (200 to 300 frames). They are filled up with zeros and carry a
mask of what exists, rather than sorted into batches of one length: a sound is contrasted with the
pictures of its batch, and in buckets a clip would never meet one of another frame rate, which is
then a cue that costs nothing to learn. TAVLO's encoder skips the filling, so that only attention,
the smaller part, pays for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import AvatarBuildError, MediaError
from pipeline.files import sha256_of
from pipeline.media.clip_cache import RATE_HZ, ClipTensors, read_cached_clip
from pipeline.workspace.recorded import CHANGED
from tavlo.training.recipe import Recipe
from tavlo.training.training_clips import CachedClip

Key = tuple[int, int]
"""A clip's number and the epoch."""


class Batch(NamedTuple):
    """What one rank does in one step."""

    clip_ids: list[str]
    inputs: dict[str, Tensor]
    """As the recipe's ``sample`` names them, with a batch axis in front."""


def read_clip(path: Path, length_s: float, sha256: str = "") -> ClipTensors:
    """A feed file, its sound as long as its picture: silence follows where a sound ends early.

    Args:
        path: the file.
        length_s: of the clip, seconds.
        sha256: of the file when it was made; empty where nobody knows.

    Raises:
        MediaError: it cannot be read, or is another file by now (``changed_file``).
    """
    if sha256 and path.is_file() and sha256_of(path) != sha256:
        raise MediaError(CHANGED, f"{path.name}: not the file that was made")
    clip = read_cached_clip(path)
    samples = round(length_s * RATE_HZ)
    sound = np.zeros(samples, np.float32)
    kept = clip.waveform[:samples]
    sound[: len(kept)] = kept
    return ClipTensors(clip.frames, sound)


class ClipDataset(Dataset[tuple[str, dict[str, Tensor] | AvatarBuildError]]):
    """The samples of a recipe, by clip and epoch.

    Args:
        clips: whose feed files are there.
        recipe: makes a sample of a clip.
        length_s: of each clip, seconds.
        seed: of the augmentation; none for no augmentation.
    """

    def __init__(
        self, clips: Sequence[CachedClip], recipe: Recipe, length_s: float, seed: int | None
    ) -> None:
        self._clips = clips
        self._place = {clip.clip_id: place for place, clip in enumerate(clips)}
        self.recipe = recipe
        self._length_s = length_s
        self._seed = seed

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, key: Key) -> tuple[str, dict[str, Tensor] | AvatarBuildError]:
        """A sample, or what is wrong with its clip: an error would lose its type on the way."""
        number, epoch = key
        clip = self._clips[number]
        dice = None if self._seed is None else clip_dice(self._seed, epoch, clip.clip_id)
        try:
            tensors = self._read(clip)
            if dice is None:
                return clip.clip_id, self.recipe.sample(tensors, None)
            names = self.recipe.companions(clip.clip_id, self._place, dice)
            others = [self._clips[self._place[name]] for name in names]
            among = [self._read(other) for other in others]
            return clip.clip_id, self.recipe.sample_among(tensors, among, dice)
        except MediaError as error:
            return clip.clip_id, AvatarBuildError(
                f"clip {clip.clip_id}: {clip.path} was whole once and is not now ({error}). Delete"
                " it; the same command makes it again."
            )
        except AvatarBuildError as error:
            return clip.clip_id, AvatarBuildError(f"clip {clip.clip_id}: {error}")

    def _read(self, clip: CachedClip) -> ClipTensors:
        return read_clip(clip.path, self._length_s, clip.sha256)


def clip_dice(seed: int, epoch: int, clip_id: str) -> np.random.Generator:
    """A clip's dice in an epoch, wherever and whenever they are thrown."""
    digest = hashlib.sha256(f"{seed} {epoch} {clip_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def collate(samples: Sequence[tuple[str, dict[str, Tensor] | AvatarBuildError]]) -> Batch:
    """Stack samples; where first axes differ, shorter ones are filled up with zeros.

    Raises:
        AvatarBuildError: of the first clip that has one.
    """
    whole = []
    for _, sample in samples:
        if isinstance(sample, AvatarBuildError):
            raise sample
        whole.append(sample)
    names = whole[0].keys()
    inputs = {name: pad_sequence([one[name] for one in whole], batch_first=True) for name in names}
    return Batch([name for name, _ in samples], inputs)


def _as_is(
    samples: list[tuple[str, dict[str, Tensor] | AvatarBuildError]],
) -> Batch | AvatarBuildError:
    """``collate`` in a worker: what is raised there arrives wrapped, what is returned does not."""
    try:
        return collate(samples)
    except AvatarBuildError as error:
        return error


def step_numbers(num_clips: int, size: int, seed: int, step: int) -> tuple[int, list[int]]:
    """The epoch of a batch and its clips' numbers.

    An epoch is a fresh order of all clips, cut into whole batches; the few that are left over are
    others in each.

    >>> step_numbers(5, 2, seed=0, step=0), step_numbers(5, 2, seed=0, step=2)[0]
    ((0, [2, 4]), 1)
    """
    epoch, place = divmod(step, num_clips // size)
    order = np.random.default_rng((seed, epoch)).permutation(num_clips)
    return epoch, order[place * size : (place + 1) * size].tolist()


@dataclass(frozen=True)
class Share:
    """Which part of each batch this rank does: the ``rank``-th of ``world`` equal ones."""

    rank: int = 0
    world: int = 1

    def of(self, numbers: Sequence[int]) -> Sequence[int]:
        """This rank's part; the ranks' parts one after another are the batch."""
        each = len(numbers) // self.world
        return numbers[self.rank * each : (self.rank + 1) * each]


def train_batches(
    data: ClipDataset, size: int, seed: int, steps: range, share: Share, workers: int
) -> Iterator[Batch]:
    """This rank's part of each of ``steps``, in order; workers run ahead across epochs.

    Args:
        data: the training clips.
        size: clips of a batch, over all ranks.
        seed: of the order.
        steps: numbers of batches, from 0 on at the start of training.
        share: this rank's.
        workers: processes; 0 works in this one.
    """

    def keys() -> Iterator[list[Key]]:
        for step in steps:
            epoch, numbers = step_numbers(len(data), size, seed, step)
            yield [(number, epoch) for number in share.of(numbers)]

    return _load(data, keys(), workers)


def even_batches(data: ClipDataset, size: int, share: Share, workers: int) -> Iterator[Batch]:
    """All clips once, in whole batches of at most ``size`` that differ by one clip at most.

    A contrastive loss depends on the size of its batch; every rank takes every ``world``-th batch.
    """
    count = -(-len(data) // size)
    parts = [part.tolist() for part in np.array_split(np.arange(len(data)), count)]
    mine = parts[share.rank :: share.world]
    return _load(data, iter([[(number, 0) for number in part] for part in mine]), workers)


def _load(data: ClipDataset, keys: Iterator[list[Key]], workers: int) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_sampler=_Once(keys),
        num_workers=workers,
        # Its own, or it draws from the step's: a training that goes on would drop out others.
        generator=torch.Generator(),
        collate_fn=_as_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_alone if workers else None,
        multiprocessing_context=_clean(data) if workers else None,
        prefetch_factor=2 if workers else None,
    )
    for batch in loader:
        if isinstance(batch, AvatarBuildError):
            raise batch
        yield batch


def _clean(data: ClipDataset) -> BaseContext:
    """Workers are forked from a process that has imported torch and OpenCV and run neither.

    Forked from this one, they wait forever for threads of OpenCV that were not forked along.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, type(data.recipe).__module__])
    return context


class _Once:
    """An iterable for ``DataLoader``, which wants a sampler."""

    def __init__(self, keys: Iterator[list[Key]]) -> None:
        self._keys = keys

    def __iter__(self) -> Iterator[list[Key]]:
        return self._keys


def _alone(_worker: int) -> None:
    cv2.setNumThreads(0)  # as torch does: there is a worker per core
