"""Our picture inputs against the authors'; the sounds' are in each model's own test."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from tavlo.baselines.frontends import (
    crop_front,
    cropped,
    normalised,
    squeeze_front,
    squeezed,
    squeezed_tensor,
    tensor_front,
    unit_tensor,
)
from tests.tavlo import parity


@pytest.fixture(scope="module")
def stored() -> parity.Arrays:
    return parity.arrays(parity.fixture("frontends"), "image.npz")


def test_pillows_resizes_are_the_authors_to_the_bit(stored: parity.Arrays) -> None:
    np.testing.assert_array_equal(squeezed(stored["raw_u8"]), stored["ezvsl_slavc_u8"])
    np.testing.assert_array_equal(cropped(stored["raw_u8"]), stored["ssltie_lvs_u8"])


@pytest.mark.parametrize("antialias", [False, True])
def test_the_resize_of_tensors_is_the_authors(stored: parity.Arrays, antialias: bool) -> None:
    found = squeezed_tensor(stored["raw_u8"], antialias=antialias)[:, ::2, ::2].numpy()
    wanted = stored[f"sslalignment_unit_{'' if antialias else 'no'}antialias"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_each_front_end_is_its_resize_normalised(stored: parity.Arrays) -> None:
    raw = stored["raw_u8"]
    for front, unit in (
        (squeeze_front, unit_tensor(stored["ezvsl_slavc_u8"])),
        (crop_front, unit_tensor(stored["ssltie_lvs_u8"])),
        (tensor_front, squeezed_tensor(raw)),
    ):
        wanted = normalised(unit)
        np.testing.assert_array_equal(front(raw).numpy(), wanted.numpy())
        red = (unit[0] - 0.485) / 0.229
        np.testing.assert_allclose(wanted[0].numpy(), red.numpy(), rtol=0, atol=1e-6)
