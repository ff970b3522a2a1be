"""``label``: the commands of the people who decide which boxes sound, and whose pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.common.options import (
    PATH,
    SOME,
    cli,
    device_option,
    in_workspace,
    run_options,
    setting_option,
)
from pipeline.cli.common.output import Failed, output
from pipeline.cli.common.running import run_stages
from pipeline.errors import AvatarBuildError
from pipeline.flow import PROJECTS
from pipeline.words import command_line

if TYPE_CHECKING:
    from labeling.projects.project_kind import ProjectKind
    from pipeline.run.runner import RunOptions
    from pipeline.workspace.workspace import Workspace


@cli.group()
def label() -> None:
    """Decide which boxes sound, and which pixels are theirs."""


@label.command()
@run_options
def accept(workspace: Workspace, options: RunOptions) -> None:
    """Take proposals above a bound as they are, without a person: the release is unverified.

    \b
        avatar-build label accept --set label.accept_score=0.6
    """
    run_stages(workspace, ["accept"], options)
    if not options.dry_run:
        _say_instances(workspace)


def _say_instances(workspace: Workspace) -> None:
    count = sum(file.rows for file in workspace.files("instances"))
    output().tell({"instances": count}, f"instances: {count}.")


def _server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which Label Studio; they are settings."""
    url = setting_option(
        "--url", sets=["label.url"], help="A Label Studio of yours. Default: that of 'label serve'."
    )
    token_file = setting_option(
        "--token-file",
        sets=["label.token_file"],
        metavar="FILE",
        help="Its token, readable by you alone; or set AVATAR_LABEL_TOKEN.",
    )
    return in_workspace(url(token_file(command)))


_LISTED = 10
"""The number of orphaned answers that ``status`` names; ``--json`` names all."""

_KIND = click.argument("kind", type=click.Choice(list(PROJECTS)))


@label.command()
@in_workspace
def serve(workspace: Workspace) -> None:
    """Run a Label Studio for this workspace on the loopback interface, until Ctrl-C.

    \b
        avatar-build label serve --workspace ws
    """
    from labeling.projects.serve import USER, start_server

    said = output()
    said.hint("Starting Label Studio; the first start takes about a minute.")
    running = start_server(workspace)
    try:
        said.tell(
            {"url": running.url, "user": USER, "home": str(running.home)},
            f"Label Studio: {running.url}  user {USER}",
            f"Password in {running.home / 'password'}. Ctrl-C ends it; all is kept.",
        )
        said.hint(f"Next: {command_line('label', 'push', 'boxes', '--workspace', workspace)}")
        said.print_json()  # at once: whoever started it waits for the address
        if code := running.process.wait():
            raise AvatarBuildError(f"label serve: the server ended with {code}; see its log.")
    finally:
        running.stop()


@label.command()
@device_option
@_server_options
def backend(workspace: Workspace) -> None:
    """Answer annotators' points and boxes with masks of the segmenter, until Ctrl-C.

    It runs on the machine of Label Studio, in a terminal of its own, and is made known to the
    masks' project. Annotators switch Auto-Annotation on.

    \b
        avatar-build label backend --workspace ws --device cuda:0
        avatar-build label backend --workspace ws --set segment.segmenter=sam-vit-b
    """
    from labeling.projects.backend import Backend, Prompts, connect_backend
    from labeling.projects.connect import connect, find_projects, open_project
    from labeling.projects.mask_project import MASKS
    from stages.segment.refine import FrameRefiner

    config = workspace.config.label
    server = connect(workspace)
    refiner = FrameRefiner(workspace.storage, workspace.config.segment, config.backend_frames)
    prompts = Prompts(workspace, refiner)
    with Backend(prompts, config.backend_port, lambda line: click.echo(line, err=True)) as running:
        open_project(server, config.project, MASKS, config.task == "clip")
        projects = find_projects(server, config.project, MASKS)
        for project in projects:
            connect_backend(server, project, running)
        titles = " and ".join(repr(project.title) for project in projects)
        said = output()
        said.tell(
            {"url": running.url, "segmenter": refiner.name},
            f"label backend: {refiner.name} answers {titles} of {server.url}.",
            "Switch Auto-Annotation on there. Ctrl-C ends it.",
        )
        said.print_json()  # at once: whoever started it waits for the address
        running.wait()


@label.command()
@_KIND
@setting_option(
    "--task",
    sets=["label.task"],
    type=click.Choice(["frame", "clip"]),
    help="Ask about each frame alone, or about all frames of a clip at once.",
)
@setting_option(
    "--order",
    sets=["label.order"],
    type=click.Choice(["given", "uncertain", "rare"]),
    help="Send first what models are least sure of, or what is rarest; the card will say it.",
)
@setting_option(
    "--overlap",
    sets=["label.overlap"],
    type=SOME,
    metavar="N",
    help="Let N people answer a share of the frames.",
)
@setting_option(
    "--share",
    sets=["label.share"],
    type=click.FloatRange(0, 1),
    metavar="S",
    help="Which share; a larger contains a smaller.",
)
@click.option(
    "--gold",
    type=PATH,
    metavar="FILE",
    help="Known answers, mixed in unmarked for everybody: JSON lines, or a table of reviews.",
)
@_server_options
def push(workspace: Workspace, kind: str, gold: Path | None) -> None:
    """Send to annotators what they have not answered: boxes, masks, or what they differ on.

    \b
        avatar-build label push boxes --workspace ws
        avatar-build label push boxes --task clip --order uncertain
        avatar-build label push boxes --overlap 2 --share 0.1 --gold gold.jsonl
        avatar-build label push masks --workspace ws
        avatar-build label push masks --task clip --set label.carry_masks=true
        avatar-build label push adjudication --workspace ws
        avatar-build label push boxes --url https://labels.example.org --token-file token
    """
    from labeling.projects.connect import connect
    from labeling.review.gold import set_gold
    from labeling.sync import push as sync
    from stages.taxonomy import load_taxonomy

    if gold is not None and kind != "boxes":
        raise click.UsageError("--gold goes with boxes.")
    server = connect(workspace)
    if gold is not None:
        set_gold(workspace, gold)
    project = PROJECTS[kind].load_project()
    if kind == "masks" and workspace.config.label.carry_masks:
        project = _with_segmenter(workspace, project)
    said = output()

    def show(done: int, total: int) -> None:
        if said.shown:
            click.echo(f"push: {done} of {total} frames", err=True)

    names = load_taxonomy(workspace.config.hear.taxonomy).names
    pushed = sync.push(workspace, server, project, names, show)
    said.tell(pushed.as_dict(), *pushed.lines())
    if pushed.skipped:
        raise Failed(f"label push {kind}: not all could be sent; see above.")


def _with_segmenter(workspace: Workspace, kind: ProjectKind) -> ProjectKind:
    """Return the project of masks with a segmenter to ask once more."""
    from dataclasses import replace
    from functools import partial

    from labeling.projects.mask_project import MaskQuestions
    from stages.segment.refine import FrameRefiner

    config = workspace.config
    refiner = FrameRefiner(workspace.storage, config.segment, config.label.backend_frames)
    return replace(kind, questions=partial(MaskQuestions, refiner=refiner))


@label.command()
@_KIND
@_server_options
def pull(workspace: Workspace, kind: str) -> None:
    """Bring what annotators decided into the tables; what they should mend is listed.

    Frames that were sent back from the masks are opened again among the boxes.

    \b
        avatar-build label pull boxes --workspace ws
        avatar-build label pull masks --workspace ws
        avatar-build label pull adjudication --workspace ws
    """
    from labeling.projects.connect import connect
    from labeling.sync import pull as sync
    from labeling.sync.reopen import Reopened, reopen_boxes
    from stages.taxonomy import load_taxonomy

    server = connect(workspace)
    names = load_taxonomy(workspace.config.hear.taxonomy).names
    pulled = sync.pull(workspace, server, PROJECTS[kind].load_project(), names)
    reopened = reopen_boxes(workspace, server) if kind == "masks" else Reopened()
    output().tell({**pulled.as_dict(), **reopened.as_dict()}, *pulled.lines(), *reopened.lines())
    _say_instances(workspace)
    if pulled.bad or reopened.waiting:
        raise Failed(f"label pull {kind}: some tasks are to mend; see above.")


@label.command("status")
@_server_options
def label_status(workspace: Workspace) -> None:
    """Show how far annotators are: to do, done, skipped, in adjudication, time left.

    Answers that no longer fit what is proposed now are listed; the next push asks again.

    \b
        avatar-build label status --workspace ws
    """
    from labeling.projects.connect import connect
    from labeling.sync.project_status import COLUMNS, orphans, project_statuses
    from pipeline.columns import columns

    found, orphaned = project_statuses(workspace, connect(workspace)), orphans(workspace)
    rows = [project.cells() for project in found]
    said = output()
    said.tell(
        {
            "projects": [project.as_dict() for project in found],
            "orphaned": [orphan.as_dict() for orphan in orphaned],
        },
        *(columns(COLUMNS, rows, right=COLUMNS[1:]) if found else ()),
        *(orphan.sentence() for orphan in orphaned[:_LISTED]),
    )
    if not found:
        said.say(
            "Nothing pushed yet. Start with: "
            + command_line("label", "push", "boxes", "--workspace", workspace.storage.url)
        )
    if (more := len(orphaned) - _LISTED) > 0:
        said.say(f"  and {more} more orphaned answers; --json lists all.")


@label.command("report")
@in_workspace
def label_report(workspace: Workspace) -> None:
    """Show what became of proposals and what a frame costs, by class, category and day.

    \b
        avatar-build label report --workspace ws
    """
    from labeling.quality.cost import cost_report
    from pipeline.records.schema import Proposal, Review

    found = cost_report(workspace.rows(Review), workspace.rows(Proposal))
    output().tell(found.as_dict(), *found.lines())


@label.command("agreement")
@in_workspace
def label_agreement(workspace: Workspace) -> None:
    """Show how far people agree with one another and with gold answers, as Markdown.

    Frames on which they do not are settled by: label push adjudication.

    \b
        avatar-build label agreement --workspace ws --set label.agreement_iou=0.75
    """
    from labeling.quality.agreement import agreement
    from pipeline.records.schema import Review

    found = agreement(workspace.rows(Review), workspace.config.label.agreement_iou)
    said = output()
    said.tell(found.as_dict(), *found.lines())
    if found.disputed:
        settle = command_line("label", "push", "adjudication", "--workspace", workspace.storage.url)
        said.hint(f"Have them settled: {settle}")
