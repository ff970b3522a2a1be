"""The counts of a release: supplement Table A, per category, per scenario, and Algorithm 1."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.release.document import Document

TABLE_A = ("Single-sound", "Multi-entity", "Mixed-sound")
"""The scenarios in the order of the supplement's Table A."""


def count(document: Document) -> dict[str, Any]:
    """Count everything that can be counted from the document alone."""
    scenarios: Counter[str | None] = Counter(row.scenario for row in document.annotations)
    # An imported release may have instances without a scenario.
    unstated = {"scenario not stated": scenarios[None]} if scenarios[None] else {}
    return {
        "version": document.info.version,
        "verified": document.info.verified,
        "videos": len(document.videos),
        "clips": len({image.clip_id for image in document.images}),
        **_clips_made(document),
        "frames": {
            "total": len(document.images),
            "off_screen": sum(image.off_screen for image in document.images),
            "with_missing_instances": sum(image.missing_instances > 0 for image in document.images),
        },
        "instances": {
            "total": len(document.annotations),
            **{name: scenarios[name] for name in TABLE_A},
            **unstated,
        },
        "frames_per_clip": _frames_per_clip(document),
        "per_category": _per_category(document),
        "cross_event_videos": len(document.cross_event()),
        "takedowns": document.info.takedowns,
        "leaks": [leak.model_dump() for leak in document.info.leaks],
    }


def _clips_made(document: Document) -> dict[str, dict[str, int]]:
    """Count the clips that were remuxed and how many encoded, where clips are shipped."""
    made = {image.clip_id: image.clip_made for image in document.images if image.clip_made}
    return {"clips_made": dict(sorted(Counter(made.values()).items()))} if made else {}


def _frames_per_clip(document: Document) -> dict[str, int]:
    """Count the clips that have 1, 2, ... labelled frames."""
    per_clip = Counter(image.clip_id for image in document.images)
    return {str(frames): clips for frames, clips in sorted(Counter(per_clip.values()).items())}


def _per_category(document: Document) -> list[dict[str, Any]]:
    """Count every category that occurs, most instances first (the paper's Fig. T)."""
    rows = document.annotations
    instances = Counter(row.audio_visual_category for row in rows)
    scenarios = Counter((row.audio_visual_category, str(row.scenario)) for row in rows)
    in_frames = {(row.audio_visual_category, row.image_id) for row in rows}
    frames = Counter(name for name, _ in in_frames)
    off_screen = Counter(image.off_screen_category for image in document.images)
    table = [
        {
            "category": name,
            "instances": instances[name],
            **{scenario: scenarios[name, scenario] for scenario in TABLE_A},
            "frames": frames[name],
            "off_screen_frames": off_screen[name],
        }
        for name in {*instances, *filter(None, off_screen)}
    ]
    return sorted(table, key=lambda row: (-row["instances"], row["category"]))
