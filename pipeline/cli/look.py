"""The commands that only look: status, failures, why, report, config, doctor."""

from __future__ import annotations

import json
import sys

import click

from pipeline.cli.options import cli, open_workspace, workspace_options
from pipeline.cli.running import one_line


@cli.command()
@workspace_options
def status(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Per stage: rows in, done, dropped, failed and waiting, rate and time left.

    \b
        avatar-build status --workspace ws
    """
    from pipeline.inspection import stage_status, status_lines

    found = stage_status(open_workspace(workspace, settings))
    if as_json:
        click.echo(json.dumps([stage.as_dict() for stage in found]))
    else:
        click.echo("\n".join(status_lines(found)))


@cli.command()
@click.option("--stage", help="Only of this stage.")
@click.option("--kind", help="Only of this kind or reason.")
@click.option("--drops/--no-drops", default=False, help="Rows set aside on purpose too.")
@workspace_options
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

    failed, dropped = outcomes(open_workspace(workspace, settings), stage, kind)
    if as_json:
        for row in [*failed, *(dropped if drops else [])]:
            click.echo(row.model_dump_json())
        return
    for failure in failed:
        again = "may pass" if failure.retryable else "final"
        what = f"{failure.kind}, {again}, {failure.attempts} tried"
        click.echo(f"{failure.stage:9} {failure.input_id:24} {what}: {one_line(failure.detail)}")
    for drop in dropped if drops else []:
        text = f"dropped, {drop.reason}: {one_line(drop.detail)}"
        click.echo(f"{drop.stage:9} {drop.input_id:24} {text}")
    click.echo(f"{len(failed)} failed, {len(dropped)} dropped.")


@cli.command()
@click.argument("some_id", metavar="ID")
@workspace_options
def why(workspace: str, settings: tuple[str, ...], as_json: bool, some_id: str) -> None:
    """Print the whole history behind one id: video, clip, frame, proposal, instance or mask.

    An id that starts with '-' goes after '--'.

    \b
        avatar-build why -- -1pRmoJIGQc
    """
    from pipeline.why import history

    steps, fates = history(open_workspace(workspace, settings), some_id)
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
        click.echo(f"{fate.stage:10} {fate.input_id} {fate.ending}. {one_line(fate.detail)}")


@cli.command()
@click.option("--max-clips", default=200, show_default=True, help="Clips with pictures.")
@workspace_options
def report(workspace: str, settings: tuple[str, ...], as_json: bool, max_clips: int) -> None:
    """Write report.html: what happened per stage, and pictures of every clip.

    \b
        avatar-build report --workspace ws
    """
    from exports.tables import workspace_report

    path = workspace_report(open_workspace(workspace, settings), max_clips=max_clips)
    click.echo(json.dumps({"report": str(path)}) if as_json else f"Report: {path}")


@cli.group()
def config() -> None:
    """Look at the settings."""


@config.command("show")
@workspace_options
def config_show(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Print the settings in force, defaults included.

    \b
        avatar-build config show --set sample.seed=7
    """
    from pipeline.config import render_toml

    found = open_workspace(workspace, settings).config
    click.echo(found.model_dump_json() if as_json else render_toml(resolved=found), nl=as_json)


@config.command("validate")
@workspace_options
def config_validate(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Check avatar.toml; silent exit 0 means it is right.

    \b
        avatar-build config validate
    """
    open_workspace(workspace, settings)
    click.echo(json.dumps({"valid": True}) if as_json else "avatar.toml is valid.")


@cli.command()
@workspace_options
def doctor(workspace: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Check what a run needs: yt-dlp, JavaScript runtime, cookies, disk, codecs. No network.

    \b
        avatar-build doctor --workspace ws
    """
    from pipeline.doctor import run_checks

    opened = open_workspace(workspace, settings)
    checks = run_checks(opened.storage, opened.config)
    if as_json:
        click.echo(json.dumps([check.__dict__ for check in checks]))
    for check in checks if not as_json else []:
        advice = f"  -> {check.advice}" if check.advice else ""
        click.echo(f"{check.state:5} {check.name:22} {check.detail}{advice}")
    if any(check.state == "bad" for check in checks):
        sys.exit(1)
