"""Other people's releases in our form, so that one evaluator serves all.

What a reader drops or changes is named in ``statistics.json`` with its reason, as what our own
releases leave out. Nothing is made up: a scenario that is not stated stays empty.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from exports.importers import authors, avsbench
from exports.importers import box_benchmarks as boxes
from exports.importers.frames import Notes, ReadFrame
from exports.importers.tree import Tree
from exports.release.freeze import (
    ReleaseSummary,
    check_version,
    new_release,
    write_annotations,
    write_file,
)
from exports.release.image_bytes import fingerprint, image_size
from exports.release.selection import LeftOut
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.records.schema import clip_id, content_id, frame_id
from pipeline.release import layout
from pipeline.release.document import (
    AnnotationRow,
    CategoryRow,
    Document,
    ImageRow,
    Info,
    LicenseRow,
    Row,
    VideoRow,
    from_json,
)
from pipeline.workspace.storage import Storage

Reader = Callable[[Tree, Notes], Iterator[ReadFrame]]

FORMATS: dict[str, tuple[str, Callable[[Tree], bool], Reader]] = {
    "avatar": ("AVATAR, the authors' layout", authors.matches, authors.read),
    "vggss": ("VGG-SS", lambda tree: bool(tree.named("vggss.json")), boxes.read_vggss),
    "is3": ("IS3", lambda tree: bool(tree.named("is3_annotation.json")), boxes.read_is3),
    "avsbench": ("AVSBench", avsbench.matches, avsbench.read),
    "flickr": ("Flickr-SoundNet", lambda tree: bool(tree.ending(".xml")), boxes.read_flickr),
}
"""The title of each format, whether a folder looks like it, and its reader; tried in order."""


def import_release(source: Path, target: Path, form: str = "") -> ReleaseSummary:
    """Read a foreign release in ``source`` and write it in our form to ``target``.

    Args:
        source: a folder or ZIP file, as downloaded. One of our own releases is read too.
        target: a folder that does not exist yet; its name is the version.
        form: one of ``FORMATS``; empty: found out.

    Raises:
        UsageError: no known layout, or ``target`` exists.
        AvatarBuildError: nothing in it can be used.
    """
    version = check_version(target.name)
    if target.exists():
        raise UsageError(f"{target} exists, and a release never changes. Name another folder.")
    tree = Tree(source)
    if not form and layout.DOCUMENT in tree.names:
        document, left_out, media = _own(tree)
    else:
        document, left_out, media = _foreign(tree, form, version)
    with new_release(Storage(target.absolute().parent), target.name) as folder:
        for name, where in media.items():
            write_file(folder / name, tree.read(where))
        return write_annotations(document, left_out, folder, str(target))


def _own(tree: Tree) -> tuple[Document, list[LeftOut], dict[str, str]]:
    """Read one of our own releases as it is."""
    try:
        document = from_json(tree.read(layout.DOCUMENT))
        stated = json.loads(tree.read(layout.STATISTICS))["left_out"]
        left_out = [LeftOut(**row) for row in stated]
    except (ValueError, KeyError, TypeError) as error:
        text = str(error).splitlines()[0]
        raise AvatarBuildError(
            f"{layout.DOCUMENT} is not a release of ours ({text}). See 'export --verify'."
        ) from error
    names = {name for image in document.images for name in (image.file_name, image.clip_file)}
    clips = {image.clip_file for image in document.images}
    names |= {layout.sound_file(clip, end) for clip in clips for end in layout.SOUND_SUFFIXES}
    return document, left_out, {name: name for name in sorted(names & set(tree.names))}


def _foreign(tree: Tree, form: str, version: str) -> tuple[Document, list[LeftOut], dict[str, str]]:
    title, reader = _recognised(tree, form)
    notes = Notes()
    frames = _without_doubles(reader(tree, notes), notes)
    if not frames:
        reasons = sorted({row.reason for row in notes.rows})
        raise AvatarBuildError(f"{title}: no frame can be used ({', '.join(reasons) or 'empty'}).")
    media: dict[str, str] = {}
    images = [_image(number, frame, tree, media, notes) for number, frame in enumerate(frames, 1)]
    whole = all(name in media for i in images for name in (i.file_name, i.clip_file))
    names = sorted({region.category for frame in frames for region in frame.regions})
    categories = {name: number for number, name in enumerate(names, 1)}
    info = Info.of(
        description=title, version=version, verified=True, media=whole, imported_from=title
    )
    first = {frame.video_id: frame for frame in reversed(frames)}
    document = Document(
        info=info,
        licenses=[LicenseRow(id=1, name="", url="")],
        videos=[
            VideoRow.of(id=video_id, license_id=1, **_shared(frame, VideoRow))
            for video_id, frame in sorted(first.items())
        ],
        images=images,
        categories=[CategoryRow(id=number, name=name) for name, number in categories.items()],
        annotations=_annotations(frames, images, categories),
    )
    return document, sorted(notes.rows, key=lambda row: (row.frame_id, row.kind, row.id)), media


def _recognised(tree: Tree, form: str) -> tuple[str, Reader]:
    if form and form not in FORMATS:
        raise UsageError(f"--format {form!r}: there is {', '.join(FORMATS)}.")
    for name, (title, looks_like, reader) in FORMATS.items():
        if looks_like(tree) and form in ("", name):
            return title, reader
    known = ", ".join(title for title, _, _ in FORMATS.values())
    raise UsageError(f"No layout recognised. Known: {known}; name one with --format.")


def _without_doubles(frames: Iterable[ReadFrame], notes: Notes) -> list[ReadFrame]:
    """Sort frames and return the first of each name; downloads hold folders twice."""
    kept: dict[str, ReadFrame] = {}
    order = operator.attrgetter("video_id", "time_s", "clip_start_s", "frame_index")
    for frame in sorted(frames, key=order):
        name = frame_id(clip_id(frame.video_id, frame.clip_start_s), frame.frame_index)
        if name in kept:
            notes.add("frame", name, "twice")
        else:
            kept[name] = frame
    return list(kept.values())


def _image(
    number: int, frame: ReadFrame, tree: Tree, media: dict[str, str], notes: Notes
) -> ImageRow:
    start_s = frame.clip_start_s
    clip = clip_id(frame.video_id, start_s)
    source = frame.image or "x.jpg"
    name = layout.image_file(frame.video_id, start_s, frame.frame_index, source)
    cut = layout.clip_file(frame.video_id, start_s)
    marks: dict[str, Any] = {}
    for kind, taken in (("image", frame.image), ("clip", frame.clip), ("sound", frame.sound)):
        if taken is not None and (rival := tree.rival(taken)):
            notes.add(kind, rival, "another_of_its_name_was_taken")
    if frame.image is not None:
        data = tree.read(frame.image)
        if image_size(data) == (frame.width, frame.height):
            media[name] = frame.image
            marks = fingerprint(data)
        else:
            notes.add("image", frame.image, "image_of_another_size_left_out")
    if frame.clip is not None:
        media[cut] = frame.clip
    if frame.sound is not None:
        suffix = PurePosixPath(frame.sound).suffix.lower()
        media[layout.sound_file(cut, suffix)] = frame.sound
    return ImageRow.of(
        id=number,
        file_name=name,
        license=1,
        clip_id=clip,
        frame_id=frame_id(clip, frame.frame_index),
        clip_file=cut,
        event_time_s=frame.time_s,
        verified=True,
        **_shared(frame, ImageRow),
        **marks,
    )


def _shared(frame: ReadFrame, row: type[Row]) -> dict[str, Any]:
    """Return the columns that a row of the release has from a frame as they are."""
    return {name: value for name, value in vars(frame).items() if name in row.model_fields}


def _annotations(
    frames: Sequence[ReadFrame], images: Sequence[ImageRow], categories: dict[str, int]
) -> list[AnnotationRow]:
    found = [
        (image, place, region)
        for frame, image in zip(frames, images, strict=True)
        for place, region in enumerate(frame.regions)
    ]
    return [
        AnnotationRow.in_image(
            image,
            region.mask,
            id=number,
            category_id=categories[region.category],
            audio_visual_category=region.category,
            scenario=region.scenario,
            verified=True,
            instance_id=content_id("i", image.frame_id, place, region.mask.counts),
            annotated_bbox=region.box,
            mask_source=region.source,
        )
        for number, (image, place, region) in enumerate(found, 1)
    ]
