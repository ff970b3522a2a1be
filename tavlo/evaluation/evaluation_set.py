"""The labelled frames of a release, as evaluation sees them.

Reads ``annotations/instances.json`` and ``subsets/cross_event.txt`` alone, so that any release in
this form, ours or an imported one, with media or without, can be scored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.records import rle
from pipeline.records.schema import Rle, Scenario
from pipeline.release.layout import released_digests

TruthKind = Literal["mask", "box"]
_CLIP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FAR_PX = 1e6
"""Further off than any image reaches."""
Pixels = NDArray[np.bool_]


@dataclass(frozen=True)
class Labelled:
    """One sounding object of a frame."""

    scenario: str | None
    """None where an imported release does not state it."""
    category: str
    bbox: Sequence[float]
    """``[x, y, w, h]`` in pixels of the frame."""
    mask: Rle
    stated: Sequence[float] = ()
    """The box as annotated, parts of pixels and all; ``bbox`` where nothing is stated."""
    drawn: bool = True
    """Whether the mask was drawn; else it is the box, filled."""


@dataclass(frozen=True)
class LabelledFrame:
    """One labelled frame; without instances when its sound is off screen."""

    video_id: str
    clip_id: str
    frame_id: str
    frame_index: int
    size_hw: tuple[int, int]
    off_screen: bool
    instances: tuple[Labelled, ...]
    time_s: float = 0.0
    """When it is shown, seconds from the clip's start."""
    image_file: str = ""
    """Its image in the release."""
    clip_file: str = ""
    """Its clip in the release."""
    clip_s: float = 0.0
    """Seconds of the clip; 0 where it is not told."""
    label: str = ""
    """The video's, as its list has it."""
    split: str = ""
    """Likewise."""
    image_sha256: str = ""
    """Of its image; empty where none is stated, or images were restored and may look alike."""

    def truth(
        self, grid_hw: tuple[int, int], kind: TruthKind = "mask", scenario: str | None = None
    ) -> Pixels:
        """The pixels that sound, on the heatmap's grid.

        Args:
            grid_hw: rows and columns.
            kind: the instances' masks, or their boxes filled.
            scenario: only instances of it; none takes all.

        Returns:
            The union; a grid pixel belongs to it when at least half of it does.
        """
        height, width = self.size_hw
        union = np.zeros((height, width), np.uint8)
        for instance in self.instances:
            if scenario is not None and instance.scenario != scenario:
                continue
            if kind == "mask":
                union |= rle.decode(instance.mask)
            else:
                x, y, w, h = instance.bbox
                union[round(y) : round(y + h), round(x) : round(x + w)] = 1
        rows, columns = grid_hw
        share = cv2.resize(union.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        pixels: Pixels = np.asarray(share) >= 0.5
        return pixels

    def boxes(self, grid_hw: tuple[int, int]) -> list[Pixels]:
        """Each instance's box on another grid, as the evaluators of boxes draw it.

        Corners are scaled and cut off to whole pixels, the last ones left out.
        """
        rows, columns = grid_hw
        drawn = []
        for instance in self.instances:
            x, y, w, h = instance.stated
            # A box is kept as fraction times size; what is lost on the way back is far below this.
            left, right = (int(columns * at / self.size_hw[1] + 1e-6) for at in (x, x + w))
            top, bottom = (int(rows * at / self.size_hw[0] + 1e-6) for at in (y, y + h))
            pixels: Pixels = np.zeros(grid_hw, bool)
            pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
            drawn.append(pixels)
        return drawn


@dataclass(frozen=True)
class EvaluationSet:
    """What a release asks of a model."""

    name: str
    verified: bool
    frames: tuple[LabelledFrame, ...]
    """In the order of their ids."""
    cross_event: frozenset[str]
    """Videos of the cross-event subset."""
    folder: Path = Path()
    """Where it lies, for its media."""
    imported_from: str = ""
    """What the release was made of; empty for our own."""
    released: dict[str, str] = field(default_factory=dict, repr=False)
    """Digests of its files as they were released."""


def read_release(folder: Path) -> EvaluationSet:
    """Read a release's labelled frames.

    Raises:
        UsageError: there is no release.
        AvatarBuildError: it is not of this form, not as it was released, or nothing in it is
            labelled.
    """
    path = folder / "annotations" / "instances.json"
    released = released_digests(folder)
    try:
        document = json.loads(_as_released(folder, "annotations/instances.json", released))
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: no release here: {path.name} is missing.") from error
    except (ValueError, RecursionError) as error:
        raise AvatarBuildError(f"{path}: not JSON: {error}") from error
    try:
        frames = _frames(document)
        version, verified = document["info"]["version"], bool(document["info"]["verified"])
        imported_from = str(document["info"].get("imported_from") or "")
    except (KeyError, TypeError, AttributeError) as error:
        raise AvatarBuildError(
            f"{path}: not a release of avatar-build: {error!r} is missing or of another kind."
        ) from error
    if not frames:
        raise AvatarBuildError(f"{path}: no labelled frame to evaluate on.")
    listed = "subsets/cross_event.txt"
    here = (folder / listed).exists() or listed in released
    changing = _as_released(folder, listed, released).split() if here else []
    name, cross_event = str(version), frozenset(changing)
    return EvaluationSet(name, verified, frames, cross_event, folder, imported_from, released)


def _as_released(folder: Path, name: str, released: dict[str, str]) -> str:
    """The text of a file of a release; a changed ground truth would be scored without a word."""
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError as error:
        if name in released:
            raise AvatarBuildError(
                f"{folder / name}: is missing, and {folder.name}/CHECKSUMS.sha256 lists it."
                " Get the release again."
            ) from error
        raise
    if released.get(name, digest := hashlib.sha256(data).hexdigest()) != digest:
        raise AvatarBuildError(
            f"{folder / name}: not the file that was released, by CHECKSUMS.sha256. Get the release"
            " again; one that was changed on purpose needs a version and checksums of its own."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AvatarBuildError(f"{folder / name}: not a text in UTF-8.") from error


def _frames(document: dict[str, Any]) -> tuple[LabelledFrame, ...]:
    instances: dict[int, list[Labelled]] = {}
    videos = {row["video_id"]: row for row in document.get("videos", [])}
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    for image in document["images"]:
        # It becomes a file name where predictions are looked up; the others are read.
        if not _CLIP_ID.fullmatch(image["clip_id"]):
            raise AvatarBuildError(f"image {image['id']}: {image['clip_id'][:60]!r} is no clip id.")
        for name in (image.get("file_name", ""), image.get("clip_file", "")):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise AvatarBuildError(f"image {image['id']}: {name[:60]!r} lies outside.")
    for row in document["annotations"]:
        mask = Rle.model_validate(row["segmentation"])
        if tuple(mask.size) != sizes[row["image_id"]]:
            raise AvatarBuildError(
                f"annotation {row['id']}: its mask is {mask.size}, its image"
                f" {sizes[row['image_id']]} (rows, columns)."
            )
        stated = row.get("annotated_bbox") or row["bbox"]
        for box in (row["bbox"], stated):
            if len(box) != 4 or not all(abs(value) <= _FAR_PX for value in box):
                raise AvatarBuildError(f"annotation {row['id']}: {box} is no box.")
        if row["scenario"] not in (None, *get_args(Scenario)):
            raise AvatarBuildError(f"annotation {row['id']}: {row['scenario']!r} is no scenario.")
        drawn = row.get("mask_source") != "box"
        found = Labelled(
            row["scenario"], row["audio_visual_category"], row["bbox"], mask, stated, drawn
        )
        instances.setdefault(row["image_id"], []).append(found)
    shipped = bool(document["info"].get("media"))
    frames = [
        LabelledFrame(
            video_id=image["video_id"],
            clip_id=image["clip_id"],
            frame_id=image["frame_id"],
            frame_index=image["frame_index"],
            size_hw=(image["height"], image["width"]),
            off_screen=bool(image["off_screen"]),
            instances=tuple(instances.get(image["id"], ())),
            time_s=image.get("time_s", 0.0) - image.get("clip_start_s", 0.0),
            image_file=image.get("file_name", ""),
            clip_file=image.get("clip_file", ""),
            clip_s=image.get("clip_end_s", 0.0) - image.get("clip_start_s", 0.0),
            label=str(videos.get(image["video_id"], {}).get("label", "")),
            split=str(videos.get(image["video_id"], {}).get("split", "")),
            image_sha256=str(image.get("image_sha256", "")) if shipped else "",
        )
        for image in document["images"]
    ]
    for frame in frames:
        if frame.off_screen == bool(frame.instances):
            has = "has annotations" if frame.instances else "has none"
            state = "is" if frame.off_screen else "is not"
            raise AvatarBuildError(f"frame {frame.frame_id}: {state} off-screen and {has}.")
    for table, key in (("images", "id"), ("images", "frame_id"), ("annotations", "id")):
        for value, times in Counter(row[key] for row in document[table]).items():
            if times > 1:
                raise AvatarBuildError(f"{table}: {key} {value!r} is there {times} times.")
    return tuple(sorted(frames, key=lambda frame: frame.frame_id))
