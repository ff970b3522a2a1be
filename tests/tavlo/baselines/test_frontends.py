"""What becomes of sounds and pictures that are not as the models take them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from scipy.signal import spectrogram

torch = pytest.importorskip("torch")
from pipeline.errors import InputError  # noqa: E402
from tavlo.baselines.frontends import (  # noqa: E402
    EZVSL_SOUND,
    LVS_SOUND,
    RATE_HZ,
    SSLALIGNMENT_SOUND,
    SSLTIE_SOUND,
    SoundFront,
    check_sound,
    cropped,
    log_density,
    squeezed,
    window_around,
)
from tests.tavlo.baselines.networks import localiser  # noqa: E402

FRONTS = [EZVSL_SOUND, LVS_SOUND, SSLALIGNMENT_SOUND, SSLTIE_SOUND]


def ramp(seconds: float) -> Any:
    """A sound whose samples tell where they were."""
    count = round(seconds * RATE_HZ)
    return np.arange(count, dtype=np.float32) / (20 * RATE_HZ)


def seconds_of(front: SoundFront, sound: Any) -> Any:
    """Where the samples heard were."""
    return front.waveforms([sound])[0].numpy() * 20 * front.full_scale / 2**15


def test_each_model_hears_its_seconds_of_ten() -> None:
    sound = ramp(10)
    for front, first, last in (
        (EZVSL_SOUND, 3.5, 6.5),
        (LVS_SOUND, 0, 10),
        (SSLALIGNMENT_SOUND, 3.5, 6.5),
        (SSLTIE_SOUND, 0, 10),
    ):
        heard = seconds_of(front, sound)
        assert heard[0] == pytest.approx(first, abs=1e-3)
        assert heard[-1] == pytest.approx(last, abs=1e-3)
        assert len(heard) == round((last - first) * RATE_HZ)


def test_of_a_longer_sound_ezvsl_hears_the_middle_and_the_others_the_beginning() -> None:
    sound = ramp(12)
    firsts = [seconds_of(front, sound)[0] for front in FRONTS]
    assert firsts == pytest.approx([4.5, 0, 3.5, 0], abs=1e-3)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.3])
def test_a_shorter_sound_is_repeated_and_that_is_said(
    front: SoundFront, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    sound = ramp(seconds)
    with caplog.at_level(logging.INFO, "avatar_build.baselines"):
        heard = seconds_of(front, sound)
    place = (np.arange(round(front.tiled_s * RATE_HZ)) % len(sound)) / RATE_HZ
    first = round(front.kept_s[0] * RATE_HZ)
    np.testing.assert_allclose(heard, place[first : first + len(heard)], rtol=0, atol=1e-4)
    assert caplog.messages == [
        f"1 of 1 sounds are shorter than {front.tiled_s:g} s: repeated up to it"
    ]


def test_the_spectrogram_is_scipys() -> None:
    wave = np.random.default_rng(0).normal(0, 0.2, 8000)
    for hop in (159, 238):
        _, _, power = spectrogram(wave, RATE_HZ, nperseg=512, noverlap=512 - hop)
        found = log_density(torch.from_numpy(wave.astype(np.float32))[None], hop)[0, 0]
        np.testing.assert_allclose(found.numpy(), np.log(power + 1e-7) / 12, rtol=0, atol=1e-5)


def test_loud_sound_is_clipped_where_sixteen_bits_end() -> None:
    loud = np.full(16_000, 1.5, np.float32)
    for front in FRONTS:
        assert front.waveforms([loud]).max() == 1


def test_of_stereo_ezvsl_hears_the_mean_and_sslalignment_the_first() -> None:
    assert localiser("ezvsl").channels == localiser("slavc").channels == "mean"
    assert localiser("sslalignment").channels == "first"


@pytest.mark.parametrize(
    "samples",
    [np.zeros(4, np.int64), np.zeros((2, 2)), np.zeros(0), np.array([np.inf, 0]), np.full(4, 9.0)],
)
def test_what_is_no_sound_is_refused(samples: Any) -> None:
    with pytest.raises(InputError, match="not_a_sound"):
        check_sound(samples)


def test_the_seconds_around_a_moment_stay_inside_the_sound() -> None:
    sound = ramp(10)
    for centre, first in ((0.0, 0), (1.0, 0), (5.0, 4), (9.9, 8)):
        part = window_around(sound, centre, 2.0)
        assert len(part) == 2 * RATE_HZ
        assert part[0] * 20 == pytest.approx(first)
    assert len(window_around(sound, 5.0, 30.0)) == len(sound)


def test_a_wide_picture_is_squeezed_by_some_and_cropped_by_others() -> None:
    # A third of the width is black on each side.
    picture = np.zeros((224, 672, 3), np.uint8)
    picture[:, 224:448] = 255
    assert cropped(picture).min() == 255
    middle = squeezed(picture)[112, :, 0]
    assert middle[:70].max() == 0
    assert middle[80:144].min() == 255
