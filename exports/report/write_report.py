"""The report: an HTML file that tells a stranger what a run did.

It needs no network: pictures are inside, and so is the script that pages and filters the gallery,
named by its digest in the page's own policy. Only the clips of a large one lie beside it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from markupsafe import Markup

from exports.release.statistics import TABLE_A
from exports.report.clip_files import Gallery
from exports.report.counts import Counts
from exports.report.frame_pictures import ReportTables, clip_views, pictured_clips
from pipeline.files import write_whole
from pipeline.flow import FLOW
from pipeline.records.schema import DropRow, FailureRow
from pipeline.run.status import StageStatus
from pipeline.templating import environment
from pipeline.workspace.storage import Storage

__all__ = ["Films", "ReportTables", "write_report"]

_EXAMPLES = 3
"""Rows named per reason."""
_BARS = 25
"""Categories drawn."""
_BESIDE = "'self' file:"
"""The places of files beside the page, for its policy: it may be served, or opened from a disk."""


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
    tables: ReportTables | Iterable[ReportTables],
    stages: Sequence[StageStatus],
    failures: Sequence[FailureRow],
    drops: Sequence[DropRow],
    *,
    target: Path,
    scores: Mapping[str, Any] | None = None,
    title: str = "What this run did",
    max_clips: int = 200,
    pictured: Collection[str] | None = None,
    films: Films | None = None,
) -> Path:
    """Write the report to ``target``, whole or not at all.

    A large one has a folder beside it with the clips that are not on its first page, see
    ``exports.report.clip_files``; no file of it is larger than 5 MB.

    Args:
        storage: the workspace the frames are read from.
        tables: what the stages made; or parts of it, each with all rows of its videos, in the
            order of the videos.
        stages: the books of each stage, in the order of the flow.
        failures: every failed row.
        drops: every dropped row.
        target: the HTML file.
        scores: measured against a ground truth, by name; groups may be nested.
        title: the heading.
        max_clips: clips shown with pictures; of the others the page has the shapes alone.
        pictured: which these are, by ``clip_id``; none: see ``pictured_clips``.
        films: where clips can be played from, by addresses relative to ``target``.
    """
    films = films or Films({}, "")
    parts = [tables] if isinstance(tables, ReportTables) else tables
    if pictured is None:
        names = [clip.clip_id for part in parts for clip in part.clips]
        pictured = pictured_clips(names, max_clips)
    script = (Path(__file__).parents[1] / "templates/report.js").read_text(encoding="utf-8")
    counts = Counts()
    with Gallery(target) as gallery:
        for part in parts:
            counts.add(part)
            for view in clip_views(storage, part, pictured, films.addresses):
                gallery.add(view)
        page = (
            environment("exports")
            .get_template("report.html.j2")
            .render(
                title=title,
                numbers=_numbers(counts),
                people=len(counts.people),
                rules=sorted(counts.makers["rules"]),
                stages=stages,
                meanings={step.name: step.does for step in FLOW},
                reasons=_reasons(drops, failures),
                charts=_charts(counts),
                scores=_flat(scores or {}),
                backends=_backends(counts),
                labelling=counts.labelling(),
                silence=films.silence,
                num_films=len(films.addresses),
                # The page's policy lets nothing load but its own script and the files beside it,
                # films and clips, if there are some.
                film_source=_BESIDE if films.addresses else "'none'",
                script=Markup(script),
                script_digest=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
                beside=_BESIDE,
                **gallery.finish(),
            )
        )
        write_whole(target, page)
    gallery.sweep()
    return target


def _numbers(counts: Counts) -> list[tuple[int, str]]:
    names = {
        "videos": "videos",
        "clips": "clips",
        "frames": "frames",
        "proposals": "proposed boxes",
        "instances": "sounding instances",
        "masks": "masks",
        "off_screen": "off-screen frames",
    }
    return [(counts.rows[table], name) for table, name in names.items()]


def _backends(counts: Counts) -> list[tuple[str, list[str]]]:
    made = {name: sorted(found) for name, found in counts.makers.items()}
    return [
        ("sounds heard by", made["taggers"]),
        ("boxes proposed by", made["detectors"]),
        ("frames labelled by", made["annotators"][:12]),
        ("masks drawn by", made["masks"]),
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


def _charts(counts: Counts) -> list[dict[str, Any]]:
    """Return the title, the bars by name and the colour of each chart."""
    ranked = sorted(counts.categories.items(), key=lambda item: (-item[1], item[0]))
    by_scenario = [(name, counts.scenarios[name]) for name in TABLE_A]
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
