"""``tune``: thresholds from reviews."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.cli.common.options import cli, open_workspace, place_option, set_option
from pipeline.cli.common.output import output


@cli.command()
@click.argument("folder", metavar="[DIR]", default="")
@place_option
@set_option
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Fraction of the boxes people kept that may be lost.",
)
@click.option(
    "--min-videos",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Videos with a kept box of a category that its thresholds need.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a settings file with the thresholds: avatar.toml, changed.",
)
def tune(
    folder: str,
    workspace: str,
    settings: Sequence[str],
    max_loss: float,
    min_videos: int,
    out: Path | None,
) -> None:
    """Propose thresholds of hearing and seeing by category, from what people kept and removed.

    Says what they would have spared, and changes nothing.

    \b
        avatar-build tune ws --out tuned.toml
    """
    from pipeline.errors import UsageError
    from pipeline.files import write_whole
    from pipeline.words import command_line
    from stages.propose.tuning import settings_file
    from stages.propose.tuning import tune as tuned

    if out is not None and out.exists():
        raise UsageError(f"{out}: already there. Name a new file with --out.")
    opened = open_workspace(folder or workspace, settings)
    found = tuned(opened, max_loss, min_videos)
    said = output()
    said.tell(found.as_dict(), *found.lines())
    if out is None:
        return
    if not found.settings:
        said.say(f"{out}: not written, for nothing would change.")
        return
    try:
        write_whole(out, settings_file(opened, found))
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}.") from error
    url = opened.storage.url
    redo = command_line("propose", "--redo", "--workspace", url)
    said.say(f"{out}: written. To go on with it, put it in place of {url}/avatar.toml; then {redo}")
