"""The records that flow between stages, and their Arrow schemas.

One class per table. Ids are made from content, never from position, so that two runs, two machines
or two shardings name the same thing alike. Times are seconds from the video's first presented
frame; boxes are ``[x, y, w, h]`` in pixels of the frame, x to the right and y down.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import InputError

Scenario = Literal["Single-sound", "Mixed-sound", "Multi-entity"]
"""The way an instance sounds (AVATAR, section 3.1.3). Off-screen is said of frames."""

Decision = Literal["labelled", "off_screen", "rejected", "back_to_boxes"]

BBox = Annotated[list[float], Field(min_length=4, max_length=4)]
"""``[x, y, w, h]`` in pixels of the frame."""

TrackId = Annotated[int, Field(ge=0, lt=2**48)]
"""A thing's number in the frames of its clip. It is made from the thing's first box, so that it is
the same in two runs, and no other thing's, in other clips either."""

_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")


class Record(BaseModel):
    """A row. Frozen, strict about names, and free of NaN.

    A class names its table and key as it is made: ``class Clip(Record, table="clips", ...)``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    table: ClassVar[str] = ""
    """The table it belongs to; empty for records that live inside others."""

    key: ClassVar[str] = ""
    """The column that identifies it."""

    def __init_subclass__(cls, *, table: str = "", key: str = "", **others: Any) -> None:
        super().__init_subclass__(**others)
        cls.table, cls.key = table, key

    @property
    def id(self) -> str:
        """Return the value of the key column."""
        value: str = getattr(self, self.key)
        return value


class Source(Record, table="sources", key="video_id"):
    """A row of a video list: a video to download."""

    video_id: str
    label: str
    split: str
    start_s: int = Field(ge=0)
    """Start of VGGSound's own 10 s; kept for provenance, the whole video is fetched."""


class Video(Record, table="videos", key="video_id"):
    """A source file that passed the candidate filter (paper 3.1.1)."""

    video_id: str
    label: str
    split: str
    source_url: str
    path: str
    """Relative to the workspace."""
    sha256: str
    size_bytes: int = Field(gt=0)
    width: int = Field(gt=0)
    """The width as displayed: after rotation, pixels square."""
    height: int = Field(gt=0)
    fps: float = Field(gt=0)
    """Average rate."""
    frame_count: int = Field(ge=0)
    duration_s: float = Field(gt=0)
    """The time from where picture and sound begin to where the last of them ends."""
    bitrate_bps: int = Field(ge=0)
    video_codec: str
    audio_codec: str
    sample_rate_hz: int = Field(gt=0)
    channels: int = Field(gt=0)
    license: str
    """The licence as the site states it; empty when it states none."""
    title: str
    uploader: str
    upload_date: str
    """``YYYYMMDD``, or empty."""
    format_id: str
    video_stream: int | None = None
    """The file's stream of the picture, from 0; none in rows made before it was kept."""
    audio_stream: int | None = None
    """The stream of the sound."""


class Clip(Record, table="clips", key="clip_id"):
    """A 10 s span of a video with enough sound in it (paper 3.1.2)."""

    clip_id: str
    video_id: str
    start_s: float = Field(ge=0)
    end_s: float = Field(gt=0)
    active_seconds: int = Field(ge=0)
    rms_per_second: list[float]
    """RMS of each second of the clip, waveform in [-1, 1]."""
    candidates: int = Field(ge=1)
    """The windows of the video that qualified; one of them was drawn. With the lazy draw: 1."""


class Frame(Record, table="frames", key="frame_id"):
    """The sharpest frame of one sound event of a clip (paper 3.1.2)."""

    frame_id: str
    clip_id: str
    video_id: str
    frame_index: int = Field(ge=0)
    """Presented frames of the clip, from 0."""
    time_s: float
    event_time_s: float
    event_rms: float = Field(ge=0)
    event_rank: int = Field(ge=0)
    """0 is the clip's strongest event."""
    sharpness: float = Field(ge=0)
    """Variance of the Laplacian of the 8-bit luma plane."""
    path: str
    """The image, relative to the workspace."""
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    sha256: str = ""
    """The digest of the image; empty in rows made before it was kept, which cannot be checked."""
    size_bytes: int = Field(default=0, ge=0)
    """The size of the image file; 0 in such rows."""
    suspect: str | None = None
    """The reason for which the picture may be broken in the source itself, held against the clip's
    others: ``blocks``, those of a decoder that lost its way. None: nothing speaks for it, or nobody
    looked, as in rows made before it was kept."""


class SoundClass(Record):
    """A class of the tagger's own vocabulary."""

    name: str
    score: float


class SoundCategory(Record):
    """A target category as the tagger hears it."""

    category: str
    score: float
    active: bool


class Sounds(Record, table="sounds", key="clip_id"):
    """The sounds of a clip, or of one frame's neighbourhood."""

    clip_id: str
    frame_id: str | None = None
    """Set when the tags belong to a window around one frame instead of the whole clip."""
    tagger: str
    classes: list[SoundClass]
    categories: list[SoundCategory]

    @property
    def id(self) -> str:
        """Return the frame's where there is one, else the clip's; the two are never alike."""
        return self.frame_id or self.clip_id


class Proposal(Record, table="proposals", key="proposal_id"):
    """A box nobody has looked at yet (paper 3.1.3)."""

    proposal_id: str
    frame_id: str
    bbox: BBox
    detector: str
    detector_class: str
    detector_score: float = Field(ge=0, le=1)
    categories: list[str]
    """Target categories the box may be; one box may stay ambiguous."""
    audible: bool
    audio_score: float
    """Best score of its categories in the clip's sounds; 0 when none is heard."""
    track_id: TrackId | None = None
    """The thing it shows: boxes of one thing in a clip's frames have the same. None where nobody
    linked boxes, as in rows made before there were tracks."""


class Rle(Record):
    """COCO's compressed run lengths: columns first, from the top left."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    """``[height, width]``."""
    counts: str


class MaskSource(Record):
    """The origin of a mask; see ``Mask`` for the columns."""

    source: str
    model_digest: str
    predicted_iou: float | None
    stability: float | None


class ReviewedInstance(Record):
    """A sounding object as a reviewer left it."""

    bbox: BBox
    category: str
    scenario: Scenario
    origin: Literal["kept", "moved", "added"]
    proposal_id: str | None
    """The proposal it came from; none when the reviewer drew it."""
    proposal_iou: float | None = None
    """The IoU with that proposal as a person was shown it; a proposal may be gone later. Rules and
    simulations, which can be asked again, leave it out."""
    instance_id: str | None = None
    """The instance a mask review speaks of."""
    rle: Rle | None = None
    """The mask, in mask reviews."""
    drawn_by: MaskSource | None = None
    """The origin of the mask, when the reviewer left it as it was shown."""
    track_id: TrackId | None = None
    """The proposal's track as it was when the answer was read; none when the reviewer drew it."""


LATER_COLUMNS = {"proposal_iou", "drawn_by", "track_id"}
"""Columns of ``ReviewedInstance`` that ids do not know: reviews made before them keep theirs."""


class Review(Record, table="reviews", key="review_id"):
    """A decision about one frame. Append-only: a later review is a new row."""

    review_id: str
    frame_id: str
    kind: Literal["boxes", "masks"]
    annotator: str
    """A person's id at the labeling server, or ``rule:...`` / ``simulated:...``: never a person."""
    annotation_id: str
    updated_at: str
    """ISO 8601, UTC; empty for rules, whose answer does not depend on the day."""
    lead_time_s: float | None
    decision: Decision
    reject_reasons: list[str]
    off_screen_category: str | None
    instances: list[ReviewedInstance]
    verified: bool
    """True when a person decided. Rules and simulations are False."""
    purpose: Literal["label", "adjudicate", "gold"] = "label"
    """``adjudicate``: it settles what others disagree on. ``gold``: the known answer others are
    scored against. Both decide the frame (``pipeline.records.reviews``)."""
    shown: list[str] | None = None
    """The proposals a person was shown; those that are no instance's were removed."""


class Instance(Record, table="instances", key="instance_id"):
    """A sounding object in one frame, as the reviews say."""

    instance_id: str
    frame_id: str
    bbox: BBox
    audio_visual_category: str
    scenario: Scenario
    review_ids: list[str]
    proposal_id: str | None
    verified: bool
    track_id: TrackId | None = None
    """The thing it shows, over the frames of its clip; none where a person drew the box, and where
    nobody linked boxes. No part of its id."""


class Mask(Record, table="masks", key="instance_id"):
    """The pixels of an instance."""

    instance_id: str
    frame_id: str
    rle: Rle
    area: int = Field(gt=0)
    """Pixels."""
    bbox: BBox
    """The mask's own box."""
    source: str
    """The segmenter's name, or ``annotator``."""
    model_digest: str
    """SHA-256 of the weights; empty for segmenters without weights."""
    predicted_iou: float | None
    """The segmenter's own guess of its quality; none when it makes none."""
    stability: float | None = None
    """IoU of the masks just above and just below the segmenter's threshold, in [0, 1]."""
    verified: bool


class DropRow(Record):
    """An input row that was set aside on purpose."""

    input_id: str
    stage: str
    reason: str
    detail: str
    last_time: str


class FailureRow(Record):
    """An input row that could not be processed."""

    input_id: str
    stage: str
    kind: str
    retryable: bool
    detail: str
    attempts: int = Field(ge=1)
    last_time: str


TABLES: dict[str, type[Record]] = {
    record.table: record
    for record in (
        Source,
        Video,
        Clip,
        Frame,
        Sounds,
        Proposal,
        Review,
        Instance,
        Mask,
    )
}
"""Every table of a workspace by name."""


def check_video_id(text: str) -> str:
    """Return ``text`` if it is a YouTube id, safe to become part of a path.

    Raises:
        InputError: ``invalid_id``.

    >>> check_video_id("-1pRmoJIGQc")
    '-1pRmoJIGQc'
    """
    if not _YOUTUBE_ID.fullmatch(text):
        raise InputError("invalid_id", f"not a YouTube id (11 of A-Z a-z 0-9 _ -): {text[:60]!r}")
    return text


def clip_id(video_id: str, start_s: float) -> str:
    """Name a clip by its video and its start in milliseconds.

    >>> clip_id("-1pRmoJIGQc", 12.0)
    '-1pRmoJIGQc_00012000'
    """
    return f"{video_id}_{round(start_s * 1000):08d}"


def frame_id(clip: str, frame_index: int) -> str:
    """Name a frame by its clip and its index among the clip's presented frames.

    >>> frame_id("-1pRmoJIGQc_00012000", 7)
    '-1pRmoJIGQc_00012000_0007'
    """
    return f"{clip}_{frame_index:04d}"


def content_id(prefix: str, *parts: object) -> str:
    """Name a thing by its content: ``prefix`` and 12 hex digits over ``parts``.

    >>> content_id("f", "motion", [1.0, 2.0, 3.0, 4.0])
    'f_456f13599d7c'
    """
    return f"{prefix}_{digest_of(parts)[:12]}"


def track_id(first_box: str) -> int:
    """Name a track by its first box's ``proposal_id``.

    >>> track_id("p_456f13599d7c")
    150069743138207
    """
    return int(digest_of(["track", first_box])[:12], 16)


def digest_of(value: object) -> str:
    """Return the SHA-256 over ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache  # asked of each file that is read or written
def arrow_schema(record: type[BaseModel]) -> Any:
    """Return the Arrow schema of a record's table (``pyarrow.Schema``)."""
    import pyarrow as pa

    return pa.schema(_arrow_fields(record))


def _arrow_fields(record: type[BaseModel]) -> list[Any]:
    import pyarrow as pa

    hints = typing.get_type_hints(record, include_extras=True)
    fields = []
    for name in record.model_fields:
        hint = hints[name]
        some = [one for one in typing.get_args(hint) if one is not type(None)]
        nullable = typing.get_origin(hint) in (typing.Union, types.UnionType) and len(some) == 1
        kind = _arrow_type(some[0] if nullable else hint)
        fields.append(pa.field(name, kind, nullable=nullable))
    return fields


def _arrow_type(hint: Any) -> Any:
    import pyarrow as pa

    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if hint in plain:
        return plain[hint]
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _arrow_type(typing.get_args(hint)[0])
    if origin is Literal:
        return pa.string()
    if origin is list:
        return pa.list_(_arrow_type(typing.get_args(hint)[0]))
    if isinstance(hint, type) and issubclass(hint, Record):
        return pa.struct(_arrow_fields(hint))
    raise TypeError(f"no Arrow type for {hint!r}")


def by_table(rows: Iterable[Record]) -> dict[str, list[Record]]:
    """Sort records into the tables they belong to, keeping their order."""
    tables: dict[str, list[Record]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row)
    return tables
