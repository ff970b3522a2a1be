"""The pictures of the report: each frame small, with what was found in it drawn over it as SVG.

Overlays are vectors in the frame's own pixels, so one picture serves with and without them.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from exports.release.selection import ReleaseTables
from pipeline.errors import MediaError
from pipeline.pictures import category_color, encode_image, mask_path
from pipeline.records import rle
from pipeline.records.reviews import counting_reviews
from pipeline.records.schema import (
    Clip,
    Frame,
    Instance,
    Proposal,
    Record,
    Review,
    Sounds,
    Video,
    digest_of,
)
from pipeline.workspace.recorded import frame_bytes
from pipeline.workspace.storage import Storage

_WIDTH = 420
"""Width of a picture, pixels."""
_QUALITY = 78
"""JPEG quality of a picture."""
_COARSE = 4
"""Pixels of the frame per step of an outline that is shown without its picture."""

RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True)
class ReportTables(ReleaseTables):
    """The rows a report shows, in any order."""

    sounds: Sequence[Sounds] = ()
    proposals: Sequence[Proposal] = ()


@dataclass(frozen=True)
class Shape:
    """Something drawn over a picture."""

    kind: str
    """``audible`` or ``unheard`` (proposals), ``box`` (an instance) or ``mask``."""
    title: str
    color: str
    box: Sequence[float]
    path: str = ""


@dataclass(frozen=True)
class FrameView:
    """A picture with its overlays and caption."""

    frame: Frame
    jpeg: str
    """Base64; empty when there is no picture to show."""
    gone: str
    """The reason a picture that was to be shown is not: what became of its file."""
    shapes: list[Shape]
    labels: list[tuple[str, str, str]]
    """Category, scenario and color of each instance."""
    state: str
    """``labelled``, ``off-screen``, ``rejected``, ``no label yet``, ..."""
    note: str
    verified: bool


@dataclass(frozen=True)
class ClipView:
    """A clip with its pictures in time order."""

    clip: Clip
    video: Video
    bars: list[tuple[float, float]]
    """RMS of each second, and its fraction of the clip's loudest second."""
    heard: list[tuple[str, float, bool]]
    """Category, score, active."""
    frames: list[FrameView]
    pictured: bool
    """True where its pictures are in the page."""
    film: str
    """Address of the clip with its sound; empty where there is none."""


def pictured_clips(clip_ids: Iterable[str], count: int) -> set[str]:
    """Return at most ``count`` clips: a draw by name, so the same ones every time."""
    return set(heapq.nsmallest(count, clip_ids, key=digest_of))


def clip_views(
    storage: Storage, tables: ReportTables, pictured: Collection[str], films: Mapping[str, str]
) -> Iterator[ClipView]:
    """Yield every clip, those with pictures first.

    Args:
        storage: the workspace the frames are read from.
        tables: what the stages made.
        pictured: clips with pictures, by ``clip_id``.
        films: address of each clip that can be played, by ``clip_id``.
    """
    videos = {video.video_id: video for video in tables.videos}
    frames = _grouped(tables.frames, "clip_id")
    sounds = _grouped(tables.sounds, "clip_id")
    painter = _Painter(storage, tables)
    order = sorted(tables.clips, key=lambda clip: (clip.clip_id not in pictured, clip.clip_id))
    for clip in order:
        if clip.video_id not in videos:
            continue
        loudest = max(clip.rms_per_second, default=0.0) or 1.0
        own = sorted(frames.get(clip.clip_id, []), key=lambda frame: frame.frame_index)
        shown = clip.clip_id in pictured
        yield ClipView(
            clip=clip,
            video=videos[clip.video_id],
            bars=[(rms, rms / loudest) for rms in clip.rms_per_second],
            heard=_heard(sounds.get(clip.clip_id, [])),
            frames=[painter.view(frame, pictured=shown) for frame in own],
            pictured=shown,
            film=films.get(clip.clip_id, ""),
        )


class _Painter:
    """Draws what the tables say of a frame."""

    def __init__(self, storage: Storage, tables: ReportTables) -> None:
        self._storage = storage
        self._proposals = _grouped(tables.proposals, "frame_id")
        self._instances = _grouped(tables.instances, "frame_id")
        self._reviews = _grouped(tables.reviews, "frame_id")
        self._masks = {mask.instance_id: mask for mask in tables.masks}

    def view(self, frame: Frame, *, pictured: bool) -> FrameView:
        """Return the frame's picture, if it is to have one, its overlays and caption."""
        shapes: list[Shape] = []
        for proposal in self._proposals.get(frame.frame_id, []):
            kind = "audible" if proposal.audible else "unheard"
            names = ", ".join(proposal.categories) or proposal.detector_class
            title = f"{names} ({proposal.detector} {proposal.detector_score:.2f})"
            shapes.append(Shape(kind, title, "", proposal.bbox))
        labels: list[tuple[str, str, str]] = []
        instances = self._instances.get(frame.frame_id, [])
        for instance in instances:
            color = f"rgb{category_color(instance.audio_visual_category)}"
            title = f"{instance.audio_visual_category}, {instance.scenario}"
            labels.append((instance.audio_visual_category, instance.scenario, color))
            mask = self._masks.get(instance.instance_id)
            if mask is not None:
                outline = mask_path(rle.decode(mask.rle), 1 if pictured else _COARSE)
                shapes.append(Shape("mask", f"{title} ({mask.source})", color, mask.bbox, outline))
            shapes.append(Shape("box", title, color, instance.bbox))
        state, note = _state(self._reviews.get(frame.frame_id, []), instances)
        jpeg, gone = _picture(self._storage, frame) if pictured else ("", "")
        return FrameView(
            frame=frame,
            jpeg=jpeg,
            gone=gone,
            shapes=shapes,
            labels=labels,
            state=state,
            note="; ".join(filter(None, (note, _doubt(frame)))),
            verified=bool(instances) and all(instance.verified for instance in instances),
        )


def _doubt(frame: Frame) -> str:
    return f"may be broken in the source: {frame.suspect}" if frame.suspect else ""


def _picture(storage: Storage, frame: Frame) -> tuple[str, str]:
    try:
        data = np.frombuffer(frame_bytes(storage, frame), dtype=np.uint8)
    except MediaError as error:
        return "", error.kind
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        return "", "not an image"
    height, width = image.shape[:2]
    size = (min(width, _WIDTH), max(1, round(height * min(1.0, _WIDTH / width))))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    encoded = encode_image(small[:, :, ::-1], "jpg", _QUALITY)  # OpenCV read blue first
    return base64.b64encode(encoded).decode("ascii"), ""


def _state(reviews: Sequence[Review], instances: Sequence[Instance]) -> tuple[str, str]:
    """Return what was decided about a frame, and a word more."""
    boxes = counting_reviews(reviews, "boxes")
    if not boxes:
        return ("labelled", "") if instances else ("no label yet", "")
    review = boxes[0]
    if len({other.decision for other in boxes}) > 1:
        return "reviewers disagree", ", ".join(sorted({other.decision for other in boxes}))
    if review.decision == "off_screen":
        return "off-screen", review.off_screen_category or ""
    if review.decision == "rejected":
        return "rejected", ", ".join(review.reject_reasons)
    if review.decision == "labelled" and not instances:
        return "nothing sounds here", ""
    return review.decision.replace("_", " "), ""


def _heard(sounds: Iterable[Sounds]) -> list[tuple[str, float, bool]]:
    best: dict[str, tuple[str, float, bool]] = {}
    for sound in sounds:
        for row in sound.categories:
            name, score, active = best.get(row.category, (row.category, 0.0, False))
            best[name] = (name, max(score, row.score), active or row.active)
    return sorted(best.values(), key=lambda row: (not row[2], -row[1], row[0]))[:6]


def _grouped(rows: Iterable[RecordT], column: str) -> Mapping[str, list[RecordT]]:
    groups: dict[str, list[RecordT]] = {}
    for row in sorted(rows, key=lambda row: row.id):
        groups.setdefault(getattr(row, column), []).append(row)
    return groups
