"""Inputs made by threads while the network works on the batch before.

Pillow and torch let go of the interpreter for the parts that take long.
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
"""Items the network is given at once."""

Out = TypeVar("Out")


def ahead(prepare: Callable[[slice], Out], count: int) -> Iterator[Out]:
    """What ``prepare`` makes of each ``BATCH`` of ``count`` items, in order."""
    parts = [slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    threads = min(len(parts), os.cpu_count() or 1)
    if threads <= 1:
        yield from map(prepare, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Out]] = deque()
        for part in parts:
            waiting.append(pool.submit(prepare, part))
            if len(waiting) > threads:  # a few in memory, however many there are
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def joined(found: Sequence[NDArray[np.float32]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Batches one after another; none make an empty array of items of ``shape``."""
    return np.concatenate(found) if found else np.zeros((0, *shape), np.float32)
