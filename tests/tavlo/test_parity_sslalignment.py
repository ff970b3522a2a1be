"""Our cross-modal alignment network against what its authors' inference gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from tavlo.baselines.localiser import Localiser  # noqa: E402
from tavlo.baselines.lvs import tri_map  # noqa: E402
from tavlo.baselines.sslalignment import SSLALIGNMENT  # noqa: E402
from tests.tavlo import parity  # noqa: E402
from tests.tavlo.parity import assert_close  # noqa: E402


@pytest.fixture(scope="module")
def folder() -> Path:
    return parity.fixture("sslalignment")


@pytest.fixture(scope="module")
def io(folder: Path) -> parity.Arrays:
    return parity.arrays(folder)


@pytest.fixture(scope="module")
def released(folder: Path, tmp_path_factory: Any) -> Path:
    """A file of the authors' layout."""
    return parity.write_released(folder, tmp_path_factory.mktemp("weights") / "ours_sup.pth.tar")


def test_the_map_embeddings_masks_and_logits_are_the_authors(
    released: Path, io: parity.Arrays
) -> None:
    network = SSLALIGNMENT.open(released, None, "", "cpu").network
    image, spectrogram = parity.inputs(io)
    with torch.no_grad():
        tokens, sounds = (
            network.encode_picture(image)[:, 0],
            network.encode_sound(spectrogram)[:, 0],
        )
        assert_close(network.maps(image, spectrogram)[:, None], io["avl_map"])
    found = tri_map(tokens, sounds)
    assert_close(tokens[:1], io["img_emb_0"])
    assert_close(sounds, io["aud_emb"])
    assert_close(found.sounding[:, None], io["pos"])
    assert_close(found.silent[:, None], io["neg"])
    assert_close(found.logits, io["logits"])


def test_the_heatmap_of_vggss_and_of_all_other_sets_is_the_authors(
    released: Path, io: parity.Arrays
) -> None:
    for variant, wanted in (("vggss", "up224_cv2"), ("", "up224_bilinear_ac_true")):
        model: Localiser = SSLALIGNMENT.open(released, None, variant, "cpu")
        assert_close(model.answer(*parity.inputs(io))[0], io[wanted])


def test_the_spectrograms_are_the_authors(folder: Path) -> None:
    parity.check_sound_front(folder, SSLALIGNMENT.sound_front, atol=1e-5)
