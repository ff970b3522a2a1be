"""CAV-MAE's input made of a clip's frames: ten of them, 224 x 224, normalised."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray

SIDE = 224
PER_CLIP = 10
"""Frames a clip is cut into; their probabilities are averaged."""

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def chosen_frames(num_frames: int, fps: float) -> list[int]:
    """Return the ten frames of a clip, by index among its presented frames.

    The authors count the frames of the first 10 s, cut the count by ten and take the frame before
    each cut; the first stays the first. A short clip repeats frames.

    >>> chosen_frames(300, 30.0)
    [0, 29, 59, 89, 119, 149, 179, 209, 239, 269]
    """
    count = min(num_frames, int(10 * fps))
    return [max(0, int(i * count / PER_CLIP) - 1) for i in range(PER_CLIP)]


def prepare(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Resize the short side to 224, cut the middle out, normalise.

    Bilinear with antialiasing, on 8 bits, as Pillow does it; OpenCV's resize does not.

    Args:
        rgb: a frame, ``(height, width, c)``.

    Returns:
        ``(c, 224, 224)``.
    """
    short = min(rgb.shape[:2])
    height, width = (int(SIDE * side / short) for side in rgb.shape[:2])
    picture = rearrange(torch.from_numpy(np.ascontiguousarray(rgb)), "h w c -> 1 c h w")
    resized = F.interpolate(picture, (height, width), mode="bilinear", antialias=True)
    top, left = round((height - SIDE) / 2), round((width - SIDE) / 2)
    middle = rearrange(resized[0, :, top : top + SIDE, left : left + SIDE], "c h w -> h w c")
    normal = (middle.numpy().astype(np.float32) / 255 - _MEAN) / _DEVIATION
    return np.ascontiguousarray(rearrange(normal, "h w c -> c h w"))
