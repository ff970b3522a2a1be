"""Typed access to a release: ours, or one that ``import-release`` made of another.

Nothing is decoded before it is asked for: a release opens in the time its JSON takes to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from exports.release.authors_layout import annotations_by_image
from pipeline.errors import AvatarBuildError
from pipeline.records import rle
from pipeline.release.document import (
    AnnotationRow,
    Document,
    ImageRow,
    Info,
    VideoRow,
    read_document,
)
from pipeline.release.findings import Finding


@dataclass(frozen=True)
class Sounding:
    """One thing that sounds, in one frame."""

    row: AnnotationRow

    @property
    def category(self) -> str:
        """What it is."""
        return self.row.audio_visual_category

    @property
    def scenario(self) -> str | None:
        """How it sounds; none where an imported release does not say."""
        return self.row.scenario

    @property
    def bbox(self) -> list[float]:
        """The mask's box ``[x, y, w, h]``, pixels."""
        return self.row.bbox

    def __repr__(self) -> str:
        return f"Sounding({self.category!r}, {self.scenario}, bbox {self.bbox})"

    def mask(self) -> NDArray[np.bool_]:
        """Its pixels, ``(height, width)``."""
        return rle.decode(self.row.segmentation)


@dataclass(frozen=True)
class LabelledFrame:
    """One labelled frame: with what sounds in it, or off-screen with nothing."""

    folder: Path
    row: ImageRow
    video: VideoRow
    instances: tuple[Sounding, ...]

    def __repr__(self) -> str:
        heard = ", ".join(thing.category for thing in self.instances)
        return f"LabelledFrame({self.id!r}: {'off-screen' if self.off_screen else heard})"

    @property
    def id(self) -> str:
        """The ``frame_id``."""
        return self.row.frame_id

    @property
    def off_screen(self) -> bool:
        """Whether the source of the sound cannot be seen."""
        return self.row.off_screen

    @property
    def time_in_clip_s(self) -> float:
        """Seconds from the clip's first frame."""
        return self.row.time_s - self.row.clip_start_s

    @property
    def image_path(self) -> Path:
        """Where the image lies when media is there."""
        return self.folder / self.row.file_name

    @property
    def clip_path(self) -> Path:
        """Where the clip lies when media is there."""
        return self.folder / self.row.clip_file

    def image(self) -> NDArray[np.uint8]:
        """The frame, ``(height, width, 3)``, RGB.

        Raises:
            AvatarBuildError: the image is not there, or broken.
        """
        if not self.image_path.is_file():
            raise AvatarBuildError(
                f"{self.image_path} is missing: 'avatar-build fetch-media {self.folder}'."
            )
        found = cv2.imread(str(self.image_path), cv2.IMREAD_COLOR)
        if found is None:
            raise AvatarBuildError(f"{self.image_path} is no image.")
        return np.ascontiguousarray(found[:, :, ::-1]).astype(np.uint8, copy=False)

    def mask(self) -> NDArray[np.bool_]:
        """All that sounds in the frame, ``(height, width)``; nothing when it is off-screen."""
        whole = np.zeros((self.row.height, self.row.width), dtype=np.bool_)
        for instance in self.instances:
            whole |= instance.mask()
        return whole


class Release:
    """An opened release; iterate over it for its frames, by video and time."""

    def __init__(self, folder: Path, document: Document) -> None:
        self.folder = folder
        self.document = document

    def __repr__(self) -> str:
        rows = self.document
        counts = f"{len(rows.videos)} videos, {len(rows.images)} frames"
        held = f"{counts}, {len(rows.annotations)} instances"
        return f"Release({str(self.folder)!r}, version {self.info.version}: {held})"

    def verify(self) -> list[Finding]:
        """Check files, rows and media against each other; an empty list says all is well."""
        from exports.verify.verify_release import verify_release

        return verify_release(self.folder)

    @property
    def info(self) -> Info:
        """Version, whether people verified it, where it comes from."""
        return self.document.info

    @property
    def categories(self) -> list[str]:
        """The names, in the order of their ids."""
        return [row.name for row in self.document.categories]

    @cached_property
    def videos(self) -> dict[str, VideoRow]:
        """By YouTube id."""
        return {video.id: video for video in self.document.videos}

    @cached_property
    def cross_event(self) -> frozenset[str]:
        """The ids of the cross-event subset."""
        from exports.release.statistics import cross_event

        return frozenset(cross_event(self.document))

    @cached_property
    def _rows(self) -> dict[int, list[AnnotationRow]]:
        return annotations_by_image(self.document)

    def __len__(self) -> int:
        return len(self.document.images)

    def __iter__(self) -> Iterator[LabelledFrame]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> LabelledFrame:
        row = self.document.images[place]
        own = tuple(Sounding(annotation) for annotation in self._rows.get(row.id, []))
        return LabelledFrame(self.folder, row, self.videos[row.video_id], own)


def load_release(folder: str | Path) -> Release:
    """Open the release in ``folder``.

    Raises:
        UsageError: there is none.
        AvatarBuildError: it cannot be read.
    """
    return Release(Path(folder), read_document(Path(folder)))
