"""The AVATAR authors' own layout, as downloaded.

``metadata/<clip>/<frame>.json`` with its image beside it and ``video/<clip>.mp4``, below any
folders and inside ZIP files. Loaders of the official files show: keys may be missing, an off-screen
frame is marked by an annotation's ``task``, several annotations may stand in a frame in any order,
and the spelling of the tasks is not published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from exports.importers.frames import (
    Notes,
    ReadFrame,
    Region,
    box_region,
    finite,
    polygons_mask,
    youtube,
)
from exports.importers.tree import PICTURES, Tree
from exports.release.image_bytes import image_size
from pipeline.records import rle
from pipeline.records.schema import Scenario
from pipeline.release.document import VIDEO_ID

_FRAME = re.compile(rf"(?:.*/)?({VIDEO_ID})_(\d{{5,8}})/(\d{{5,8}})\.json")
_CLIP_S = 10.0
_NOMINAL_FPS = 25.0
_TASKS: dict[str, Scenario] = {
    "single": "Single-sound",
    "singlesound": "Single-sound",
    "mixed": "Mixed-sound",
    "mixedsound": "Mixed-sound",
    "multi": "Multi-entity",
    "multientity": "Multi-entity",
    "multientities": "Multi-entity",
}
_SIZE = 16_384


def matches(tree: Tree) -> bool:
    """Say whether any file lies where this layout has its frames."""
    return any(_FRAME.fullmatch(name) for name in tree.names)


def read(tree: Tree, notes: Notes) -> Iterator[ReadFrame]:
    """Yield every frame that can be read; what cannot be is noted.

    The time of a frame is its index over 25 frames a second: the layout does not tell the rate.
    """
    clips = tree.by_stem(".mp4")
    images = {name.rpartition(".")[0]: name for name in tree.ending(*PICTURES)}
    for name in tree.names:
        match = _FRAME.fullmatch(name)
        if match is None:
            continue
        video_id, start, index = match.groups()
        image = images.get(name.removesuffix(".json"))
        try:
            content = json.loads(tree.read(name))
        except (ValueError, RecursionError):
            notes.add("frame", name, "not_json")
            continue
        size = _size(content, tree, image)
        if size is None:
            notes.add("frame", name, "no_size")
            continue
        regions, off_screen, category = _annotations(content, size, name, notes)
        if not regions and not off_screen:
            notes.add("frame", name, "no_usable_annotation")
            continue
        start_s = float(start)  # a clip's name has whole seconds
        yield ReadFrame(
            video_id=video_id,
            clip_start_s=start_s,
            clip_end_s=start_s + _CLIP_S,
            frame_index=int(index),
            time_s=start_s + int(index) / _NOMINAL_FPS,
            width=size[0],
            height=size[1],
            regions=regions,
            off_screen=off_screen,
            off_screen_category=category,
            image=image,
            clip=clips.get(PurePosixPath(name).parent.name),
            source_url=youtube(video_id),
        )


def _size(content: Any, tree: Tree, image: str | None) -> tuple[int, int] | None:
    """Return the size as stated; the image's where nothing is."""
    if not isinstance(content, dict):
        return None
    stated = finite([content.get("original_width"), content.get("original_height")], 2)
    if stated is not None:
        width, height = stated
        if all(n == int(n) and 0 < n <= _SIZE for n in stated):
            return int(width), int(height)
        return None
    return image_size(tree.read(image)) if image is not None else None


def _annotations(
    content: dict[str, Any], size: tuple[int, int], name: str, notes: Notes
) -> tuple[list[Region], bool, str | None]:
    """Return the frame's regions; or that it is off-screen, and what sounds then."""
    regions: list[Region] = []
    unseen: list[str | None] = []
    found = content.get("annotations")
    for number, annotation in enumerate(found if isinstance(found, list) else []):
        where = f"{name}#{number}"
        if not isinstance(annotation, dict):
            notes.add("annotation", where, "not_an_object", name)
            continue
        task = re.sub(r"[^a-z]", "", str(annotation.get("task") or "").lower())
        category = annotation.get("audio_visual_category")
        category = category if isinstance(category, str) else ""
        if task == "offscreen":
            unseen.append(category or None)
            continue
        scenario = _TASKS.get(task)
        if scenario is None:
            notes.add("task", where, "unknown_task_kept_without_scenario", name)
        region = _region(annotation, size, category or "unknown", scenario)
        if isinstance(region, str):
            notes.add("annotation", where, region, name)
        else:
            regions.append(region)
    if regions and unseen:
        notes.add("annotation", name, "off_screen_beside_visible")
    return regions, bool(unseen) and not regions, unseen[0] if unseen and not regions else None


def _region(
    annotation: dict[str, Any],
    size: tuple[int, int],
    category: str,
    scenario: Scenario | None,
) -> Region | str:
    """Make a region of the polygons; of the box where there are none."""
    width, height = size
    box, polygons = annotation.get("bbox"), annotation.get("segmentation")
    if polygons:
        mask = polygons_mask(polygons, width, height)
        if isinstance(mask, str):
            return mask
        stated = finite(box, 4) or [float(n) for n in rle.bbox(mask)]
        return Region(category, mask, stated, "annotator", scenario)
    if box:
        return box_region(box, width, height, category, scenario)
    return "no_geometry"
