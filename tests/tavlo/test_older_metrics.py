"""The older metrics against slow second definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tavlo.metrics.older_metrics import Segmentation, detection, interactive, recall_at

SAMPLES = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 0.5, 0.8, math.nan]),
        st.sampled_from([0.1, 0.2, 0.3, 0.9, 1.5]),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(SAMPLES)
def test_detection_equals_counting_sample_by_sample(
    samples: list[tuple[float, float, bool]],
) -> None:
    def counted(at: float) -> tuple[float, float]:
        hit = wrong = missed = 0
        for value, sure, seen in samples:
            if sure >= at and seen and value >= 0.5:
                hit += 1
            elif sure >= at:
                wrong += 1
            elif seen:
                missed += 1
        return (
            hit / (hit + wrong) if hit + wrong else 1.0,
            hit / (hit + missed) if hit + missed else 1.0,
        )

    ascending = sorted(sure for _, sure, _ in samples)
    walked = [counted(at) for at in reversed(ascending[:-1])]
    area = 0.0
    for i in range(len(walked) - 1):
        best = max(precision for precision, _ in walked[i:])
        area += best * (walked[i + 1][1] - walked[i][1])
    f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in map(counted, ascending)]
    found = detection(*([row[i] for row in samples] for i in range(3)))  # type: ignore[arg-type]
    assert found.average_precision == pytest.approx(area)
    if len(samples) < 20:  # the curve takes every sample
        assert found.f1_curve.max() == pytest.approx(max(f1))
    assert found.precision == pytest.approx(counted(-1000)[0])
    seen = [value >= 0.5 for value, _, visible in samples if visible]
    if seen:
        assert found.location_accuracy == pytest.approx(sum(seen) / len(seen))
    else:
        assert math.isnan(found.location_accuracy)


def test_a_negative_is_never_right_however_good_its_heatmap() -> None:
    found = detection([1.0, 1.0], [0.9, 0.8], [True, False])
    assert (found.precision, found.location_accuracy, found.negatives) == (0.5, 1.0, 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=12))
def test_an_image_succeeds_when_all_its_sounds_do(rows: list[tuple[str, float]]) -> None:
    names, cious = [name for name, _ in rows], [value for _, value in rows]
    share, _, count = interactive(names, cious)
    good = [n for n in set(names) if all(v >= 0.5 for m, v in rows if m == n)]
    assert (share, count) == (len(good) / len(set(names)), len(set(names)))


@pytest.mark.parametrize("seed", range(4))
def test_segmentation_equals_its_definition_threshold_by_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [np.round(rng.random((6, 7)), 2).astype(np.float32) for _ in range(5)]
    masks = [rng.random((6, 7)) > share for share in (0.5, 0.9, 0.2, 2.0, 0.7)]
    found = Segmentation()
    for heat, mask in zip(maps, masks, strict=True):
        found.add(heat, mask)
    best = 0.0
    for level in np.linspace(0, 1 - 1e-10, 255).astype(np.float32):
        values = []
        for heat, mask in zip(maps, masks, strict=True):
            if mask.any():
                claim = heat >= level
                precision = (claim & mask).sum() / max(claim.sum(), 1e-20)
                recall = (claim & mask).sum() / mask.sum()
                bottom = 0.3 * precision + recall
                values.append(1.3 * precision * recall / bottom if bottom else 0.0)
        best = max(best, float(np.mean(values)))
    ious = [
        ((heat > 0.5) & mask).sum() / ((heat > 0.5) | mask).sum()
        if mask.any()
        else (heat <= 0.5).mean()
        for heat, mask in zip(maps, masks, strict=True)
    ]
    assert found.scores() == pytest.approx((float(np.mean(ious)), best), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_recall_equals_a_sort_of_every_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct directions: many ties.
    ask, answer = (rng.integers(-1, 2, (40, 3)) + np.array([0.0, 0.0, 3.0]) for _ in range(2))
    found = recall_at(ask, answer, (1, 5, 10))
    for depth, share in found.items():
        hits = 0
        for i, query in enumerate(ask):
            cosines = [np.dot(query, a) / np.linalg.norm(query) / np.linalg.norm(a) for a in answer]
            hits += sum(c > cosines[i] + 1e-12 for c in cosines) < depth
        assert share == hits / len(ask)


def test_rivals_as_similar_as_the_pair_do_not_push_it_out() -> None:
    same = np.ones((30, 4))
    assert recall_at(same, same, (1, 5)) == {1: 1.0, 5: 1.0}
    mirrored = np.eye(4)[::-1]
    assert recall_at(np.eye(4), mirrored, (1, 2)) == {1: 0.0, 2: 1.0}


def test_recall_is_the_same_in_any_order_of_the_gallery() -> None:
    rng = np.random.default_rng(0)
    ask, answer = rng.normal(size=(2, 700, 8))
    order = rng.permutation(700)
    assert recall_at(ask, answer, (1, 10)) == recall_at(ask[order], answer[order], (1, 10))


def test_nothing_to_retrieve_says_so() -> None:
    with pytest.raises(ValueError, match="3 queries and 2 answers"):
        recall_at(np.ones((3, 2)), np.ones((2, 2)), (1,))
    with pytest.raises(ValueError, match="zero or not finite"):
        recall_at(np.zeros((1, 2)), np.ones((1, 2)), (1,))
    with pytest.raises(ValueError, match="no samples"):
        detection([], [], [])
    with pytest.raises(ValueError, match="no frames"):
        Segmentation().scores()
