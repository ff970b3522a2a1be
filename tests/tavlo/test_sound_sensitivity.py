"""The label-free numbers: a deaf model has 0, one that hears has much, a fixed map is its mean."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from tavlo.metrics.sound_sensitivity import (
    correlations,
    draw_clips,
    exchange_sounds,
    mean_map_correlations,
    sound_sensitivity,
)

RNG = np.random.default_rng(0)


def maps(count: int, side: int = 7) -> NDArray[np.float32]:
    return RNG.normal(size=(count, side, side)).astype(np.float32)


def slow(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's r by its definition, in Python's own floats."""
    a, b = one.ravel().tolist(), other.ravel().tolist()
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    shared = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return shared / math.sqrt(
        math.fsum((x - mean_a) ** 2 for x in a) * math.fsum((y - mean_b) ** 2 for y in b)
    )


def test_correlations_are_pearsons_and_forget_scale_and_offset() -> None:
    one, other = maps(6), maps(6)
    wanted = [slow(a, b) for a, b in zip(one, other, strict=True)]
    assert correlations(one, other) == pytest.approx(wanted)
    assert correlations(3 * one - 8, other / 5) == pytest.approx(wanted, abs=1e-6)
    assert correlations(one, -one) == pytest.approx([-1.0] * 6)
    assert correlations(one, other[:1]) == pytest.approx([slow(a, other[0]) for a in one])


def test_a_map_that_is_kept_has_exactly_one() -> None:
    one = maps(50) * np.float32(1e-3) + np.float32(0.7)
    assert (correlations(one, one.copy()) == 1.0).all()
    assert sound_sensitivity(one, one.copy()) == 0.0


def test_constant_maps_agree_with_one_another_alone() -> None:
    flat, other_flat, pointing = np.full((1, 4, 4), 0.3), np.full((1, 4, 4), 9.0), maps(1, 4)
    rounded = flat.astype(np.float32) + np.float32(1e-8) * maps(1, 4)
    assert correlations(flat, other_flat) == correlations(flat, rounded) == 1.0
    assert correlations(np.zeros((1, 4, 4)), flat) == 1.0
    assert correlations(flat, pointing) == correlations(pointing, flat) == 0.0
    assert correlations(np.zeros((0, 4, 4)), np.zeros((0, 4, 4))).shape == (0,)


def test_one_who_points_where_the_sound_is_has_much() -> None:
    # Six places; each clip's sound lights its own. Under another's, another place is lit.
    places = np.eye(6, dtype=np.float32).reshape(6, 2, 3)
    found = [sound_sensitivity(places[i : i + 1], places[(i + 1) % 6][None]) for i in range(6)]
    assert found == pytest.approx([1.2] * 6)


def test_a_fixed_map_is_its_mean_and_one_that_follows_its_clip_is_not() -> None:
    fixed = maps(1)
    one_for_all = [np.repeat(fixed, count, 0) for count in (1, 3, 2)]
    assert mean_map_correlations(lambda: one_for_all) == pytest.approx([1.0] * 3)
    own = [maps(2, 20) for _ in range(30)]
    assert abs(float(np.mean(mean_map_correlations(lambda: own)))) < 0.05
    # The mean is of the others: with its own maps in it, two clips of noise would seem alike.
    first, second = maps(1), maps(1)
    found = mean_map_correlations(lambda: [first, second])
    assert found == pytest.approx([slow(first, second)] * 2)
    assert mean_map_correlations(lambda: [first]) == []


@pytest.mark.parametrize("seed", range(5))
def test_each_sound_goes_to_one_other_clip_of_another_category(seed: int) -> None:
    kinds = ["dog"] * 5 + ["cat"] * 3 + ["violin"] * 2
    labels = {f"clip{n}": (kind, f"video{n}") for n, kind in enumerate(kinds)}
    found, shared = exchange_sounds(labels, seed)
    assert not shared
    assert Counter(found.values()) == Counter(labels.keys())
    assert all(labels[one][0] != labels[other][0] for one, other in found.items())
    backwards = dict(reversed(labels.items()))
    assert exchange_sounds(backwards, seed) == (found, shared)


def test_other_seeds_exchange_otherwise() -> None:
    labels = {f"clip{n}": (f"kind{n % 5}",) for n in range(20)}
    assert len({str(sorted(exchange_sounds(labels, seed)[0].items())) for seed in range(5)}) > 1


def test_where_a_category_is_on_most_clips_the_others_are_used_and_the_rest_is_said() -> None:
    labels = {f"clip{n}": ("dog" if n < 7 else "cat",) for n in range(10)}
    found, shared = exchange_sounds(labels, 0)
    # Three cats' sounds for seven dogs; each cat gets a dog's.
    assert len(shared) == 4
    assert all(one != other for one, other in found.items())
    alike, all_shared = exchange_sounds({"a": ("dog",), "b": ("dog",), "c": ("dog",)}, 0)
    assert all(one != other for one, other in alike.items())
    assert len(all_shared) == 3
    assert exchange_sounds({"a": ()}, 0) == exchange_sounds({}, 0) == ({}, [])
    assert exchange_sounds({"a": (), "b": ()}, 0) == ({"a": "b", "b": "a"}, [])


def test_some_clips_are_drawn_by_seed_whatever_their_order() -> None:
    names = [f"clip{n:02d}" for n in range(40)]
    drawn = draw_clips(names, 10, 3)
    assert drawn == sorted(drawn) == draw_clips(reversed(names), 10, 3)
    assert len(set(drawn)) == 10
    assert drawn != draw_clips(names, 10, 4)
    assert draw_clips(names, 99, 0) == names
