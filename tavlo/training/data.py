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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
from tavlo.training.cached_clips import CachedClip
from tavlo.training.distributed import Rank
from tavlo.training.recipe import Recipe

Item = TypeVar("Item")
Made = TypeVar("Made")

AHEAD = 4_000_000_000
"""Bytes of clips that workers hold ready, if nothing else is said."""
Key = tuple[int, int]
"""The index of a clip and the epoch."""


class Batch(NamedTuple):
    """A rank's part of a batch."""

    clip_ids: list[str]
    inputs: dict[str, Tensor]
    """The tensors of the recipe's ``sample``, with a batch axis in front."""


def read_clip(path: Path, length_s: float, sha256: str = "") -> ClipTensors:
    """Read a cached clip, its sound as long as its picture: silence follows where it ends early.

    Args:
        path: the file in the cache.
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


Sample = tuple[str, dict[str, Tensor] | AvatarBuildError]
"""A clip's id and inputs, or what is wrong with it: an error raised in a worker loses its type."""


class ClipDataset(Dataset[Sample]):
    """The samples of a recipe, by clip and epoch.

    Args:
        clips: which are in the cache.
        recipe: makes a sample of a clip.
        length_s: of each clip, seconds.
        seed: of the augmentation; None for no augmentation.
    """

    def __init__(
        self, clips: Sequence[CachedClip], recipe: Recipe, length_s: float, seed: int | None
    ) -> None:
        self._clips = clips
        self._by_id = {clip.clip_id: clip for clip in clips}
        self.recipe = recipe
        self._length_s = length_s
        self._seed = seed

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, key: Key) -> Sample:
        number, epoch = key
        clip = self._clips[number]
        try:
            return clip.clip_id, self._inputs(clip, epoch)
        except MediaError as error:
            return clip.clip_id, AvatarBuildError(
                f"clip {clip.clip_id}: {clip.path} was whole once and is not now ({error}). Delete"
                " it; the same command makes it again."
            )
        except AvatarBuildError as error:
            return clip.clip_id, AvatarBuildError(f"clip {clip.clip_id}: {error}")

    def _inputs(self, clip: CachedClip, epoch: int) -> dict[str, Tensor]:
        tensors = self._read(clip)
        if self._seed is None:
            return self.recipe.sample(tensors, None)
        rng = clip_rng(self._seed, epoch, clip.clip_id)
        names = self.recipe.companions(clip.clip_id, self._by_id, rng)
        return self.recipe.sample_among(tensors, [self._read(self._by_id[n]) for n in names], rng)

    def _read(self, clip: CachedClip) -> ClipTensors:
        return read_clip(clip.path, self._length_s, clip.sha256)


def clip_rng(seed: int, epoch: int, clip_id: str) -> np.random.Generator:
    """Make a clip's random generator in an epoch: the same on whatever worker, in any order."""
    digest = hashlib.sha256(f"{seed} {epoch} {clip_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; where first axes differ, shorter ones are filled up with zeros.

    Raises:
        AvatarBuildError: the error of the first clip that has one.
    """
    whole = []
    for _, sample in samples:
        if isinstance(sample, AvatarBuildError):
            raise sample
        whole.append(sample)
    names = whole[0].keys()
    inputs = {name: pad_sequence([one[name] for one in whole], batch_first=True) for name in names}
    return Batch([name for name, _ in samples], inputs)


def batch_indices(num_clips: int, size: int, seed: int, number: int) -> tuple[int, list[int]]:
    """Return the epoch of a batch and the indices of its clips.

    An epoch is a fresh order of all clips, cut into whole batches; the few that are left over are
    others in each.

    >>> batch_indices(5, 2, seed=0, number=0), batch_indices(5, 2, seed=0, number=2)[0]
    ((0, [2, 4]), 1)
    """
    epoch, place = divmod(number, num_clips // size)
    order = np.random.default_rng((seed, epoch)).permutation(num_clips)
    return epoch, order[place * size : (place + 1) * size].tolist()


def train_batches(
    data: ClipDataset,
    size: int,
    seed: int,
    numbers: range,
    rank: Rank,
    workers: int,
    ahead: int = AHEAD,
) -> Iterator[Batch]:
    """Yield this rank's part of each batch, in order; workers run ahead across epochs.

    Args:
        data: the training clips.
        size: clips of a batch, over all ranks.
        seed: of the order.
        numbers: of the batches, from 0 on at the start of training.
        rank: this process.
        workers: processes; 0 works in this one. The batches are the same.
        ahead: bytes of clips that the workers may hold ready, together.
    """
    drawn = (batch_indices(len(data), size, seed, number) for number in numbers)
    keys = ([(index, epoch) for index in rank.part_of(indices)] for epoch, indices in drawn)
    return _load(data, keys, workers, ahead)


def validation_batches(
    data: ClipDataset, size: int, rank: Rank, workers: int, ahead: int = AHEAD
) -> Iterator[Batch]:
    """Yield all clips once, in whole batches of at most ``size`` that differ by one clip at most.

    None has a single clip, which would have nothing to be told from: three clips in batches of two
    are one batch. A contrastive loss depends on the size of its batch: every rank takes every
    ``world_size``-th batch whole.
    """
    count = max(1, min(-(-len(data) // size), len(data) // 2))
    batches = [part.tolist() for part in np.array_split(np.arange(len(data)), count)]
    own = batches[rank.index :: rank.world_size]
    return _load(data, [[(index, 0) for index in batch] for batch in own], workers, ahead)


def _load(
    data: ClipDataset, batches: Sequence[list[Key]] | Iterator[list[Key]], workers: int, ahead: int
) -> Iterator[Batch]:
    """Yield batches of clips that workers read one by one, put together here.

    A worker that made whole batches would hold two of them ready, 46 GB for 16 workers with batches
    of 32 clips.

    Args:
        data: the clips.
        batches: of keys.
        workers: processes; 0 works in this one.
        ahead: bytes of clips that the workers may hold ready, together.
    """
    if not workers:
        yield from (collate([data[key] for key in keys]) for keys in batches)
        return
    batches = iter(batches)
    first = next(batches, [])
    if not first:
        return
    sizes: deque[int] = deque()

    def keys() -> Iterator[Key]:
        for batch in chain([first], batches):
            sizes.append(len(batch))
            yield from batch

    workers, each = _shared_out(ahead, _bytes_of(data[first[0]]), workers, 2 * len(first))
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=None,
        sampler=keys(),
        num_workers=workers,
        # A generator of its own, or it draws from the step's: a resumed training would drop out
        # others.
        generator=torch.Generator(),
        collate_fn=_as_it_is,
        worker_init_fn=_one_thread,
        multiprocessing_context=_forkserver(data),
        prefetch_factor=each,
    )
    samples = iter(loader)

    def gathered() -> Iterator[list[Sample]]:
        while batch := list(islice(samples, sizes[0] if sizes else 0)):
            sizes.popleft()
            yield batch

    # A gigabyte takes as long to put together as a step of the network, on a thread beside it.
    yield from in_threads(_pinned, gathered(), 1)


def _shared_out(ahead: int, clip: int, workers: int, most: int) -> tuple[int, int]:
    """Return how many workers hold how many clips ready each.

    Args:
        ahead: bytes they may hold together.
        clip: bytes of one.
        workers: processes asked for.
        most: clips that are worth holding.

    >>> _shared_out(ahead=4_000, clip=45, workers=16, most=64)  # two batches of 32
    (16, 4)
    >>> _shared_out(ahead=1_000, clip=45, workers=16, most=64), _shared_out(100, 45, 16, 64)
    ((16, 1), (2, 1))
    """
    clips = max(1, min(ahead // max(1, clip), most))
    workers = min(workers, clips)
    return workers, clips // workers


def _bytes_of(sample: Sample) -> int:
    inputs = sample[1]
    return 0 if isinstance(inputs, AvatarBuildError) else sum(one.nbytes for one in inputs.values())


def _as_it_is(sample: Any) -> Any:
    return sample


def _pinned(samples: Sequence[Sample]) -> Batch:
    """Put a batch together, in memory from which a GPU fetches it by itself where there is one."""
    batch = collate(samples)
    if not torch.cuda.is_available():
        return batch
    return Batch(batch.clip_ids, {name: one.pin_memory() for name, one in batch.inputs.items()})


def in_threads(make: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """Yield ``make(item)`` in order, while threads make as many more.

    Reading and copying release the interpreter, so they run while a network works.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Made]] = deque()
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _forkserver(data: ClipDataset) -> BaseContext:
    """Fork workers from a process that has imported torch and OpenCV and run neither.

    Forked from this one, they wait forever for threads of OpenCV that were not forked along.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, type(data.recipe).__module__])
    return context


def _one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)  # as torch does: there is a worker per core
