"""The front ends: pictures and sounds as each model was trained on them, to the last constant.

The models differ in little things that move their numbers: whether a picture is squeezed or
cropped, by what 16-bit sound is divided, which seconds are heard, how far the windows lie apart.
All sounds of a batch are cut to one length and transformed at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import get_window
from torch import Tensor

from pipeline.errors import InputError
from tavlo.baselines.interface import GRID, Picture, Sound

log = logging.getLogger("avatar_build.baselines")

RATE_HZ = 16_000
"""The sample rate of the sounds all these models take."""
WINDOW = 512
"""The samples of a spectrogram's window."""

_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

# Pictures

ImageFront = Callable[[Picture], Tensor]
"""A picture to the network's ``(3, GRID, GRID)``."""


def squeezed(picture: Picture) -> NDArray[np.uint8]:
    """Squeeze a picture to a square by Pillow's bicubic, whatever the aspect (EZ-VSL, SLAVC)."""
    return _resized(picture, (GRID, GRID))


def cropped(picture: Picture) -> NDArray[np.uint8]:
    """Resize the short side by Pillow's bicubic and take the middle (SSL-TIE, LVS).

    Both authors score it against boxes of the whole frame; what is cut off is never predicted.
    """
    height, width = picture.shape[:2]
    short = min(height, width)
    resized = _resized(picture, (int(GRID * height / short), int(GRID * width / short)))
    top, left = (round((side - GRID) / 2) for side in resized.shape[:2])
    return resized[top : top + GRID, left : left + GRID]


def squeezed_tensor(picture: Picture, *, antialias: bool = False) -> Tensor:
    """Squeeze to a square by bicubic on numbers in [0, 1], which may be left (SSLalignment).

    Args:
        picture: any size.
        antialias: what torchvision does of itself since 0.17; the authors' was older.

    Returns:
        ``(3, GRID, GRID)``, not normalised.
    """
    unit = rearrange(torch.from_numpy(np.ascontiguousarray(picture)), "y x c -> 1 c y x") / 255
    mode = "bicubic"
    return F.interpolate(unit, (GRID, GRID), mode=mode, align_corners=False, antialias=antialias)[0]


def normalised(unit: Tensor) -> Tensor:
    """Take ImageNet's mean off and divide by its deviation; ``(..., 3, y, x)`` in [0, 1]."""
    return (unit - _MEAN) / _DEVIATION


def unit_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Turn ``(y, x, 3)`` bytes into ``(3, y, x)`` in [0, 1]."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(pixels)), "y x c -> c y x") / 255


def squeeze_front(picture: Picture) -> Tensor:
    """Make the picture input of EZ-VSL, SLAVC and their object prior."""
    return normalised(unit_tensor(squeezed(check_picture(picture))))


def crop_front(picture: Picture) -> Tensor:
    """Make the picture input of SSL-TIE and LVS."""
    return normalised(unit_tensor(cropped(check_picture(picture))))


def tensor_front(picture: Picture) -> Tensor:
    """Make the picture input of SSLalignment."""
    return normalised(squeezed_tensor(check_picture(picture)))


def check_picture(picture: Picture) -> Picture:
    """Insist on RGB bytes.

    Raises:
        InputError: ``not_a_picture``.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InputError(
            "not_a_picture",
            f"{picture.dtype} {picture.shape}; a picture is bytes, RGB, (y, x, 3).",
        )
    return picture


def _resized(picture: Picture, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    if picture.shape[:2] == size_hw:
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.array(image.resize(size_hw[::-1], Image.Resampling.BICUBIC), np.uint8)


# Sounds


def check_sound(sound: Sound) -> Sound:
    """Insist on a waveform.

    Raises:
        InputError: ``not_a_sound``.
    """
    if sound.ndim != 1 or not len(sound) or not np.issubdtype(sound.dtype, np.floating):
        raise InputError(
            "not_a_sound", f"{sound.dtype} {sound.shape}; a sound is floats, (samples,)."
        )
    largest = float(np.abs(sound).max())
    # A resampler overshoots a little; 16-bit numbers as floats would all be clipped.
    if not largest <= 2:
        raise InputError("not_a_sound", f"it reaches {largest:g}; a sound is in [-1, 1].")
    return sound.astype(np.float32, copy=False)


def window_around(sound: Sound, centre_s: float, window_s: float) -> Sound:
    """Return the seconds around a moment, moved inside where they would leave the sound.

    >>> sound = window_around(np.arange(10 * RATE_HZ, dtype=np.float32), 9.5, 3.0)
    >>> float(sound[0]) / RATE_HZ, len(sound) / RATE_HZ
    (7.0, 3.0)
    """
    length = min(len(sound), round(window_s * RATE_HZ))
    start = round(centre_s * RATE_HZ - length / 2)
    start = max(0, min(start, len(sound) - length))
    return sound[start : start + length]


@dataclass(frozen=True)
class SoundFront:
    """The samples of a sound that a model is given, and their spectrogram."""

    tiled_s: float
    """Shorter sounds are repeated to this length; longer ones are cut to it."""
    cut: Literal["start", "middle"]
    """The part of longer sounds that is kept."""
    kept_s: tuple[float, float]
    """The part of it that is heard."""
    picture: Callable[[Tensor], Tensor]
    """Waveforms ``(b, samples)`` to ``(b, 1, f, s)``."""
    full_scale: float = 2**15
    """The number that 16-bit samples are divided by."""
    channels: Literal["mean", "first"] = "first"
    """The way several become one. SSL-TIE and LVS cannot take them; the first is ours for them."""

    @property
    def window_s(self) -> float:
        """Seconds heard."""
        return self.kept_s[1] - self.kept_s[0]

    def waveforms(self, sounds: Sequence[Sound]) -> Tensor:
        """Cut out the samples heard, ``(b, samples)``; log how many sounds were too short."""
        length = round(self.tiled_s * RATE_HZ)
        short = sum(len(sound) < length for sound in sounds)
        if short:
            log.info(
                "%d of %d sounds are shorter than %g s: repeated up to it",
                short,
                len(sounds),
                self.tiled_s,
            )
        cut = np.stack([self._cut(check_sound(sound), length) for sound in sounds])
        first, last = (round(second * RATE_HZ) for second in self.kept_s)
        heard = torch.from_numpy(cut)[:, first:last]
        if self.full_scale != 2**15:
            heard = heard * (2**15 / self.full_scale)
        return heard.clamp(-1, 1)

    def spectrograms(self, sounds: Sequence[Sound]) -> Tensor:
        """Make the network's input, ``(b, 1, f, s)``."""
        return self.picture(self.waveforms(sounds))

    def _cut(self, sound: Sound, length: int) -> Sound:
        if len(sound) < length:
            return np.tile(sound, length // len(sound) + 1)[:length]
        start = (len(sound) - length) // 2 if self.cut == "middle" else 0
        return sound[start : start + length]


def log_density(wave: Tensor, hop: int) -> Tensor:
    """Compute the log power spectral density, by 12 (EZ-VSL, SLAVC, LVS, SSLalignment).

    Windows are Tukey's (a quarter tapered, periodic), each without its mean; nothing is padded.

    Args:
        wave: ``(b, samples)``.
        hop: samples between windows.

    Returns:
        ``(b, 1, 257, s)``; silence is log(1e-7) / 12 = -1.343.
    """
    frames = wave.unfold(-1, WINDOW, hop)  # (b, s, samples)
    frames = (frames - frames.mean(-1, keepdim=True)) * _tukey()
    power: Tensor = torch.fft.rfft(frames).abs().square() / (RATE_HZ * _tukey().square().sum())
    power[..., 1:-1] *= 2  # one-sided: the mirrored bins' power, which the first and last have not
    return rearrange(((power + 1e-7).log() / 12), "b s f -> b 1 f s")


def mel_decibels(wave: Tensor) -> Tensor:
    """Compute mel band powers in decibels, not normalised (SSL-TIE).

    Args:
        wave: ``(b, samples)``.

    Returns:
        ``(b, 1, 257, s)``, about -100 to 10. Bands too narrow to hold a Fourier bin stay at -100.
    """
    return decibels(mel_powers(wave))


def mel_powers(wave: Tensor) -> Tensor:
    """Compute mel band powers before the logarithm, where SSL-TIE masks in training."""
    window = torch.hann_window(WINDOW, periodic=True)
    spectrum: Tensor = torch.stft(
        wave, WINDOW, _MEL_HOP, window=window, center=True, pad_mode="reflect", return_complex=True
    )  # (b, bins, s)
    power = (spectrum / window.square().sum().sqrt()).abs().square()
    bands: Tensor = _htk_bands().T @ power
    return rearrange(bands, "b f s -> b 1 f s")


def decibels(power: Tensor) -> Tensor:
    """Return ten times the decimal logarithm, at least -100."""
    return 10 * power.clamp(min=1e-10).log10()


_MEL_HOP = 239
_BANDS = WINDOW // 2 + 1


@cache
def _tukey() -> Tensor:
    return torch.from_numpy(get_window(("tukey", 0.25), WINDOW)).float()


@cache
def _htk_bands() -> Tensor:
    """Return triangles of height one, equally spaced on HTK's mel scale: ``(bins, f)``."""
    bins = torch.linspace(0, RATE_HZ // 2, _BANDS)
    top = 2595 * math.log10(1 + (RATE_HZ // 2) / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, _BANDS + 2) / 2595) - 1)
    widths = edges.diff()
    slopes = edges[None] - bins[:, None]  # (bins, f + 2)
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0)


EZVSL_SOUND = SoundFront(3, "middle", (0, 3), partial(log_density, hop=238), 2**15 - 1, "mean")
"""``(1, 257, 200)``; SLAVC's too."""
LVS_SOUND = SoundFront(10, "start", (0, 10), partial(log_density, hop=238))
"""``(1, 257, 671)``."""
SSLALIGNMENT_SOUND = SoundFront(10, "start", (3.5, 6.5), partial(log_density, hop=159))
"""``(1, 257, 299)``."""
SSLTIE_SOUND = SoundFront(10, "start", (0, 10), mel_decibels)
"""``(1, 257, 670)``."""
