"""The published evaluators' numbers, to the digit, from fixtures made with their own code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavlo.metrics.localisation import ciou, localisation, min_max, predict, rank_threshold
from tavlo.metrics.older_metrics import Segmentation, detection, interactive, recall_at
from tests.conftest import ROOT

SHARE = 0.5
"""Every published evaluator predicts half of the pixels of a frame."""


@pytest.fixture(scope="module")
def fixture() -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and results of the folder AVATAR_PARITY names."""
    parity = Path(os.environ.get("AVATAR_PARITY", ROOT.parent / "shared" / "parity"))
    folder = parity / "metrics"
    if not (folder / "results.json").exists():
        pytest.skip("no parity fixtures: set AVATAR_PARITY or put them in ../shared/parity")
    arrays = dict(np.load(folder / "data.npz"))
    return arrays, json.loads((folder / "results.json").read_text())


def truths(arrays: dict[str, Any], kind: str) -> np.ndarray:
    """Ground truths ``(n, y, x)`` as the evaluators see them."""
    if kind == "flickr":
        votes: np.ndarray = np.minimum(arrays["gt_flickr_x2"].astype(np.float64) / 2, 1)
        return votes
    packed = arrays["gt_vggss" if kind == "vggss" else "masks"]
    size = arrays["maps"].shape[-1]
    truth: np.ndarray = np.unpackbits(packed, axis=-1)[..., :size].astype(np.float64)
    return truth


def check(found: list[float], published: dict[str, Any]) -> None:
    """Compare per sample, then all that follows from it."""
    expected = [np.nan if value is None else value for value in published["ciou"]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    if np.isnan(expected).any():
        return
    summary = localisation(found)
    for name, value in (
        ("mean_ciou", summary.ciou),
        ("ap50", summary.success),
        ("cIoU", summary.success),
        ("cIoU_success50", summary.success),
        ("auc", summary.auc),
        ("AUC", summary.auc),
    ):
        if name in published:
            assert value == pytest.approx(published[name], abs=1e-12), name


@pytest.mark.parametrize("kind", ["vggss", "flickr", "mask"])
def test_ezvsl_half_of_the_pixels_ties_taken_in(fixture: Any, kind: str) -> None:
    arrays, results = fixture
    published = results["ezvsl_A"][kind]
    found = []
    for heatmap, truth, threshold in zip(
        arrays["maps"].astype(np.float32), truths(arrays, kind), published["threshold"], strict=True
    ):
        heatmap = min_max(heatmap)
        assert rank_threshold(heatmap, SHARE) == pytest.approx(threshold, abs=1e-7)
        found.append(ciou(predict(heatmap, rank_threshold(heatmap, SHARE), ">="), truth))
    check(found, published)


@pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.7"])
def test_an_absolute_threshold_on_the_maps_as_they_are(fixture: Any, threshold: str) -> None:
    arrays, results = fixture
    maps, gts = arrays["maps"].astype(np.float32), truths(arrays, "vggss")
    found = [
        ciou(predict(heatmap, float(threshold)), truth)
        for heatmap, truth in zip(maps, gts, strict=True)
    ]
    check(found, results["ezvsl_A_absolute"][threshold])


def inverted(heatmap: np.ndarray) -> np.ndarray:
    """1 - minmax(-map): min-max up to rounding, which moves ties."""
    result: np.ndarray = 1 - min_max(-heatmap)
    return result


@pytest.mark.parametrize(
    ("family", "in_place"), [("sslalignment_A", False), ("ssltie_lvs_A", True)]
)
def test_half_of_the_pixels_ties_left_out(fixture: Any, family: str, in_place: bool) -> None:
    arrays, results = fixture
    found = []
    for heatmap, truth in zip(
        arrays["maps"].astype(np.float32), truths(arrays, "vggss"), strict=True
    ):
        prepared = inverted(heatmap)
        predicted = predict(prepared, rank_threshold(prepared, SHARE), ">")
        if in_place:
            # SSL-TIE and LVS write ones above the threshold, then zeros below one: a flat map,
            # which inverting leaves at one or more, is predicted as a whole.
            predicted |= prepared >= 1
        found.append(ciou(predicted, truth))
    check(found, results[family])


def with_nan(values: list[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]


SLAVC = [
    "slavc_A_relative",
    "slavc_A_absolute",
    *(
        f"slavc_B_{rule}/{kind}"
        for rule in ("relative", "absolute")
        for kind in ("av", "obj", "av_obj")
    ),
]


@pytest.mark.parametrize("least", [50, 75])
@pytest.mark.parametrize("subset", ["all", "visible"])
@pytest.mark.parametrize("family", SLAVC)
def test_slavc_sets_with_negatives(fixture: Any, family: str, subset: str, least: int) -> None:
    _, results = fixture
    name, _, kind = family.partition("/")
    published = results[name][kind] if kind else results[name]
    visible = np.array(published["n_boxes"]) > 0
    assert 0 < visible.sum() < len(visible)
    cious, sure = np.array(with_nan(published["ciou"])), np.array(published["conf"])
    if subset == "visible":
        cious, sure, visible = cious[visible], sure[visible], visible[visible]
    samples = (cious.tolist(), sure.tolist(), visible.tolist())
    found, stats = detection(*samples, least / 100), published["stats"]
    place = f"{subset}@{least}"
    assert found.average_precision == pytest.approx(stats[f"AP-{place}"], abs=1e-12)
    assert round(found.f1_curve.max(), 3) == pytest.approx(stats[f"maxF1-{place}"], abs=1e-12)
    assert found.f1_curve == pytest.approx(stats[f"F1curve-{place}"], abs=1e-12)
    assert found.precision == pytest.approx(stats[f"Precision-{place}"], abs=1e-12)
    expected = stats[f"Precision-visible@{least}"]
    assert found.location_accuracy == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("key", "suffix"), [("ciou", ""), ("ciou_adap", "_adap")])
@pytest.mark.parametrize(
    "family",
    [
        "sslalignment_A",
        "sslalignment_B_vggss_path/av",
        "sslalignment_B_other_path/av",
        "sslalignment_B_for_ezvsl_maps/av",
    ],
)
def test_images_with_several_sounds(fixture: Any, family: str, key: str, suffix: str) -> None:
    _, results = fixture
    name, _, kind = family.partition("/")
    published = results[name][kind] if kind else results[name]
    images = [sound.rpartition("_")[0] for sound in results["sslalignment_A"]["names"]]
    iiou, iauc, count = interactive(images, with_nan(published[key]))
    assert count == len(images) / 2
    assert iiou == pytest.approx(published[f"iIoU{suffix}"], abs=1e-12)
    assert iauc == pytest.approx(published[f"iAUC{suffix}"], abs=1e-12)
    summary = localisation(with_nan(published[key]))
    assert summary.success == pytest.approx(published[f"cIoU{suffix}"], abs=1e-12)
    assert summary.auc == pytest.approx(published[f"AUC{suffix}"], abs=1e-12)


def test_avsbench_masks(fixture: Any) -> None:
    arrays, results = fixture
    published = results["avsbench_A"]
    found = Segmentation()
    for heatmap, mask in zip(
        arrays["maps"].astype(np.float32), truths(arrays, "mask"), strict=True
    ):
        logit = (heatmap - np.float32(0.5)) * 8
        found.add((1 / (1 + np.exp(-logit))).astype(np.float32), mask.astype(bool))
    # The original computes in float32.
    np.testing.assert_allclose(found.ious, published["iou"], rtol=0, atol=1e-6)
    assert found.scores() == pytest.approx((published["miou"], published["fscore"]), abs=1e-6)


def test_retrieval_both_ways(fixture: Any) -> None:
    arrays, results = fixture
    seen, heard = arrays["ret_vis"], arrays["ret_aud"]
    for name, found in (
        ("a2v", recall_at(heard, seen, (1, 5, 10))),
        ("v2a", recall_at(seen, heard, (1, 5, 10))),
    ):
        assert {f"R@{k}": fraction for k, fraction in found.items()} == results["retrieval"][name]
