"""The command line. Thin on purpose: each command gathers its options and calls one function."""

from __future__ import annotations

import errno
import signal
import sys

import click

# Importing a module of commands adds them to the root.
from pipeline.cli import flow, images, label, look, releases, tables, training, weights, world  # noqa: F401
from pipeline.cli.options import cli
from pipeline.errors import AvatarBuildError

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line; errors a user can act on are one line."""
    signal.signal(signal.SIGTERM, _interrupt)  # Slurm and containers end jobs so
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except AvatarBuildError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        click.echo("Error: the disk is full. Make room and run again: nothing is lost.", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "Stopped. What is committed stays; the same command goes on from there.", err=True
        )
        sys.exit(130)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
