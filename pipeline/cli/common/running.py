"""Run stages and freeze releases for a command, and say what happened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.common.output import Failed, output
from pipeline.words import command_line, counted

if TYPE_CHECKING:
    from exports.release.freeze import ReleaseSummary
    from pipeline.run.runner import RunOptions, RunSummary
    from pipeline.workspace.workspace import Workspace


def run_stages(
    workspace: Workspace, stages: Sequence[str], options: RunOptions, *, coming: int = 0
) -> None:
    """Run stages one after another, say what happened, and exit as the failures ask.

    Args:
        workspace: where.
        stages: which, in their order.
        options: how.
        coming: rows that the first of them would have more, in a dry run.
    """
    from dataclasses import replace

    from pipeline.flow import STAGES
    from pipeline.run.runner import run_stage
    from pipeline.run.stage_progress import Progress

    options = replace(options, workers=workspace.config.run.workers)
    progress = Progress(shown=output().shown, each_unit=output().verbose)
    failed: list[str] = []
    to_come: dict[str, bool] = {}
    said = []
    for stage in stages:
        if STAGES[stage].uses_device:
            section = getattr(workspace.config, STAGES[stage].section)
            said.append(f"{stage} with {' and '.join(section.backends())}")
            # What a later stage lacks is told before an earlier one has worked for hours.
            STAGES[stage].load()(section).fingerprint()
    if said:
        output().hint(f"Backends: {', '.join(said)}.")
    set_aside(workspace, options)
    for stage in stages:
        more = coming if stage == stages[0] else 0
        summary = run_stage(workspace, stage, options, progress, coming=more, to_come=to_come)
        if options.dry_run and (summary.pending or summary.after):
            to_come |= dict.fromkeys(STAGES[stage].load().spec.writes, summary.anew)
        _say(summary, options)
        failed += [why] if (why := _too_many_failed(workspace, summary)) else []
    if failed:
        raise Failed(" ".join(failed))


def check_stages(workspace: Workspace, stages: Sequence[str]) -> None:
    """Say how many rows each stage has to do, and fail where there are any; nothing is run."""
    from pipeline.run.runner import RunOptions, run_stage

    pending = {
        stage: run_stage(workspace, stage, RunOptions(dry_run=True)).pending for stage in stages
    }
    output().tell({"pending": pending})
    if waiting := [f"{stage} {rows}" for stage, rows in pending.items() if rows]:
        raise Failed(
            f"{workspace.storage.url}: rows are still to do ({', '.join(waiting)}). What stopped"
            " them stands in the output of their run; the same command goes on from there."
        )
    output().say(f"Nothing is left to do ({', '.join(stages)}).")


def set_aside(workspace: Workspace, options: RunOptions) -> None:
    """Take out of force what is damaged, with ``--redo``; before anything reads it."""
    from pipeline.run.runner import set_aside_damaged

    if options.redo and not options.dry_run:
        for stage, units in set_aside_damaged(workspace).items():
            click.echo(f"{stage}: {units} damaged units set aside, to be done again.", err=True)


def _say(summary: RunSummary, options: RunOptions) -> None:
    counts = summary.counts
    said = output()
    said.result.setdefault("stages", []).append(summary.as_dict())
    if options.dry_run:
        workers = f", workers: {summary.workers}" if summary.workers else ""
        tables = " and ".join(summary.after)
        more = f", and more once {tables} are made" if tables else ""
        said.say(f"{summary.stage}: {counted(summary.pending, 'row')} to do{more}{workers}.")
    for note in summary.notes:
        said.say(f"{summary.stage}: {note}")
    if options.dry_run:
        return
    if not counts:
        pending = f" {summary.pending} pending." if summary.pending else " Nothing new to do."
        said.say(f"{summary.stage}:{pending}")
        return
    made = [
        counted(count, name.removeprefix("children:").removesuffix("s"))
        for name, count in sorted(counts.items())
        if name.startswith("children:")
    ]
    parts = [f"{counted(counts['input'], 'row')}: {counts['ok']} ok"]
    parts[0] += f" ({', '.join(made)})" if made else ""
    if counts["dropped"]:
        parts.append(f"{counts['dropped']} dropped ({listed(summary.reasons.most_common(4))})")
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed ({listed(summary.kinds.most_common(4))})")
    said.say(f"{summary.stage}: {'; '.join(parts)}. {summary.seconds:.1f} s.")
    if summary.bugs:
        click.echo(f"The first exception nobody foresaw:\n{summary.bugs[0]}", err=True)


def listed(counted: Sequence[tuple[str, int]]) -> str:
    """Return names and counts as ``name count, name count``."""
    return ", ".join(f"{name} {count}" for name, count in counted)


def _too_many_failed(workspace: Workspace, summary: RunSummary) -> str:
    """Return why a stage's failures fail the command; empty when they do not."""
    bound = workspace.config.run.max_failed
    failed, rows = summary.counts["failed"], summary.counts["input"]
    limit = rows * int(bound[:-1]) / 100 if bound.endswith("%") else int(bound)
    if failed > limit:
        place = workspace.storage.url
        see = command_line("failures", "--workspace", place, "--stage", summary.stage)
        return (
            f"{summary.stage}: {failed} of {rows} rows failed, more than --max-failed {bound}."
            f" See them: {see}"
        )
    if summary.bugs:
        bugs = counted(len(summary.bugs), "row")
        return f"{summary.stage}: {bugs} raised an exception nobody foresaw."
    return ""


def freeze(
    workspace: Workspace,
    version: str,
    *,
    unverified: bool,
    ids_only: bool,
    leak_lists: Sequence[Path] = (),
) -> ReleaseSummary:
    """Freeze the tables into a release, with what people said last."""
    from exports.from_workspace import provenance
    from exports.parts import parts_of
    from exports.release.freeze import write_release
    from exports.release.selection import ReleaseTables
    from pipeline.run.derive import bring_up_to_date
    from pipeline.run.runner import recover
    from pipeline.workspace.takedowns import read_takedowns
    from stages.taxonomy import load_taxonomy

    bring_up_to_date(workspace)
    recover(workspace)
    config = workspace.config.export
    with parts_of(workspace, ReleaseTables) as parts:
        return write_release(
            parts,
            workspace.storage,
            version,
            unverified=unverified,
            media=config.media and not ids_only,
            config=config,
            provenance=provenance(workspace),
            taxonomy=load_taxonomy(workspace.config.hear.taxonomy).names,
            takedowns=[one.video_id for one in read_takedowns(workspace.storage)],
            leak_lists=leak_lists,
        )


def say_sheets(names: Sequence[str]) -> None:
    """Say where contact sheets were written."""
    where = f" in {names[0].rpartition('/')[0]}/" if names else ""
    output().tell({"sheets": list(names)}, f"{counted(len(names), 'contact sheet')}{where}.")


def one_line(text: str) -> str:
    """Return the last line of a text, shortened: of a traceback, the exception."""
    lines = text.strip().splitlines() or [""]
    return lines[-1][:200]
