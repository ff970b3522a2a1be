"""The spectrogram TAVLO takes: exactly k steps per frame of its clip.

The network's kernel covers K_w = floor(W_a / T) steps (eq. 2). A fixed hop leaves W_a - K_w T steps
over, and the sound drifts from the picture by up to a frame per K_w frames. Here the steps are laid
by the frames instead: step s is centred on the s-th of k T equal parts of the clip, so W_a = K_w T
for any frame rate and there is nothing to drift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class SpectrogramConfig:
    """The constants of the spectrogram. Ours: the paper gives none."""

    sample_rate_hz: int = 16_000
    """Samples per second of the waveform."""
    window_s: float = 0.025
    """Length of the Hann window: the usual one for speech and sound events."""
    fft_size: int = 2048
    """Samples of the zero-padded window: the lowest mel band then holds several bins."""
    num_bins: int = 128
    """Mel bands, H_a."""
    low_hz: float = 20.0
    """Lower edge of the lowest band."""
    high_hz: float = 8_000.0
    """Upper edge of the highest band."""
    steps_per_frame: int = 4
    """K_w: at 30 frames/s a step every 8.3 ms."""
    floor: float = 1e-6
    """Added to the energies before the logarithm."""
    mean: float = 0.0
    """Subtracted from the logarithms. On drawn clips theirs is -3.8, deviation 5.8."""
    deviation: float = 1.0
    """The logarithms are divided by it, after ``mean`` is subtracted; 1 and 0 leave them as they
    are."""

    def __post_init__(self) -> None:
        if self.deviation <= 0:
            raise ValueError(f"spectrogram.deviation {self.deviation} is not greater than 0")


def log_mel(waveform: Tensor, num_frames: int, config: SpectrogramConfig) -> Tensor:
    """Compute the log mel spectrogram of clips, ``k`` steps to each frame.

    Args:
        waveform: mono, in ``[-1, 1]``, ``(b, samples)``; it lasts as long as the frames do.
        num_frames: t, of each clip.
        config: see there.

    Returns:
        Natural logarithms of band energies, shifted and scaled as the config says, ``(b, f, k t)``.

    Raises:
        ValueError: there is less than one sample to a step.
    """
    num_steps = num_frames * config.steps_per_frame
    samples = waveform.shape[-1]
    if samples < num_steps:
        raise ValueError(f"{samples} samples for {num_steps} steps; is this the clip's sound?")
    length = round(config.window_s * config.sample_rate_hz)
    half = length // 2
    padded = torch.nn.functional.pad(waveform, (half, length - half))
    # Centres at the middle of each part; rounded to samples, at most half a sample off.
    centres = (torch.arange(num_steps, dtype=torch.float64) + 0.5) * samples / num_steps
    starts = centres.round().long().to(waveform.device)
    index = rearrange(starts, "s -> s 1") + torch.arange(length, device=waveform.device)
    window = torch.hann_window(length, periodic=True, device=waveform.device)
    spectrum = (
        torch.fft.rfft(padded[:, index] * window, n=config.fft_size).abs().square()
    )  # (b, s, rfft bins)
    bands = mel_bands(config).to(spectrum)
    energy = torch.einsum("bsr,fr->bfs", spectrum, bands)
    return ((energy + config.floor).log() - config.mean) / config.deviation


def mel_bands(config: SpectrogramConfig) -> Tensor:
    """Return triangular filters, equally spaced on the mel scale of O'Shaughnessy (1987).

    Returns:
        Weights in ``[0, 1]`` of the Fourier bins from 0 to half the sample rate,
        ``(f, fft_size / 2 + 1)``.
    """
    edges = (config.low_hz, config.high_hz)
    low, high = (2595.0 * math.log10(1 + hz / 700.0) for hz in edges)
    mels = torch.linspace(low, high, config.num_bins + 2, dtype=torch.float64)
    corners = 700.0 * (10 ** (mels / 2595.0) - 1)
    num_bins = config.fft_size // 2 + 1
    hz = torch.linspace(0, config.sample_rate_hz / 2, num_bins, dtype=torch.float64)
    left, centre, right = (
        rearrange(corners[i : i + config.num_bins], "f -> f 1") for i in range(3)
    )
    rising, falling = (hz - left) / (centre - left), (right - hz) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0.0)
