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
    rectangle,
)
from exports.importers.tree import Tree, sounds_by_stem
from exports.release.image_bytes import image_size
from pipeline.errors import AvatarBuildError
from pipeline.records import rle
from pipeline.release.video_lists import safe_id

_VGGSS_NAME = re.compile(r"([A-Za-z0-9_-]{11})_(\d{1,6})")
_VGGSS_FRAME, _VGGSS_FRAME_S = 125, 5.0
"""VGG-SS annotates frame 125 of the clip at 25 frames a second."""
_FLICKR_PIXELS = 256
_IS3_PIXELS = 224
_SECONDS = 10.0
"""Nominal length of a sound."""


def read_vggss(tree: Tree, notes: Notes) -> Iterator[ReadFrame]:
    """Read ``vggss.json``: a list of ``{file, class, bbox}``, ``[x0, y0, x1, y1]`` as fractions."""
    (name,) = _named(tree, "vggss.json")
    images, clips = tree.by_stem(".jpg", ".jpeg", ".png"), tree.by_stem(".mp4")
    sounds = sounds_by_stem(tree)
    seen: set[str] = set()
    for number, row in enumerate(_list(tree, name)):
        file = row.get("file") if isinstance(row, dict) else None
        match = _VGGSS_NAME.fullmatch(file) if isinstance(file, str) else None
        # A file listed twice would count twice; the first is kept.
        if match is None or file in seen:
            notes.add("frame", f"{name}#{number}", "twice" if match else "no_video_id")
            continue
        seen.add(str(file))
        image = images.get(str(file))
        width, height = _frame_size(tree, image)
        category = str(row.get("class") or "unknown")
        regions = []
        boxes = row.get("bbox")
        for place, box in enumerate(boxes if isinstance(boxes, list) else []):
            region, clipped = fraction_region(box, width, height, category)
            if clipped:
                notes.add("box", f"{file}#{place}", "clipped_to_the_frame", str(file))
            if isinstance(region, str):
                notes.add("box", f"{file}#{place}", region, str(file))
            else:
                regions.append(region)
        if not regions:
            notes.add("frame", str(file), "no_usable_box")
            continue
        start_s = float(match[2])
        yield ReadFrame(
            video_id=match[1],
            start_s=start_s,
            end_s=start_s + 10,
            index=_VGGSS_FRAME,
            time_s=start_s + _VGGSS_FRAME_S,
            width=width,
            height=height,
            regions=regions,
            image=image,
            clip=clips.get(str(file)),
            sound=sounds.get(str(file)),
            label=category,
            split="test",
            source_url=f"https://www.youtube.com/watch?v={match[1]}",
        )
    yield from _silent_pairs(tree, notes, _VGGSS_FRAME, _VGGSS_FRAME_S)


def read_flickr(tree: Tree, notes: Notes) -> Iterator[ReadFrame]:
    """Read one XML per sample with the boxes of three annotators, in 256-pixel units.

    Every box is an instance of its own, so no vote is lost: the usual consensus map is the sum of
    a frame's masks over 2, capped at 1.
    """
    images, clips = tree.by_stem(".jpg", ".jpeg", ".png"), tree.by_stem(".mp4")
    sounds = sounds_by_stem(tree)
    for name in tree.ending(".xml"):
        stem = PurePosixPath(name).stem
        boxes = _flickr_boxes(tree.read(name))
        if boxes is None:
            notes.add("frame", name, "bad_xml")
            continue
        regions = []
        image = images.get(stem)
        width, height = _frame_size(tree, image)
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
            regions.append(Region("unknown", None, mask, [x0, y0, x1 - x0, y1 - y0], "box"))
        if not regions:
            notes.add("frame", name, "no_usable_box")
            continue
        yield _single(
            safe_id(stem), width, height, regions, image, clips.get(stem), sounds.get(stem)
        )
    yield from _silent_pairs(tree, notes, 0, 0.0)


def read_is3(tree: Tree, notes: Notes) -> Iterator[ReadFrame]:
    """Read ``IS3_annotation.json``: ``{image, audio, gt_box}``, boxes ``[x0, y0, x1, y1]`` of 224.

    Two sounds go with each image, so each entry is a frame of its own. Masks are taken from
    ``gt_segmentation/`` where they are.
    """
    (name,) = _named(tree, "is3_annotation.json")
    masks = {
        PurePosixPath(file).stem: file
        for file in tree.ending(".png")
        if "gt_segmentation" in PurePosixPath(file).parts
    }
    images = {
        PurePosixPath(file).stem: file
        for file in tree.ending(".jpg", ".jpeg", ".png")
        if "images" in PurePosixPath(file).parts
    }
    sounds = sounds_by_stem(tree)
    for number, row in enumerate(_list(tree, name)):
        if not isinstance(row, dict) or not isinstance(row.get("image"), str):
            notes.add("frame", f"{name}#{number}", "no_image_name")
            continue
        stem = PurePosixPath(row["image"]).stem
        sound = PurePosixPath(str(row.get("audio") or stem)).stem
        category = str(row.get("category") or row.get("class") or _is3_category(sound))
        # One image may serve both of its sounds.
        image = images.get(stem) or images.get(stem.rpartition("_")[0])
        width, height = _frame_size(tree, image)
        boxed = _is3_box(row.get("gt_box"), width, height, category)
        if stem in masks:
            region = _mask_region(tree.read(masks[stem]), width, height, category)
            if not isinstance(region, str) and not isinstance(boxed, str):
                region = replace(region, box=boxed.box)
        else:
            region = boxed
        if isinstance(region, str):
            notes.add("frame", f"{stem}/{sound}", region)
            continue
        file = sounds.get(sound)
        frame = _single(safe_id(sound), width, height, [region], image, None, file)
        # What the sounds of one image share is scored together.
        yield replace(frame, label=sound.rpartition("_")[0])


def _is3_box(corners: Any, width: int, height: int, category: str) -> Region | str:
    numbers = finite(corners, 4)
    scaled = [n / _IS3_PIXELS for n in numbers] if numbers else None
    return fraction_region(scaled, width, height, category)[0]


def _is3_category(sound: str) -> str:
    """Return the part of ``<a>_<b>_<number>_<which>`` that sounds.

    >>> _is3_category("dog_train_17_train"), _is3_category("dog_train_17_1")
    ('train', 'dog')
    """
    parts = sound.split("_")
    if len(parts) == 4 and parts[3] in ("1", "2"):
        return parts[int(parts[3]) - 1]
    return parts[-1] or "unknown"


def _single(
    video_id: str,
    width: int,
    height: int,
    regions: list[Region],
    image: str | None,
    clip: str | None,
    sound: str | None,
) -> ReadFrame:
    return ReadFrame(
        video_id, 0.0, _SECONDS, 0, 0.0, width, height, regions,
        image=image, clip=clip, sound=sound, split="test",
    )  # fmt: skip


def _silent_pairs(tree: Tree, notes: Notes, index: int, time_s: float) -> Iterator[ReadFrame]:
    """Read ``video,audio,label``: one sample's picture with another's sound, off-screen."""
    images, clips = tree.by_stem(".jpg", ".jpeg", ".png"), tree.by_stem(".mp4")
    sounds = {**clips, **sounds_by_stem(tree)}
    for name in tree.ending("_plus_silent.csv"):
        text = tree.read(name).decode("utf-8", errors="replace")
        for number, row in enumerate(csv.DictReader(io.StringIO(text))):
            video, audio = (str(row.get(key) or "") for key in ("video", "audio"))
            if not video or not audio or row.get("label") != "non-sounding":
                notes.add("frame", f"{name}#{number}", "no_pair")
                continue
            width, height = _frame_size(tree, images.get(video))
            yield ReadFrame(
                safe_id(f"{video}--{audio}"), 0.0, _SECONDS, index, time_s, width, height, (),
                off_screen=True, image=images.get(video), clip=clips.get(video),
                sound=sounds.get(audio), split="test",
            )  # fmt: skip


def _mask_region(data: bytes, width: int, height: int, category: str) -> Region | str:
    grey = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None or grey.shape != (height, width):
        return "mask_of_another_size"
    if not grey.any():
        return "no_source"
    mask = rle.encode(grey > 0)
    return Region(category, None, mask, rle.bbox(mask), "annotator")


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


def _list(tree: Tree, name: str) -> list[Any]:
    try:
        rows = json.loads(tree.read(name))
    except ValueError:
        rows = None
    if not isinstance(rows, list):
        raise AvatarBuildError(f"{name}: not a JSON list of annotations.")
    return rows


def _named(tree: Tree, file: str) -> list[str]:
    return [name for name in tree.names if PurePosixPath(name).name.lower() == file][:1]
