"""The labelled frames of a release, as evaluation sees them, with their pictures and sounds.

Opening one reads the document and the cross-event subset alone (``pipeline.release.read``), so that
any release in this form, ours or an imported one, with media or without, can be scored. Here is
what may not be scored on: a ground truth that contradicts itself.

A frame's image is taken where the release has it; else it is decoded from its clip. Nothing is
replaced: what is missing is an error that names the frame.
"""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError
from pipeline.files import sha256_of
from pipeline.media import Media, decode_pictures, read_timeline
from pipeline.release.document import Document
from pipeline.release.layout import (
    CROSS_EVENT,
    DOCUMENT,
    SOUND_SUFFIXES,
    released_digests,
    sound_file,
)
from pipeline.release.read import (
    LabelledFrame,
    Pixels,
    Release,
    TruthKind,
    read_as_released,
    read_document,
)

__all__ = ["EvaluationSet", "LabelledFrame", "Picture", "Pixels", "TruthKind", "read_release"]

Picture = NDArray[np.uint8]

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

    def picture(self, frame: LabelledFrame) -> Picture:
        """Return a labelled frame in its colours, ``(height, width, 3)``, RGB.

        Raises:
            AvatarBuildError: the release has neither its image nor its clip, or it cannot be read,
                or is not the image that was released.
        """
        path = self.folder / frame.row.file_name
        if path.exists():
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            stated = frame.row.image_sha256 if self.media else ""
            wanted = (stated, self.released.get(frame.row.file_name, ""))
            if any(one not in ("", digest) for one in wanted):
                raise self._changed(path, "image")
            pixels = np.frombuffer(content, np.uint8)
            image = cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB) if len(pixels) else None
            if image is None:
                raise AvatarBuildError(f"{path}: no image. Restore it from the release.")
            return np.asarray(image, np.uint8)
        clip = self.clip_path(frame)
        if clip is None:
            raise AvatarBuildError(
                f"{frame.frame_id}: {path} is missing, and so is its clip. Restore the media first"
                " ('avatar-build fetch-media')."
            )
        self.check_released(clip)
        media = Media(clip)
        timeline = read_timeline(media)
        index = frame.frame_index
        if index < len(timeline.pts):
            for shown in decode_pictures(media, timeline, [range(index, index + 1)]):
                return shown.rgb()
        raise AvatarBuildError(
            f"{frame.frame_id}: {clip} has no frame {index} that can be decoded."
        )

    def check_released(self, path: Path) -> None:
        """Insist that a clip or a sound is the one that was released, where the release states it.

        Raises:
            AvatarBuildError: it is another one.
        """
        wanted = self.released.get(path.relative_to(self.folder).as_posix(), "")
        if wanted and sha256_of(path) != wanted:
            raise self._changed(path, "file")

    def _changed(self, path: Path, what: str) -> AvatarBuildError:
        return AvatarBuildError(
            f"{path}: not the {what} that was released. Restore it; 'avatar-build export"
            f" --verify {self.folder}' names all that changed."
        )

    def clip_path(self, frame: LabelledFrame) -> Path | None:
        """Return the frame's clip, if the release has it."""
        path = self.folder / frame.row.clip_file
        return path if path.exists() else None

    def sound_path(self, frame: LabelledFrame) -> Path | None:
        """Return a frame's sound: a file of its own, else its clip; none if there is neither.

        Imported sets have sounds of their own.
        """
        sounds = (self.folder / sound_file(frame.row.clip_file, end) for end in SOUND_SUFFIXES)
        return next((path for path in sounds if path.is_file()), self.clip_path(frame))

    def frames_of(self, clip_id: str) -> Sequence[LabelledFrame]:
        """Return a clip's labelled frames in the order of time.

        Raises:
            AvatarBuildError: the release has no such clip.
        """
        found = sorted(
            (f for f in self.frames if f.clip_id == clip_id), key=lambda f: f.frame_index
        )
        if not found:
            raise AvatarBuildError(f"--clip {clip_id!r}: the release has no clip of this id.")
        return found


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
