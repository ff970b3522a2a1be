"""Our EZ-VSL against what its authors' gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from tavlo.baselines.ezvsl import EZVSL, ezvsl_logits, ezvsl_loss  # noqa: E402
from tavlo.baselines.frontends import EZVSL_SOUND  # noqa: E402
from tavlo.baselines.interface import Prior  # noqa: E402
from tavlo.baselines.localiser import Localiser  # noqa: E402
from tests.tavlo import parity  # noqa: E402
from tests.tavlo.parity import assert_close, assert_loss  # noqa: E402


@pytest.fixture(scope="module")
def folder() -> Path:
    return parity.fixture("ezvsl")


@pytest.fixture(scope="module")
def io(folder: Path) -> parity.Arrays:
    return parity.arrays(folder)


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: Any) -> Localiser:
    """From a file of the authors' layout."""
    path = parity.write_released(folder, tmp_path_factory.mktemp("weights") / "best.pth")
    prior = parity.write_released(parity.fixture("ogl"), path.with_name("resnet18.pth"))
    return EZVSL.open(path, prior, "", "cpu")


def test_the_map_embeddings_logits_and_loss_are_the_authors(
    model: Localiser, io: parity.Arrays
) -> None:
    image, spectrogram = parity.inputs(io)
    with torch.no_grad():
        tokens, sounds = (
            model.network.encode_picture(image)[:, 0],
            model.network.encode_sound(spectrogram)[:, 0],
        )
        assert_close(model.network.maps(image, spectrogram), io["avl_map"])
    assert_close(tokens, io["img_emb"])
    assert_close(sounds, io["aud_emb"])
    assert_close(ezvsl_logits(tokens, sounds), io["logits"])
    assert_loss(ezvsl_loss(tokens, sounds), io["loss"])


def test_the_loss_of_given_embeddings_is_the_authors(io: parity.Arrays) -> None:
    tokens, sounds = (torch.from_numpy(io[f"lossfix_{side}"]) for side in ("img", "aud"))
    assert_close(ezvsl_logits(tokens, sounds), io["lossfix_logits"])
    assert_loss(ezvsl_loss(tokens, sounds), io["lossfix_loss"])


def test_the_heatmap_with_and_without_the_prior_and_in_training_is_the_authors(
    model: Localiser, io: parity.Arrays
) -> None:
    image, spectrogram = parity.inputs(io)
    post = EZVSL.posts[""]
    large = post.upsample(io["avl_map"])[0]
    assert_close(post.normalise(large), io["pred_av_224"])
    assert_close(EZVSL.posts["validation"].upsample(io["avl_map"])[0], io[VALIDATION])
    assert model.post.prior == Prior(0.6)
    mixed = model.answer(image, spectrogram)[0]
    assert_close(mixed, io["pred_av_obj_224"])
    assert model.post.normalise(mixed) is mixed


VALIDATION = "val_up224_bicubic_ac_false"


def test_the_spectrograms_are_the_authors(folder: Path) -> None:
    parity.check_sound_front(folder, EZVSL_SOUND, atol=1e-5)
