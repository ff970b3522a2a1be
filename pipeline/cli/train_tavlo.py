"""``train-tavlo``: train TAVLO, or any recipe, on clips."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipeline.cli.common.options import COUNT, PATH, cli
from pipeline.cli.common.output import output


@cli.command("train-tavlo")
@click.option(
    "--data",
    "source",
    required=True,
    metavar="PATH",
    help="What to train on: a release, a folder or s3://...; or a list with a clip a line,"
    " 'FILE[,START]' or 'ID,START'.",
)
@click.option(
    "--out", type=PATH, required=True, metavar="DIR", help="Checkpoints, log and curve go there."
)
@click.option("--recipe", default="tavlo", show_default=True, metavar="NAME", help="The model.")
@click.option(
    "--preset",
    default="",
    metavar="NAME",
    help="Settings that belong together: of tavlo, paper (default) or late-fusion. What is known of"
    " them is said at the start.",
)
@click.option(
    "--held-out",
    type=PATH,
    multiple=True,
    metavar="PATH",
    help="A release or list for evaluation: a video of it among --data is refused. Repeatable.",
)
@click.option(
    "--source-template",
    "template",
    default="",
    metavar="T",
    help="Where the videos of a list's ids are: '/data/{video_id}.mp4', or clips cut already:"
    " '/clips/{video_id}_{start:06d}.mp4'.",
)
@click.option(
    "--cache", type=PATH, metavar="DIR", help="Small copies of the clips. Default: OUT/clips."
)
@click.option("--config", "file", type=PATH, metavar="TOML", help="Settings: [train], [tavlo].")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting, e.g. train.batch=16 or tavlo.negatives=max. Repeatable.",
)
@click.option(
    "--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda or cuda:N."
)
@click.option(
    "--max-failed",
    type=COUNT,
    default=0,
    metavar="N",
    help="Broken clips that may be left out.",
)
@click.option("--tensorboard", is_flag=True, help="Write OUT/tensorboard too.")
@click.option("--dry-run", is_flag=True, help="Say clips, steps, bytes and time, and do nothing.")
def train_tavlo(
    recipe: str,
    preset: str,
    file: Path | None,
    settings: tuple[str, ...],
    dry_run: bool,
    **asked: Any,
) -> None:
    """Train TAVLO on a release's clips or a list of clips; no labels are used.

    Stopped or killed, the same command goes on from OUT/last.pt, with the same result. On several
    GPUs start it with torchrun; negatives then come from all of them.

    \b
        avatar-build train-tavlo --data train.csv --held-out releases/1.0 --out runs/tavlo
        avatar-build train-tavlo --data releases/0.1 --out runs/small --set train.batch=8 --dry-run
    """
    # Torch takes seconds to import, and --help needs none of it.
    from tavlo.training.setup import Request, closing, plan, run
    from tavlo.training.training_clips import stated_rules
    from tavlo.training.training_config import read_settings

    config, model = read_settings(recipe, file, settings, stated_rules(asked["source"]), preset)
    request = Request(model, config, shown=output().shown, **asked)
    if dry_run:
        found = plan(request)
        output().tell(asdict(found), *found.sentences())
        return
    done = run(request)
    if os.environ.get("RANK", "0") != "0":
        return  # the first rank speaks for all
    books = {key: done.data[key] for key in ("clips", "failed", "silent")}
    output().tell({"step": done.step, "best": done.best, **books}, closing(request, done))
