"""The commands there are, parsed without being run, and run in a process of their own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pipeline.cli import cli
from tests.conftest import ROOT


def commands(
    group: click.Group, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group by its full name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        else:
            yield " ".join((*prefix, name)), command


ALL = dict(commands(cli))


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The installed command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )


def check_parses(example: str) -> None:
    """Resolve the command and its options without running it."""
    words = shlex.split(example, comments=True)
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)
