"""Benchmarks of boxes on single frames: VGG-SS, Flickr-SoundNet and IS3.

The first two may come with the pairs of their extended forms, ``*_plus_silent.csv``: a picture of
one sample with the sound of another, whose source is not visible.

None states a scenario, and only IS3 has masks: a box becomes a filled rectangle that says so
(``mask_source`` is ``box``). Without images, frames are 224 pixels square, the size at which these
sets are evaluated. Sounds may be files of their own beside or in place of clips.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from exports.importers.frames import (
    NOMINAL,
    Notes,
    ReadFrame,
    Region,
    finite,
    fraction_region,
    mask_region,
    rectangle,
    youtube,
)
from exports.importers.tree import PICTURES, Tree
from exports.release.image_bytes import image_size
from pipeline.errors import AvatarBuildError
from pipeline.release.video_lists import safe_id

_VGGSS_NAME = re.compile(r"([A-Za-z0-9_-]{11})_(\d{1,6})")
_VGGSS_FRAME, _VGGSS_FRAME_S = 125, 5.0
"""VGG-SS annotates frame 125 of the clip at 25 frames a second."""
_FLICKR_PIXELS = 256
_IS3_PIXELS = 224


def read_vggss(tree: Tree, notes: Notes) -> Iterator[ReadFrame]:
    """Read ``vggss.json``: a list of ``{file, class, bbox}``, ``[x0, y0, x1, y1]`` as fractions."""
    seen: set[str] = set()
    for where, row in _entries(tree, "vggss.json"):
        file = str(row.get("file")) if isinstance(row, dict) else ""
        match = _VGGSS_NAME.fullmatch(file)
        # A file listed twice would count twice; the first is kept.
        if match is None or file in seen:
            notes.add("frame", where, "twice" if match else "no_video_id")
            continue
        seen.add(file)
        media = tree.beside(file)
        width, height = _frame_size(tree, media["image"])
        category = str(row.get("class") or "unknown")
        regions = []
        boxes = row.get("bbox")
        for place, box in enumerate(boxes if isinstance(boxes, list) else []):
            region, clipped = fraction_region(box, width, height, category)
            if clipped:
                notes.add("box", f"{file}#{place}", "clipped_to_the_frame", file)
            if isinstance(region, str):
                notes.add("box", f"{file}#{place}", region, file)
            else:
                regions.append(region)
        if not regions:
            notes.add("frame", file, "no_usable_box")
            continue
        start_s = float(match[2])
        yield ReadFrame(
            match[1],
            width,
            height,
            regions,
            clip_start_s=start_s,
            clip_end_s=start_s + 10,
            frame_index=_VGGSS_FRAME,
            time_s=start_s + _VGGSS_FRAME_S,
            label=category,
            split="test",
            source_url=youtube(match[1]),
            **media,
        )
    yield from _silent_pairs(tree, notes, _VGGSS_FRAME, _VGGSS_FRAME_S)


def read_flickr(tree: Tree, notes: Notes) -> Iterator[ReadFrame]:
    """Read one XML per sample with the boxes of three annotators, in 256-pixel units.

    Every box is an instance of its own, so no vote is lost: the usual consensus map is the sum of
    a frame's masks over 2, capped at 1.
    """
    for name in tree.ending(".xml"):
        stem = PurePosixPath(name).stem
        boxes = _flickr_boxes(tree.read(name))
        if boxes is None:
            notes.add("frame", name, "bad_xml")
            continue
        regions = []
        media = tree.beside(stem)
        width, height = _frame_size(tree, media["image"])
        for place, corners in enumerate(boxes):
            # Units are 256ths of the frame, whatever its size.
            x0, y0, x1, y1 = (
                size * n / _FLICKR_PIXELS
                for n, size in zip(corners, (width, height, width, height), strict=True)
            )
            mask = rectangle([int(x0), int(y0), int(x1), int(y1)], width, height)
            if mask is None:
                notes.add("box", f"{stem}#{place}", "box_without_area", stem)
                continue
            regions.append(Region("unknown", mask, [x0, y0, x1 - x0, y1 - y0], "box"))
        if not regions:
            notes.add("frame", name, "no_usable_box")
            continue
        yield ReadFrame(safe_id(stem), width, height, regions, split="test", **media)
    yield from _silent_pairs(tree, notes, 0, 0.0)


def read_is3(tree: Tree, notes: Notes) -> Iterator[ReadFrame]:
    """Read ``IS3_annotation.json``: ``{image, audio, gt_box}``, boxes ``[x0, y0, x1, y1]`` of 224.

    Two sounds go with each image, so each entry is a frame of its own. Masks are taken from
    ``gt_segmentation/`` where they are.
    """
    masks = tree.by_stem(".png", folder="gt_segmentation")
    images = tree.by_stem(*PICTURES, folder="images")
    for where, row in _entries(tree, "is3_annotation.json"):
        if not isinstance(row, dict) or not isinstance(row.get("image"), str):
            notes.add("frame", where, "no_image_name")
            continue
        stem = PurePosixPath(row["image"]).stem
        sound = PurePosixPath(str(row.get("audio") or stem)).stem
        category = str(row.get("category") or row.get("class") or _is3_category(sound))
        # One image may serve both of its sounds.
        image = images.get(stem) or images.get(stem.rpartition("_")[0])
        width, height = _frame_size(tree, image)
        corners = finite(row.get("gt_box"), 4)
        scaled = [n / _IS3_PIXELS for n in corners] if corners else None
        boxed, _ = fraction_region(scaled, width, height, category)
        if stem in masks:
            if rival := tree.rival(masks[stem]):
                notes.add("mask", rival, "another_of_its_name_was_taken")
            region = _is3_mask(tree.read(masks[stem]), width, height, category)
            if not isinstance(region, str) and not isinstance(boxed, str):
                region = replace(region, box=boxed.box)
        else:
            region = boxed
        if isinstance(region, str):
            notes.add("frame", f"{stem}/{sound}", region)
            continue
        yield ReadFrame(
            safe_id(sound),
            width,
            height,
            [region],
            image=image,
            sound=tree.beside(sound)["sound"],
            label=sound.rpartition("_")[0],  # what the sounds of one image share: scored together
            split="test",
        )


def _is3_category(sound: str) -> str:
    """Return the part of ``<a>_<b>_<number>_<which>`` that sounds.

    >>> _is3_category("dog_train_17_train"), _is3_category("dog_train_17_1")
    ('train', 'dog')
    """
    parts = sound.split("_")
    if len(parts) == 4 and parts[3] in ("1", "2"):
        return parts[int(parts[3]) - 1]
    return parts[-1] or "unknown"


def _silent_pairs(tree: Tree, notes: Notes, index: int, time_s: float) -> Iterator[ReadFrame]:
    """Read ``video,audio,label``: one sample's picture with another's sound, off-screen."""
    for name in tree.ending("_plus_silent.csv"):
        text = tree.read(name).decode("utf-8", errors="replace")
        for number, row in enumerate(csv.DictReader(io.StringIO(text))):
            video, audio = (str(row.get(key) or "") for key in ("video", "audio"))
            if not video or not audio or row.get("label") != "non-sounding":
                notes.add("frame", f"{name}#{number}", "no_pair")
                continue
            seen, heard = tree.beside(video), tree.beside(audio)
            width, height = _frame_size(tree, seen["image"])
            yield ReadFrame(
                safe_id(f"{video}--{audio}"),
                width,
                height,
                off_screen=True,
                frame_index=index,
                time_s=time_s,
                split="test",
                **{**seen, "sound": heard["sound"] or heard["clip"]},
            )


def _is3_mask(data: bytes, width: int, height: int, category: str) -> Region | str:
    grey = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None or grey.shape != (height, width):
        return "mask_of_another_size"
    if not grey.any():
        return "no_source"
    return mask_region(grey > 0, category)


def _frame_size(tree: Tree, image: str | None) -> tuple[int, int]:
    size = image_size(tree.read(image)) if image is not None else None
    return size or (NOMINAL, NOMINAL)


def _flickr_boxes(data: bytes) -> list[list[float]] | None:
    """Return every box of every annotator; none when the file is not such XML.

    The first child of a box is its number; the next four are the corners.
    """
    if b"<!" in data.replace(b"<!--", b""):
        return None  # a document type may define entities that grow without bound
    try:
        root = ElementTree.fromstring(data)
        return [
            [float(child.text or "") for child in list(box)[1:5]]
            for annotator in root
            for box in annotator.iter("bbox")
            if len(box) >= 5
        ]
    except (ElementTree.ParseError, ValueError):
        return None


def _entries(tree: Tree, file: str) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a file that is a JSON list, and where each stands."""
    name = tree.named(file)
    assert name is not None
    try:
        rows = json.loads(tree.read(name))
    except ValueError:
        rows = None
    if not isinstance(rows, list):
        raise AvatarBuildError(f"{name}: not a JSON list of annotations.")
    for number, row in enumerate(rows):
        yield f"{name}#{number}", row
