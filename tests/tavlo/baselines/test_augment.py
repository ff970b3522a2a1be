"""Augmentations keep shapes and types, and do what they say."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tavlo.baselines.augment import (  # noqa: E402
    drawn_warp,
    masked,
    shifted,
    shifted_crop,
    strong,
)
from tavlo.baselines.ssltie import warped  # noqa: E402


def picture() -> np.ndarray:
    made: np.ndarray = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    return made


@pytest.mark.parametrize("augment", [shifted_crop, strong])
def test_a_picture_stays_a_picture_and_draws_differ(augment: object) -> None:
    assert callable(augment)
    drawn = [augment(picture(), np.random.default_rng(seed)) for seed in range(20)]
    assert {one.shape for one in drawn} == {(224, 224, 3)}
    assert {one.dtype for one in drawn} == {np.dtype(np.uint8)}
    assert len({one.tobytes() for one in drawn}) == 20
    again = augment(picture(), np.random.default_rng(3))
    np.testing.assert_array_equal(again, drawn[3])


def test_ezvsls_crop_is_a_part_of_the_picture_a_tenth_larger_mirrored_half_the_time() -> None:
    # Brightness rises to the right: where the crop begins and which way it looks can be read.
    ramp = np.repeat(np.arange(224, dtype=np.uint8)[None, :, None], 224, 0).repeat(3, 2)
    firsts, mirrors = [], 0
    for seed in range(60):
        row = shifted_crop(ramp, np.random.default_rng(seed))[100, :, 0].astype(int)
        mirrors += row[0] > row[-1]
        firsts.append(row.min())
        assert row.max() - row.min() == pytest.approx(223 * 224 / 246, abs=3)
    assert 18 <= mirrors <= 42
    assert min(firsts) <= 2
    assert max(firsts) >= 16


def test_a_moco_crop_of_one_colour_keeps_it_when_colours_are_left_alone() -> None:
    flat = np.full((224, 224, 3), (200, 40, 90), np.uint8)
    drawn = [strong(flat, np.random.default_rng(seed)) for seed in range(60)]
    for one in drawn:
        assert np.ptp(one.reshape(-1, 3), axis=0).max() == 0  # no borders, no noise
    same = sum(bool((one == flat).all()) for one in drawn)
    grey = sum(len(set(one[0, 0].tolist())) == 1 for one in drawn)
    assert 2 <= same <= 20  # 0.2 x 0.8 of them
    assert 4 <= grey <= 24  # 0.2 of them


def test_masks_silence_whole_steps_and_whole_bands_of_some_spectrograms() -> None:
    power = torch.rand(1, 257, 670) + 1
    untouched = 0
    for seed in range(40):
        found = masked(power, np.random.default_rng(seed))
        silent = found[0] == 0
        steps, bands = silent.all(0), silent.all(1)
        assert torch.equal(silent, steps[None] | bands[:, None])
        assert int(steps.sum()) < 180
        assert int(bands.sum()) < 35
        assert torch.equal(found[0][~silent], power[0][~silent])
        untouched += not silent.any()
    assert 2 <= untouched <= 16
    assert power.min() >= 1  # the given one is left alone


def test_a_shifted_sound_is_the_same_sound_elsewhere() -> None:
    sound = np.arange(1000, dtype=np.float32)
    firsts = {int(shifted(sound, np.random.default_rng(seed), 10)[500]) for seed in range(100)}
    assert min(firsts) == 490
    assert max(firsts) == 510


def test_a_warp_turns_by_up_to_thirty_degrees_shrinks_and_mirrors() -> None:
    angles, sizes, mirrors = [], [], 0
    for seed in range(200):
        warp = drawn_warp(np.random.default_rng(seed))
        mirror = np.linalg.det(warp[:, :2]) < 0
        mirrors += bool(mirror)
        sizes.append(round(1 / abs(np.linalg.det(warp[:, :2])) ** 0.5, 6))
        upright = warp[:, :2] @ np.diag([-1.0 if mirror else 1.0, 1.0]) if mirror else warp[:, :2]
        angles.append(abs(np.degrees(np.arctan2(upright[0, 1], upright[1, 1]))))
        assert not warp[:, 2].any()
    assert set(sizes) == {1.0, 0.5}
    assert 70 <= sizes.count(0.5) <= 130
    assert 70 <= mirrors <= 130
    assert 25 < max(angles) <= 30 + 1e-4


def test_a_shrunk_view_shows_the_whole_picture_in_its_middle() -> None:
    image = torch.ones(1, 3, 64, 64)
    half = torch.tensor([[[2.0, 0, 0], [0, 2, 0]]])
    view = warped(image, half)[0, 0]
    assert view[18:46, 18:46].min() == 1
    assert view[:14].max() == 0
    assert view.mean().item() == pytest.approx(0.25, abs=0.02)
