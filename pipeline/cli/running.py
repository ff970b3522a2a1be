"""Run stages for a command and say what happened."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.runner import RunOptions, RunSummary
    from pipeline.workspace import Workspace


def run_stages(
    workspace: Workspace, stages: Sequence[str], options: RunOptions, as_json: bool, **kwargs: Any
) -> None:
    """Run stages one after another, say what happened, and exit as the failures ask."""
    from dataclasses import replace

    from pipeline.progress import Progress
    from pipeline.runner import run_stage

    options = replace(options, workers=workspace.config.run.workers)
    progress = Progress(shown=not as_json)
    failed = False
    for stage in stages:
        summary = run_stage(workspace, stage, options, progress, **kwargs)
        _say(workspace, summary, options, as_json)
        failed |= _too_many_failed(workspace, summary)
    if failed:
        sys.exit(1)


def settle_reviews(workspace: Workspace) -> None:
    """Bring instances and masks in step with the reviews."""
    from labeling.settle import settle
    from labeling.verified import settle_masks

    settle(workspace)
    settle_masks(workspace)


def _say(workspace: Workspace, summary: RunSummary, options: RunOptions, as_json: bool) -> None:
    counts = dict(summary.counts)
    if as_json:
        line = {
            "stage": summary.stage,
            **counts,
            "pending": summary.pending,
            "workers": summary.workers,
            "seconds": round(summary.seconds, 2),
        }
        click.echo(json.dumps(line))
        return
    if options.dry_run:
        workers = f", workers: {summary.workers}" if summary.workers else ""
        click.echo(f"{summary.stage}: {summary.pending} rows to do{workers}.")
    for note in summary.notes:
        click.echo(f"{summary.stage}: {note}")
    if options.dry_run:
        return
    if not counts:
        pending = f" {summary.pending} pending." if summary.pending else " Nothing new to do."
        click.echo(f"{summary.stage}:{pending}")
        return
    made = [
        f"{count} {name.removeprefix('children:')}"
        for name, count in sorted(counts.items())
        if name.startswith("children:")
    ]
    parts = [f"{counts['input']} rows: {counts['ok']} ok"]
    parts[0] += f" ({', '.join(made)})" if made else ""
    parts += _reasons(workspace, summary.stage, counts)
    click.echo(f"{summary.stage}: {'; '.join(parts)}. {summary.seconds:.1f} s.")
    if summary.bugs:
        click.echo(f"The first exception nobody foresaw:\n{summary.bugs[0]}", err=True)


def _reasons(workspace: Workspace, stage: str, counts: dict[str, int]) -> list[str]:
    from collections import Counter

    ledger = workspace.ledger(stage)
    parts = []
    if counts["dropped"]:
        reasons = Counter(row.reason for row in ledger.drops()).most_common(4)
        parts.append(f"{counts['dropped']} dropped ({listed(reasons)})")
    if counts["failed"]:
        kinds = Counter(row.kind for row in ledger.failures()).most_common(4)
        parts.append(f"{counts['failed']} failed ({listed(kinds)})")
    return parts


def listed(counted: Sequence[tuple[str, int]]) -> str:
    """Names and counts as ``name count, name count``."""
    return ", ".join(f"{name} {count}" for name, count in counted)


def _too_many_failed(workspace: Workspace, summary: RunSummary) -> bool:
    bound = workspace.config.run.max_failed
    failed, rows = summary.counts["failed"], summary.counts["input"]
    limit = rows * int(bound[:-1]) / 100 if bound.endswith("%") else int(bound)
    if summary.bugs:
        return True
    if failed > limit:
        click.echo(
            f"{summary.stage}: {failed} of {rows} rows failed, more than --max-failed {bound}."
            f" See them: avatar-build failures --stage {summary.stage}",
            err=True,
        )
        return True
    return False


def say_sheets(names: Sequence[str], as_json: bool) -> None:
    """Say where contact sheets were written."""
    if as_json:
        click.echo(json.dumps({"sheets": names}))
    else:
        where = f" in {names[0].rpartition('/')[0]}/" if names else ""
        click.echo(f"{len(names)} contact sheets{where}.")


def one_line(text: str) -> str:
    """The last line of a text, shortened: of a traceback, the exception."""
    lines = text.strip().splitlines() or [""]
    return lines[-1][:200]
