"""``tables``: scored runs side by side, or beside published figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.common.options import PATH, cli
from pipeline.cli.common.output import output

if TYPE_CHECKING:
    from tavlo.published.result_table import Table


_PARAMS = (
    click.Argument(["runs"], nargs=-1, metavar="[NAME=scores.json]..."),
    click.Option(
        ["--out"], type=PATH, metavar="DIR", help="Write .md, .tex, .csv and .json there."
    ),
)


def _show(tables: Sequence[Table], name: str, out: Path | None) -> None:
    from tavlo.published.result_table import FORMATS, write_tables

    if out:
        write_tables(tables, out, name)
    output().tell(
        {"tables": json.loads(FORMATS["json"](tables))}, FORMATS["md"](tables).rstrip("\n")
    )


@cli.group()
def tables() -> None:
    """Put scored runs side by side, or beside published figures."""


@tables.command(params=[*_PARAMS])
def paper(runs: tuple[str, ...], out: Path | None) -> None:
    """Fill tables 2 to 4 and the ablation of the AVATAR paper: published, ours, the difference.

    A run is named as the paper names the model; a row without one says why it is empty.

    \b
        avatar-build tables paper "TAVLO(10k)=tavlo/scores.json" "EZ-VSL(144k)=ezvsl/scores.json"
    """
    from tavlo.published.published_tables import compare_with_published, read_runs

    _show(compare_with_published("avatar", read_runs(runs)), "paper", out)


@tables.command(params=[*_PARAMS])
def alignment(runs: tuple[str, ...], out: Path | None) -> None:
    """Fill tables 1 and 2 of the cross-modal alignment paper: published, ours, the difference.

    A run may have several files: one per test set, one of retrieval.

    \b
        avatar-build tables alignment "EZ-VSL (w/o OGL)=vggss.json" "EZ-VSL (w/o OGL)=flickr.json"
    """
    from tavlo.published.published_tables import compare_with_published, read_runs

    _show(compare_with_published("alignment", read_runs(runs)), "alignment", out)


@tables.command(params=[*_PARAMS])
def windows(runs: tuple[str, ...], out: Path | None) -> None:
    """Show how much sound models need: scores per window, and with --out the plots of Fig. A.

    \b
        avatar-build tables windows ezvsl=ezvsl/window-10/scores.json \
ezvsl=ezvsl/window-1/scores.json --out windows
    """
    from tavlo.published.published_tables import draw_windows, read_windows, window_table

    found = read_windows(list(runs))
    if out:
        draw_windows(found, out / "windows.png")
    _show([window_table(found)], "windows", out)


@tables.command(params=[*_PARAMS])
def scores(runs: tuple[str, ...], out: Path | None) -> None:
    """Fill tables 2 to 4 as the AVATAR paper lays them out, a row per run of yours.

    \b
        avatar-build tables scores tavlo=tavlo/scores.json control=control/scores.json
    """
    from tavlo.published.published_tables import read_runs, side_by_side

    _show(side_by_side(read_runs(runs)), "scores", out)


@tables.command(params=[*_PARAMS])
def ablation(runs: tuple[str, ...], out: Path | None) -> None:
    """Compare runs that differ in one thing: how far each is from the first.

    \b
        avatar-build tables ablation mean=mean/scores.json max=max/scores.json --out tables
    """
    from tavlo.published.published_tables import ablation as compare
    from tavlo.published.published_tables import read_runs

    _show(compare(read_runs(runs)), "ablation", out)
