"""Our SLAVC against what its authors' gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from tavlo.baselines.encoders import similarity  # noqa: E402
from tavlo.baselines.frontends import EZVSL_SOUND  # noqa: E402
from tavlo.baselines.interface import PostProcessing  # noqa: E402
from tavlo.baselines.localiser import Localiser  # noqa: E402
from tavlo.baselines.slavc import SLAVC, TEMPERATURE, Slavc, slavc_loss  # noqa: E402
from tests.tavlo import parity  # noqa: E402
from tests.tavlo.parity import assert_close, assert_loss  # noqa: E402


@pytest.fixture(scope="module")
def folder() -> Path:
    return parity.fixture("slavc")


@pytest.fixture(scope="module")
def io(folder: Path) -> parity.Arrays:
    return parity.arrays(folder)


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: Any) -> Localiser:
    """From a file of the authors' layout."""
    path = parity.write_released(folder, tmp_path_factory.mktemp("weights") / "latest.pth")
    prior = parity.write_released(parity.fixture("ogl"), path.with_name("resnet18.pth"))
    return SLAVC.open(path, prior, "", "cpu")


def heads(io: parity.Arrays, name: str) -> Any:
    """``(b, 2, c, ...)`` of the two heads, length one."""
    pair = [torch.from_numpy(io[name.replace("#", str(head))]) for head in (1, 2)]
    return F.normalize(torch.stack(pair, 1), dim=2)


def test_both_heads_maps_and_loss_of_network_and_copy_are_the_authors(
    model: Localiser, io: parity.Arrays
) -> None:
    network = model.network
    assert isinstance(network, Slavc)
    image, spectrogram = parity.inputs(io)
    with torch.no_grad():
        found = network({"image": image, "spectrogram": spectrogram})
        assert_close(network.maps(image, spectrogram), io["avl_map"])
        maps = similarity(found["tokens_target"], found["sounds_target"]) / TEMPERATURE
        assert_close(maps, io["avl_map_momentum"])
    for head in (0, 1):
        for ours, theirs in (("", ""), ("_target", "_mom")):
            assert_close(found[f"tokens{ours}"][:1, head], io[f"img{head + 1}{theirs}"])
            assert_close(found[f"sounds{ours}"][:, head], io[f"aud{head + 1}{theirs}"])
    assert_loss(slavc_loss(**found), io["loss"])


def test_the_loss_and_the_copys_map_of_given_features_are_the_authors(io: parity.Arrays) -> None:
    names = ("lossfix_img#", "lossfix_aud#", "lossfix_img#_trg", "lossfix_aud#_trg")
    tokens, sounds, tokens_target, sounds_target = (heads(io, name) for name in names)
    loss = slavc_loss(tokens, sounds, tokens_target, sounds_target)
    assert_loss(loss, io["lossfix_loss"])
    maps = similarity(tokens_target, sounds_target) / TEMPERATURE
    assert_close(maps, io["lossfix_map_momentum"])


def test_the_scores_and_confidences_with_and_without_the_prior_are_the_authors(
    model: Localiser, io: parity.Arrays
) -> None:
    image, spectrogram = parity.inputs(io)
    post = SLAVC.posts[""]
    score = post.upsample(io["avl_map"])[0]
    assert_close(post.normalise(score), io["score_av_224"])
    mixed = model.answer(image, spectrogram)[0]
    assert_close(mixed, io["score_av_obj_224"])
    with_prior, share = model.post, 0.1
    prior = (mixed - (1 - share) * post.normalise(score)) / share
    alone = PostProcessing("bicubic", True, "fixed", "absolute", ">=", limit=0.5)
    found = [
        post.confidence(score),
        alone.confidence(prior - 0.5),
        with_prior.confidence(mixed),
    ]
    np.testing.assert_allclose(found, io["conf_av_obj_avobj"], rtol=1e-4)


def test_the_spectrograms_are_ezvsls() -> None:
    assert SLAVC.sound_front is EZVSL_SOUND
    folder = parity.fixture("slavc")
    waves, io = parity.sounds(), parity.arrays(folder)
    found = SLAVC.sound_front.spectrograms([waves["full"], waves["second"]]).numpy()
    np.testing.assert_allclose(found, io["spec"].astype(np.float32), rtol=2**-10, atol=2e-5)
