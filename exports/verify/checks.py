"""The laws that hold between the parts of a release: one function per kind of defect."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from exports.release.authors_layout import off_screen_annotation
from exports.release.card import LICENCES, UNVERIFIED, stated_rows
from exports.release.clip_checks import (
    clip_rows,
    differences_of_clip,
    sampling,
)
from exports.release.image_bytes import fingerprint, hash_distance, image_size
from exports.release.parquet import differences
from exports.release.statistics import count
from pipeline.errors import InputError, MediaError
from pipeline.media import Media
from pipeline.records import rle
from pipeline.records.schema import clip_id, frame_id
from pipeline.release import layout
from pipeline.release.document import (
    OF_THE_FRAME,
    UNVERIFIED_MARK,
    AnnotationRow,
    Document,
    ImageRow,
)
from pipeline.release.findings import Finding
from pipeline.release.scenario_rules import contradiction
from pipeline.templating import markdown_text
from pipeline.words import short

_TIMEOUT_S = 120.0
"""After which a clip is given up; one of 10 s takes less than a second."""

ALIKE_BITS = 10
"""The number of a fingerprint's 64 bits that another encode of the same frame may flip."""


def expected_files(document: Document) -> set[str]:
    """Return every file a release with this document has."""
    names = {
        layout.DOCUMENT,
        layout.CROSS_EVENT,
        layout.STATISTICS,
        layout.CARD,
        layout.CHECKSUMS,
        *layout.COPIES.values(),
        *layout.FIGURES.values(),
    }
    for image in document.images:
        names.add(layout.frame_json(image.file_name))
        if document.info.media:
            names |= {image.file_name, image.clip_file}
    return names


def restorable_files(document: Document) -> set[str]:
    """Return what may lie there besides: what ``fetch-media`` adds, and sounds of imported sets."""
    clips = {image.clip_file for image in document.images}
    ends = layout.SOUND_SUFFIXES if document.info.imported_from else ()
    sounds = {layout.sound_file(clip, end) for clip in clips for end in ends}
    if document.info.media:
        return sounds
    return sounds | clips | {image.file_name for image in document.images} | {layout.ATTRITION}


def check_ids(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that ids are there once and that a video belongs to one split."""
    for column, values in (
        ("licenses.id", (row.id for row in document.licenses)),
        ("categories.id", (row.id for row in document.categories)),
        ("categories.name", (row.name for row in document.categories)),
        ("images.id", (row.id for row in document.images)),
        ("images.frame_id", (row.frame_id for row in document.images)),
        ("images.file_name", (row.file_name for row in document.images)),
        ("annotations.id", (row.id for row in document.annotations)),
        ("annotations.instance_id", (row.instance_id for row in document.annotations)),
    ):
        for value in _twice(values):
            yield Finding("ids", column, f"{short(value)} is there twice")
    if not document.info.imported_from:
        for video in document.videos:
            if len(video.id) != 11:
                yield Finding("ids", f"video {short(video.id)}", "is not a YouTube id")
    splits: dict[str, set[str]] = {}
    for video in document.videos:
        splits.setdefault(video.id, set()).add(video.split)
    for video_id in _twice([row.id for row in document.videos]):
        if len(splits[video_id]) > 1:
            leak = f"is in the splits {short(sorted(splits[video_id]))}"
            yield Finding("split_leak", f"video {video_id}", leak)
        else:
            yield Finding("ids", "videos.id", f"{short(video_id)} is there twice")


def check_references(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that what one row says of another is what the other says of itself."""
    licenses = {row.id: row.name for row in document.licenses}
    videos = {row.id: row for row in document.videos}
    for video in document.videos:
        where = f"video {video.id}"
        yield from _same("references", where, "video_id", video.video_id, video.id)
        expected = licenses.get(video.license_id)
        yield from _same("references", where, "license", video.license, expected)
    for image in document.images:
        where = f"image {image.id}"
        owner = videos.get(image.video_id)
        if owner is None:
            yield Finding("references", where, f"video {image.video_id} is not in the release")
        else:
            yield from _same("references", where, "license", image.license, owner.license_id)
        yield from _names(image)
    used = {image.video_id for image in document.images}
    for video_id in sorted(set(videos) - used):
        yield Finding("references", f"video {video_id}", "has no labelled frame")
    images = _by_id(document)
    categories = {row.id: row.name for row in document.categories}
    tracks: list[tuple[int, int, int]] = []
    for row in document.annotations:
        where = f"annotation {row.id}"
        name = categories.get(row.category_id)
        yield from _same("references", where, "category", row.audio_visual_category, name)
        frame = images(row.image_id)
        if frame is None:
            yield Finding("references", where, f"image {row.image_id} is not in the release")
            continue
        for column in OF_THE_FRAME:
            expected = getattr(frame, column)
            yield from _same("references", where, column, getattr(row, column), expected)
        if row.track_id is not None:
            tracks.append((row.track_id, hash(row.clip_id), row.image_id))
    yield from _tracks(tracks)


def _tracks(seen: list[tuple[int, int, int]]) -> Iterator[Finding]:
    """Check that a track is of one clip, and has one annotation of a frame at the most.

    Args:
        seen: track, clip and image of each annotation that has one.
    """
    seen.sort()
    for (track, clip, image), (other, other_clip, other_image) in pairwise(seen):
        if track == other and clip != other_clip:
            yield Finding("references", f"track {track}", "is of two clips")
        elif track == other and image == other_image:
            yield Finding("references", f"track {track}", f"is twice in image {image}")


def _by_id(document: Document) -> Callable[[int], ImageRow | None]:
    """Return what finds an image by its id; in memory are their places."""
    places = {row.id: place for place, row in enumerate(document.images)}

    @lru_cache(maxsize=16)  # annotations follow their images
    def find(image_id: int) -> ImageRow | None:
        place = places.get(image_id)
        return None if place is None else document.images[place]

    return find


def _names(image: ImageRow) -> Iterator[Finding]:
    """Check that ids and paths are those that are made from content."""
    clip, span = clip_id(image.video_id, image.clip_start_s), (image.video_id, image.clip_start_s)
    suffix = "x.png" if image.file_name.endswith(".png") else "x.jpg"
    made = {
        "clip_id": clip,
        "frame_id": frame_id(clip, image.frame_index),
        "file_name": layout.image_file(*span, image.frame_index, suffix),
        "clip_file": layout.clip_file(*span),
    }
    for column, name in made.items():
        yield from _same("references", f"image {image.id}", column, getattr(image, column), name)


def check_off_screen(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that a frame is off-screen or has annotations, never both, never neither."""
    rows = document.by_image()
    for image in document.images:
        where = f"image {image.id}"
        if image.off_screen and image.id in rows:
            yield Finding("off_screen", where, "is off-screen and has annotations")
        if not image.off_screen and image.id not in rows:
            yield Finding("off_screen", where, "has no annotation and is not off-screen")
        if not image.off_screen and image.off_screen_category is not None:
            yield Finding("off_screen", where, "has an off_screen_category and is not off-screen")


def check_scenarios(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that a frame's scenarios go together; imported ones are as their source says."""
    rows = document.by_image()
    for image in document.images if not document.info.imported_from else []:
        where = f"image {image.id}"
        own = rows.get(image.id, [])
        if any(row.scenario is None for row in own):
            yield Finding("scenarios", where, "an annotation states no scenario")
            continue
        sounding = [(row.audio_visual_category, row.scenario or "", row.area) for row in own]
        broken = contradiction(sounding, image.width * image.height)
        if broken is not None:
            yield Finding("scenarios", where, broken)


def check_masks(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that a mask decodes, lies in its image, and has the box and area its row states."""
    images = _by_id(document)
    for row in document.annotations:
        image = images(row.image_id)
        if image is None:
            continue
        where = f"annotation {row.id}"
        if row.segmentation.size != [image.height, image.width]:
            size = short(row.segmentation.size)
            yield Finding(
                "masks", where, f"mask is {size}, image is [{image.height}, {image.width}]"
            )
            continue
        try:
            area, bbox = rle.measure(row.segmentation)
        except InputError as error:
            yield Finding("masks", where, f"mask does not decode: {short(error.detail)}")
            continue
        yield from _same("masks", where, "area", row.area, area)
        yield from _same("masks", where, "bbox", row.bbox, bbox)


def compare_image(data: bytes, image: ImageRow) -> str:
    """Compare an image file to its row: ``exact``, ``alike``, ``unchecked`` or ``other``."""
    if not image.image_sha256:
        return "unchecked"
    found = fingerprint(data)
    if found["image_sha256"] == image.image_sha256:
        return "exact"
    if not found["image_dhash"] or not image.image_dhash:
        return "other"
    distance = hash_distance(found["image_dhash"], image.image_dhash)
    return "alike" if distance <= ALIKE_BITS else "other"


def check_images(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that each image file has the size its row states and is the one released."""
    allowed = {"exact", "unchecked"} if document.info.media else {"exact", "alike", "unchecked"}
    for image in document.images:
        path = folder / image.file_name
        if not path.is_file():
            continue
        data = path.read_bytes()
        size = image_size(data)
        recorded = image.recorded_sha256 in ("", hashlib.sha256(data).hexdigest())
        if size is None:
            yield Finding("images", image.file_name, "is no JPEG or PNG")
        elif size != (image.width, image.height):
            yield Finding(
                "images",
                image.file_name,
                f"is {size[0]}x{size[1]}, its row says {image.width}x{image.height}",
            )
        elif compare_image(data, image) not in allowed:
            yield Finding("images", image.file_name, "is not the image of its row's fingerprint")
        elif document.info.media and not recorded:
            yield Finding("images", image.file_name, "is not the image that was sampled")


def check_clips(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that each clip's file has the sound and frames that its rows say were measured."""
    config = sampling(document.info.provenance)
    for rows in clip_rows(document):
        facts = {(row.clip_made, row.clip_first_s, row.clip_frames) for row in rows}
        spans = {(row.clip_end_s, tuple(row.clip_rms_per_second)) for row in rows}
        first = rows[0]
        if len(facts) > 1 or len(spans) > 1:
            yield Finding("clips", first.clip_file, "its rows differ in what they say of it")
            continue
        path = folder / first.clip_file
        if not path.is_file() or not first.clip_rms_per_second:  # older or imported
            continue
        saved = {row.frame_id: _saved(folder, row) for row in rows}
        clip = Media(path, _TIMEOUT_S)
        restored = not first.clip_made  # only fetch-media can have put one there
        try:
            for difference in differences_of_clip(clip, rows, saved, config, other_source=restored):
                yield Finding("clips", first.clip_file, difference)
        except MediaError as error:
            yield Finding("clips", first.clip_file, short(f"{error.kind}: {error.detail}"))


def _saved(folder: Path, image: ImageRow) -> bytes | None:
    """Return the image to hold a clip against; none where it is not there or another one."""
    path = folder / image.file_name
    data = path.read_bytes() if path.is_file() else None
    return data if data is not None and compare_image(data, image) != "other" else None


def unmeasured(document: Document, folder: Path) -> int:
    """Count the clips of which no row says what was measured: nothing is checked."""
    return sum(
        (folder / rows[0].clip_file).is_file() and not rows[0].clip_rms_per_second
        for rows in clip_rows(document)
    )


def check_copies(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that the Parquet files hold the same rows as the JSON."""
    for name, path in layout.COPIES.items():
        if (folder / path).is_file():
            difference = differences(document, folder, name)
            if difference is not None:
                yield Finding("parquet", path, difference)


def check_authors_layout(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that the authors' files hold the same sizes, tasks, boxes, categories and pixels."""
    rows = document.by_image()
    tolerance_px = document.info.polygon_tolerance_px
    for image in document.images:
        name = layout.frame_json(image.file_name)
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_bytes())
            difference = _frame_difference(content, image, rows.get(image.id, []), tolerance_px)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            difference = f"cannot be read as the authors' form: {short(error)}"
        if difference is not None:
            yield Finding("authors_layout", name, difference)


def _frame_difference(
    content: Any, image: ImageRow, rows: Sequence[AnnotationRow], tolerance_px: float
) -> str | None:
    size = (content["original_width"], content["original_height"])
    if size != (image.width, image.height):
        return f"size {short(size)}, the JSON has {(image.width, image.height)}"
    found = content["annotations"]
    if image.off_screen:
        expected = [off_screen_annotation(image)]
        return None if found == expected else "is not the off-screen frame of the JSON"
    if len(found) != len(rows):
        return f"has {len(found)} annotations, the JSON {len(rows)}"
    for number, (theirs, row) in enumerate(zip(found, rows, strict=True)):
        stated = (
            theirs["task"],
            theirs["bbox"],
            theirs["audio_visual_category"],
            theirs.get("verified", True),
        )
        if stated != (row.scenario, row.bbox, row.audio_visual_category, row.verified):
            return f"annotation {number}: {short(stated)} is not annotation {row.id}"
        if not _same_pixels(theirs["segmentation"], row, tolerance_px):
            return f"annotation {number}: its polygons are not the mask of annotation {row.id}"
    return None


def _same_pixels(polygons: Any, row: AnnotationRow, tolerance_px: float) -> bool:
    """Say whether polygons fill the mask; simplified outlines may differ beside themselves.

    Moving an outline by at most t changes only pixels within t of it, before and after.
    """
    height, width = row.segmentation.size
    outlines = [np.reshape(polygon, (-1, 2)) for polygon in polygons]
    if not all(((xy >= 0) & (xy <= (width, height))).all() for xy in outlines):
        return False
    try:
        packed = rle.from_polygons(polygons, height, width)
        if packed.counts == row.segmentation.counts:
            return True
        expected, filled = rle.decode(row.segmentation), rle.decode(packed)
    except InputError:
        return False
    if tolerance_px == 0:
        return bool(np.array_equal(filled, expected))
    band = np.zeros((height, width), dtype=np.uint8)
    corners = [outline.round().astype(np.int32) for outline in outlines]
    cv2.polylines(band, corners, True, 1, 2 * int(np.ceil(2 * tolerance_px)) + 5)
    return not bool(((filled != expected) & (band == 0)).any())


def check_statistics(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that counts and the cross-event list are the document's; left out means not in it."""
    path = folder / layout.STATISTICS
    if path.is_file():
        try:
            stated = json.loads(path.read_bytes())
            left_out = {item["id"] for item in stated.pop("left_out")}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            yield Finding("statistics", layout.STATISTICS, f"cannot be read: {short(error)}")
        else:
            counted = count(document)
            for key in sorted({*stated, *counted}):
                yield from _same(
                    "statistics", layout.STATISTICS, key, stated.get(key), counted.get(key)
                )
            for row in document.annotations:
                if row.instance_id in left_out:
                    where = f"annotation {row.id}"
                    yield Finding("statistics", where, "is named as left out")
    path = folder / layout.CROSS_EVENT
    if path.is_file():
        listed = path.read_text(encoding="utf-8", errors="replace").splitlines()
        expected = document.cross_event()
        for video in sorted(set(listed) ^ set(expected)):
            what = "is not cross-event" if video in listed else "is cross-event and not listed"
            yield Finding("cross_event", layout.CROSS_EVENT, f"{short(video)} {what}")
        if len(listed) != len(set(listed)):
            yield Finding("cross_event", layout.CROSS_EVENT, "names a video twice")


def check_flags(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that ``verified`` means the same in the head, the rows and the card."""
    rows = document.by_image()
    for image in document.images:
        own = rows.get(image.id, [])
        if own and image.verified != all(row.verified for row in own):
            yield Finding("flags", f"image {image.id}", "verified is not what its annotations say")
    every = all(image.verified for image in document.images)
    if document.info.verified != every:
        yield Finding(
            "flags", "info", f"verified is {document.info.verified}, its rows say {every}"
        )
    if document.info.version.endswith(UNVERIFIED_MARK) == every:
        version = short(document.info.version)
        yield Finding("flags", "info", f"version is {version}; rows say verified: {every}")
    card = folder / layout.CARD
    if card.is_file():
        warned = UNVERIFIED in card.read_text(encoding="utf-8", errors="replace")
        if warned == every:
            yield Finding("flags", layout.CARD, f"says unverified: {warned}; rows say: {not every}")


def check_card(document: Document, folder: Path) -> Iterator[Finding]:
    """Check that the card states the counts, what was left out, leaks and attribution.

    Only these rows are compared: the prose around them may change from version to version.
    """
    path = folder / layout.CARD
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    heading = f", version {markdown_text(document.info.version)}"
    if not lines or not lines[0].endswith(heading):
        yield Finding("card", f"{layout.CARD}, line 1", f"does not end with {short(heading)}")
    expected = stated_rows(document, count(document), _left_out(folder))
    names = {_first_cell(row): row for row in expected}
    for row in sorted(set(expected) - set(lines)):
        yield Finding("card", layout.CARD, f"does not say {short(row)}")
    licences = lines.index(LICENCES) if LICENCES in lines else len(lines)
    for number, line in enumerate(lines, 1):
        if number > licences and line.count("|") == 3:
            continue  # licences by their names, which may be anything
        name = _first_cell(line)
        if line not in expected and name in names and line.count("|") == names[name].count("|"):
            yield Finding("card", f"{layout.CARD}, line {number}", f"says {short(line)}")
    for video_id in document.info.takedowns:
        if f"- `{video_id}`" not in lines:
            yield Finding("card", layout.CARD, f"does not name {short(video_id)} as taken down")


def _first_cell(row: str) -> str:
    return row[: row.find(" |", 1)] if row.startswith("| ") else ""


def _left_out(folder: Path) -> dict[str, int]:
    """Return the reasons of ``statistics.json``; none when unreadable, which is found elsewhere."""
    try:
        rows = json.loads((folder / layout.STATISTICS).read_bytes())["left_out"]
        return dict(Counter(f"{row['kind']} {row['reason']}" for row in rows))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


CHECKS: tuple[Callable[[Document, Path], Iterable[Finding]], ...] = (
    check_ids,
    check_references,
    check_off_screen,
    check_scenarios,
    check_masks,
    check_images,
    check_clips,
    check_copies,
    check_authors_layout,
    check_statistics,
    check_flags,
    check_card,
)
"""Checks that are each given the document and the release's folder."""


def _same(check: str, where: str, what: str, found: object, expected: object) -> Iterator[Finding]:
    if found != expected:
        yield Finding(check, where, f"{what} is {short(found)}, should be {short(expected)}")


def _twice(values: Iterable[Any]) -> list[Any]:
    return sorted(value for value, times in Counter(values).items() if times > 1)
