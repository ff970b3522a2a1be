"""The counts of a release: supplement Table A, per category, per scenario, and Algorithm 1."""

from __future__ import annotations

from collections import Counter, defaultdict
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
    frames: dict[str, set[int]] = defaultdict(set)
    scenarios: dict[str, Counter[str | None]] = defaultdict(Counter)
    off_screen: Counter[str] = Counter()
    for row in document.annotations:
        frames[row.audio_visual_category].add(row.image_id)
        scenarios[row.audio_visual_category][row.scenario] += 1
    for image in document.images:
        if image.off_screen_category:
            off_screen[image.off_screen_category] += 1
    names = {*frames, *off_screen}
    table = [
        {
            "category": name,
            "instances": sum(scenarios[name].values()),
            **{scenario: scenarios[name][scenario] for scenario in TABLE_A},
            "frames": len(frames[name]),
            "off_screen_frames": off_screen[name],
        }
        for name in names
    ]
    return sorted(table, key=lambda row: (-row["instances"], row["category"]))
