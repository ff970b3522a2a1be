"""The labelled frames of a release, as evaluation sees them.

Reads the document and the cross-event subset alone (``pipeline.release.read``), so that any release
in this form, ours or an imported one, with media or without, can be scored. Here is what may not be
scored on: a ground truth that contradicts itself.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import AvatarBuildError
from pipeline.release.document import Document
from pipeline.release.layout import CROSS_EVENT, DOCUMENT, released_digests
from pipeline.release.read import (
    LabelledFrame,
    Pixels,
    Release,
    TruthKind,
    read_as_released,
    read_document,
)

__all__ = ["EvaluationSet", "LabelledFrame", "Pixels", "TruthKind", "read_release"]

_FAR_PX = 1e6
"""A distance, pixels, that no image reaches."""


@dataclass(frozen=True)
class EvaluationSet:
    """The frames and facts of a release that a model is scored on."""

    name: str
    verified: bool
    frames: tuple[LabelledFrame, ...]
    """The labelled frames, in the order of their ids."""
    cross_event: frozenset[str]
    """Videos of the cross-event subset."""
    folder: Path = Path()
    """The release's folder, for its media."""
    imported_from: str = ""
    """The foreign set it was made of; empty for our own."""
    released: dict[str, str] = field(default_factory=dict, repr=False)
    """Digests of its files as they were released."""
    media: bool = False
    """True where its images are the released ones; restored ones may only look alike."""


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Pause the collector: of thousands of new rows none is garbage, and it would look twice."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@_without_collecting()
def read_release(folder: Path) -> EvaluationSet:
    """Read a release's labelled frames.

    Raises:
        UsageError: there is no release.
        AvatarBuildError: it is not of this form, not as it was released, contradicts itself, or
            nothing in it is labelled.
    """
    released = released_digests(folder)
    document = read_document(folder, released, labels=True)
    if not document.images:
        raise AvatarBuildError(f"{folder / DOCUMENT}: no labelled frame to evaluate on.")
    for contradiction in _contradictions(document):
        raise AvatarBuildError(f"{folder / DOCUMENT}: {contradiction}.")
    here = (folder / CROSS_EVENT).exists() or CROSS_EVENT in released
    try:
        changing = read_as_released(folder, CROSS_EVENT, released).decode() if here else ""
    except UnicodeDecodeError as error:
        raise AvatarBuildError(f"{folder / CROSS_EVENT}: not a text in UTF-8.") from error
    return EvaluationSet(
        name=document.info.version,
        verified=document.info.verified,
        frames=tuple(sorted(Release(folder, document), key=lambda frame: frame.frame_id)),
        cross_event=frozenset(changing.split()),
        folder=folder,
        imported_from=document.info.imported_from,
        released=released,
        media=document.info.media,
    )


def _contradictions(document: Document) -> Iterator[str]:
    for table, key in (("images", "id"), ("images", "frame_id"), ("annotations", "id")):
        values = [getattr(row, key) for row in getattr(document, table)]
        if len(set(values)) < len(values):
            value, times = Counter(values).most_common(1)[0]
            yield f"{table}: {key} {value!r} is there {times} times"
    images = {row.id: row for row in document.images}
    labelled = set()
    for row in document.annotations:
        image = images.get(row.image_id)
        if image is None:
            yield f"annotation {row.id}: image {row.image_id} is not in the release"
        elif row.segmentation.size != [image.height, image.width]:
            sizes = f"{row.segmentation.size}, its image [{image.height}, {image.width}]"
            yield f"annotation {row.id}: its mask is {sizes} (rows, columns)"
        for box in (row.bbox, row.annotated_bbox):
            if max(map(abs, box)) > _FAR_PX:
                yield f"annotation {row.id}: {box} is no box"
        labelled.add(row.image_id)
    videos = {row.id for row in document.videos}
    for image in document.images:
        if image.video_id not in videos:
            yield f"image {image.id}: video {image.video_id} is not in the release"
        if image.off_screen == (image.id in labelled):
            has = "has annotations" if image.off_screen else "has none"
            state = "is" if image.off_screen else "is not"
            yield f"frame {image.frame_id}: {state} off-screen and {has}"
