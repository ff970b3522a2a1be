"""The augmentations of the authors' trainings, each drawn from the clip's own rng.

Pictures stay bytes and keep to Pillow, as the authors' do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from tavlo.baselines.interface import GRID, Picture, Sound

_LARGER = 246
"""EZ-VSL's short side before the crop: int(1.1 x 224)."""


def shifted_crop(picture: Picture, rng: np.random.Generator) -> Picture:
    """Enlarge a little, crop anywhere, and mirror half the time (EZ-VSL, SLAVC)."""
    height, width = picture.shape[:2]
    scale = _LARGER / min(height, width)
    size = (int(width * scale), int(height * scale))
    image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    left, top = (int(rng.integers(0, side - GRID + 1)) for side in size)
    cut = np.array(image.crop((left, top, left + GRID, top + GRID)), np.uint8)
    return _mirrored(cut, rng)


def strong(picture: Picture, rng: np.random.Generator) -> Picture:
    """MoCo v2's, as SSL-TIE has it: crop, colours, grey, blur, mirror."""
    image = _random_crop(Image.fromarray(picture), rng)
    if rng.random() < 0.8:
        for which in rng.permutation(4):
            image = _jittered(image, int(which), rng)
    if rng.random() < 0.2:
        image = image.convert("L").convert("RGB")
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.1, 2.0))))
    return _mirrored(np.array(image, np.uint8), rng)


def masked(power: Tensor, rng: np.random.Generator) -> Tensor:
    """Silence some steps and some bands, in 8 of 10 spectrograms (SSL-TIE).

    Args:
        power: before the logarithm, ``(1, f, s)``.
        rng: of the clip.
    """
    if rng.random() >= 0.8:
        return power
    power = power.clone()
    for axis, most in ((-1, 180), (-2, 35)):
        length = power.shape[axis]
        width = rng.uniform(0, most)
        start = int(rng.uniform(0, max(length - width, 0)))
        power.narrow(axis, start, min(int(width), length - start)).zero_()
    return power


def shifted(sound: Sound, rng: np.random.Generator, most: int) -> Sound:
    """Shift a sound up to ``most`` samples either way; what falls off goes to the other end.

    For the positives of cross-modal alignment, whose paper says "temporal shifting".
    """
    return np.roll(sound, int(rng.integers(-most, most + 1)))


def drawn_warp(rng: np.random.Generator) -> NDArray[np.float32]:
    """Turn by up to 30 degrees; halve and mirror, each half the time (SSL-TIE).

    The authors draw size and mirror once per batch and shrink the canvas too; here each clip has
    its own and the canvas stays.

    Returns:
        ``(2, 3)``, for ``ssltie.warped``.
    """
    angle = math.radians(int(rng.integers(-30, 31)))
    larger = 1 / rng.choice((1.0, 0.5))
    mirror = rng.choice((1.0, -1.0))
    cosine, sine = larger * math.cos(angle), larger * math.sin(angle)
    return np.array([[mirror * cosine, sine, 0], [-mirror * sine, cosine, 0]], np.float32)


def _mirrored(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels[:, ::-1]) if rng.random() < 0.5 else pixels


def _random_crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Draw a part of 0.3 to 1 of the area, sides 3:4 to 4:3, and stretch it to the grid."""
    width, height = image.size
    box = (0.0, 0.0, float(width), float(height))
    for _ in range(10):
        area = width * height * rng.uniform(0.3, 1.0)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left = int(rng.integers(0, width - across + 1))
            top = int(rng.integers(0, height - down + 1))
            box = (left, top, left + across, top + down)
            break
    return image.resize((GRID, GRID), Image.Resampling.BILINEAR, box=box)


def _jittered(image: Image.Image, which: int, rng: np.random.Generator) -> Image.Image:
    """Change brightness, contrast, colour (each by 0.6 to 1.4) or hue (a tenth of the circle)."""
    if which < 3:
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        return kinds[which](image).enhance(float(rng.uniform(0.6, 1.4)))
    hue, *rest = image.convert("HSV").split()
    turn = round(255 * rng.uniform(-0.1, 0.1))
    turned = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, *rest)).convert("RGB")
