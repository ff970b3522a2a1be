"""What every model promises to an evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from pipeline.errors import InputError, UsageError  # noqa: E402
from tavlo.baselines import localiser as localisers  # noqa: E402
from tavlo.baselines.interface import GRID  # noqa: E402
from tavlo.baselines.localiser import Localiser, ObjectPrior, PriorNetwork  # noqa: E402
from tests.tavlo.baselines.networks import NETWORKS, localiser, network, pictures, sounds  # noqa: E402

NAMES = sorted(NETWORKS)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_answers_as_in_a_batch_of_many(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen, heard = localiser(name), pictures(5), sounds(5)
    together = model.heatmaps(seen, heard)
    assert together.shape == (5, GRID, GRID)
    assert together.dtype == np.float32
    alone = [model.heatmaps([p], [s])[0] for p, s in zip(seen, heard, strict=True)]
    scale = float(np.abs(together).max())
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * scale)
    vectors = model.embeddings(seen, heard)
    monkeypatch.setattr(localisers, "BATCH", 2)  # more batches than threads, in order
    np.testing.assert_allclose(model.heatmaps(seen, heard), together, rtol=0, atol=1e-5 * scale)
    for whole, parts in zip(vectors, model.embeddings(seen, heard), strict=True):
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert vectors[0].shape == vectors[1].shape


@pytest.mark.parametrize("name", NAMES)
def test_evaluating_changes_no_tensor_and_repeats_itself(name: str) -> None:
    model, seen, heard = localiser(name), pictures(2), sounds(2)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    first = model.heatmaps(seen, heard)
    model.embeddings(seen, heard)
    np.testing.assert_array_equal(model.heatmaps(seen, heard), first)
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_the_vectors_agree_with_the_maps_where_nothing_is_projected() -> None:
    for name in ("ezvsl", "slavc", "lvs", "ssltie"):
        model = network(name)
        image, given = torch.randn(2, 3, 64, 64), torch.randn(2, 1, 65, 64)
        with torch.no_grad():
            means = model.maps(image, given).mean((1, 2)) * model.temperature
            tokens = model.encode_picture(image)
            raw = tokens.mean((-2, -1)).flatten(1).norm(dim=1)
            cosines = (model.picture_vectors(image) * model.sound_vectors(given)).sum(1)
            heads = tokens.shape[1]
        torch.testing.assert_close(cosines * raw * heads**0.5 / heads, means)


def test_nothing_asked_nothing_answered() -> None:
    model = localiser("ezvsl")
    assert model.heatmaps([], []).shape == (0, GRID, GRID)
    vectors, none = model.embeddings(pictures(1), [])
    assert len(vectors) == 1
    assert len(none) == 0
    with pytest.raises(ValueError, match="1 pictures and 0 sounds"):
        model.heatmaps(pictures(1), [])


def test_the_prior_is_heard_by_nobody_and_mixed_where_it_is_asked_for() -> None:
    torch.manual_seed(0)
    net = PriorNetwork(width=4).eval()
    prior = ObjectPrior(net)
    assert prior.heatmaps(pictures(2), []).shape == (2, GRID, GRID)
    assert (prior.heatmaps(pictures(2), sounds(2)) >= 0).all()
    with pytest.raises(UsageError, match="hears nothing"):
        prior.embeddings(pictures(1), sounds(1))


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((4, 4), np.uint8), "not_a_picture"),
        (np.zeros((4, 4, 3), np.float32), "not_a_picture"),
        (np.zeros((0, 4, 3), np.uint8), "not_a_picture"),
    ],
)
def test_what_is_no_picture_is_refused(picture: Any, said: str) -> None:
    for name in NAMES:
        with pytest.raises(InputError, match=said):
            localiser(name).heatmaps([picture], sounds(1))


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 16_000), np.float32),
        np.full(16_000, np.nan, np.float32),
        np.zeros(16_000, np.int16),
        np.full(16_000, 12345, np.float32),
    ],
    ids=["none", "stereo", "NaN", "integers", "integers as floats"],
)
def test_what_is_no_waveform_is_refused(sound: Any) -> None:
    model: Localiser = localiser("ssltie")
    with pytest.raises(InputError, match="not_a_sound"):
        model.heatmaps(pictures(1), [sound])
