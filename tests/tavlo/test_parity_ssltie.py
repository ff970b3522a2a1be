"""Our SSL-TIE against what its authors' gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from tavlo.baselines.encoders import max_pool  # noqa: E402
from tavlo.baselines.localiser import Localiser  # noqa: E402
from tavlo.baselines.lvs import lvs_loss, tri_map  # noqa: E402
from tavlo.baselines.ssltie import SSLTIE  # noqa: E402
from tests.tavlo import parity  # noqa: E402
from tests.tavlo.parity import assert_close, assert_loss  # noqa: E402


@pytest.fixture(scope="module")
def folder() -> Path:
    return parity.fixture("ssltie")


@pytest.fixture(scope="module")
def io(folder: Path) -> parity.Arrays:
    return parity.arrays(folder)


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: Any) -> Localiser:
    """From a file of the authors' layout."""
    path = parity.write_released(folder, tmp_path_factory.mktemp("weights") / "vgg.pth.tar")
    return SSLTIE.open(path, None, "", "cpu")


def test_the_map_embeddings_masks_logits_and_loss_are_the_authors(
    model: Localiser, io: parity.Arrays
) -> None:
    image, spectrogram = parity.inputs(io)
    with torch.no_grad():
        tokens, sounds = (
            model.network.encode_picture(image)[:, 0],
            model.network.encode_sound(spectrogram)[:, 0],
        )
        assert_close(model.network.maps(image, spectrogram)[:, None], io["avl_map"])
    found = tri_map(tokens, sounds)
    assert_close(tokens[:1], io["img_emb_0"])
    assert_close(sounds, io["aud_emb"])
    assert_close(found.sounding[:, None], io["pos"])
    assert_close(found.silent[:, None], io["neg"])
    assert_close(found.best, io["a0_ref"])
    assert_close(found.logits, io["logits"])
    assert_loss(lvs_loss(tokens, sounds), io["loss"])


def test_the_loss_of_given_features_is_the_authors(io: parity.Arrays) -> None:
    tokens = F.normalize(torch.from_numpy(io["lossfix_img"]), dim=1)
    sounds = F.normalize(max_pool(torch.from_numpy(io["lossfix_aud"])), dim=1)
    found = tri_map(tokens, sounds)
    assert_close(found.maps[:, None], io["lossfix_map"])
    assert_close(found.sounding[:, None], io["lossfix_pos"])
    assert_close(found.silent[:, None], io["lossfix_neg"])
    assert_close(found.best, io["lossfix_a0_ref"])
    assert_close(found.logits, io["lossfix_logits"])
    assert_loss(lvs_loss(tokens, sounds), io["lossfix_loss"])


def test_the_heatmap_is_the_authors(model: Localiser, io: parity.Arrays) -> None:
    assert_close(model.answer(*parity.inputs(io))[0], io["up224"])


def test_the_spectrograms_are_the_authors_to_thousandths_of_a_decibel(folder: Path) -> None:
    # What float64 is off by where it is nearly silent.
    parity.check_sound_front(folder, SSLTIE.sound_front, atol=3e-3)
