"""The command line. Thin on purpose: each command gathers its options and calls one function."""

from __future__ import annotations

import signal
import sys

import click

# Importing a module of commands adds them to the root.
from pipeline.cli import flow, images, label, look, releases, tables, training, weights, world  # noqa: F401
from pipeline.cli.options import cli
from pipeline.cli.output import ending

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line; errors a user can act on are one line."""
    signal.signal(signal.SIGTERM, _interrupt)  # Slurm and containers end jobs so
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


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
