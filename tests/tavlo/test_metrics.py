"""Metrics against slow second definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tavlo.metrics.localisation import (
    ciou,
    localisation,
    min_max,
    predict,
    rank_threshold,
    top_fraction_threshold,
)

SHAPE = (3, 4)
TRUTHS = arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 0.5, 1.0]))
HEAT = st.floats(-1e4, 1e4, width=32)
HEATMAPS = st.lists(arrays(np.float32, SHAPE, elements=HEAT), min_size=1, max_size=5)


@given(arrays(np.bool_, SHAPE), TRUTHS)
def test_ciou_equals_its_sum_pixel_by_pixel(predicted: np.ndarray, truth: np.ndarray) -> None:
    hit = total = 0.0
    for p, g in zip(predicted.flat, truth.flat, strict=True):
        hit += p * g
        total += g + (p and g == 0)
    if total:
        assert ciou(predicted, truth) == pytest.approx(hit / total)
    else:
        assert math.isnan(ciou(predicted, truth))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_auc_is_the_area_under_the_success_curve_step_by_step(values: list[float]) -> None:
    found = localisation(values)
    area = 0.0
    for step in range(20):
        low, high = (sum(c >= 0.05 * (step + k) for c in values) / len(values) for k in (0, 1))
        area += 0.05 * (low + high) / 2
    assert found.auc == pytest.approx(area)
    assert found.ciou == pytest.approx(sum(values) / len(values))
    assert found.success == sum(c >= 0.5 for c in values) / len(values)
    assert abs(found.auc - found.ciou) <= 0.025 + 1e-9


def test_nothing_is_never_zero() -> None:
    with pytest.raises(ValueError, match="no frames"):
        localisation([])


@given(HEATMAPS, st.floats(0.01, 1.0))
def test_the_threshold_over_all_frames_is_exact(
    heatmaps: list[np.ndarray], fraction: float
) -> None:
    pixels = np.sort(np.concatenate([heatmap.reshape(-1) for heatmap in heatmaps]))
    expected = pixels[len(pixels) - max(1, round(len(pixels) * fraction))]
    assert top_fraction_threshold(lambda: heatmaps, fraction) == expected


def test_a_threshold_over_nothing_or_nan_says_so() -> None:
    with pytest.raises(ValueError, match="no heatmaps"):
        top_fraction_threshold(list, 0.1)
    with pytest.raises(ValueError, match="NaN"):
        top_fraction_threshold(lambda: [np.full(SHAPE, np.nan, np.float32)], 0.1)
    with pytest.raises(ValueError, match=r"not in \(0, 1\]"):
        top_fraction_threshold(lambda: [np.zeros(SHAPE, np.float32)], 0.0)


def test_ties_at_the_threshold_are_taken_in_or_left_out() -> None:
    flat = np.full(SHAPE, 0.5)
    assert predict(flat, 0.5, ">=").all()
    assert not predict(flat, 0.5, ">").any()
    assert (min_max(flat) == flat).all()


@given(arrays(np.float32, SHAPE, elements=HEAT))
def test_the_rank_threshold_leaves_its_share_below_or_equal(heatmap: np.ndarray) -> None:
    assert (heatmap >= rank_threshold(heatmap, 0.5)).sum() >= heatmap.size / 2
