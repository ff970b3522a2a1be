"""The report: one HTML file, without network or scripts, that tells a stranger what a run did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exports.figures import bar_chart
from exports.gallery import ReportTables, clip_views
from exports.statistics import SCENARIOS
from exports.templating import environment
from pipeline.inspection import StageStatus
from pipeline.schema import DropRow, FailureRow
from pipeline.storage import Storage

__all__ = ["ReportTables", "write_report"]

_EXAMPLES = 3
"""Rows named per reason."""
_BARS = 25
"""Categories drawn."""
_MEANINGS = {
    "list": "read the list of videos",
    "download": "fetch whole videos, keep the suitable ones",
    "sample": "find a clip with sound and its sharpest frames",
    "hear": "say what can be heard",
    "propose": "draw boxes around what may sound",
    "accept": "take good boxes as they are, by rule",
    "simulate": "answer in place of people, from a ground truth",
    "settle": "turn reviews into sounding instances",
    "segment": "turn boxes into pixel masks",
}
"""What each stage does, for strangers."""


@dataclass(frozen=True)
class _Reason:
    """Rows of one stage that ended alike."""

    stage: str
    name: str
    failed: bool
    retryable: bool
    count: int
    examples: list[tuple[str, str]]
    """Input id and detail."""


def write_report(
    storage: Storage,
    tables: ReportTables,
    stages: Sequence[StageStatus],
    failures: Sequence[FailureRow],
    drops: Sequence[DropRow],
    *,
    target: Path,
    scores: Mapping[str, Any] | None = None,
    title: str = "What this run did",
    max_clips: int = 60,
) -> Path:
    """Write the report to ``target``, whole or not at all.

    Args:
        storage: the workspace the frames are read from.
        tables: what the stages made.
        stages: the books of each stage, in the order of the flow.
        failures: every failed row.
        drops: every dropped row.
        target: the HTML file.
        scores: measured against a ground truth, by name; groups may be nested.
        title: the heading.
        max_clips: clips shown with pictures; the page says how many more there are.
    """
    clips = clip_views(storage, tables, max_clips)
    people = {review.annotator for review in tables.reviews if review.verified}
    rules = {review.annotator for review in tables.reviews if not review.verified}
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            numbers=_numbers(tables),
            people=len(people),
            rules=sorted(rules),
            stages=stages,
            meanings=_MEANINGS,
            reasons=_reasons(drops, failures),
            charts=_charts(tables),
            scores=_flat(scores or {}),
            clips=clips,
            hidden_clips=len(tables.clips) - len(clips),
            backends=_backends(tables),
        )
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.tmp")
    beside.write_text(page, encoding="utf-8")
    beside.replace(target)
    return target


def _numbers(tables: ReportTables) -> list[tuple[int, str]]:
    off_screen = {
        review.frame_id
        for review in tables.reviews
        if review.kind == "boxes" and review.decision == "off_screen"
    }
    return [
        (len(tables.videos), "videos"),
        (len(tables.clips), "clips"),
        (len(tables.frames), "frames"),
        (len(tables.proposals), "proposed boxes"),
        (len(tables.instances), "sounding instances"),
        (len(tables.masks), "masks"),
        (len(off_screen), "off-screen frames"),
    ]


def _backends(tables: ReportTables) -> list[tuple[str, list[str]]]:
    return [
        ("sounds heard by", sorted({row.tagger for row in tables.sounds})),
        ("boxes proposed by", sorted({row.detector for row in tables.proposals})),
        ("frames labelled by", sorted({row.annotator for row in tables.reviews})[:12]),
        ("masks drawn by", sorted({row.source for row in tables.masks})),
    ]


def _reasons(drops: Sequence[DropRow], failures: Sequence[FailureRow]) -> list[_Reason]:
    """Every way a row ended early, per stage, most frequent first."""
    groups: dict[tuple[str, bool, str, bool], list[tuple[str, str]]] = {}
    for drop in drops:
        key = (drop.stage, False, drop.reason, False)
        groups.setdefault(key, []).append((drop.input_id, drop.detail))
    for row in failures:
        key = (row.stage, True, row.kind, row.retryable)
        groups.setdefault(key, []).append((row.input_id, row.detail))
    found = [
        _Reason(stage, name, failed, retryable, len(rows), sorted(rows)[:_EXAMPLES])
        for (stage, failed, name, retryable), rows in groups.items()
    ]
    return sorted(found, key=lambda row: (row.stage, row.failed, -row.count, row.name))


def _charts(tables: ReportTables) -> list[str]:
    """Bar charts as SVG; ``bar_chart`` escapes its labels itself."""
    categories = Counter(row.audio_visual_category for row in tables.instances)
    ranked = sorted(categories.items(), key=lambda item: (-item[1], item[0]))
    scenarios: Counter[str] = Counter(row.scenario for row in tables.instances)
    by_scenario = [(name, scenarios[name]) for name in SCENARIOS]
    return [
        bar_chart("Instances per category", ranked, limit=_BARS),
        bar_chart("Instances per scenario", by_scenario, "#5b7f52"),
    ]


def _flat(scores: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested scores as lines of name and value."""
    lines: list[tuple[str, str]] = []
    for name, value in scores.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{name}: ")
        else:
            text = f"{value:.3f}" if isinstance(value, float) else str(value)
            lines.append((f"{prefix}{name}", text))
    return lines
