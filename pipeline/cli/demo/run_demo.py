"""The demo: a rendered world goes through the real commands, and is scored against its truth.

What a user would type is typed here too, word for word, and printed. Only the people are replaced,
by a simulated annotator with a name of its own.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from exports.from_workspace import workspace_report
from labeling.automatic.simulated import SimulatedConfig
from pipeline.cli.demo.scores import mask_ious, proposal_recall
from pipeline.cli.demo.server import serve
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.extras import EXTRAS, missing
from pipeline.records.schema import Frame, Instance, Mask, Proposal
from pipeline.run.runner import RunOptions, run_stage
from pipeline.run.stage_progress import Progress
from pipeline.synthetic.render import World, render_world
from pipeline.words import command_line
from pipeline.workspace.workspace import Workspace

VERSION = "0.1"

CommandLine = Callable[[Sequence[str]], object]


@dataclass(frozen=True)
class Demo:
    """The outcome of a demo."""

    workspace: Workspace
    scores: dict[str, float]
    """The scores against the truth, by the names the report shows."""
    report: Path
    seconds: float

    def scores_lines(self) -> list[str]:
        """Return the scores for people."""
        lines = [click.style("\nAgainst the truth", bold=True)]
        for name, value in self.scores.items():
            shown = f"{value:.3f}" if isinstance(value, float) else str(value)
            lines.append(f"  {name:40}{shown:>8}")
        return [*lines, "", f"Done in {self.seconds:.0f} s. Look at it: {self.report}"]

    def next_lines(self) -> list[str]:
        """Return what to type next."""
        example = next(iter(self.workspace.rows(Mask))).instance_id
        return [
            "\nThe whole history behind one of its masks:",
            f"  {command_line('why', example, '--workspace', self.workspace.storage.url)}",
            "\nWith real videos:",
            "  avatar-build init ws --profile offline",
            "  avatar-build doctor --workspace ws",
            "  avatar-build download --workspace ws --list vggsound.csv --limit 20",
        ]


def run_demo(folder: Path, seed: int, run: CommandLine) -> Demo:
    """Render, run, score, report.

    Args:
        folder: made anew; an earlier demo's is replaced, anything else refused.
        seed: of the world.
        run: runs a command as if it had been typed.

    Raises:
        UsageError: the folder holds something that is no demo.
        AvatarBuildError: a step failed that should not have.
    """
    started = time.monotonic()

    def typed(*words: str) -> None:
        """Show a command and run it; its failure ends the demo."""
        click.echo(click.style(f"\n$ {command_line(*words)}", bold=True))
        try:
            run(words)
        except click.ClickException as error:
            raise AvatarBuildError(f"demo: {error.format_message()}") from error

    _clear(folder)
    world = _render(folder / "world", seed)
    root = folder / "ws"
    typed("init", str(root), "--profile", "offline")
    with serve(world.videos) as address:
        template = f"{address}/{{video_id}}.mp4"
        place = ("--workspace", str(root))
        typed("download", *place, "--list", str(world.csv), "--source-template", template)
    typed("sample", *place)
    typed("propose", *place)
    _simulate(root, world)
    typed("segment", *place)
    typed("export", *place, "--version", VERSION, "--unverified")
    typed("export", "--verify", str(root / "releases" / VERSION))
    train_tiny(folder, typed, missing(EXTRAS["train"]))
    typed("status", *place)
    workspace = Workspace(root)
    scores = score(workspace, world)
    report = workspace_report(workspace, scores=scores)
    return Demo(workspace, scores, report, time.monotonic() - started)


def score(workspace: Workspace, world: World) -> dict[str, float]:
    """Proposal recall and mask IoU against the truth, by the names the report shows."""
    truth = json.loads(world.truth.read_text(encoding="utf-8"))
    frames = workspace.rows(Frame)
    found, objects = proposal_recall(truth, frames, workspace.rows(Proposal))
    ious = mask_ious(truth, frames, workspace.rows(Instance), workspace.rows(Mask))
    if not objects or not ious:
        raise AvatarBuildError("demo: nothing to score; the steps above say where rows ended.")
    values = sorted(ious.values())
    return {
        "sounding objects in the chosen frames": objects,
        "proposal recall at IoU 0.5": found / objects,
        "masks": len(values),
        "mean mask IoU": statistics.fmean(values),
        "median mask IoU": statistics.median(values),
    }


def _clear(folder: Path) -> None:
    if not folder.exists():
        return
    if not (folder / "world" / "truth.json").exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: not a demo's folder. Name a new one with --workspace.")
    shutil.rmtree(folder)


def _render(folder: Path, seed: int) -> World:
    click.echo("Drawing a small world: things on moving backgrounds that move when they sound.")
    folder.mkdir(parents=True)
    on_terminal = sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        if on_terminal:
            click.echo(f"\r{done} of {total} s of video", nl=False, err=True)

    world = render_world(folder, seed, progress=progress)
    if on_terminal:
        click.echo("", err=True)
    click.echo(f"{len(list(world.videos.iterdir()))} files in {world.videos}, truth beside them.")
    return world


def _simulate(root: Path, world: World) -> None:
    """In place of `label push` and `label pull`: an annotator that knows the truth."""
    click.echo(click.style("\n# People would label now; a simulated annotator does.", bold=True))
    workspace = Workspace(root)
    config = SimulatedConfig(truth=str(world.truth))
    summary = run_stage(workspace, "simulate", RunOptions(), Progress(), config=config)
    instances = sum(file.rows for file in workspace.files("instances"))
    click.echo(
        f"simulate: {summary.counts['input']} frames, {summary.counts['children:reviews']} reviews,"
        f" {instances} instances."
    )


def train_tiny(folder: Path, typed: Callable[..., None], lacking: Sequence[str] = ()) -> None:
    """Train a tiny TAVLO on the release and print its tables; without torch, say so.

    Args:
        folder: of the demo.
        typed: runs a command.
        lacking: packages of the extra ``train`` that are not installed.
    """
    if lacking:
        click.echo(f"\nNo TAVLO is trained: {lacking[0]} is not installed (avatar-build[train]).")
        return
    click.echo(
        click.style("\n# A tiny TAVLO, trained and scored on the same clips: ", bold=True)
        + "its figures show that all of it runs, and nothing else."
    )
    release, out = folder / "ws" / "releases" / VERSION, folder / "tavlo"
    config = Path(__file__).with_name("tiny-tavlo.toml")
    told = ("--device", "cpu", "--cache", str(folder / "clips"))
    typed("train-tavlo", "--data", str(release), "--out", str(out), "--config", str(config), *told)
    scored = ("--allow-overlap", "--out", str(out / "scores"))
    best = str(out / "best.pt")
    typed("evaluate", "--release", str(release), "--checkpoint", best, *told, *scored)
