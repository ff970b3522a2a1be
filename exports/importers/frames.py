"""The frames that every reader gives, and the geometry they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.release.selection import LeftOut
from pipeline.errors import InputError
from pipeline.records import rle
from pipeline.records.schema import Rle, Scenario

NOMINAL = 224
"""Width and height, pixels, of a frame whose layout tells fractions and has no image."""


@dataclass(frozen=True)
class Region:
    """An annotated thing."""

    category: str
    mask: Rle
    box: list[float]
    """The box as stated, ``[x, y, w, h]`` in pixels; the mask's own where only a mask is."""
    source: str
    """``annotator`` for a mask, ``box`` for a filled rectangle."""
    scenario: Scenario | None = None


@dataclass(frozen=True)
class ReadFrame:
    """An annotated frame of another layout; what has a release's name goes there as it is."""

    video_id: str
    width: int
    height: int
    regions: Sequence[Region] = ()
    off_screen: bool = False
    off_screen_category: str | None = None
    clip_start_s: float = 0.0
    clip_end_s: float = 10.0
    """The end of the clip; the nominal length of a sound where a layout tells none."""
    frame_index: int = 0
    time_s: float = 0.0
    image: str | None = None
    """The image's name in the tree."""
    clip: str | None = None
    """The clip's name in the tree."""
    sound: str | None = None
    """The name in the tree of a sound of its own, in place of the clip's."""
    label: str = ""
    split: str = ""
    source_url: str = ""


@dataclass
class Notes:
    """Notes of what was dropped or changed on the way, with reasons."""

    rows: list[LeftOut] = field(default_factory=list)

    def add(self, kind: str, name: str, reason: str, frame: str = "") -> None:
        """Name a thing by where it lies in the source."""
        self.rows.append(LeftOut(kind, name, frame or name, reason))


def rectangle(corners: Sequence[int], width: int, height: int) -> Rle | None:
    """Return the mask of a box ``x0, y0, x1, y1`` in pixels, ends left out; none when empty."""
    x0, y0, x1, y1 = corners
    mask = np.zeros((height, width), dtype=bool)
    mask[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
    return rle.encode(mask) if mask.any() else None


def box_region(
    box: Any, width: int, height: int, category: str, scenario: Scenario | None = None
) -> Region | str:
    """Make a region of a box ``[x, y, w, h]`` in pixels, or why there is none."""
    numbers = finite(box, 4)
    if numbers is None or max(abs(n) for n in numbers) > 4 * max(width, height):
        return "absurd_box"
    x, y, w, h = numbers
    mask = rectangle([int(x), int(y), math.ceil(x + w), math.ceil(y + h)], width, height)
    if w <= 0 or h <= 0 or mask is None:
        return "box_without_area"
    return Region(category, mask, numbers, "box", scenario)


def fraction_region(
    corners: Any, width: int, height: int, category: str
) -> tuple[Region | str, bool]:
    """Make a region of corners ``[x0, y0, x1, y1]`` in fractions of the frame, or say why not.

    Fractions are clipped to the frame and their pixels cut off, not rounded, as VGG-SS's own
    evaluation does; the box is kept as stated, so that its pixels on another grid can be told.

    Returns:
        The region or the reason, and whether it had to be clipped.
    """
    numbers = finite(corners, 4)
    if numbers is None or max(abs(n) for n in numbers) > 2:
        return "absurd_box", False
    clipped = [min(1.0, max(0.0, n)) for n in numbers]
    sizes = (width, height, width, height)
    x0, y0, x1, y1 = (int(n * size) for n, size in zip(clipped, sizes, strict=True))
    mask = rectangle([x0, y0, x1, y1], width, height)
    if mask is None:
        return "box_without_area", clipped != numbers
    left, top, right, bottom = (n * size for n, size in zip(clipped, sizes, strict=True))
    box = [left, top, right - left, bottom - top]
    return Region(category, mask, box, "box"), clipped != numbers


def mask_region(inside: NDArray[np.bool_], category: str) -> Region:
    """Make a region of a mask that somebody drew."""
    mask = rle.encode(inside)
    return Region(category, mask, rle.bbox(mask), "annotator")


def youtube(video_id: str) -> str:
    """Return the address of a video; empty when its id is not YouTube's."""
    return f"https://www.youtube.com/watch?v={video_id}" if len(video_id) == 11 else ""


def finite(value: Any, length: int) -> list[float] | None:
    """Return ``length`` finite numbers, or none."""
    if not isinstance(value, list | tuple) or len(value) != length:
        return None
    if any(isinstance(n, bool) or not isinstance(n, int | float) for n in value):
        return None
    try:
        numbers = [float(n) for n in value]
    except OverflowError:  # an integer that no float can hold
        return None
    return numbers if all(math.isfinite(n) for n in numbers) else None


def polygons_mask(polygons: Any, width: int, height: int) -> Rle | str:
    """Return the mask of a list of flat polygons, or why there is none.

    Polygons are filled and united, as COCO's tools do, with one exception: a polygon that lies
    within the others and runs the other way round is a hole (OpenCV's contours come so).
    """
    if not isinstance(polygons, list):
        return "bad_polygons"
    rings: list[list[float]] = []
    for polygon in polygons:
        even = isinstance(polygon, list) and len(polygon) % 2 == 0
        numbers = finite(polygon, len(polygon)) if even else None
        if numbers is None or max(map(abs, numbers), default=0) > 4 * max(width, height):
            return "bad_polygons"
        if len(numbers) >= 6:
            rings.append(numbers)
    if not rings:
        return "no_polygon"
    areas = [_signed_area(ring) for ring in rings]
    way = max(areas, key=abs) > 0
    try:
        solid = [ring for ring, area in zip(rings, areas, strict=True) if (area > 0) == way]
        against = [ring for ring, area in zip(rings, areas, strict=True) if (area > 0) != way]
        merged = rle.from_polygons(solid, height, width)
        if against:
            inside = rle.decode(merged)
            for ring in against:
                part = rle.decode(rle.from_polygons([ring], height, width))
                within = not (part & ~inside).any()
                inside = inside & ~part if within else inside | part
            merged = rle.encode(inside)
    except InputError:
        return "bad_polygons"
    return merged if rle.area(merged) else "mask_without_area"


def _signed_area(ring: Sequence[float]) -> float:
    x, y = np.array(ring[::2]), np.array(ring[1::2])
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
