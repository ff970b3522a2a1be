"""The release as one typed document: COCO's JSON with our columns beside COCO's own.

Everything else in a release (Parquet twins, the authors' layout, statistics, card) is computed from
this document, so they cannot tell different stories, and ``verify`` reads it back through the same
types. COCO wants integer ids for images, categories and annotations; ours stand beside them
(``frame_id``, ``instance_id``). A video's ``id`` is its YouTube id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from exports.layout import clip_file, image_file
from exports.selection import SelectedFrame, Selection
from pipeline import rle
from pipeline.errors import AvatarBuildError
from pipeline.schema import BBox, Rle, Scenario, Video

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


def build_document(selection: Selection, info: Info, taxonomy: Sequence[str] = ()) -> Document:
    """Number what was selected and put it into COCO's shape.

    Args:
        selection: sorted; the numbers follow its order.
        info: the release's head.
        taxonomy: names that get the first category ids, whether they occur or not, so that ids
            stay the same from release to release. Others follow in alphabetical order.

    Raises:
        AvatarBuildError: two clips of a video start in the same second, so their names collide.
    """
    videos = {item.video.video_id: item.video for item in selection.frames}
    licenses = {name: i for i, name in enumerate(sorted({v.license for v in videos.values()}), 1)}
    categories = _categories(selection, taxonomy)
    _check_clip_names(selection.frames)
    images: list[ImageRow] = []
    annotations: list[AnnotationRow] = []
    for image_id, item in enumerate(selection.frames, 1):
        images.append(_image(image_id, item, licenses[item.video.license]))
        for row in _annotations(image_id, item, categories):
            annotations.append(row.model_copy(update={"id": len(annotations) + 1}))
    return Document(
        info=info,
        licenses=[LicenseRow(id=i, name=name, url="") for name, i in licenses.items()],
        videos=[_video(videos[key], licenses[videos[key].license]) for key in sorted(videos)],
        images=images,
        categories=[CategoryRow(id=i, name=name) for name, i in categories.items()],
        annotations=annotations,
    )


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


def _categories(selection: Selection, taxonomy: Sequence[str]) -> dict[str, int]:
    used = {
        chosen.instance.audio_visual_category
        for item in selection.frames
        for chosen in item.instances
    }
    names = [*sorted(set(taxonomy)), *sorted(used - set(taxonomy))]
    return {name: number for number, name in enumerate(names, 1)}


def _check_clip_names(frames: Iterable[SelectedFrame]) -> None:
    owner: dict[str, str] = {}
    for item in frames:
        name = clip_file(item.video.video_id, item.clip.start_s)
        if owner.setdefault(name, item.clip.clip_id) != item.clip.clip_id:
            raise AvatarBuildError(
                f"tables/clips: {owner[name]} and {item.clip.clip_id} would both be {name}: the "
                "authors' layout names clips by whole seconds. Sample with clips apart."
            )


def _video(video: Video, license_id: int) -> VideoRow:
    shared = video.model_dump(include=set(VideoRow.model_fields))
    return VideoRow(id=video.video_id, license_id=license_id, **shared)


def _image(image_id: int, item: SelectedFrame, license_id: int) -> ImageRow:
    frame, clip = item.frame, item.clip
    return ImageRow(
        id=image_id,
        file_name=image_file(frame.video_id, clip.start_s, frame.frame_index, frame.path),
        width=frame.width,
        height=frame.height,
        license=license_id,
        video_id=frame.video_id,
        clip_id=frame.clip_id,
        frame_id=frame.frame_id,
        frame_index=frame.frame_index,
        time_s=frame.time_s,
        clip_start_s=clip.start_s,
        clip_end_s=clip.end_s,
        clip_file=clip_file(frame.video_id, clip.start_s),
        event_time_s=frame.event_time_s,
        event_rms=frame.event_rms,
        event_rank=frame.event_rank,
        sharpness=frame.sharpness,
        off_screen=item.off_screen,
        off_screen_category=item.off_screen_category,
        verified=item.verified,
        missing_instances=item.missing_instances,
        review_ids=list(item.review_ids),
        recorded_sha256=frame.sha256,
        clip_rms_per_second=list(clip.rms_per_second),
    )


def _annotations(
    image_id: int, item: SelectedFrame, categories: Mapping[str, int]
) -> Iterable[AnnotationRow]:
    frame = item.frame
    for chosen in item.instances:
        instance, mask = chosen.instance, chosen.mask
        yield AnnotationRow(
            id=0,
            image_id=image_id,
            category_id=categories[instance.audio_visual_category],
            segmentation=mask.rle,
            bbox=list(rle.bbox(mask.rle)),
            area=rle.area(mask.rle),
            iscrowd=0,
            audio_visual_category=instance.audio_visual_category,
            scenario=instance.scenario,
            video_id=frame.video_id,
            clip_id=frame.clip_id,
            frame_id=frame.frame_id,
            frame_index=frame.frame_index,
            time_s=frame.time_s,
            verified=chosen.verified,
            instance_id=instance.instance_id,
            proposal_id=instance.proposal_id,
            review_ids=sorted(instance.review_ids),
            annotated_bbox=list(instance.bbox),
            mask_source=mask.source,
            mask_model_digest=mask.model_digest,
            mask_predicted_iou=mask.predicted_iou,
        )


def _line(row: Row) -> str:
    return json.dumps(row.model_dump(), ensure_ascii=False)


def _lines(rows: Sequence[Row]) -> str:
    return "[\n" + ",\n".join(_line(row) for row in rows) + "\n]" if rows else "[]"
