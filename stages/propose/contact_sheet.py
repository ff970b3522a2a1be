"""Pictures to judge boxes and masks by: one sheet per clip, its frames in order of time.

Boxes that may sound are drawn thick and in their category's colour, the others thin and grey; a
mask is tinted and outlined. Sheets lie in the workspace under ``sheets/<stage>/<clip id>.jpg``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.pictures import category_color, draw_outline, encode_image
from pipeline.records import rle
from pipeline.records.schema import Frame, Instance, Mask, Proposal
from pipeline.workspace.workspace import Workspace
from stages.backends.frame_image import read_frame_image
from stages.backends.interfaces import Image

_COLUMNS = 3
_TILE_WIDTH = 640
_CAPTION_PX = 24
_QUALITY = 88
_GREY = (150, 150, 150)
_LIGHTNESS = 0.57


@dataclass(frozen=True)
class Thing:
    """Something drawn over a frame."""

    bbox: Sequence[float]
    """``[x, y, w, h]`` in pixels of the frame."""
    text: str
    category: str
    """Decides the colour; empty is grey and thin."""
    mask: NDArray[np.bool_] | None = None
    """``(height, width)`` of the frame."""


def proposal_sheets(workspace: Workspace) -> list[str]:
    """Write a sheet per clip with the detector's boxes: class, score, and what is heard of it.

    Returns:
        The sheets' names in the workspace.
    """
    things: dict[str, list[Thing]] = defaultdict(list)
    best = sorted(workspace.rows(Proposal), key=lambda row: (not row.audible, -row.detector_score))
    for row in best:
        heard = ", ".join(row.categories) if row.audible else ""
        text = f"{row.detector_class} {row.detector_score:.2f}"
        text += f" > {heard}" if heard else ", not heard"
        things[row.frame_id].append(Thing(row.bbox, text, heard))
    return _write(workspace, "propose", things)


def mask_sheets(workspace: Workspace) -> list[str]:
    """Write a sheet per clip with its masks; an instance without one shows its box alone.

    Returns:
        The sheets' names in the workspace.
    """
    masks = {row.instance_id: row for row in workspace.rows(Mask)}
    things: dict[str, list[Thing]] = defaultdict(list)
    for row in workspace.rows(Instance):
        if row.bbox:
            things[row.frame_id].append(_instance(row, masks.get(row.id)))
    return _write(workspace, "segment", things)


def _instance(row: Instance, mask: Mask | None) -> Thing:
    name = f"{row.audio_visual_category}, {row.scenario}"
    if mask is None:
        return Thing(row.bbox, f"{name}, no mask", "")
    guess = "" if mask.predicted_iou is None else f" {mask.predicted_iou:.2f}"
    return Thing(row.bbox, name + guess, row.audio_visual_category, rle.decode(mask.rle))


def _write(workspace: Workspace, stage: str, things: Mapping[str, Sequence[Thing]]) -> list[str]:
    clips: dict[str, list[Frame]] = defaultdict(list)
    for frame in workspace.rows(Frame):
        clips[frame.clip_id].append(frame)
    names = []
    for clip_id, frames in sorted(clips.items()):
        tiles = list(_tiles(workspace, sorted(frames, key=lambda one: one.time_s), things))
        names.append(f"sheets/{stage}/{clip_id}.jpg")
        workspace.storage.write(names[-1], encode_image(sheet(tiles), "jpg", _QUALITY))
    return names


def _tiles(
    workspace: Workspace, frames: Sequence[Frame], things: Mapping[str, Sequence[Thing]]
) -> Iterator[tuple[Image, str]]:
    for frame in frames:
        found = things.get(frame.id, ())
        try:
            image = draw(read_frame_image(workspace.storage, frame), found)
            note = f"{len(found)} found"
        except InputError as error:
            image = np.zeros((frame.height, frame.width, 3), dtype=np.uint8)
            note = error.kind
        yield image, f"{frame.id}  {frame.time_s:.2f} s  {note}"


def draw(image: Image, things: Sequence[Thing]) -> Image:
    """Return a copy of a frame with everything drawn on it.

    Args:
        image: RGB, ``(height, width, 3)``.
        things: the first are drawn last, so that they stay on top.
    """
    drawn: Image = np.ascontiguousarray(image).copy()
    for thing in reversed(things):
        color = category_color(thing.category, _LIGHTNESS) if thing.category else _GREY
        if thing.mask is not None:
            tinted = drawn[thing.mask] * 0.5 + np.array(color) * 0.5
            drawn[thing.mask] = tinted.astype(np.uint8)
            draw_outline(drawn, thing.mask, color)
        x, y, w, h = thing.bbox
        corners = (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1)
        cv2.rectangle(drawn, *corners, color, 2 if thing.category else 1)
        _label(drawn, thing.text, round(x), round(y), color)
    return drawn


def _label(image: Image, text: str, x: int, y: int, color: tuple[int, int, int]) -> None:
    """Write text on its own ground, inside of the picture."""
    text = text.encode("ascii", "replace").decode()  # all that OpenCV's font has
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    x = max(0, min(x, image.shape[1] - width - 4))
    y = max(height + 6, min(y, image.shape[0]))
    cv2.rectangle(image, (x, y - height - 6), (x + width + 4, y), color, -1)
    ink = (0, 0, 0) if sum(color) > 380 else (255, 255, 255)
    place = (x + 2, y - 4)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, 1, cv2.LINE_AA)


def sheet(tiles: Sequence[tuple[Image, str]]) -> Image:
    """Lay pictures with captions side by side, three in a row.

    Args:
        tiles: at least one; all are drawn as wide as each other.
    """
    made = [_captioned(image, caption) for image, caption in tiles]
    height = max(tile.shape[0] for tile in made)
    columns = min(_COLUMNS, len(made))
    rows = -(-len(made) // columns)
    whole: Image = np.zeros((rows * height, columns * _TILE_WIDTH, 3), dtype=np.uint8)
    for number, tile in enumerate(made):
        top, left = number // columns * height, number % columns * _TILE_WIDTH
        whole[top : top + len(tile), left : left + _TILE_WIDTH] = tile
    return whole


def _captioned(image: Image, caption: str) -> Image:
    height = max(1, round(image.shape[0] * _TILE_WIDTH / image.shape[1]))
    tile: Image = np.zeros((_CAPTION_PX + height, _TILE_WIDTH, 3), dtype=np.uint8)
    tile[_CAPTION_PX:] = cv2.resize(image, (_TILE_WIDTH, height), interpolation=cv2.INTER_AREA)
    text = caption.encode("ascii", "replace").decode()
    place = (4, _CAPTION_PX - 8)
    cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (230, 230, 230), 1, cv2.LINE_AA)
    return tile
