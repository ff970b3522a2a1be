"""Work done by threads ahead of where its results are wanted.

Pillow, torch, decoders and resamplers let go of the interpreter for the parts that take long.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

BATCH = 32
"""The number of items the network is given at once."""

In = TypeVar("In")
Out = TypeVar("Out")


def in_threads(work: Callable[[In], Out], items: Sequence[In]) -> Iterator[Out]:
    """Yield what ``work`` makes of each item, in order."""
    threads = min(len(items), os.cpu_count() or 1)
    if threads <= 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:  # a few in memory, however many there are
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def in_batches(prepare: Callable[[slice], Out], count: int) -> Iterator[Out]:
    """Yield what ``prepare`` makes of each ``BATCH`` of ``count`` items, in order."""
    starts = range(0, count, BATCH)
    return in_threads(prepare, [slice(start, min(start + BATCH, count)) for start in starts])


def concatenated(
    batches: Sequence[NDArray[np.float32]], item: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return batches as one array; none make an empty one of items of shape ``item``."""
    return np.concatenate(batches) if batches else np.zeros((0, *item), np.float32)
