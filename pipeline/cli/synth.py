"""``synth``: a benchmark with exact answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli.common.options import COUNT, PATH, POSITIVE, SOME, cli
from pipeline.cli.common.output import output


@cli.command()
@click.argument("out", type=PATH, metavar="OUT")
@click.option("--clips", type=SOME, required=True, metavar="N", help="How many.")
@click.option("--seed", type=COUNT, metavar="S", help="Another seed is another world.")
@click.option("--seconds", type=POSITIVE, metavar="T", help="Length of a clip.")
@click.option("--fps", type=SOME, metavar="F", help="Frames per second.")
@click.option("--height", type=SOME, metavar="PX", help="Rows of the 16:9 picture.")
@click.option("--looks", type=click.Choice(("usual", "unseen")), help="Of things and backgrounds.")
@click.option("--workers", type=SOME, metavar="N", help="Processes; default: one per core.")
def synth(out: Path, clips: int, workers: int | None, **world: Any) -> None:
    """Draw a world in which it is known what sounds where, as a benchmark to train and score on.

    Things move when they sound, and look-alikes out of time; scenarios and cross-event come in the
    paper's proportions, masks are exact. OUT is laid out like a release. Clip 7 of a seed is the
    same however many are drawn.

    \b
        avatar-build synth worlds/train --clips 2000 --seed 1
        avatar-build synth worlds/test --clips 500 --seed 2
        avatar-build synth worlds/unseen --clips 500 --seed 3 --looks unseen
        avatar-build train-tavlo --data worlds/train --held-out worlds/test --out runs/a
        avatar-build evaluate --release worlds/test --checkpoint runs/a/best.pt --out runs/a/scores

    For a machine without a GPU draw both smaller, e.g. with --seconds 4 --fps 8 --height 144;
    train-tavlo reads from a world how long its clips are.
    """
    import os

    from pipeline.progress import counting
    from tavlo.synthetic.drawn_clips import WorldConfig
    from tavlo.synthetic.write_world import write_world

    config = WorldConfig(**{key: value for key, value in world.items() if value is not None})
    processes = workers if workers is not None else len(os.sched_getaffinity(0))
    with counting("clips", clips, shown=output().shown) as count:
        document = write_world(out, config, clips, processes=processes, show=count)
    images, rows = document.images, document.annotations
    off_screen = sum(image.off_screen for image in images)
    counts = {"frames": len(images), "off_screen": off_screen, "instances": len(rows)}
    output().tell(
        {"clips": clips, **counts},
        f"{out}: {clips} clips, {len(images)} labelled frames ({off_screen} off-screen),"
        f" {len(rows)} instances.",
    )
