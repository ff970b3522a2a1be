"""The release as one typed document: COCO's JSON with our columns beside COCO's own.

Everything else in a release (Parquet copies, the authors' layout, statistics, card) is computed
from this document, so they cannot tell different stories; whoever makes, reads or checks a release
does so through these types. COCO wants integer ids for images, categories and annotations; ours
stand beside them (``frame_id``, ``instance_id``). A video's ``id`` is its YouTube id.
"""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pipeline.records import rle
from pipeline.records.schema import BBox, Rle, Scenario, TrackId
from pipeline.release.layout import CROSS_EVENT, DOCUMENT

VIDEO_ID = r"[A-Za-z0-9_-]{1,80}"
"""A video's id: eleven characters; only imported releases name videos otherwise."""
CLIP_ID = r"[A-Za-z0-9_-]{1,92}"
"""A clip's id: its video's, an underscore and up to eleven digits of milliseconds."""

VideoId = Annotated[str, Field(pattern=f"^{VIDEO_ID}$")]
ClipId = Annotated[str, Field(pattern=f"^{CLIP_ID}$")]
Pixels = Annotated[int, Field(gt=0, le=16384)]
_CLIP_NAME = f"{VIDEO_ID}_[0-9]{{5,8}}"
ImageFile = Annotated[str, Field(pattern=rf"^metadata/{_CLIP_NAME}/[0-9]{{5,8}}\.(jpg|png)$")]
ClipFile = Annotated[str, Field(pattern=rf"^video/{_CLIP_NAME}\.mp4$")]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""An integer that the Parquet copies can hold."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
UNVERIFIED_MARK = "unverified"
"""Ends the version, in the head, of a release that people have not checked as a whole."""
Seconds = Annotated[float, Field(ge=0, le=1e7)]


class Row(BaseModel):
    """A part of the document: strict about names, free of NaN. Its ``id`` is COCO's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def blank(cls) -> dict[str, Any]:
        """Return a value that says nothing for each column that must be stated and may be empty."""
        columns: dict[str, Any] = {}
        for name, column in cls.model_fields.items():
            kind = typing.get_origin(column.annotation) or column.annotation
            if column.is_required() and kind in (str, int, float, bool, list, dict):
                columns[name] = kind()
            elif column.is_required() and kind is Sequence:
                columns[name] = []
            elif column.is_required() and kind is types.UnionType:
                columns[name] = None
        return columns

    @classmethod
    def of(cls, **known: Any) -> Self:
        """Make a row of the columns that are known; the others say nothing."""
        return cls(**{**cls.blank(), **known})


class Leak(Row):
    """A training list, and which of the release's videos are in it."""

    list_name: str
    list_sha256: str
    list_ids: int
    """Different videos in the list."""
    videos: list[str]
    """Ids in both, sorted."""
    clips: int
    """Clips of the release that overlap a listed span of 10 s."""
    unsure: int = 0
    """Videos of the release that may be one of the list's; their names do not tell."""
    unread: int = 0
    """Lines of the list that name no video."""


class Info(Row):
    """The head: what the release is and where it comes from."""

    description: str
    version: str
    verified: bool
    """False: boxes or masks in it were decided by no person."""
    media: bool
    """True where clips and frames are shipped with it."""
    polygon_tolerance_px: float = Field(ge=0)
    """The pixels an outline of the authors' layout may lie off its mask; 0: exact."""
    provenance: dict[str, dict[str, Any]]
    """The makers of each stage's rows: settings, digests, code revisions, library versions."""
    takedowns: list[VideoId] = []
    """Videos that were taken down before this release; it has none of them."""
    leaks: list[Leak] = []
    """Training lists it was held against."""
    imported_from: str = ""
    """The foreign layout it was read from; empty when it was made from tables."""


class LicenseRow(Row):
    """A licence as the site states it."""

    id: Integer
    name: str
    url: str


class CategoryRow(Row):
    """A category of things that sound."""

    id: Integer
    name: str


class VideoRow(Row):
    """A source video and its attribution."""

    id: VideoId
    video_id: VideoId
    """The same: COCO joins on ``id``, our tables on ``video_id``."""
    label: str
    split: str
    source_url: str
    title: str
    uploader: str
    upload_date: str
    license: str
    license_id: Integer
    sha256: str
    size_bytes: Integer
    width: Integer
    height: Integer
    fps: float
    duration_s: float
    format_id: str


class ImageRow(Row):
    """A labelled frame."""

    id: Integer
    file_name: ImageFile
    width: Pixels
    height: Pixels
    license: Integer
    video_id: VideoId
    clip_id: ClipId
    frame_id: str
    frame_index: Count
    time_s: float
    clip_start_s: Seconds
    clip_end_s: Seconds
    clip_file: ClipFile
    event_time_s: float
    event_rms: float
    event_rank: Integer
    sharpness: float
    off_screen: bool
    off_screen_category: str | None
    verified: bool
    missing_instances: Count
    """Instances of the frame that were left out of the release."""
    review_ids: list[str]
    image_sha256: Sha256 = ""
    """The digest of the image file; empty when it was not at hand."""
    image_dhash: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] = ""
    """The image's difference hash: 16 hex digits that survive another encode."""
    recorded_sha256: Sha256 = ""
    """The digest of the image file when it was sampled; empty where the tables had none, and in
    imported and older releases."""
    clip_rms_per_second: Annotated[list[float], Field(max_length=3600)] = []
    """RMS of each second of the clip as it was measured; empty in imported and older releases."""
    clip_made: Literal["", "remuxed", "encoded"] = ""
    """The way the clip's file came to be: the source's packets, or encoded anew where these cannot
    be cut; empty where no clip is shipped, and in imported and older releases."""
    clip_first_s: Seconds | None = None
    """The time the clip's first frame is shown, seconds in the source; none where ``clip_made`` is
    empty."""
    clip_frames: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    """The number of frames the clip shows before its end; none where ``clip_made`` is empty."""


OF_THE_FRAME = ("video_id", "clip_id", "frame_id", "frame_index", "time_s")
"""The columns of an annotation that repeat its image's."""


class AnnotationRow(Row):
    """A sounding object in one frame, with its mask."""

    id: Integer
    image_id: Integer
    category_id: Integer
    segmentation: Rle
    bbox: BBox
    """The mask's own box."""
    area: Annotated[int, Field(gt=0, lt=2**63)]
    """Pixels of the mask."""
    iscrowd: int = Field(ge=0, le=0)
    audio_visual_category: str
    scenario: Scenario | None
    """The way it sounds; none where an imported release states none."""
    video_id: VideoId
    clip_id: ClipId
    frame_id: str
    frame_index: Count
    time_s: float
    verified: bool
    instance_id: str
    proposal_id: str | None
    review_ids: list[str]
    annotated_bbox: BBox
    """The box as reviewed, before there was a mask."""
    mask_source: str
    mask_model_digest: str
    mask_predicted_iou: float | None
    track_id: TrackId | None = None
    """The thing it shows: annotations of one thing in a clip's frames have the same, and no other
    thing's have, in other clips either. As TAO names it; none where nobody linked the thing's
    boxes, and in imported and older releases."""

    @classmethod
    def in_image(cls, image: ImageRow, mask: Rle, **known: Any) -> AnnotationRow:
        """Make the row of a mask in an image: what follows from these two is filled in."""
        follows = {name: getattr(image, name) for name in OF_THE_FRAME}
        box = rle.bbox(mask)
        follows |= {"bbox": box, "annotated_bbox": box, "area": rle.area(mask), "iscrowd": 0}
        return cls.of(image_id=image.id, segmentation=mask, **{**follows, **known})

    def __repr__(self) -> str:
        return f"Sounding({self.category!r}, {self.scenario}, bbox {self.bbox})"

    @property
    def category(self) -> str:
        """Return what it is."""
        return self.audio_visual_category

    @property
    def drawn(self) -> bool:
        """Say whether the mask was drawn; else it is the box, filled."""
        return self.mask_source != "box"

    def mask(self) -> NDArray[np.bool_]:
        """Return its pixels, ``(height, width)``."""
        return rle.decode(self.segmentation)


class Document(Row):
    """The content of ``annotations/instances.json``."""

    info: Info
    licenses: Sequence[LicenseRow]
    videos: Sequence[VideoRow]
    images: Sequence[ImageRow]
    categories: Sequence[CategoryRow]
    annotations: Sequence[AnnotationRow]

    def by_image(self) -> ByImage:
        """Return the annotations of each image, in the document's order."""
        return ByImage(self.annotations)

    def cross_event(self) -> list[str]:
        """Return the videos whose sound changes source (supplement, Algorithm 1), sorted.

        A video belongs when a labelled frame brings a category that none of its earlier labelled
        frames had. The first labelled frame alone never does. An off-screen frame is a labelled
        frame: its category has been heard from then on.
        """
        heard: dict[int, tuple[str, ...]] = {}
        for row in self.annotations:
            before = heard.get(row.image_id, ())
            heard[row.image_id] = (*before, sys.intern(row.audio_visual_category))
        return _cross_event(self.images, heard)


class ByImage(Mapping[int, list[AnnotationRow]]):
    """The annotations of each image that has some, found by their places; 16 bytes each.

    Args:
        rows: the annotations.
    """

    def __init__(self, rows: Sequence[AnnotationRow]) -> None:
        self._rows = rows
        images = np.fromiter((row.image_id for row in rows), np.int64, len(rows))
        self._places = np.argsort(images, kind="stable")
        self._images = images[self._places]

    def __getitem__(self, image_id: int) -> list[AnnotationRow]:
        first, stop = np.searchsorted(self._images, (image_id, image_id + 1))
        if first == stop:
            raise KeyError(image_id)
        return [self._rows[place] for place in self._places[first:stop].tolist()]

    def __iter__(self) -> Iterator[int]:
        return iter(dict.fromkeys(self._images.tolist()))

    def __len__(self) -> int:
        return len(np.unique(self._images))


def _cross_event(images: Iterable[ImageRow], heard: Mapping[int, Iterable[str]]) -> list[str]:
    columns = ((row.time_s, row.id, row.video_id, row.off_screen_category) for row in images)
    shown = sorted(columns, key=lambda row: row[:2])
    seen: dict[str, set[str]] = {}
    changing = set()
    for _, image_id, video_id, off_screen in shown:
        categories = {*heard.get(image_id, ()), *filter(None, [off_screen])}
        if not categories <= seen.setdefault(video_id, categories):
            changing.add(video_id)
        seen[video_id] = seen[video_id] | categories
    return sorted(changing)


def write_document(document: Document, folder: Path) -> None:
    """Write the document and its cross-event subset, which all that read labels need."""
    for name in (DOCUMENT, CROSS_EVENT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with (folder / DOCUMENT).open("wb") as stream:
        stream.writelines(json_lines(document))
    listed = "".join(f"{video}\n" for video in document.cross_event())
    (folder / CROSS_EVENT).write_bytes(listed.encode())


def to_json(document: Document) -> bytes:
    """Return the document as JSON, one row a line, so that two releases can be compared by diff."""
    return b"".join(json_lines(document))


def json_lines(document: Document) -> Iterator[bytes]:
    """Yield the lines of the document's JSON; ``lines_of`` reads them back."""
    before = "{"
    for name in Document.model_fields:
        value = getattr(document, name)
        yield f"{before}{json.dumps(name)}: ".encode()
        before = ",\n"
        if isinstance(value, Row):
            yield _line(value)
        elif not value:
            yield b"[]"
        else:
            for number, row in enumerate(value):
                yield (b",\n" if number else b"[\n") + _line(row)
            yield b"\n]"
    yield b"}\n"


def from_json(data: bytes) -> Document:
    """Read a document back, strictly: no unknown or missing keys, no coercion, no NaN.

    Raises:
        pydantic.ValidationError: naming the place.
    """
    return Document.model_validate_json(data, strict=True)


def _line(row: Row) -> bytes:
    return json.dumps(row.model_dump(), ensure_ascii=False).encode()
