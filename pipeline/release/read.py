"""The one reader of releases: ours, imported ones, and worlds that ``synth`` drew.

Nothing is decoded before it is asked for: a release opens in the time its JSON takes to read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.release.document import (
    OF_THE_FRAME,
    AnnotationRow,
    ByImage,
    Document,
    ImageRow,
    Info,
    Row,
    VideoRow,
    from_json,
)
from pipeline.release.layout import CHECKSUMS, COPIES, DOCUMENT
from pipeline.words import plain, short

TruthKind = Literal["mask", "box"]
Pixels = NDArray[np.bool_]

Sounding = AnnotationRow
"""A thing that sounds, in one frame."""

SYNTH = "synth"
"""The name under which a world's provenance has its settings."""

_NEEDED: dict[type[Row], set[str]] = {
    Info: {"version", "verified"},
    VideoRow: {"id"},
    ImageRow: {
        *("id", "width", "height", "file_name", "clip_file", "off_screen", *OF_THE_FRAME),
        *("clip_start_s", "clip_end_s"),
    },
    AnnotationRow: {"id", "image_id", "segmentation", "bbox", "audio_visual_category", "scenario"},
}
"""The columns that no reader of labels can do without."""


@dataclass(frozen=True)
class LabelledFrame:
    """A labelled frame: with what sounds in it, or off-screen with nothing."""

    folder: Path
    row: ImageRow
    video: VideoRow
    instances: tuple[AnnotationRow, ...]

    def __repr__(self) -> str:
        heard = ", ".join(thing.category for thing in self.instances)
        return f"LabelledFrame({self.id!r}: {'off-screen' if self.off_screen else heard})"

    @property
    def frame_id(self) -> str:
        """Return the ``frame_id``."""
        return self.row.frame_id

    id = frame_id

    @property
    def clip_id(self) -> str:
        """Return the id of its clip."""
        return self.row.clip_id

    @property
    def video_id(self) -> str:
        """Return the id of its video."""
        return self.row.video_id

    @property
    def frame_index(self) -> int:
        """Return its place among the clip's frames, from 0."""
        return self.row.frame_index

    @property
    def size_hw(self) -> tuple[int, int]:
        """Return its height and width, pixels."""
        return self.row.height, self.row.width

    @property
    def off_screen(self) -> bool:
        """Say whether the source of the sound cannot be seen."""
        return self.row.off_screen

    @property
    def time_in_clip_s(self) -> float:
        """Return the seconds from the clip's first frame."""
        return self.row.time_s - self.row.clip_start_s

    @property
    def clip_s(self) -> float:
        """Return the seconds of the clip."""
        return self.row.clip_end_s - self.row.clip_start_s

    @property
    def image_path(self) -> Path:
        """Return the path of the image, where media is there."""
        return self.folder / self.row.file_name

    @property
    def clip_path(self) -> Path:
        """Return the path of the clip, where media is there."""
        return self.folder / self.row.clip_file

    def image(self) -> NDArray[np.uint8]:
        """Return the frame, ``(height, width, 3)``, RGB.

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

    def mask(self) -> Pixels:
        """Return all that sounds in the frame, ``(height, width)``; nothing when off-screen."""
        whole = np.zeros(self.size_hw, dtype=np.bool_)
        for instance in self.instances:
            whole |= instance.mask()
        return whole

    def truth(
        self, grid_hw: tuple[int, int], kind: TruthKind = "mask", scenario: str | None = None
    ) -> Pixels:
        """Return the pixels that sound, on a heatmap's grid.

        Args:
            grid_hw: rows and columns.
            kind: the instances' masks, or their boxes filled.
            scenario: only instances of it; none takes all.

        Returns:
            The union; a grid pixel belongs to it when at least half of it does.
        """
        union = np.zeros(self.size_hw, np.uint8)
        for instance in self.instances:
            if scenario is not None and instance.scenario != scenario:
                continue
            if kind == "mask":
                union |= instance.mask()
            else:
                x, y, w, h = instance.bbox
                union[round(y) : round(y + h), round(x) : round(x + w)] = 1
        rows, columns = grid_hw
        area = cv2.resize(union.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        pixels: Pixels = np.asarray(area) >= 0.5
        return pixels

    def boxes(self, grid_hw: tuple[int, int]) -> list[Pixels]:
        """Return each instance's box as annotated on another grid, as evaluators of boxes draw it.

        Corners are scaled and cut off to whole pixels, the last ones left out.
        """
        rows, columns = grid_hw
        drawn = []
        for instance in self.instances:
            x, y, w, h = instance.annotated_bbox
            # A box is kept as fraction times size; what is lost on the way back is far below this.
            left, right = (int(columns * at / self.size_hw[1] + 1e-6) for at in (x, x + w))
            top, bottom = (int(rows * at / self.size_hw[0] + 1e-6) for at in (y, y + h))
            pixels: Pixels = np.zeros(grid_hw, bool)
            pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
            drawn.append(pixels)
        return drawn


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

    @property
    def info(self) -> Info:
        """Return its version, whether people verified it, where it comes from."""
        return self.document.info

    @property
    def categories(self) -> list[str]:
        """Return the names, in the order of their ids."""
        return [row.name for row in self.document.categories]

    @cached_property
    def videos(self) -> dict[str, VideoRow]:
        """Return the videos by YouTube id."""
        return {video.id: video for video in self.document.videos}

    @cached_property
    def cross_event(self) -> frozenset[str]:
        """Return the ids of the cross-event subset."""
        return frozenset(self.document.cross_event())

    @cached_property
    def _rows(self) -> ByImage:
        return self.document.by_image()

    def __len__(self) -> int:
        return len(self.document.images)

    def __iter__(self) -> Iterator[LabelledFrame]:
        return map(self._frame, self.document.images)

    def __getitem__(self, place: int) -> LabelledFrame:
        return self._frame(self.document.images[place])

    def _frame(self, row: ImageRow) -> LabelledFrame:
        own = tuple(self._rows.get(row.id, ()))
        return LabelledFrame(self.folder, row, self.videos[row.video_id], own)


def read_document(
    folder: Path, released: Mapping[str, str] | None = None, *, labels: bool = False
) -> Document:
    """Read the document of the release in ``folder``.

    Args:
        folder: the release.
        released: digests of its files; the document must be the one that was released.
        labels: take a document that lacks columns or has others, as long as its labels are whole:
            worlds drawn by earlier versions, releases of later ones.

    Raises:
        UsageError: there is none.
        AvatarBuildError: it cannot be read, or is not the released one.
    """
    path = folder / DOCUMENT
    try:
        data = read_as_released(folder, DOCUMENT, released or {})
    except OSError as error:
        raise UsageError(f"No release at {folder}: {DOCUMENT} is missing.") from error
    try:
        return _from_labels(data) if labels else from_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the document"
        raise AvatarBuildError(
            f"{path}: {place}: {plain(problem)} (got {short(problem['input'])}). "
            "'avatar-build export --verify' tells more."
        ) from error


def read_info(folder: Path) -> Info:
    """Read the head of the release's document alone, which is its first line as we write it.

    Raises:
        UsageError, AvatarBuildError: as ``read_document``.
    """
    with suppress(OSError, ValidationError), (folder / DOCUMENT).open("rb") as stream:
        line = stream.readline().removeprefix(b'{"info": ').removesuffix(b",\n")
        return Info.model_validate_json(line, strict=True)
    return read_document(folder).info


def clips_in(folder: Path) -> Iterator[tuple[str, float, float, str]]:
    """Yield id, start, end and file of each clip of the release, from its Parquet copy if it can.

    Raises:
        UsageError, AvatarBuildError: as ``read_document``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["clip_id", "clip_start_s", "clip_end_s", "clip_file"]
    try:
        with (folder / COPIES["images"]).open("rb") as stream:
            table = pq.ParquetFile(stream).read(columns, use_threads=False)
        rows = dict.fromkeys(
            zip(*(table.column(name).to_pylist() for name in columns), strict=True)
        )
    except (OSError, pa.ArrowException, KeyError):
        images = read_document(folder).images
        rows = dict.fromkeys(tuple(getattr(row, name) for name in columns) for row in images)
    yield from rows


def read_as_released(folder: Path, name: str, released: Mapping[str, str]) -> bytes:
    """Read a file of a release; where ``released`` states its digest, it must have that.

    Raises:
        FileNotFoundError: it is not there.
        AvatarBuildError: it is another one, or should be there.
    """
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError as error:
        if name in released:
            raise AvatarBuildError(
                f"{folder / name}: is missing, and {folder.name}/{CHECKSUMS} lists it."
                " Get the release again."
            ) from error
        raise
    if released.get(name, digest := hashlib.sha256(data).hexdigest()) != digest:
        raise AvatarBuildError(
            f"{folder / name}: not the file that was released, by {CHECKSUMS}. Get the release"
            " again; one that was changed on purpose needs a version and checksums of its own."
        )
    return data


def _from_labels(data: bytes) -> Document:
    if b'"licenses"' in data:  # without them, listing all that is missing would take long
        with suppress(ValidationError):
            return from_json(data)
    try:
        text = json.dumps(_completed(json.loads(data)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return from_json(data)  # which says what is wrong
    return from_json(text.encode())


def _completed(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a document with all columns, of one that has what labels need."""
    info = dict(raw["info"])
    if world := info.pop("world", None):  # as 'synth' noted its settings before
        info["provenance"] = {SYNTH: {"config": world}}
    images = {row["id"]: row for row in raw["images"]}
    named = {row["video_id"]: {"id": row["video_id"]} for row in raw["images"]}
    named |= {row["id"]: row for row in raw.get("videos", [])}

    def filled(record: type[Row], row: dict[str, Any], **more: Any) -> dict[str, Any]:
        blank = {k: v for k, v in record.blank().items() if k not in _NEEDED[record]}
        return blank | more | {k: v for k, v in row.items() if k in record.model_fields}

    annotations = []
    for row in raw["annotations"]:
        image = images[row["image_id"]]
        more = {name: image[name] for name in OF_THE_FRAME}
        more |= {"annotated_bbox": row["bbox"], "iscrowd": 0}
        annotations.append(filled(AnnotationRow, row, **more))
    return {
        "info": filled(Info, info),
        "licenses": [],
        "videos": [filled(VideoRow, row, video_id=name) for name, row in named.items()],
        "images": [filled(ImageRow, row) for row in raw["images"]],
        "categories": [],
        "annotations": annotations,
    }
