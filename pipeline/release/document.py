"""The release as one typed document: COCO's JSON with our columns beside COCO's own.

Everything else in a release (Parquet twins, the authors' layout, statistics, card) is computed from
this document, so they cannot tell different stories, and ``verify`` reads it back through the same
types. COCO wants integer ids for images, categories and annotations; ours stand beside them
(``frame_id``, ``instance_id``). A video's ``id`` is its YouTube id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.records.schema import BBox, Rle, Scenario
from pipeline.release.layout import DOCUMENT

VideoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
"""Eleven characters; only imported releases name videos otherwise."""
Pixels = Annotated[int, Field(gt=0, le=16384)]
ImageFile = Annotated[
    str, Field(pattern=r"^metadata/[A-Za-z0-9_-]{1,80}_[0-9]{5,8}/[0-9]{5,8}\.(jpg|png)$")
]
ClipFile = Annotated[str, Field(pattern=r"^video/[A-Za-z0-9_-]{1,80}_[0-9]{5,8}\.mp4$")]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""What the Parquet twins can hold."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
UNVERIFIED_MARK = "unverified"
"""Ends the version, in the head, of a release that people have not checked as a whole."""
Seconds = Annotated[float, Field(ge=0, le=1e7)]


class Row(BaseModel):
    """A part of the document: strict about names, free of NaN. Its ``id`` is COCO's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
    """What the release is and where it comes from."""

    description: str
    version: str
    verified: bool
    """False: boxes or masks in it were decided by no person."""
    media: bool
    """Whether clips and frames are shipped with it."""
    polygon_tolerance_px: float = Field(ge=0)
    """How far an outline of the authors' layout may lie from its mask; 0: exact."""
    provenance: dict[str, dict[str, Any]]
    """Per stage what made its rows: settings, digests, code revisions, library versions."""
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
    """What sounds."""

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
    clip_id: str
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
    """Of the image file; empty when it was not at hand."""
    image_dhash: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] = ""
    """Its difference hash: 16 hex digits that survive another encode."""
    recorded_sha256: Sha256 = ""
    """Of the image file when it was sampled, as the tables have it; empty where they had none,
    in imported releases and in older ones."""
    clip_rms_per_second: Annotated[list[float], Field(max_length=3600)] = []
    """RMS of each second of the clip as it was measured; empty in imported and older releases."""
    clip_made: Literal["", "remuxed", "encoded"] = ""
    """How the clip's file came to be: the source's packets, or encoded anew where these cannot be
    cut; empty where no clip is shipped, and in imported and older releases."""
    clip_first_s: Seconds | None = None
    """When the clip's first frame is shown, seconds in the source; none where ``clip_made`` is
    empty."""
    clip_frames: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    """Frames the clip shows before its end; none where ``clip_made`` is empty."""


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
    """None where an imported release states none."""
    video_id: VideoId
    clip_id: str
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


class Document(Row):
    """``annotations/instances.json``."""

    info: Info
    licenses: list[LicenseRow]
    videos: list[VideoRow]
    images: list[ImageRow]
    categories: list[CategoryRow]
    annotations: list[AnnotationRow]


def to_json(document: Document) -> bytes:
    """The document as JSON, one row a line, so that two releases can be compared with diff."""
    parts = []
    for name in type(document).model_fields:
        value = getattr(document, name)
        text = _line(value) if isinstance(value, Row) else _lines(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return ("{" + ",\n".join(parts) + "}\n").encode()


def from_json(data: bytes) -> Document:
    """Read a document back, strictly: no unknown or missing keys, no coercion, no NaN.

    Raises:
        pydantic.ValidationError: naming the place.
    """
    return Document.model_validate_json(data, strict=True)


def read_document(folder: Path) -> Document:
    """The document of the release in ``folder``.

    Raises:
        UsageError: there is none.
        AvatarBuildError: it cannot be read.
    """
    path = folder / DOCUMENT
    if not path.is_file():
        raise UsageError(f"No release at {folder}: {DOCUMENT} is missing.")
    try:
        return from_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise AvatarBuildError(
            f"{path}: {place}: {problem['msg']}. 'avatar-build export --verify' tells more."
        ) from error


def _line(row: Row) -> str:
    return json.dumps(row.model_dump(), ensure_ascii=False)


def _lines(rows: Sequence[Row]) -> str:
    return "[\n" + ",\n".join(_line(row) for row in rows) + "\n]" if rows else "[]"
