"""Outlines of masks as vectors, to be drawn over pictures."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 0.6
"""How far a drawn outline may lie from its mask, pixels of the frame."""


def mask_path(inside: NDArray[np.bool_], step: int = 1) -> str:
    """A mask's outlines as an SVG path for the even-odd rule, holes included.

    Args:
        inside: ``(height, width)``.
        step: side of the squares of pixels that are drawn as one; an outline without pictures
            needs no more.
    """
    grey = inside.astype(np.uint8)
    if step > 1:
        size = (-(-grey.shape[1] // step), -(-grey.shape[0] // step))
        part = cv2.resize(grey * 255, size, interpolation=cv2.INTER_AREA)
        grey = (part > min(127, int(part.max()) - 1)).astype(np.uint8)
    contours, _ = cv2.findContours(grey, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, _TOLERANCE, True).reshape(-1, 2)
        if step > 1 and len(points) < 3:
            continue
        # findContours gives pixel indices; half a pixel on is the pixel's middle.
        corners = (((x + 0.5) * step, (y + 0.5) * step) for x, y in points.tolist())
        parts.append("M" + "L".join(f"{x:g} {y:g}" for x, y in corners) + "Z")
    return "".join(parts)
