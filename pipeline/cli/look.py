"""The commands that only look: status, failures, why, report, config, doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli.common.groups import SomeId
from pipeline.cli.common.options import COUNT, cli, in_workspace, looks_at_workspace
from pipeline.cli.common.output import Failed, output
from pipeline.cli.common.running import one_line

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace


@cli.command()
@in_workspace
def status(workspace: Workspace) -> None:
    """Count per stage the rows in, done, dropped, failed and waiting; rate and time left.

    \b
        avatar-build status --workspace ws
    """
    from pipeline.run.lost import LOOKED_AT, media_states
    from pipeline.run.status import stage_status, status_lines

    with workspace.one_moment():
        found, media = stage_status(workspace), media_states(workspace, at_most=LOOKED_AT)
    states = {state.stage: state.as_dict() for state in media}
    rows = [stage.as_dict() | {"media": states.get(stage.stage, {})} for stage in found]
    notes = [line for state in media for line in (state.line(), state.partly()) if line]
    output().tell({"stages": rows}, *status_lines(found), *notes)


@cli.command()
@click.option("--stage", help="Only of this stage.")
@click.option("--kind", help="Only of this kind or reason.")
@click.option("--drops/--no-drops", default=False, help="Rows set aside on purpose too.")
@looks_at_workspace
def failures(workspace: Workspace, stage: str | None, kind: str | None, drops: bool) -> None:
    """List the rows that failed, with kind and detail.

    \b
        avatar-build failures --stage download --drops
    """
    from pipeline.arrow import spare_pandas
    from pipeline.columns import columns
    from pipeline.run.status import check_names, dropped_rows, failed_rows, num_dropped

    spare_pandas()

    with workspace.one_moment():
        check_names(workspace, stage, kind)
        failed = failed_rows(workspace, stage, kind)
        shown = dropped_rows(workspace, stage, kind) if drops else []
        dropped = num_dropped(workspace, stage, kind)
    rows = []
    for row in failed:
        how = f"{row.kind}, {'may pass' if row.retryable else 'final'}, {row.attempts} tried"
        rows.append((row.stage, row.input_id, how, one_line(row.detail)))
    for drop in shown:
        rows.append((drop.stage, drop.input_id, f"dropped, {drop.reason}", one_line(drop.detail)))
    output().tell(
        {
            "failed": [row.model_dump(mode="json") for row in failed],
            "dropped": [row.model_dump(mode="json") for row in shown],
        },
        *(columns(["stage", "row", "ended", "detail"], rows) if rows else ()),
        f"{len(failed)} failed, {dropped} dropped.",
    )


@cli.command()
@click.argument("some_id", metavar="ID", type=SomeId())
@looks_at_workspace
def why(workspace: Workspace, some_id: str) -> None:
    """Print the whole history behind one id: video, clip, frame, proposal, instance or mask.

    \b
        avatar-build why -1pRmoJIGQc
    """
    import pyarrow as pa

    from pipeline.arrow import spare_pandas
    from pipeline.run.history import history

    spare_pandas()
    # It gives back what it needs no more: 25 MB less among 280,000 videos.
    pa.set_memory_pool(pa.system_memory_pool())
    steps, outcomes_of_rows = history(workspace, some_id)
    said = output()
    said.tell(
        {
            "history": [step.as_dict() for step in steps],
            "endings": [outcome.__dict__ for outcome in outcomes_of_rows],
        },
        *(line for step in steps for line in step.lines()),
    )
    for outcome in outcomes_of_rows:
        said.say(
            f"{outcome.stage:10} {outcome.input_id} {outcome.ending}. {one_line(outcome.detail)}"
        )


@cli.command()
@click.option(
    "--max-clips", type=COUNT, default=200, show_default=True, help="Clips with pictures."
)
@click.option("--clips", "cut_clips", is_flag=True, help="Cut those clips too, to be heard.")
@in_workspace
def report(workspace: Workspace, max_clips: int, cut_clips: bool) -> None:
    """Write report.html: what happened per stage, and pictures of every clip.

    Clips of a release with media can be heard in it; --clips cuts the others into media/clips.

    \b
        avatar-build report --workspace ws --clips
    """
    from exports.from_workspace import workspace_report
    from pipeline.arrow import spare_pandas

    spare_pandas()
    path = workspace_report(
        workspace,
        max_clips=max_clips,
        cut_clips=cut_clips,
        say=lambda line: click.echo(line, err=True),
    )
    remote = workspace.storage.local is None
    place = f"{workspace.storage.url}/{path}" if remote else str(path)
    output().tell({"report": place}, f"Report: {place}")


@cli.group()
def config() -> None:
    """Look at the settings."""


@config.command("show")
@in_workspace
def config_show(workspace: Workspace) -> None:
    """Print the settings in force, defaults included.

    \b
        avatar-build config show --set sample.seed=7
    """
    from pipeline.workspace.settings_file import render_toml

    found = workspace.config
    output().tell(found.model_dump(mode="json"), render_toml(resolved=found).rstrip("\n"))


@config.command("validate")
@in_workspace
def config_validate(workspace: Workspace) -> None:
    """Check avatar.toml; exit 2 names what is wrong in it.

    \b
        avatar-build config validate
    """
    output().tell({"valid": True}, "avatar.toml is valid.")


@cli.command()
@in_workspace
def doctor(workspace: Workspace) -> None:
    """Check what a run needs: yt-dlp, JavaScript runtime, cookies, disk, codecs. No network.

    \b
        avatar-build doctor --workspace ws
    """
    from pipeline.cli.doctor import check_commits, check_media, run_checks

    with workspace.storage.listed_once():
        checks = [
            *run_checks(workspace.storage, workspace.config),
            *check_commits(workspace),
            *check_media(workspace),
        ]
    said = output()
    said.tell({"checks": [check.__dict__ for check in checks]})
    for check in checks:
        advice = f"  -> {check.advice}" if check.advice else ""
        said.say(f"{check.state:5} {check.name:22} {check.detail}{advice}")
    if bad := [check.name for check in checks if check.state == "bad"]:
        raise Failed(f"doctor: not ready to run: {', '.join(bad)}.")
