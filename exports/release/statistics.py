"""The counts of a release: supplement Table A, per category, per scenario, and Algorithm 1."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.release.document import AnnotationRow, Document, ImageRow

TABLE_A = ("Single-sound", "Multi-entity", "Mixed-sound")
"""The scenarios in the order of the supplement's Table A."""


def count(document: Document) -> dict[str, Any]:
    """Count everything that can be counted from the document alone."""
    images, things = _Images(), _Things()
    for image in document.images:
        images.add(image)
    for row in document.annotations:
        things.add(row)
    scenarios = things.scenarios
    # An imported release may have instances without a scenario.
    unstated = {"scenario not stated": scenarios[None]} if scenarios[None] else {}
    made = Counter(images.made.values())
    return {
        "version": document.info.version,
        "verified": document.info.verified,
        "videos": len(document.videos),
        "clips": len(images.per_clip),
        **({"clips_made": dict(sorted(made.items()))} if made else {}),
        "frames": {
            "total": len(document.images),
            "off_screen": images.off_screen,
            "with_missing_instances": images.incomplete,
        },
        "instances": {
            "total": len(document.annotations),
            **{name: scenarios[name] for name in TABLE_A},
            **unstated,
        },
        "frames_per_clip": {
            str(frames): clips
            for frames, clips in sorted(Counter(images.per_clip.values()).items())
        },
        "per_category": _per_category(things, images.silent),
        "cross_event_videos": len(document.cross_event()),
        "takedowns": document.info.takedowns,
        "leaks": [leak.model_dump() for leak in document.info.leaks],
    }


class _Images:
    """What is counted of images, in one pass."""

    def __init__(self) -> None:
        self.per_clip: Counter[str] = Counter()
        self.made: dict[str, str] = {}
        """The way each clip was made, where clips are shipped."""
        self.silent: Counter[str | None] = Counter()
        """Off-screen frames by category."""
        self.off_screen = self.incomplete = 0

    def add(self, image: ImageRow) -> None:
        self.per_clip[image.clip_id] += 1
        if image.clip_made:
            self.made[image.clip_id] = image.clip_made
        self.silent[image.off_screen_category] += 1
        self.off_screen += image.off_screen
        self.incomplete += image.missing_instances > 0


class _Things:
    """What is counted of annotations, in one pass."""

    def __init__(self) -> None:
        self.scenarios: Counter[str | None] = Counter()
        self.categories: Counter[str] = Counter()
        self.both: Counter[tuple[str, str]] = Counter()
        self.frames: dict[str, set[int]] = {}
        """The images of each category."""

    def add(self, row: AnnotationRow) -> None:
        name = row.audio_visual_category
        self.scenarios[row.scenario] += 1
        self.categories[name] += 1
        self.both[name, str(row.scenario)] += 1
        self.frames.setdefault(name, set()).add(row.image_id)


def _per_category(things: _Things, silent: Counter[str | None]) -> list[dict[str, Any]]:
    """Count every category that occurs, most instances first (the paper's Fig. T)."""
    table = [
        {
            "category": name,
            "instances": things.categories[name],
            **{scenario: things.both[name, scenario] for scenario in TABLE_A},
            "frames": len(things.frames.get(name, ())),
            "off_screen_frames": silent[name],
        }
        for name in {*things.categories, *filter(None, silent)}
    ]
    return sorted(table, key=lambda row: (-row["instances"], row["category"]))
