"""Batches: the same clip gives the same tensors wherever and whenever it is read."""

from __future__ import annotations

import gc
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import AvatarBuildError
from tavlo.training.cached_clips import CachedClip
from tavlo.training.data import (
    Batch,
    ClipDataset,
    _shared_out,
    batch_indices,
    collate,
    in_threads,
    train_batches,
    validation_batches,
)
from tavlo.training.distributed import Rank
from tests.tavlo import small


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[CachedClip]:
    return small.clips(tmp_path_factory.mktemp("clips"))


def dataset(clips: list[CachedClip], seed: int | None = 0) -> ClipDataset:
    return ClipDataset(clips, small.recipe(), 1.0, seed)


def same(one: Batch, other: Batch) -> bool:
    return one.clip_ids == other.clip_ids and all(
        torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs
    )


def test_workers_change_nothing(clips: list[CachedClip]) -> None:
    steps = range(1, 7)  # into a second epoch
    # Two workers, and room for but one clip, which is one worker's.
    alone, *others = [
        list(train_batches(dataset(clips), 3, 5, steps, Rank(), workers, ahead))
        for workers, ahead in ((0, 0), (2, 10**9), (2, 1))
    ]
    assert len(alone) == 6
    for batches in others:
        assert all(same(one, other) for one, other in zip(alone, batches, strict=True))


def test_what_workers_hold_is_bounded_by_bytes_and_by_two_batches() -> None:
    for workers in (1, 3, 16, 64):
        for room in (1, 100, 1000, 10**6):
            some, each = _shared_out(room, 45, workers, most=8)
            assert 1 <= some <= workers
            assert some * each * 45 <= max(room, 45)
            assert some * each <= 8


def test_batches_that_are_left_alone_leave_no_process(clips: list[CachedClip]) -> None:
    before = set(multiprocessing.active_children())
    batches = train_batches(dataset(clips), 3, 5, range(6), Rank(), 2)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    batches.close()  # type: ignore[attr-defined]
    gc.collect()
    assert set(multiprocessing.active_children()) <= before


def test_what_threads_make_comes_in_order_and_their_error_in_its_place() -> None:
    assert list(in_threads(lambda n: n * n, range(20), 3)) == [n * n for n in range(20)]
    found = in_threads(lambda n: 6 // (3 - n), range(9), 2)
    assert [next(found) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_a_clip_is_augmented_otherwise_in_each_epoch_and_never_without_a_seed(
    clips: list[CachedClip],
) -> None:
    frames = [dataset(clips)[0, epoch][1]["frames"] for epoch in (0, 1, 0)]  # type: ignore[index]
    assert not torch.equal(frames[0], frames[1])
    assert torch.equal(frames[0], frames[2])
    plain = dataset(clips, None)
    assert torch.equal(plain[0, 0][1]["frames"], plain[0, 7][1]["frames"])  # type: ignore[index]


def test_an_augmented_clip_still_moves_as_a_whole(clips: list[CachedClip]) -> None:
    # All frames share one crop: a clip that stands still stands still afterwards.
    still = small.blank(10)
    still.frames[:] = still.frames[0]
    sample = small.recipe().sample(still, np.random.default_rng(3))
    assert (sample["frames"] == sample["frames"][0]).all()
    whole = small.recipe().sample(still, None)
    assert not torch.equal(sample["frames"], whole["frames"])
    mirrored = small.recipe(smallest_crop=1.0, flip=1.0).sample(still, np.random.default_rng(3))
    assert torch.equal(mirrored["frames"], whole["frames"].flip(2))


def test_an_epoch_is_every_clip_once_in_an_order_of_its_own() -> None:
    orders = []
    for epoch in (0, 1):
        found = [batch_indices(12, 3, 7, step) for step in range(4 * epoch, 4 * epoch + 4)]
        assert {number for number, _ in found} == {epoch}
        orders.append([place for _, places in found for place in places])
        assert sorted(orders[-1]) == list(range(12))
    assert orders[0] != orders[1]


def test_the_parts_of_the_ranks_make_the_batch(clips: list[CachedClip]) -> None:
    data = dataset(clips)
    whole = [batch.clip_ids for batch in train_batches(data, 4, 0, range(2), Rank(), 0)]
    parts = [
        [batch.clip_ids for batch in train_batches(data, 4, 0, range(2), Rank(rank, 2), 0)]
        for rank in (0, 1)
    ]
    assert whole == [one + other for one, other in zip(*parts, strict=True)]


def test_validation_sees_each_clip_once_in_batches_of_nearly_one_size(
    clips: list[CachedClip],
) -> None:
    data = dataset(clips[:7], None)
    sizes = [len(batch.clip_ids) for batch in validation_batches(data, 3, Rank(), 0)]
    assert sizes == [3, 2, 2]
    for count in range(2, 8):
        some = dataset(clips[:count], None)
        for size in (2, 3, 5):
            found = [len(batch.clip_ids) for batch in validation_batches(some, size, Rank(), 0)]
            assert sum(found) == count
            assert min(found) >= 2, "a clip alone has nothing to be told from"
            assert max(found) <= size + 1
    seen = [
        name
        for rank in (0, 1)
        for batch in validation_batches(data, 3, Rank(rank, 2), 0)
        for name in batch.clip_ids
    ]
    assert sorted(seen) == [clip.clip_id for clip in clips[:7]]


def test_shorter_clips_are_filled_up_and_say_so(clips: list[CachedClip]) -> None:
    data = dataset(clips, None)
    batch = collate([data[0, 0], data[1, 0]])  # 10 and 12 frames
    assert batch.inputs["frames"].shape == (2, 12, 64, 64, 3)
    assert batch.inputs["spectrogram"].shape == (2, 24, 16)
    assert batch.inputs["frame_mask"].sum(1).tolist() == [10, 12]
    assert not batch.inputs["frames"][0, 10:].any()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cached_clip_broken_since_is_one_line_with_the_clip(
    clips: list[CachedClip], tmp_path: Path, workers: int
) -> None:
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(clips[0].path.read_bytes()[:2000])
    lost = CachedClip("lost_00000000", "lost", broken, "k")
    data = dataset([lost, *clips[:1]], None)
    with pytest.raises(AvatarBuildError, match=r"clip lost_00000000: .* Delete it") as error:
        list(validation_batches(data, 2, Rank(), workers))
    assert "\n" not in str(error.value)
