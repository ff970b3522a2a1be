"""Pictures as files, outlines of masks over them, and a colour for each category."""

from __future__ import annotations

import colorsys
import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 0.6
"""How far a drawn outline may lie from its mask, pixels of the frame."""


def encode_image(rgb: NDArray[np.uint8], image_format: str, jpeg_quality: int) -> bytes:
    """Return colours ``(height, width, 3)`` as the bytes of a ``jpg`` or ``png`` file."""
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if image_format == "jpg" else []
    done, data = cv2.imencode(f".{image_format}", np.ascontiguousarray(rgb[:, :, ::-1]), options)
    assert done
    return data.tobytes()


def category_color(category: str, lightness: float = 0.45) -> tuple[int, int, int]:
    """Return a category's own colour, of one hue in every picture and report; RGB.

    >>> category_color("dog barking")
    (29, 129, 201)
    """
    hue = int.from_bytes(hashlib.sha256(category.encode()).digest()[:2]) % 360
    red, green, blue = colorsys.hls_to_rgb(hue / 360, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_outline(
    image: NDArray[np.uint8], inside: NDArray[np.bool_], color: tuple[int, int, int]
) -> None:
    """Draw a region's edge into a picture, dark beside bright so that it shows on anything."""
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, image.shape[1] // 320)
    cv2.drawContours(image, contours, -1, (0, 0, 0), thickness + 2)
    cv2.drawContours(image, contours, -1, color, thickness)


def mask_path(inside: NDArray[np.bool_], step: int = 1) -> str:
    """Return a mask's outlines as an SVG path for the even-odd rule, holes included.

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
