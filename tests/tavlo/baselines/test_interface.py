"""From a model's small map to its prediction, exactly as each published evaluation does it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
from pipeline.errors import UsageError
from tavlo.baselines.ezvsl import EZVSL
from tavlo.baselines.interface import (
    GRID,
    MODELS,
    PostProcessing,
    Prior,
    checkpoint_path,
    open_model,
)
from tavlo.baselines.localiser import ObjectPrior, Published
from tavlo.baselines.lvs import LVS
from tavlo.baselines.slavc import SLAVC
from tavlo.baselines.sslalignment import SSLALIGNMENT
from tavlo.baselines.ssltie import SSLTIE
from tavlo.metrics.localisation import ciou
from tests.tavlo import parity


@pytest.fixture(scope="module")
def metrics() -> tuple[parity.Arrays, dict[str, Any]]:
    folder = parity.fixture("metrics")
    return parity.arrays(folder, "data.npz"), json.loads((folder / "results.json").read_text())


def truth_of(stored: parity.Arrays, name: str) -> Any:
    if name == "flickr":
        return np.minimum(stored["gt_flickr_x2"].astype(np.float64) / 2, 1)
    truth = np.unpackbits(stored["gt_vggss"], axis=-1)[..., :GRID].astype(np.float64)
    if name == "vggss with negatives":
        truth[stored["nonsounding"]] = 0
    return truth


def cious(post: PostProcessing, heatmaps: Any, truth: Any, *, adaptive: bool = False) -> list[Any]:
    pairs = zip(heatmaps, truth, strict=True)
    return [ciou(post.predict(one, wanted if adaptive else None), wanted) for one, wanted in pairs]


def as_published(published: list[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in published]


def heatmaps(post: PostProcessing, stored: parity.Arrays, low: str) -> Any:
    large = post.upsample(stored[low].astype(np.float32))
    if post.prior is None:
        return large
    priors = stored["low_obj7"].astype(np.float32)
    return [post.mix(*pair) for pair in zip(large, priors, strict=True)]


CASES: list[tuple[str, Published, str, str, str]] = [
    ("ezvsl_B_vggss", EZVSL, "", "low_av7", "vggss"),
    ("ezvsl_B_flickr", EZVSL, "", "low_av7", "flickr"),
    ("slavc_B_absolute", SLAVC, "", "low_av7", "vggss with negatives"),
    ("slavc_B_relative", SLAVC, "relative", "low_av7", "vggss with negatives"),
    ("sslalignment_B_vggss_path", SSLALIGNMENT, "vggss", "low_av14", "vggss"),
    ("sslalignment_B_other_path", SSLALIGNMENT, "", "low_av14", "vggss"),
]


@pytest.mark.parametrize("kind", ["av", "av_obj"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_every_samples_ciou_is_the_original_evaluators_to_the_digit(
    metrics: tuple[parity.Arrays, dict[str, Any]], case: Any, kind: str
) -> None:
    stored, results = metrics
    name, model, variant, low, truth_name = case
    published, truth = results[name][kind], truth_of(stored, truth_name)
    post = model.posts[variant]
    if kind == "av_obj":
        post = replace(post, prior=model.prior)
    large = heatmaps(post, stored, low)
    wanted = as_published(published["ciou"])
    np.testing.assert_allclose(cious(post, large, truth), wanted, rtol=0, atol=1e-12)
    if "ciou_adap" in published:
        found = cious(post, large, truth, adaptive=True)
        wanted = as_published(published["ciou_adap"])
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    if "conf" in published:
        found = [post.confidence(one) for one in large]
        np.testing.assert_allclose(found, published["conf"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("truth_name", ["vggss", "flickr"])
def test_the_object_prior_alone_scores_as_the_original_evaluator_has_it(
    metrics: tuple[parity.Arrays, dict[str, Any]], truth_name: str
) -> None:
    stored, results = metrics
    found = cious(
        ObjectPrior.post,
        heatmaps(ObjectPrior.post, stored, "low_obj7"),
        truth_of(stored, truth_name),
    )
    published = results[f"ezvsl_B_{truth_name}"]["obj"]["ciou"]
    np.testing.assert_allclose(found, as_published(published), rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", [LVS, SSLTIE], ids=lambda model: model.name)
def test_ones_count_where_the_authors_write_their_prediction_in_place(
    metrics: tuple[parity.Arrays, dict[str, Any]], model: Published
) -> None:
    stored, results = metrics
    found = cious(model.posts[""], stored["maps"].astype(np.float32), truth_of(stored, "vggss"))
    published = as_published(results["ssltie_lvs_A"]["ciou"])
    np.testing.assert_allclose(found, published, rtol=0, atol=1e-12)
    without = replace(model.posts[""], top_counts=False)
    found = cious(without, stored["maps"].astype(np.float32), truth_of(stored, "vggss"))
    assert not np.allclose(found, published, equal_nan=True)


def test_a_post_processing_is_read_back_from_json_as_it_was() -> None:
    post = replace(SLAVC.posts[""], prior=SLAVC.prior)
    stated = json.loads(json.dumps(asdict(post)))
    assert PostProcessing(**{**stated, "prior": Prior(**stated["prior"])}) == post


def test_the_adaptive_rule_predicts_as_many_pixels_as_the_truth_has() -> None:
    heatmap = np.random.default_rng(0).random((GRID, GRID), np.float32)
    truth = np.zeros((GRID, GRID))
    truth[:10, :30] = 0.5
    # Strictly above the pixel at that rank: one less.
    assert SSLALIGNMENT.posts[""].predict(heatmap, truth).sum() == 299
    nothing = SSLALIGNMENT.posts[""].predict(heatmap, np.zeros_like(truth))
    assert nothing.sum() == GRID * GRID // 2 - 1


def test_every_model_is_known_and_what_it_has_not_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    with pytest.raises(UsageError, match=r"'lvsx': there is ezvsl, .*, ssltie"):
        open_model("lvsx", file)
    with pytest.raises(UsageError, match=r"lvs: no variant 'vggss'; there is ''"):
        open_model("lvs", file, variant="vggss")
    with pytest.raises(UsageError, match="lvs: its authors mix no object prior in"):
        open_model("lvs", file, prior=file)
    with pytest.raises(UsageError, match="object-prior: takes no prior"):
        open_model("object-prior", file, prior=file)
    for name in MODELS:
        with pytest.raises(UsageError, match=r"weights\.pth: .*No such file"):
            open_model(name, file)


def test_a_checkpoint_is_a_path_or_a_registered_name(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    with pytest.raises(UsageError, match="No checkpoint at"):
        checkpoint_path(str(file))
    file.write_bytes(b"x")
    assert checkpoint_path(str(file)) == file
    with pytest.raises(UsageError, match="models add slavc-vggsound-144k PATH"):
        checkpoint_path("slavc-vggsound-144k")
