"""The command line. Thin on purpose: each command gathers its options and calls one function.

Nothing heavy is imported before a command runs, so that ``--help`` is instant.
"""

from __future__ import annotations

import errno
import json
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pipeline.errors import AvatarBuildError

if TYPE_CHECKING:
    from pipeline.models import ModelFile
    from pipeline.runner import RunOptions, RunSummary
    from pipeline.workspace import Workspace

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _InOrder(click.Group):
    """Lists its commands as the data flows, not by letter."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings=_CONTEXT)
@click.version_option(package_name="avatar-build")
def cli() -> None:
    """Build audio-visual localization datasets as AVATAR was built, and score models on them.

    \b
    The flow: init, download, sample, propose, label, segment, export.
    See it on a small rendered world first:

    \b
        avatar-build demo
    """


def main() -> None:
    """Run the command line; errors a user can act on are one line."""
    signal.signal(signal.SIGTERM, _interrupt)  # Slurm and containers end jobs so
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except AvatarBuildError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        click.echo("Error: the disk is full. Make room and run again: nothing is lost.", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "Stopped. What is committed stays; the same command goes on from there.", err=True
        )
        sys.exit(130)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


# Options


def _workspace_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON for machines."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="A setting for this call, e.g. sample.active_rms=0.02. Repeatable.",
        ),
        click.option(
            "-w",
            "--workspace",
            default=".",
            metavar="DIR",
            help="The workspace: a folder or an object-store URL. Default: the current folder.",
        ),
    ):
        command = option(command)
    return command


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that runs a stage; they arrive as one ``RunOptions``."""

    @wraps(command)
    def gathered(
        *args: Any,
        workers: int | None,
        units: str,
        redo: bool,
        dry_run: bool,
        max_failed: str | None,
        settings: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        from pipeline.runner import RunOptions

        if max_failed:
            settings = (*settings, f"run.max_failed='{max_failed}'")
        if workers is not None:
            settings = (*settings, f"run.workers={workers}")
        options = RunOptions(share=_share(units), redo=redo, dry_run=dry_run)
        return command(*args, options=options, settings=settings, **kwargs)

    for option in (
        click.option("--max-failed", metavar="N|P%", help="Exit 1 when more rows fail than this."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option(
            "--redo", is_flag=True, help="Retire results made with other settings, and start anew."
        ),
        click.option(
            "--units",
            default="1/1",
            metavar="I/N",
            help="Do every N-th unit only, from the I-th on: one task of a job array.",
        ),
        click.option("--workers", type=int, metavar="N", help="Processes. Default: one per core."),
    ):
        gathered = option(gathered)
    return _workspace_options(gathered)


def _device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--device`` of the commands that run models, as a setting of each of their stages."""

    @click.option("--device", metavar="D", help="Where models run: auto, cpu or cuda:N.")
    @wraps(command)
    def placed(*args: Any, device: str | None, settings: tuple[str, ...], **kwargs: Any) -> Any:
        if device:
            stages = ("hear", "propose", "segment")
            settings = (*settings, *(f"{stage}.device={json.dumps(device)}" for stage in stages))
        return command(*args, settings=settings, **kwargs)

    return placed


def _share(units: str) -> tuple[int, int]:
    first, slash, count = units.partition("/")
    if not (slash and first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise click.BadParameter(f"{units!r}: write it as I/N with 1 <= I <= N, e.g. 3/16.")
    return int(first), int(count)


def _open(workspace: str, settings: Sequence[str]) -> Workspace:
    from pipeline.workspace import Workspace

    return Workspace(workspace, settings)


# Running stages


def _run(
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


def _say(workspace: Workspace, summary: RunSummary, options: RunOptions, as_json: bool) -> None:
    counts = dict(summary.counts)
    if as_json:
        line = {
            "stage": summary.stage,
            **counts,
            "pending": summary.pending,
            "seconds": round(summary.seconds, 2),
        }
        click.echo(json.dumps(line))
        return
    if options.dry_run:
        click.echo(f"{summary.stage}: {summary.pending} rows to do.")
        return
    for note in summary.notes:
        click.echo(f"{summary.stage}: {note}")
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
        parts.append(f"{counts['dropped']} dropped ({_listed(reasons)})")
    if counts["failed"]:
        kinds = Counter(row.kind for row in ledger.failures()).most_common(4)
        parts.append(f"{counts['failed']} failed ({_listed(kinds)})")
    return parts


def _listed(counted: Sequence[tuple[str, int]]) -> str:
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


@cli.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--profile", help="Settings to start from: 'paper' (its models), 'offline' (no weights)."
)
def init(folder: str, profile: str | None) -> None:
    """Make a workspace: avatar.toml, tables, commits, media.

    \b
        avatar-build init ws --profile offline
    """
    from pipeline.workspace import Workspace

    Workspace.create(folder, profile)
    click.echo(f"{folder}: a new workspace. Its settings, each with its meaning: avatar.toml.")
    click.echo(f"Next: avatar-build download --workspace {folder} --list vggsound.csv --limit 20")


@cli.command()
@click.option("--list", "list_file", metavar="CSV", help="vggsound.csv or test.csv, no header.")
@click.option("--labels", multiple=True, metavar="LABEL", help="Only rows so labelled. Repeatable.")
@click.option("--limit", type=int, metavar="N", help="Only the first N (matching) rows.")
@click.option("--require-license", metavar="L", help="Drop videos not under it, e.g. cc-by.")
@click.option(
    "--source-template",
    metavar="T",
    help="Fetch from a mirror or archive: 'http://host/{video_id}.mp4', '/data/{video_id}.mp4'.",
)
@_run_options
def download(
    workspace: str,
    settings: tuple[str, ...],
    options: RunOptions,
    as_json: bool,
    list_file: str | None,
    labels: tuple[str, ...],
    limit: int | None,
    require_license: str | None,
    source_template: str | None,
) -> None:
    """Fetch the whole original videos of a list, and keep those the paper's filter passes.

    Without --list it goes on with the rows of earlier lists.

    \b
        avatar-build download --list vggsound.csv --limit 20
        avatar-build download --list vggsound.csv --source-template 'http://127.0.0.1:8000/{video_id}.mp4'
    """
    from stages.importing import import_list

    for key, value in (("require_license", require_license), ("source_template", source_template)):
        if value is not None:
            settings = (*settings, f"download.{key}={json.dumps(value)}")
    opened = _open(workspace, settings)
    if list_file:
        imported = import_list(opened, Path(list_file), labels, limit, dry_run=options.dry_run)
        click.echo(json.dumps(imported.as_dict()) if as_json else imported.sentence())
    elif not opened.files("sources"):
        raise click.UsageError("no list yet: name one with --list vggsound.csv.")
    _run(opened, ["download"], options, as_json)


@cli.command()
@_run_options
def sample(workspace: str, settings: tuple[str, ...], options: RunOptions, as_json: bool) -> None:
    """Draw a clip from each video and choose the sharpest frame of each of its sound events.

    \b
        avatar-build sample --set sample.max_frames=3
    """
    _run(_open(workspace, settings), ["sample"], options, as_json)


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
@_device_option
@_run_options
def propose(
    workspace: str,
    settings: tuple[str, ...],
    options: RunOptions,
    as_json: bool,
    previewed: tuple[str, ...],
    more_previewed: tuple[str, ...],
    sheets: bool,
) -> None:
    """Hear each clip's categories and draw boxes around what may make them.

    \b
        avatar-build propose --workers 4 --contact-sheet
        avatar-build propose --preview propose.min_score=0.3 propose.openimages=generic
    """
    if more_previewed and not previewed:
        raise click.UsageError(f"{more_previewed[0]!r}: settings come after --set or --preview.")
    opened = _open(workspace, settings)
    if previewed:
        from stages.preview import preview_settings

        found = preview_settings(opened, [*previewed, *more_previewed])
        click.echo(json.dumps(found.as_dict()) if as_json else "\n".join(found.lines()))
        return
    _run(opened, ["hear", "propose"], options, as_json)
    if sheets and not options.dry_run:
        from stages.contact_sheet import proposal_sheets

        _say_sheets(proposal_sheets(opened), as_json)


@cli.group()
def label() -> None:
    """Decide which boxes sound."""


@label.command()
@_run_options
def accept(workspace: str, settings: tuple[str, ...], options: RunOptions, as_json: bool) -> None:
    """Take proposals above a bound as they are, without a person: the release is unverified.

    \b
        avatar-build label accept --set label.accept_score=0.6
    """
    from labeling.settle import settle

    opened = _open(workspace, settings)
    _run(opened, ["accept"], options, as_json)
    if not options.dry_run:
        settle(opened)
        _say_instances(opened, as_json)


def _say_instances(workspace: Workspace, as_json: bool) -> None:
    count = sum(file.rows for file in workspace.files("instances"))
    click.echo(json.dumps({"instances": count}) if as_json else f"instances: {count}.")


def _server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which Label Studio; they arrive as settings."""

    @wraps(command)
    def gathered(
        *args: Any,
        url: str | None,
        token_file: str | None,
        settings: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        for key, value in (("url", url), ("token_file", token_file)):
            if value is not None:
                settings = (*settings, f"label.{key}={json.dumps(value)}")
        return command(*args, settings=settings, **kwargs)

    for option in (
        click.option(
            "--token-file",
            metavar="FILE",
            help="Its token, readable by you alone; or set AVATAR_LABEL_TOKEN.",
        ),
        click.option("--url", help="A Label Studio of yours. Default: that of 'label serve'."),
    ):
        gathered = option(gathered)
    return _workspace_options(gathered)


_KIND = click.argument("kind", type=click.Choice(["boxes"]))


@label.command()
@_workspace_options
def serve(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Run a Label Studio for this workspace on the loopback interface, until Ctrl-C.

    \b
        avatar-build label serve --workspace ws
    """
    from labeling.serve import USER, start_server

    if not as_json:
        click.echo("Starting Label Studio; the first start takes about a minute.")
    running = start_server(_open(workspace, settings))
    try:
        if as_json:
            click.echo(json.dumps({"url": running.url, "user": USER, "home": str(running.home)}))
        else:
            click.echo(f"Label Studio: {running.url}  user {USER}")
            click.echo(f"Password in {running.home / 'password'}. Ctrl-C ends it; all is kept.")
            click.echo(f"Next: avatar-build label push boxes --workspace {workspace}")
        if code := running.process.wait():
            raise AvatarBuildError(f"label serve: the server ended with {code}; see its log.")
    finally:
        running.stop()


@label.command()
@_KIND
@_server_options
def push(workspace: str, settings: tuple[str, ...], as_json: bool, kind: str) -> None:
    """Send frames with their proposals to annotators; a frame is never sent twice.

    \b
        avatar-build label push boxes --workspace ws
        avatar-build label push boxes --url https://labels.example.org --token-file token
    """
    from labeling.projects import connect
    from labeling.push import push_boxes

    opened = _open(workspace, settings)
    vocabulary = _vocabulary(opened)
    pushed = push_boxes(opened, connect(opened), vocabulary, _counter(as_json))
    click.echo(json.dumps(pushed.as_dict()) if as_json else "\n".join(pushed.lines()))
    if pushed.skipped:
        sys.exit(1)


@label.command()
@_KIND
@_server_options
def pull(workspace: str, settings: tuple[str, ...], as_json: bool, kind: str) -> None:
    """Bring what annotators decided into the tables; what they should mend is listed.

    \b
        avatar-build label pull boxes --workspace ws
    """
    from labeling.projects import connect
    from labeling.pull import pull_boxes
    from labeling.settle import settle

    opened = _open(workspace, settings)
    pulled = pull_boxes(opened, connect(opened), _vocabulary(opened))
    click.echo(json.dumps(pulled.as_dict()) if as_json else "\n".join(pulled.lines()))
    settle(opened)
    _say_instances(opened, as_json)
    if pulled.bad:
        sys.exit(1)


@label.command("status")
@_server_options
def label_status(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """How far annotators are: to do, done, skipped, seconds per task, time left.

    \b
        avatar-build label status --workspace ws
    """
    from labeling.projects import connect
    from labeling.standing import standings

    opened = _open(workspace, settings)
    found = standings(opened, connect(opened))
    if as_json:
        click.echo(json.dumps([standing.as_dict() for standing in found]))
        return
    for standing in found:
        click.echo(standing.sentence())
    if not found:
        click.echo("Nothing pushed yet. Start with: avatar-build label push boxes")


@label.command("report")
@_workspace_options
def label_report(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """What became of the proposals and what a frame costs, by detector class, category and day.

    \b
        avatar-build label report --workspace ws
    """
    from labeling.economics import economics
    from pipeline.schema import Proposal, Review

    opened = _open(workspace, settings)
    found = economics(opened.rows(Review), opened.rows(Proposal))
    click.echo(json.dumps(found.as_dict()) if as_json else "\n".join(found.lines()))


def _vocabulary(workspace: Workspace) -> list[str]:
    from stages.taxonomy import load_taxonomy

    return [c.name for c in load_taxonomy(workspace.config.hear.taxonomy).categories]


def _counter(as_json: bool) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        if not as_json:
            click.echo(f"push: {done} of {total} frames", err=True)

    return show


@cli.command()
@click.option(
    "--contact-sheet", "sheets", is_flag=True, help="Draw the masks, one picture per clip."
)
@_device_option
@_run_options
def segment(
    workspace: str, settings: tuple[str, ...], options: RunOptions, as_json: bool, sheets: bool
) -> None:
    """Turn each instance's box into a mask.

    \b
        avatar-build segment --device cuda:0 --contact-sheet
    """
    from labeling.settle import settle

    opened = _open(workspace, settings)
    if not options.dry_run:
        settle(opened)
    _run(opened, ["segment"], options, as_json)
    if sheets and not options.dry_run:
        from stages.contact_sheet import mask_sheets

        _say_sheets(mask_sheets(opened), as_json)


def _say_sheets(names: Sequence[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"sheets": names}))
    else:
        where = f" in {names[0].rpartition('/')[0]}/" if names else ""
        click.echo(f"{len(names)} contact sheets{where}.")


@cli.command()
@_device_option
@_run_options
def run(workspace: str, settings: tuple[str, ...], options: RunOptions, as_json: bool) -> None:
    """Run every automatic stage up to the proposals, and segment what is labelled.

    \b
        avatar-build run --units 3/16      # the third of sixteen tasks of a job array
    """
    from labeling.settle import settle

    opened = _open(workspace, settings)
    _run(opened, ["download", "sample", "hear", "propose"], options, as_json)
    if not options.dry_run:
        settle(opened)
    _run(opened, ["segment"], options, as_json)


@cli.command()
@click.option("--stage", required=True, help="The stage whose failed rows to do again.")
@click.option("--kind", help="Only failures of this kind. Default: all that may pass next time.")
@_run_options
def retry(
    workspace: str,
    settings: tuple[str, ...],
    options: RunOptions,
    as_json: bool,
    stage: str,
    kind: str | None,
) -> None:
    """Do failed rows again, and only those.

    \b
        avatar-build retry --stage download --kind timeout
    """
    from pipeline.registry import STAGES
    from pipeline.runner import plan_retry

    if stage not in STAGES:
        raise click.BadParameter(f"--stage {stage!r}: there is {', '.join(STAGES)}.")
    opened = _open(workspace, settings)
    rows = plan_retry(opened, stage, kind, dry_run=options.dry_run)
    if not as_json:
        click.echo(f"{stage}: {rows} failed rows to do again.")
    if rows and not options.dry_run:
        _run(opened, [stage], options, as_json)


# Looking


@cli.command()
@_workspace_options
def status(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Per stage: rows in, done, dropped, failed and waiting, rate and time left.

    \b
        avatar-build status --workspace ws
    """
    from pipeline.inspection import stage_status, status_lines

    found = stage_status(_open(workspace, settings))
    if as_json:
        click.echo(json.dumps([stage.as_dict() for stage in found]))
    else:
        click.echo("\n".join(status_lines(found)))


@cli.command()
@click.option("--stage", help="Only of this stage.")
@click.option("--kind", help="Only of this kind or reason.")
@click.option("--drops/--no-drops", default=False, help="Rows set aside on purpose too.")
@_workspace_options
def failures(
    workspace: str,
    settings: tuple[str, ...],
    as_json: bool,
    stage: str | None,
    kind: str | None,
    drops: bool,
) -> None:
    """List the rows that failed, with kind and detail.

    \b
        avatar-build failures --stage download --drops
    """
    from pipeline.inspection import outcomes

    failed, dropped = outcomes(_open(workspace, settings), stage, kind)
    if as_json:
        for row in [*failed, *(dropped if drops else [])]:
            click.echo(row.model_dump_json())
        return
    for failure in failed:
        again = "may pass" if failure.retryable else "final"
        what = f"{failure.kind}, {again}, {failure.attempts} tried"
        click.echo(f"{failure.stage:9} {failure.input_id:24} {what}: {_one_line(failure.detail)}")
    for drop in dropped if drops else []:
        text = f"dropped, {drop.reason}: {_one_line(drop.detail)}"
        click.echo(f"{drop.stage:9} {drop.input_id:24} {text}")
    click.echo(f"{len(failed)} failed, {len(dropped)} dropped.")


def _one_line(text: str) -> str:
    lines = text.strip().splitlines() or [""]
    return lines[-1][:200]


@cli.command()
@click.argument("some_id", metavar="ID")
@_workspace_options
def why(workspace: str, settings: tuple[str, ...], as_json: bool, some_id: str) -> None:
    """Print the whole history behind one id: video, clip, frame, proposal, instance or mask.

    An id that starts with '-' goes after '--'.

    \b
        avatar-build why -- -1pRmoJIGQc
    """
    from pipeline.why import history

    steps, fates = history(_open(workspace, settings), some_id)
    if as_json:
        document = {
            "history": [step.as_dict() for step in steps],
            "endings": [fate.__dict__ for fate in fates],
        }
        click.echo(json.dumps(document))
        return
    for step in steps:
        click.echo("\n".join(step.lines()))
    for fate in fates:
        click.echo(f"{fate.stage:10} {fate.input_id} {fate.ending}. {_one_line(fate.detail)}")


@cli.command()
@click.option("--max-clips", default=200, show_default=True, help="Clips with pictures.")
@_workspace_options
def report(workspace: str, settings: tuple[str, ...], as_json: bool, max_clips: int) -> None:
    """Write report.html: what happened per stage, and pictures of every clip.

    \b
        avatar-build report --workspace ws
    """
    from exports.tables import workspace_report

    path = workspace_report(_open(workspace, settings), max_clips=max_clips)
    click.echo(json.dumps({"report": str(path)}) if as_json else f"Report: {path}")


@cli.group()
def config() -> None:
    """Look at the settings."""


@config.command("show")
@_workspace_options
def config_show(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Print the settings in force, defaults included.

    \b
        avatar-build config show --set sample.seed=7
    """
    from pipeline.config import render_toml

    found = _open(workspace, settings).config
    click.echo(found.model_dump_json() if as_json else render_toml(resolved=found), nl=as_json)


@config.command("validate")
@_workspace_options
def config_validate(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Check avatar.toml; silent exit 0 means it is right.

    \b
        avatar-build config validate
    """
    _open(workspace, settings)
    click.echo(json.dumps({"valid": True}) if as_json else "avatar.toml is valid.")


@cli.command()
@_workspace_options
def doctor(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Check what a run needs: yt-dlp, JavaScript runtime, cookies, disk, codecs. No network.

    \b
        avatar-build doctor --workspace ws
    """
    from pipeline.doctor import run_checks

    opened = _open(workspace, settings)
    checks = run_checks(opened.storage, opened.config)
    if as_json:
        click.echo(json.dumps([check.__dict__ for check in checks]))
    for check in checks if not as_json else []:
        advice = f"  -> {check.advice}" if check.advice else ""
        click.echo(f"{check.state:5} {check.name:22} {check.detail}{advice}")
    if any(check.state == "bad" for check in checks):
        sys.exit(1)


# Weights


@cli.group()
def models() -> None:
    """Weights of the models: see, fetch and check them. No other command fetches any."""


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@models.command("list")
@_as_json
def models_list(as_json: bool) -> None:
    """List every model: role, size, licence, and whether it is here.

    \b
        avatar-build models list
    """
    from pipeline.models.register import list_models

    found = list_models()
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in found]))
        return
    for row in found:
        click.echo(row.line())
    click.echo("AGPL-3.0 asks for the source of programs that are combined with it: see README.md.")


@models.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_as_json
def models_fetch(names: tuple[str, ...], as_json: bool) -> None:
    """Fetch weights from where their authors put them; goes on where it broke off.

    \b
        avatar-build models fetch sam-vit-h cav-mae-as-46.6
    """
    from pipeline.models.fetch import fetch
    from pipeline.models.register import find_model
    from pipeline.progress import transfers

    for model in [find_model(name) for name in names]:
        with transfers(shown=not as_json) as show:
            got = fetch(model, show)
        _say_model(got, as_json)


@models.command("add")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--own", is_flag=True, help="It is a checkpoint of your own, not the documented one.")
@_as_json
def models_add(name: str, path: Path, own: bool, as_json: bool) -> None:
    """Register weights you have: a file, or the folder of a model of several files.

    It stays where it is, and its SHA-256 is noted. Loading an ultralytics file runs the code in it:
    add only what you trust.

    \b
        avatar-build models add sam-vit-b ~/sam_vit_b_01ec64.pth
    """
    from pipeline.models.register import add

    _say_model(add(name, path.expanduser(), own=own), as_json)


def _say_model(got: ModelFile, as_json: bool) -> None:
    if as_json:
        found = {"name": got.name, "path": str(got.path), "sha256": got.sha256}
        click.echo(json.dumps(found | {"licence": got.licence}))
    else:
        click.echo(f"{got.name}: {got.path}, SHA-256 {got.sha256}, {got.licence}.")


@models.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@_as_json
def models_verify(names: tuple[str, ...], as_json: bool) -> None:
    """Hash registered weights again; exit 1 when one is not what was registered.

    \b
        avatar-build models verify
    """
    from pipeline.models.register import list_models, verify

    chosen = names or [row.model.name for row in list_models() if row.path]
    found = {name: verify(name) for name in chosen}
    if as_json:
        click.echo(json.dumps(found))
    for name, wrong in found.items() if not as_json else []:
        click.echo(f"{name}: {wrong or 'as registered'}.", err=bool(wrong))
    if any(found.values()):
        sys.exit(1)


@models.command("path")
@click.argument("name")
def models_path(name: str) -> None:
    """Print where a model's weights are.

    \b
        avatar-build models path sam-vit-h
    """
    from pipeline.models import require

    click.echo(str(require(name).path))


# The release


@cli.command()
@click.option("--version", "release", metavar="V", help="Make the release of this version.")
@click.option("--unverified", is_flag=True, help="Take what no person has verified, and say so.")
@click.option("--ids-only", is_flag=True, help="Leave clips and frames out.")
@click.option("--verify", metavar="DIR", help="Check a release instead of making one.")
@click.option(
    "--leaks",
    multiple=True,
    metavar="LIST",
    help="A training list to hold the release against; the card tells the overlap. Repeatable.",
)
@_workspace_options
def export(
    workspace: str,
    settings: tuple[str, ...],
    as_json: bool,
    release: str | None,
    unverified: bool,
    ids_only: bool,
    verify: str | None,
    leaks: tuple[str, ...],
) -> None:
    """Freeze the tables into a release, or verify one.

    A release with a video that was taken down does not verify: tombstones are read from the
    workspace it lies in and from --workspace.

    \b
        avatar-build export --version 0.1 --unverified
        avatar-build export --version 0.2 --leaks vggss_144k.csv --leaks vggsound_10k.txt
        avatar-build export --verify releases/0.1
    """
    lists = [Path(name) for name in leaks]
    if verify:
        _verify(Path(verify), workspace, lists, as_json)
        return
    if not release:
        raise click.UsageError("name a version with --version, or a release with --verify DIR.")
    from exports.tables import export_workspace
    from labeling.settle import settle
    from stages.taxonomy import load_taxonomy

    opened = _open(workspace, settings)
    settle(opened)
    categories = load_taxonomy(opened.config.hear.taxonomy).categories
    summary = export_workspace(
        opened,
        release,
        unverified=unverified,
        ids_only=ids_only,
        taxonomy=[category.name for category in categories],
        leak_lists=lists,
    )
    click.echo(json.dumps(summary.as_dict()) if as_json else summary.sentence())


def _verify(folder: Path, workspace: str, lists: Sequence[Path], as_json: bool) -> None:
    from exports.diff import read_document
    from exports.leaks import audit
    from exports.takedown import tombstones
    from exports.verify import verify_release
    from pipeline.storage import Storage

    findings = verify_release(folder, tombstones(Storage(workspace)))
    for leak in [audit(read_document(folder), path) for path in lists]:
        shared = f"{len(leak.videos)} videos and {leak.clips} clips"
        click.echo(f"{leak.list_name}: {leak.list_ids} ids; {shared} are here too.", err=as_json)
    if as_json:
        click.echo(json.dumps([finding.__dict__ for finding in findings]))
    for finding in findings[:20] if not as_json else []:
        click.echo(f"{finding}", err=True)
    if findings:
        click.echo(f"{folder}: {len(findings)} findings.", err=True)
        sys.exit(1)
    click.echo(f"{folder}: verified.", err=as_json)


@cli.command("fetch-media")
@click.argument("folder", metavar="DIR")
@click.option(
    "--source-template",
    metavar="T",
    help="Fetch from a mirror or archive: 'http://host/{video_id}.mp4', '/data/{video_id}.mp4'.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A download setting.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines, a line per video.")
def fetch_media(
    folder: str, source_template: str | None, settings: tuple[str, ...], as_json: bool
) -> None:
    """Restore clips and frames of a release that ships without media, and list what is gone.

    Frames are held against the release's fingerprints. attrition.csv in DIR keeps, with dates,
    which videos are gone, private, blocked or changed. Run again, it goes on with what is missing.

    \b
        avatar-build fetch-media releases/0.1
    """
    import tempfile
    from collections import Counter
    from datetime import UTC, datetime

    from exports.restore import fetch_media as restore
    from pipeline.config import load_config
    from stages.refetch import Again, refetch

    if source_template is not None:
        settings = (*settings, f"download.source_template={json.dumps(source_template)}")
    config = load_config("", settings).download
    statuses: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fetch-media-") as scratch:
        done = restore(
            Path(folder),
            lambda videos: refetch(
                config,
                Path(scratch),
                [Again(v.video_id, v.width, v.height, v.format_id) for v in videos],
            ),
            today=datetime.now(UTC).date(),
        )
        for row in done:
            statuses[row.status] += 1
            if as_json:
                click.echo(json.dumps(row.__dict__))
            else:
                click.echo(f"{row.video_id} {row.status} {row.detail}".rstrip())
    if not as_json:
        click.echo(f"{_listed(statuses.most_common()) or 'nothing was missing'}. {folder}")


@cli.command("import-release")
@click.argument("source", metavar="DIR")
@click.option("--to", "target", required=True, metavar="NEW", help="The release to write.")
@click.option("--format", "form", default="", metavar="F", help="Default: found out. See above.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def import_release(source: str, target: str, form: str, as_json: bool) -> None:
    """Read a foreign release, a folder or ZIP as downloaded, and write it in our form.

    Formats: avatar (the authors' layout), vggss (vggss.json), is3 (IS3_annotation.json), avsbench
    (gt_masks), flickr (XML of Flickr-SoundNet). What cannot be used is listed, with reasons, in
    NEW/statistics.json.

    \b
        avatar-build import-release AVATAR --to releases/avatar-official
    """
    from exports.importing import import_release as importing

    summary = importing(Path(source), Path(target), form)
    click.echo(json.dumps(summary.as_dict()) if as_json else summary.sentence())


@cli.group()
def release() -> None:
    """Compare releases."""


@release.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--rows", default=40, show_default=True, help="Rows listed at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines: every row.")
def diff(old: str, new: str, rows: int, as_json: bool) -> None:
    """Say which rows of two releases were added, removed or changed.

    \b
        avatar-build release diff releases/0.1 releases/0.2
    """
    from exports import diff as comparing

    documents = (comparing.read_document(Path(old)), comparing.read_document(Path(new)))
    if as_json:
        click.echo(json.dumps(comparing.as_json(*documents)))
    else:
        click.echo("\n".join(comparing.as_lines(*documents, rows)))


@cli.command()
@click.argument("video_id", metavar="ID")
@click.option("--reason", default="", help="Kept beside the tombstone, in no release.")
@_workspace_options
def takedown(
    workspace: str, settings: tuple[str, ...], as_json: bool, video_id: str, reason: str
) -> None:
    """Keep a video out of every release from now on.

    An id that starts with '-' goes after '--'.

    \b
        avatar-build takedown --workspace ws -- -1pRmoJIGQc
    """
    from exports.takedown import bury, releases_with

    storage = _open(workspace, settings).storage
    stone = bury(storage, video_id, reason)
    older = releases_with(storage, video_id)
    if as_json:
        click.echo(json.dumps({**stone.model_dump(mode="json"), "still_in": older}))
        return
    click.echo(f"{video_id}: taken down on {stone.date}. The next release will not have it.")
    if older:
        click.echo(f"Still in {', '.join(older)}: export a new version and withdraw these.")


@cli.command()
@click.option("--release", required=True, metavar="DIR", help="The release to score on.")
@click.option(
    "--predictions",
    required=True,
    metavar="DIR",
    help="Heatmaps: <clip_id>.npz with frame_index (n,) and heatmap (n, y, x), any resolution.",
)
@click.option("--gt", type=click.Choice(["mask", "box"]), default="mask", show_default=True)
@click.option("--max-missing", default=0, metavar="N", help="Frames that may lack a heatmap.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--out", metavar="DIR", help="Write scores.md, .tex, .csv and .json there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def evaluate(
    release: str,
    predictions: str,
    gt: Literal["mask", "box"],
    max_missing: int,
    seed: int,
    out: str | None,
    as_json: bool,
) -> None:
    """Fill the AVATAR paper's tables for any model's heatmaps on a release.

    \b
        avatar-build evaluate --release ws/releases/0.1 --predictions heatmaps --out scores
    """
    from tavlo.evaluate import FORMATS
    from tavlo.evaluate import evaluate as score
    from tavlo.predictions import Predictions
    from tavlo.release import read_release

    data, found = read_release(Path(release)), Predictions(Path(predictions))
    scores = score(data, found, gt, max_missing=max_missing, seed=seed)
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
        for ending, write in FORMATS.items():
            (Path(out) / f"scores.{ending}").write_text(write(scores), encoding="utf-8")
    click.echo(FORMATS["json" if as_json else "md"](scores), nl=False)


@cli.command()
@click.option("-w", "--workspace", default="demo-workspace", show_default=True, metavar="DIR")
@click.option("--seed", default=0, show_default=True, help="Of the rendered world.")
def demo(workspace: str, seed: int) -> None:
    """Render a small world, run the whole chain on it, score it and write a report.

    \b
        avatar-build demo --workspace demo-workspace
    """
    from pipeline.demo.run import run_demo

    run_demo(Path(workspace), seed, lambda words: cli.main(list(words), standalone_mode=False))


if __name__ == "__main__":
    main()
