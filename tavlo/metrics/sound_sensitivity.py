"""Two numbers that need no labels: what a model's maps owe to the sound.

A map may point at the same place whatever is heard. Localisation scores do not tell that apart from
a weak model, and a contrastive loss can fall on the way there; these two numbers do. They are
compared cell by cell, so that scale and offset of a map do not matter.

*Sound sensitivity* of a clip: 1 minus the correlation of each frame's map with the map that the
same frame gets with another clip's sound, mean over its frames. In [0, 2]: 0 is deaf, 1 a map that
has nothing in common with the one under another sound. It says that the model hears, not that it is
right: a map of noise that changes with the sound has 1 too.

*Correlation with the mean map*: of each frame's map with the mean map of all other clips, mean over
the clip's frames. In [-1, 1]: 1 is one fixed map, which also looks at nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.floating[Any]]
"""Heatmaps, ``(n, y, x)``."""

SENSITIVITY, MEAN_MAP = "sound_sensitivity", "mean_map_correlation"
"""The names of the two numbers in logs, tables and JSON."""

_FLAT = 1e-6
"""A map whose values span less than this fraction of the largest is constant: rounding."""


def correlations(maps: Maps, others: Maps) -> NDArray[np.float64]:
    """Correlate maps with others, pair by pair, over their cells (Pearson's r).

    A map that equals its other is kept: exactly 1. So are two constant maps, which both point
    nowhere; one constant map has nothing in common with one that points somewhere: 0.

    Args:
        maps: ``(n, y, x)``.
        others: the same, or one for all, ``(1, y, x)``.

    Returns:
        In [-1, 1], ``(n,)``.
    """
    one, other = np.broadcast_arrays(
        *(
            np.asarray(given, np.float64).reshape(len(given), math.prod(given.shape[1:]))
            for given in (maps, others)
        )
    )
    first, second = (given - given.mean(1, keepdims=True) for given in (one, other))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(1)
    found = np.divide(products, norms, out=np.zeros(len(norms)), where=norms > 0)
    flat, flat_too = _constant(one), _constant(other)
    found = np.where(flat | flat_too, 0.0, found.clip(-1.0, 1.0))
    return np.where((one == other).all(1) | (flat & flat_too), 1.0, found)


def _constant(maps: NDArray[np.float64]) -> NDArray[np.bool_]:
    span: NDArray[np.float64] = np.ptp(maps, axis=1)
    found: NDArray[np.bool_] = span <= _FLAT * np.abs(maps).max(1)
    return found


def sound_sensitivity(own: Maps, exchanged: Maps) -> float:
    """Compute a clip's sound sensitivity.

    Args:
        own: maps of its frames, ``(n, y, x)``.
        exchanged: maps of the same frames with another clip's sound.

    Returns:
        In [0, 2]; 0 exactly when every map is kept.
    """
    return float(1.0 - correlations(own, exchanged).mean())


def mean_map_correlations(clips: Callable[[], Iterable[Maps]]) -> list[float]:
    """Correlate each clip's maps with the mean map of all others; each of those counts once.

    Args:
        clips: called twice, for the same clips each time; the maps of each, ``(n, y, x)``.

    Returns:
        In [-1, 1], one a clip; none where there is no other clip.
    """
    means = 0
    total: NDArray[np.float64] | float = 0.0
    for maps in clips():
        total = total + maps.mean(0, dtype=np.float64)
        means += 1
    if means < 2:
        return []
    return [
        float(
            correlations(
                maps, ((total - maps.mean(0, dtype=np.float64)) / (means - 1))[None]
            ).mean()
        )
        for maps in clips()
    ]


def draw_clips(clip_ids: Iterable[str], count: int, seed: int) -> list[str]:
    """Draw up to ``count`` clips by seed and id, in the order of their ids.

    >>> draw_clips(["c", "a", "b"], 2, seed=0)
    ['a', 'b']
    """
    drawn = sorted(clip_ids, key=lambda clip_id: _drawn(seed, clip_id))[:count]
    return sorted(drawn)


def exchange_sounds(
    labels: Mapping[str, Sequence[str]], seed: int
) -> tuple[dict[str, str], list[str]]:
    """Give each clip another one's sound; each sound is used once (a derangement).

    Clips lie in a ring, those of equal labels beside one another, and all take the sound that lies
    a number of places ahead: the number by which the fewest clips meet a label of their own, which
    is none unless a label is on more than half of the clips.

    Args:
        labels: of each clip by its id, the most telling first: its categories where they are known,
            and its video. None are known to be shared where there are none.
        seed: of the order.

    Returns:
        Clip to the clip whose sound it gets, and the clips for which only one that shares a label
        was left. Both are empty for less than two clips.
    """
    if len(labels) < 2:
        return {}, []
    # Digests, so that which categories meet follows from the seed and not from the alphabet.
    ring = sorted(
        labels, key=lambda one: ([_drawn(seed, label) for label in labels[one]], _drawn(seed, one))
    )
    sets = [frozenset(labels[one]) for one in ring]

    def clashes(ahead: int) -> list[str]:
        ahead_of = sets[ahead:] + sets[:ahead]
        pairs = zip(ring, sets, ahead_of, strict=True)
        return [name for name, own, other in pairs if own & other]

    found = [(clashes(ahead), ahead) for ahead in range(1, len(ring))]
    shared, ahead = min(found, key=lambda one: (len(one[0]), one[1]))
    return dict(zip(ring, ring[ahead:] + ring[:ahead], strict=True)), sorted(shared)


def _drawn(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
