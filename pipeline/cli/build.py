"""The commands that move data: init, download, sample, propose, segment, run, retry, demo."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.common.options import (
    COUNT,
    PATH,
    SOME,
    cli,
    device_option,
    run_options,
    setting_option,
    template_option,
)
from pipeline.cli.common.output import output
from pipeline.cli.common.running import check_stages, listed, run_stages, say_sheets, set_aside
from pipeline.cli.common.submitting import submit_stages
from pipeline.flow import STAGES, automatic_stages, stages_of
from pipeline.words import command_line, counted, short

if TYPE_CHECKING:
    from pipeline.run.runner import RunOptions
    from pipeline.workspace.workspace import Workspace


@cli.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--profile",
    help="Settings to start from: 'light' (small models), 'paper' (its own), 'offline' (none).",
)
def init(folder: str, profile: str | None) -> None:
    """Make a workspace: avatar.toml, tables, commits, media.

    \b
        avatar-build init ws --profile light
    """
    from pipeline.config import profile_backends
    from pipeline.models.catalogue import MODELS
    from pipeline.models.register import read_register
    from pipeline.workspace.workspace import Workspace

    Workspace.create(folder, profile)
    output().tell(
        {"workspace": folder, "profile": profile},
        f"{folder}: a new workspace. Its settings, each with its meaning: avatar.toml.",
    )
    needed = [name for name in profile_backends(profile) if name in MODELS] if profile else []
    if profile and any(read_register(name) is None for name in needed):
        output().hint("First, once: " + command_line("models", "fetch", "--profile", profile))
    output().hint(
        "Next: "
        + command_line("download", "--workspace", folder, "--list", "vggsound.csv", "--limit", 20)
    )


@cli.command()
@click.option(
    "--list", "list_file", type=PATH, metavar="CSV", help="vggsound.csv or test.csv, no header."
)
@click.option("--labels", multiple=True, metavar="LABEL", help="Only rows so labelled. Repeatable.")
@click.option("--limit", type=SOME, metavar="N", help="Only the first N (matching) rows.")
@setting_option(
    "--require-license",
    sets=["download.require_license"],
    metavar="L",
    help="Drop videos not under it, e.g. cc-by.",
)
@template_option
@run_options
def download(
    workspace: Workspace,
    options: RunOptions,
    list_file: Path | None,
    labels: tuple[str, ...],
    limit: int | None,
) -> None:
    """Fetch the whole original videos of a list, and keep those the paper's filter passes.

    Without --list it goes on with the rows of earlier lists.

    \b
        avatar-build download --list vggsound.csv --limit 20
        avatar-build download --list vggsound.csv --source-template 'http://127.0.0.1:8000/{video_id}.mp4'
    """
    set_aside(workspace, options)
    coming = 0
    if list_file is not None:
        coming = _take_in(workspace, list_file, options, labels, limit)
    elif not workspace.files("sources"):
        raise click.UsageError("no list yet: name one with --list vggsound.csv.")
    run_stages(workspace, stages_of("download"), options, coming=coming)


def _take_in(
    workspace: Workspace,
    list_file: Path,
    options: RunOptions,
    labels: tuple[str, ...] = (),
    limit: int | None = None,
) -> int:
    """Take the rows of a list in; return how many a dry run would have more."""
    from stages.download.import_list import import_list

    imported = import_list(workspace, list_file, labels, limit, dry_run=options.dry_run)
    output().tell({"list": imported.as_dict()}, imported.sentence())
    return imported.new if options.dry_run else 0


@cli.command()
@run_options
def sample(workspace: Workspace, options: RunOptions) -> None:
    """Draw a clip from each video and choose the sharpest frame of each of its sound events.

    \b
        avatar-build sample --set sample.max_frames=3
    """
    run_stages(workspace, stages_of("sample"), options)


@cli.command()
@click.option(
    "--preview",
    "previewed",
    multiple=True,
    metavar="KEY=VALUE...",
    help="Say what other thresholds would change, and change nothing.",
)
@click.argument("more_previewed", nargs=-1, metavar="")
@click.option(
    "--contact-sheet", "sheets", is_flag=True, help="Draw the boxes, one picture per clip."
)
@device_option
@run_options
def propose(
    workspace: Workspace,
    options: RunOptions,
    previewed: tuple[str, ...],
    more_previewed: tuple[str, ...],
    sheets: bool,
) -> None:
    """Hear each clip's categories and draw boxes around what may make them.

    \b
        avatar-build propose --workers 4 --contact-sheet
        avatar-build propose --preview propose.min_score=0.3 propose.classes=generic
    """
    if more_previewed and not previewed:
        raise click.UsageError(f"{more_previewed[0]!r}: settings come after --set or --preview.")
    if previewed:
        from stages.propose.preview import preview_settings

        found = preview_settings(workspace, [*previewed, *more_previewed])
        output().tell(found.as_dict(), *found.lines())
        return
    run_stages(workspace, stages_of("propose"), options)
    if sheets and not options.dry_run:
        from stages.propose.contact_sheet import proposal_sheets

        say_sheets(proposal_sheets(workspace))


@cli.command()
@click.option(
    "--contact-sheet", "sheets", is_flag=True, help="Draw the masks, one picture per clip."
)
@device_option
@run_options
def segment(workspace: Workspace, options: RunOptions, sheets: bool) -> None:
    """Turn each instance's box into a mask.

    \b
        avatar-build segment --device cuda:0 --contact-sheet
    """
    run_stages(workspace, stages_of("segment"), options)
    if sheets and not options.dry_run:
        from stages.propose.contact_sheet import mask_sheets

        say_sheets(mask_sheets(workspace))


@cli.command()
@click.option(
    "--stage", "chosen", multiple=True, metavar="STAGE", help="Only this stage. Repeatable."
)
@click.option(
    "--slurm", is_flag=True, help="Submit a job array for each stage; see docs/cluster.md."
)
@click.option("--check", is_flag=True, help="Run nothing; exit 1 where rows are to do.")
@click.option("--list", "list_file", type=PATH, metavar="CSV", help="Take in this list first.")
@template_option
@device_option
@run_options
def run(
    workspace: Workspace,
    options: RunOptions,
    chosen: tuple[str, ...],
    slurm: bool,
    check: bool,
    list_file: Path | None,
) -> None:
    """Run every automatic stage up to the proposals, and segment what is labelled.

    \b
        avatar-build run --units 3/16      # the third of sixteen tasks of a job array
        avatar-build run --slurm --set slurm.tasks=16 --dry-run
        avatar-build run --check           # is anything left to do?
    """
    for name in chosen:
        if name not in STAGES:
            raise click.UsageError(f"--stage {short(name)}: there is {', '.join(STAGES)}.")
    if slurm and (check or options.part != (1, 1)):
        raise click.UsageError("--slurm goes without --check and --units: tasks share the work.")
    stages = [one for one in STAGES if one in (chosen or automatic_stages())]
    if check:
        check_stages(workspace, stages)
        return
    coming = _take_in(workspace, list_file, options) if list_file else 0
    (submit_stages if slurm else run_stages)(workspace, stages, options, coming=coming)


@cli.command()
@click.option("--stage", required=True, help="The stage whose failed rows to do again.")
@click.option("--kind", help="Only failures of this kind. Default: all that may pass next time.")
@run_options
def retry(workspace: Workspace, options: RunOptions, stage: str, kind: str | None) -> None:
    """Do failed rows again, and rows whose media is lost, and only those.

    A kept video (download) or a frame's image (sample) that is gone or another one by now is made
    again; where it is the same as before, no row changes.

    \b
        avatar-build retry --stage download --kind timeout
        avatar-build retry --stage download --kind missing_file
    """
    from dataclasses import replace

    from pipeline.run.lost import units_again
    from pipeline.run.runner import plan_retry
    from pipeline.run.status import check_names
    from pipeline.workspace.recorded import LOST

    if stage not in STAGES:
        raise click.UsageError(f"--stage {stage!r}: there is {', '.join(STAGES)}.")
    check_names(workspace, stage, None if kind in LOST else kind)
    rows = plan_retry(workspace, stage, kind, dry_run=options.dry_run)
    again = tuple(one for one in LOST if kind in (None, one))
    lost = sum(len(unit.ids) for unit in units_again(workspace, stage, again))
    more = f", {counted(lost, 'row')} whose media is lost" if lost else ""
    said = f"{stage}: {counted(rows, 'failed row')} to do again{more}."
    output().tell({"rows": rows, "lost": lost}, said)
    if not (rows or lost) and kind is None:
        _say_final(workspace, stage)
    if not (rows or lost) or options.dry_run:
        return
    run_stages(workspace, [stage], replace(options, again=again))


def _say_final(workspace: Workspace, stage: str) -> None:
    """Say what failed for good, and how to do it again all the same."""
    from collections import Counter

    final = Counter(row.kind for row in workspace.ledger(stage).failures() if not row.retryable)
    if final:
        kind = next(iter(dict(final.most_common(1))))
        words = ("retry", "--workspace", workspace.storage.url, "--stage", stage, "--kind", kind)
        output().say(
            f"{stage}: {counted(final.total(), 'row')} failed for good"
            f" ({listed(final.most_common())}); to do some again all the same, name their kind: "
            + command_line(*words)
        )


@cli.command()
@click.option(
    "-w", "--workspace", type=PATH, default="demo-workspace", show_default=True, metavar="DIR"
)
@click.option("--seed", type=COUNT, default=0, show_default=True, help="Of the rendered world.")
def demo(workspace: Path, seed: int) -> None:
    """Render a small world, run the whole chain on it, score it and write a report.

    \b
        avatar-build demo --workspace demo-workspace
    """
    from pipeline.cli.demo.run_demo import run_demo

    said = output()
    aside = contextlib.redirect_stdout(io.StringIO() if said.quiet else sys.stderr)
    with contextlib.nullcontext() if said.shown else aside:
        done = run_demo(workspace, seed, lambda words: cli.main(list(words), standalone_mode=False))
    said.tell({"scores": done.scores, "report": str(done.report)}, *done.scores_lines())
    said.hint("\n".join(done.next_lines()))
