"""The report: one HTML file that tells a stranger what a run did.

It needs no network: pictures are inside, and so is the only script it may run, which pages and
filters the gallery and is named by its digest in the page's own policy.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from exports.release.statistics import TABLE_A
from exports.report.frame_pictures import ClipView, ReportTables, clip_views
from pipeline.files import write_whole
from pipeline.flow import FLOW
from pipeline.records.reviews import KINDS, by_frame, opinions
from pipeline.records.schema import DropRow, FailureRow, Review
from pipeline.run.status import StageStatus
from pipeline.templating import environment
from pipeline.workspace.storage import Storage

__all__ = ["Films", "ReportTables", "write_report"]

_PAGE = 12
"""Clips per page of the gallery."""
_EXAMPLES = 3
"""Rows named per reason."""
_BARS = 25
"""Categories drawn."""


@dataclass(frozen=True)
class Films:
    """The clips a report can play."""

    addresses: Mapping[str, str]
    """The address of each clip, by ``clip_id``."""
    silence: str
    """The reason there are no others; empty where nothing is to be said."""


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
    max_clips: int = 200,
    films: Films | None = None,
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
        max_clips: clips shown with pictures; of the others the page has the shapes alone.
        films: where clips can be played from, by addresses relative to ``target``.
    """
    films = films or Films({}, "")
    gallery = _gallery(clip_views(storage, tables, max_clips, films.addresses))
    script = (Path(__file__).parents[1] / "templates/report.js").read_text(encoding="utf-8")
    people = {review.annotator for review in tables.reviews if _by_a_person(review)}
    rules = {review.annotator for review in tables.reviews if not review.verified}
    page = (
        environment("exports")
        .get_template("report.html.j2")
        .render(
            title=title,
            numbers=_numbers(tables),
            people=len(people),
            rules=sorted(rules),
            stages=stages,
            meanings={step.name: step.does for step in FLOW},
            reasons=_reasons(drops, failures),
            charts=_charts(tables),
            scores=_flat(scores or {}),
            backends=_backends(tables),
            labelling=_labelling(tables),
            silence=films.silence,
            num_films=len(films.addresses),
            # The page's policy lets nothing load but its own script, and films if there are some.
            film_source="'self' file:" if films.addresses else "'none'",
            script=Markup(script),
            script_digest=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
            **gallery,
        )
    )
    write_whole(target, page)
    return target


def _gallery(views: Iterable[ClipView]) -> dict[str, Any]:
    """Return the clips as HTML: the first page as such, the others as text for its script."""
    template = environment("exports").get_template("clip.html.j2")
    first: list[Markup] = []
    clips: list[dict[str, Any]] = []
    pictured = 0
    for view in views:
        html = template.render(view=view)
        pictured += view.pictured
        frames = [
            ({name for name, _, _ in one.labels}, {how for _, how, _ in one.labels}, {one.state})
            for one in view.frames
        ]
        text = f"{view.video.title} {view.video.label} {view.clip.clip_id}".lower()
        clips.append({"text": text, "frames": frames})
        if len(first) < _PAGE:
            first.append(Markup(html))
        else:
            clips[-1]["html"] = html
    names = ("all categories", "all scenarios", "all frames")
    # Category, scenario and state are numbered, in their order, as few are named by many.
    every = [frame for clip in clips for frame in clip["frames"]]
    order = [sorted(set().union(*(frame[kind] for frame in every))) for kind in range(3)]
    place = [{name: number for number, name in enumerate(kind)} for kind in order]
    for clip in clips:
        clip["frames"] = [
            [sorted(place[kind][name] for name in own) for kind, own in enumerate(frame)]
            for frame in clip["frames"]
        ]
    return {
        "num_clips": len(clips),
        "num_pictured": pictured,
        "first_clips": first,
        "filters": list(zip(("category", "scenario", "state"), names, order, strict=True)),
        "data": _script_json({"page": _PAGE, "clips": clips}),
    }


def _script_json(value: Any) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _labelling(tables: ReportTables) -> list[tuple[str, str]]:
    """Return what people's reviews cost and how far they agree; nothing without reviews."""
    reviews = [review for review in tables.reviews if _by_a_person(review)]
    if not reviews:
        return []
    times = [review.lead_time_s for review in reviews if review.lead_time_s is not None]
    lines = [
        ("people", f"{len({review.annotator for review in reviews}):,}"),
        ("reviews", f"{len(reviews):,}"),
    ]
    if times:
        lines.append(("hours", f"{sum(times) / 3600:.1f}"))
        lines.append(("seconds per review, median", f"{median(times):.1f}"))
    origins = Counter(
        instance.origin
        for review in reviews
        if review.kind == "boxes"
        for instance in review.instances
    )
    boxes = sum(origins.values())
    for origin in ("kept", "moved", "added") if boxes else ():
        lines.append((f"boxes {origin}", f"{100 * origins[origin] / boxes:.1f} %"))
    several = [
        {answer.decision for answer in answers}
        for rows in by_frame(reviews).values()
        for kind in KINDS
        if len(answers := opinions(rows, kind)) > 1
    ]
    if several:
        agreed = sum(len(own) == 1 for own in several)
        lines.append(("frames seen by several people", f"{len(several):,}"))
        lines.append(("of these decided alike", f"{100 * agreed / len(several):.1f} %"))
    return lines


def _by_a_person(review: Review) -> bool:
    """Say whether a review is somebody's work; a known answer is nobody's."""
    return review.verified and review.purpose != "gold"


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
    """Return every way a row ended early, per stage, most frequent first."""
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


def _charts(tables: ReportTables) -> list[dict[str, Any]]:
    """Return the title, the bars by name and the colour of each chart."""
    categories = Counter(row.audio_visual_category for row in tables.instances)
    ranked = sorted(categories.items(), key=lambda item: (-item[1], item[0]))
    scenarios: Counter[str] = Counter(row.scenario for row in tables.instances)
    by_scenario = [(name, scenarios[name]) for name in TABLE_A]
    title = "Instances per category"
    if len(ranked) > _BARS:
        title += f" (the first {_BARS} of {len(ranked)})"
    return [
        {"title": title, "bars": ranked[:_BARS], "color": "#3b6ea5"},
        {"title": "Instances per scenario", "bars": by_scenario, "color": "#5b7f52"},
    ]


def _flat(scores: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested scores as lines of name and value."""
    lines: list[tuple[str, str]] = []
    for name, value in scores.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{name}: ")
        else:
            text = f"{value:.3f}" if isinstance(value, float) else str(value)
            lines.append((f"{prefix}{name}", text))
    return lines
