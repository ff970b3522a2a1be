"""Records with sensible values, and a worker's context over literal tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.records.reviews import DELETED
from pipeline.records.schema import (
    TABLES,
    Clip,
    Frame,
    Proposal,
    Record,
    Review,
    Sounds,
    Video,
    arrow_schema,
)
from pipeline.run.stage import WorkerContext
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import Lookup


def context(root: Path, **tables: Sequence[Record]) -> WorkerContext:
    """A worker in ``root`` that sees these rows of these tables, and no others."""

    def lookup(table: str, column: str) -> Lookup[Any]:
        record = TABLES[table]
        rows = [row.model_dump() for row in tables.get(table, ())]
        whole = pa.Table.from_pylist(rows, schema=arrow_schema(record))
        return Lookup(record, column, [lambda names: whole.select(names) if names else whole])

    scratch = root / "scratch"
    scratch.mkdir(exist_ok=True)
    return WorkerContext(Storage(root), scratch, lookup)


def video(video_id: str = "vvvvvvvvvvv", **changes: Any) -> Video:
    values: dict[str, Any] = {
        "video_id": video_id,
        "label": "dog barking",
        "split": "test",
        "source_url": "http://127.0.0.1/v.mp4",
        "path": f"media/videos/{video_id}.mp4",
        "sha256": "",
        "size_bytes": 1,
        "width": 320,
        "height": 180,
        "fps": 25.0,
        "frame_count": 250,
        "duration_s": 10.0,
        "bitrate_bps": 1000,
        "video_codec": "h264",
        "audio_codec": "aac",
        "sample_rate_hz": 16000,
        "channels": 1,
        "license": "",
        "title": "",
        "uploader": "",
        "upload_date": "",
        "format_id": "",
    }
    return Video(**(values | changes))


def clip(video_id: str = "vvvvvvvvvvv", **changes: Any) -> Clip:
    values: dict[str, Any] = {
        "clip_id": f"{video_id}_00000000",
        "video_id": video_id,
        "start_s": 0.0,
        "end_s": 10.0,
        "active_seconds": 10,
        "rms_per_second": [0.1] * 10,
        "candidates": 1,
    }
    return Clip(**(values | changes))


def frame(index: int = 10, video_id: str = "vvvvvvvvvvv", **changes: Any) -> Frame:
    values: dict[str, Any] = {
        "frame_id": f"{video_id}_00000000_{index:04d}",
        "clip_id": f"{video_id}_00000000",
        "video_id": video_id,
        "frame_index": index,
        "time_s": index / 25,
        "event_time_s": index / 25,
        "event_rms": 0.1,
        "event_rank": 0,
        "sharpness": 1.0,
        "path": f"media/frames/{video_id}_{index:04d}.png",
        "width": 320,
        "height": 180,
    }
    return Frame(**(values | changes))


def sounds(video_id: str = "vvvvvvvvvvv", **changes: Any) -> Sounds:
    values: dict[str, Any] = {
        "clip_id": f"{video_id}_00000000",
        "tagger": "vggsound-label",
        "classes": [{"name": "dog barking", "score": 1.0}],
        "categories": [{"category": "dog", "score": 1.0, "active": True}],
    }
    return Sounds(**(values | changes))


def proposal(name: str = "p_1", **changes: Any) -> Proposal:
    values: dict[str, Any] = {
        "proposal_id": name,
        "frame_id": frame().frame_id,
        "bbox": [10.0, 10.0, 40.0, 40.0],
        "detector": "motion",
        "detector_class": "moving region",
        "detector_score": 0.8,
        "categories": ["dog"],
        "audible": True,
        "audio_score": 1.0,
    }
    return Proposal(**(values | changes))


KEPT = {
    "bbox": [10.0, 10.0, 40.0, 40.0],
    "category": "dog",
    "scenario": "Single-sound",
    "origin": "kept",
    "proposal_id": "p_1",
}


def said(who: str, day: int, annotation: str = "", **changes: Any) -> Review:
    """A person's answer of a day; the annotation is the person's only one if none is named."""
    annotation = annotation or f"a{who}"
    values: dict[str, Any] = {
        "review_id": f"r_{who}_{annotation}_{day}",
        "frame_id": "f",
        "kind": "boxes",
        "annotator": who,
        "annotation_id": annotation,
        "updated_at": f"2026-01-{day:02d}T00:00:00+00:00",
        "lead_time_s": 3.0,
        "decision": "labelled",
        "reject_reasons": [],
        "off_screen_category": None,
        "instances": [KEPT],
        "verified": True,
    }
    return Review.model_validate(values | changes)


def gone(who: str, day: int, annotation: str = "", reason: str = DELETED) -> Review:
    """The row that takes an annotation back."""
    return said(
        who, day, annotation, decision="back_to_boxes", reject_reasons=[reason], instances=[]
    )
