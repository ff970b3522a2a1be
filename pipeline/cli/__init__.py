"""The command line. Thin on purpose: each command gathers its options and calls one function."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

# Importing a module of commands adds them to the root.
from pipeline.cli import (  # noqa: F401
    build,
    evaluate_models,
    label,
    look,
    releases,
    synth,
    tables,
    train_tavlo,
    tune,
    weights,
)
from pipeline.cli.common.options import cli
from pipeline.cli.common.output import Output, ending

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line; errors a user can act on are one line."""
    _open_closed_streams()
    # Pydantic asks every package there is for plugins: 15 ms, and what is a row is ours to say.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    signal.signal(signal.SIGTERM, _interrupt)  # Slurm and containers end jobs so
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a job with & ignores it
        signal.signal(signal.SIGINT, _interrupt)
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except BaseException as error:
        said = ending(error)
        if said is None:
            raise
        if isinstance(error, click.ClickException):
            error.show()
        else:
            stopped = isinstance(error, (KeyboardInterrupt, click.Abort))
            click.echo(said[0] if stopped else f"Error: {said[0]}", err=True)
        sys.exit(said[1])


def _open_closed_streams() -> None:
    """Give a stream that the caller closed (``>&-``, some cron jobs) to nobody.

    Before anything is opened: the next file would take its number, and what a library prints would
    be written into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _interrupt(_signal: int, _frame: object) -> None:
    Output.stopped = True
    raise KeyboardInterrupt
