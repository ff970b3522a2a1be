"""Each frame hears its own interval, at any frame rate, to the end of the clip."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tavlo.network.spectrogram import SpectrogramConfig, log_mel, mel_bands

CONFIG = SpectrogramConfig()


@pytest.mark.parametrize("num_frames", [200, 239, 240, 250, 299, 300])
def test_there_are_exactly_k_steps_to_a_frame(num_frames: int) -> None:
    spectrogram = log_mel(torch.zeros(2, 160_000), num_frames, CONFIG)
    assert spectrogram.shape == (2, 128, CONFIG.steps_per_frame * num_frames)


@pytest.mark.parametrize("num_frames", [200, 239, 250, 300])
def test_an_impulse_is_loudest_in_the_frame_it_falls_into(num_frames: int) -> None:
    per_frame = 160_000 / num_frames
    for frame in (0, 1, num_frames // 2, num_frames - 2, num_frames - 1):
        waveform = torch.zeros(1, 160_000)
        waveform[0, round((frame + 0.5) * per_frame)] = 1.0
        energy = log_mel(waveform, num_frames, CONFIG).exp().sum(1)[0]
        loudest = energy.reshape(num_frames, CONFIG.steps_per_frame).sum(1).argmax()
        assert int(loudest) == frame


def test_sound_moved_by_a_frame_moves_the_spectrogram_by_a_frame() -> None:
    rng = torch.Generator().manual_seed(0)
    waveform = torch.randn(1, 160_000, generator=rng)
    per_frame = 160_000 // 250
    before = log_mel(waveform, 250, CONFIG)
    after = log_mel(waveform.roll(per_frame, -1), 250, CONFIG)
    inner = slice(2 * CONFIG.steps_per_frame, -2 * CONFIG.steps_per_frame)
    torch.testing.assert_close(
        after.roll(-CONFIG.steps_per_frame, -1)[..., inner], before[..., inner]
    )


def test_a_tone_is_loudest_in_the_band_around_it() -> None:
    time = torch.arange(160_000) / 16_000
    for hz in (200.0, 1000.0, 4000.0):
        tone = torch.sin(2 * torch.pi * hz * time)[None]
        band = int(log_mel(tone, 250, CONFIG)[0, :, 500].argmax())
        weights = mel_bands(CONFIG)[band]
        frequencies = torch.linspace(0, 8000, len(weights))
        heard = frequencies[weights > 0]
        assert heard.min() <= hz + 40
        assert heard.max() >= hz - 40


def test_every_band_hears_something() -> None:
    assert (mel_bands(CONFIG).sum(1) > 0.5).all()


def test_a_spectrogram_is_shifted_and_scaled_as_its_config_says() -> None:
    sound = torch.randn(1, 160_000, generator=torch.Generator().manual_seed(0))
    plain = log_mel(sound, 250, CONFIG)
    scaled = log_mel(sound, 250, replace(CONFIG, mean=-3.8, deviation=5.8))
    assert torch.allclose(scaled, (plain + 3.8) / 5.8)
    with pytest.raises(ValueError, match=r"spectrogram\.deviation 0 is not"):
        replace(CONFIG, deviation=0)


def test_too_little_sound_says_so() -> None:
    with pytest.raises(ValueError, match="799 samples for 800 steps"):
        log_mel(torch.zeros(1, 799), 200, CONFIG)
