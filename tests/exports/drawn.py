"""A small drawn world: tables, images and videos, from a few literals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from exports.release.freeze import ReleaseSummary, write_release
from exports.release.selection import ReleaseTables
from exports.report.frame_pictures import ReportTables
from pipeline.config import ExportConfig
from pipeline.records import rle
from pipeline.records.schema import (
    Clip,
    Frame,
    Instance,
    Mask,
    Proposal,
    Review,
    ReviewedInstance,
    Scenario,
    SoundCategory,
    Sounds,
    Video,
    clip_id,
    digest_of,
    frame_id,
)
from pipeline.workspace.storage import Storage

WIDTH, HEIGHT = 64, 48
FILM_RMS = 2**-0.5
"""Of a film's tone."""
DOG, CAT, TRAIN = "dog0dog0dog", "-cat_cat-ca", "train_train"
PROVENANCE = {
    "segment": {
        "config": {"segmenter": "grabcut", "grabcut_iterations": 5},
        "code_revisions": ["abc123"],
        "stage_key": "c0ffee",
    }
}


@dataclass(frozen=True)
class Thing:
    """A sounding thing of a drawn frame."""

    category: str
    scenario: Scenario = "Single-sound"
    box: tuple[int, int, int, int] = (8, 6, 20, 16)
    verified: bool = True


@dataclass(frozen=True)
class Shot:
    """A drawn frame: with things, or off-screen with a category."""

    video_id: str
    index: int
    things: Sequence[Thing] = ()
    off_screen: str | None = None
    verified: bool = True
    start_s: int = 1


WORLD = (
    Shot(DOG, 5, [Thing("dog barking")]),
    Shot(
        DOG, 40, [Thing("dog barking", "Mixed-sound"), Thing("bird", "Mixed-sound", (40, 2, 9, 9))]
    ),
    Shot(CAT, 12, off_screen="cat meowing"),
    Shot(CAT, 30, [Thing("cat meowing", "Multi-entity", (0, 0, 64, 48))]),
    Shot(TRAIN, 0, [Thing("train horn", verified=False)], verified=False),
    Shot(TRAIN, 45, off_screen="train horn", verified=False),
)


def video(video_id: str, **changes: Any) -> Video:
    """A video record, attributed to somebody."""
    values: dict[str, Any] = {
        "video_id": video_id,
        "label": "some label",
        "split": "test",
        "source_url": f"https://example.org/watch?v={video_id}",
        "path": f"media/videos/{video_id}.mp4",
        "sha256": "",
        "size_bytes": 1000,
        "width": WIDTH,
        "height": HEIGHT,
        "fps": 25.0,
        "frame_count": 100,
        "duration_s": 4.0,
        "bitrate_bps": 1000,
        "video_codec": "h264",
        "audio_codec": "aac",
        "sample_rate_hz": 16000,
        "channels": 1,
        "license": "Creative Commons Attribution license (reuse allowed)",
        "title": f"Title of {video_id}",
        "uploader": "Somebody",
        "upload_date": "20200102",
        "format_id": "18",
    }
    return Video(**{**values, **changes})


def blob(box: Sequence[int]) -> NDArray[np.bool_]:
    """An ellipse in a box, with a hole when there is room for one."""
    x, y, w, h = box
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    axes = ((w - 1) // 2, (h - 1) // 2)
    cv2.ellipse(mask, (x + w // 2, y + h // 2), axes, 0, 0, 360, 1, -1)
    if min(w, h) > 12:
        mask[y + h // 2 - 1 : y + h // 2 + 2, x + w // 2 - 2 : x + w // 2 + 1] = 0
    return mask.astype(bool)


def tables(shots: Sequence[Shot] = WORLD) -> ReleaseTables:
    """The tables after every stage for these shots."""
    rows: dict[str, dict[str, Any]] = {
        name: {} for name in ("videos", "clips", "frames", "reviews", "instances", "masks")
    }
    for shot in shots:
        rows["videos"][shot.video_id] = video(shot.video_id)
        clip = clip_id(shot.video_id, shot.start_s)
        rows["clips"][clip] = Clip(
            clip_id=clip,
            video_id=shot.video_id,
            start_s=shot.start_s,
            end_s=shot.start_s + 2,
            active_seconds=2,
            rms_per_second=[FILM_RMS, FILM_RMS],
            candidates=1,
        )
        frame = _frame(shot, clip)
        rows["frames"][frame.frame_id] = frame
        review = _review(shot, frame)
        rows["reviews"][review.review_id] = review
        for number, thing in enumerate(shot.things):
            instance, mask = _instance(thing, number, frame, review)
            rows["instances"][instance.instance_id] = instance
            rows["masks"][instance.instance_id] = mask
    return ReleaseTables(**{name: list(table.values()) for name, table in rows.items()})


def report_tables(**changes: Any) -> ReportTables:
    """The tables of the drawn world with two proposals a frame, and what is heard."""
    rows = tables()
    proposals = [
        Proposal(
            proposal_id=f"p_{frame.frame_id}_{audible}",
            frame_id=frame.frame_id,
            bbox=[1, 2, 30, 20],
            detector="motion",
            detector_class="moving",
            detector_score=0.5,
            categories=["dog barking"],
            audible=audible,
            audio_score=1.0,
        )
        for frame in rows.frames
        for audible in (True, False)
    ]
    sounds = [
        Sounds(
            clip_id=clip.clip_id,
            tagger="vggsound-label",
            classes=[],
            categories=[SoundCategory(category="dog barking", score=1.0, active=True)],
        )
        for clip in rows.clips
    ]
    return ReportTables(**{**vars(rows), "proposals": proposals, "sounds": sounds, **changes})


def _frame(shot: Shot, clip: str) -> Frame:
    name = frame_id(clip, shot.index)
    return Frame(
        frame_id=name,
        clip_id=clip,
        video_id=shot.video_id,
        frame_index=shot.index,
        time_s=shot.start_s + shot.index / 25,
        event_time_s=shot.start_s + shot.index / 25,
        event_rms=FILM_RMS,
        event_rank=0,
        sharpness=12.5,
        path=f"media/frames/{name}.jpg",
        width=WIDTH,
        height=HEIGHT,
    )


def _review(shot: Shot, frame: Frame) -> Review:
    return Review(
        review_id=f"r_{frame.frame_id}",
        frame_id=frame.frame_id,
        kind="boxes",
        annotator="person:1" if shot.verified else "rule:accept",
        annotation_id="1",
        updated_at="2026-01-02T03:04:05Z" if shot.verified else "",
        lead_time_s=3.0,
        decision="off_screen" if shot.off_screen is not None else "labelled",
        reject_reasons=[],
        off_screen_category=shot.off_screen,
        instances=[
            ReviewedInstance(
                bbox=list(thing.box),
                category=thing.category,
                scenario=thing.scenario,
                origin="kept",
                proposal_id=None,
            )
            for thing in shot.things
        ],
        verified=shot.verified,
    )


def _instance(thing: Thing, number: int, frame: Frame, review: Review) -> tuple[Instance, Mask]:
    name = f"i_{frame.frame_id}_{number}"
    inside = blob(thing.box)
    instance = Instance(
        instance_id=name,
        frame_id=frame.frame_id,
        bbox=list(thing.box),
        audio_visual_category=thing.category,
        scenario=thing.scenario,
        review_ids=[review.review_id],
        proposal_id=f"p_{name}",
        verified=thing.verified,
        track_id=int(digest_of([frame.clip_id, number])[:12], 16),
    )
    mask = Mask(
        instance_id=name,
        frame_id=frame.frame_id,
        rle=rle.encode(inside),
        area=int(inside.sum()),
        bbox=[float(side) for side in cv2.boundingRect(inside.astype(np.uint8))],
        source="grabcut",
        model_digest="",
        predicted_iou=None,
        verified=thing.verified,
    )
    return instance, mask


def draw_media(storage: Storage, rows: ReleaseTables) -> ReleaseTables:
    """The tables after their images and videos are drawn, with the digests of these."""
    frames, videos = [], []
    for frame in rows.frames:
        data = cv2.imencode(".jpg", film_picture(round(frame.time_s * 25)))[1].tobytes()
        storage.write(frame.path, data)
        frames.append(frame.model_copy(update={"sha256": digest_of_bytes(data)}))
    for row in rows.videos:
        path = storage.path("scratch") / f"{row.video_id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        film(path)
        data = path.read_bytes()
        storage.publish(path, row.path)
        facts = {"sha256": digest_of_bytes(data), "size_bytes": len(data)}
        videos.append(row.model_copy(update=facts))
    return replace(rows, frames=frames, videos=videos)


def digest_of_bytes(data: bytes) -> str:
    """SHA-256 as rows have it."""
    return hashlib.sha256(data).hexdigest()


def film_picture(number: int) -> NDArray[np.uint8]:
    """A frame of the film: a white square that moves to the right, over a ground that brightens."""
    image = np.full((HEIGHT, WIDTH, 3), 5 + number, dtype=np.uint8)
    image[10:20, number % 50 : number % 50 + 10] = 255
    return image


def film_sound(seconds: int) -> NDArray[np.float32]:
    """The film's tone, at 16 kHz."""
    return np.sin(np.arange(16000 * seconds) * 2 * np.pi * 440 / 16000).astype(np.float32)


def film(path: Path, seconds: int = 4) -> None:
    """A moving square with a tone, 25 frames a second, a keyframe every second."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=25, options={"g": "25"})
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(25 * seconds):
            frame = av.VideoFrame.from_ndarray(film_picture(number), format="rgb24")
            container.mux(picture.encode(frame))
        tone = film_sound(seconds)
        for first in range(0, len(tone), 1024):
            samples = av.AudioFrame.from_ndarray(
                tone[None, first : first + 1024], format="fltp", layout="mono"
            )
            samples.sample_rate, samples.pts = 16000, first
            samples.time_base = Fraction(1, 16000)
            container.mux(sound.encode(samples))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))


def release(
    storage: Storage,
    rows: ReleaseTables | Iterable[ReleaseTables] | None = None,
    version: str = "1.0",
    *,
    unverified: bool = False,
    media: bool = False,
    config: ExportConfig | None = None,
    taxonomy: Sequence[str] = (),
) -> ReleaseSummary:
    """``write_release`` with a test's usual answers."""
    return write_release(
        tables() if rows is None else rows,
        storage,
        version,
        unverified=unverified,
        media=media,
        config=config or ExportConfig(),
        provenance=PROVENANCE,
        taxonomy=taxonomy,
    )


def without(rows: ReleaseTables, table: str, key: str) -> ReleaseTables:
    """The tables less one row."""
    return replace(rows, **{table: [row for row in getattr(rows, table) if row.id != key]})


def changed(rows: ReleaseTables, table: str, key: str, **changes: Any) -> ReleaseTables:
    """The tables with one row changed."""
    return replace(
        rows,
        **{
            table: [
                row.model_copy(update=changes) if row.id == key else row
                for row in getattr(rows, table)
            ]
        },
    )


def added(rows: ReleaseTables, table: str, *new: Any) -> ReleaseTables:
    """The tables with more rows."""
    return replace(rows, **{table: [*getattr(rows, table), *new]})
