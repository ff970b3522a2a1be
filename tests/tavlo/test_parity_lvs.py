"""Our LVS against what its authors' gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from tavlo.baselines.localiser import Localiser  # noqa: E402
from tavlo.baselines.lvs import LVS, tri_map  # noqa: E402
from tests.tavlo import parity  # noqa: E402
from tests.tavlo.parity import assert_close  # noqa: E402


@pytest.fixture(scope="module")
def folder() -> Path:
    return parity.fixture("lvs")


@pytest.fixture(scope="module")
def io(folder: Path) -> parity.Arrays:
    return parity.arrays(folder)


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: Any) -> Localiser:
    """From a file of the authors' layout."""
    path = parity.write_released(folder, tmp_path_factory.mktemp("weights") / "lvs.pth.tar")
    return LVS.open(path, None, "", "cpu")


def test_the_map_embeddings_masks_and_logits_are_the_authors(
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
    assert_close(found.maps[:, None], io["avl_map"])
    assert_close(found.sounding[:, None], io["pos"])
    assert_close(found.silent[:, None], io["neg"])
    assert_close(found.logits, io["logits"])


def test_the_heatmap_is_the_authors(model: Localiser, io: parity.Arrays) -> None:
    assert_close(model.answer(*parity.inputs(io))[0], io["up224_cv2"])


def test_the_spectrograms_are_the_authors(folder: Path) -> None:
    parity.check_sound_front(folder, LVS.sound_front, atol=1e-5)
