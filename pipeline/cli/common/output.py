"""The output of a command: sentences for people as they come, or one JSON object at its end.

    {"version": 1, "command": "sample", "result": {...}, "error": null}

``result`` is what the command found or did, also what it got done before an error. ``error`` is
null or ``{"kind", "message", "exit_code"}``; its message is on stderr as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import click

from pipeline.errors import AvatarBuildError, machine_says, path_says

JSON_VERSION = 1
"""Raised when a consumer of the JSON could misread what is printed."""


class Failed(click.ClickException):
    """The command did its work, and what it found is a failure; exit 1."""


@dataclass
class Output:
    """The output of a command; ``-q``, ``-v`` and ``--json`` decide what is shown."""

    command: str = ""
    """The command's name, without the program's."""
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    stopped: ClassVar[bool] = False
    """True once a signal has asked this process to end."""
    result: dict[str, Any] = field(default_factory=dict)
    """The result that ``--json`` prints."""
    _printed: bool = False

    @property
    def shown(self) -> bool:
        """Say whether progress is shown."""
        return not (self.json or self.quiet)

    def tell(self, result: Mapping[str, Any], *lines: str) -> None:
        """Give a result: to machines the values, to people the lines."""
        self.result |= result
        for line in lines:
            self.say(line)

    def say(self, line: str) -> None:
        """Print a line of the result for people."""
        if not self.json:
            click.echo(line)

    def hint(self, line: str) -> None:
        """Print what may be done next; ``-q`` leaves it out."""
        if self.shown:
            click.echo(line)

    def detail(self, line: str) -> None:
        """Print, with ``-v`` and on stderr, how something was done."""
        if self.verbose:
            click.echo(line, err=True)

    def print_json(self, error: BaseException | None = None) -> None:
        """Print the one object of the command, unless that was done."""
        if not self.json or self._printed:
            return
        self._printed = True
        document = {"version": JSON_VERSION, "command": self.command, "result": self.result}
        click.echo(json.dumps(document | {"error": _told(error) if error else None}))


def output() -> Output:
    """Return the output of the command that runs."""
    return click.get_current_context().ensure_object(Output)


def ending(error: BaseException) -> tuple[str, int] | None:
    """Return the line and the exit code an error ends a command with; none for a bug."""
    if isinstance(error, click.ClickException):
        return error.format_message(), error.exit_code
    if isinstance(error, AvatarBuildError):
        return str(error), error.exit_code
    if isinstance(error, BrokenPipeError):
        # Whoever read our lines has gone, as 'head' does.
        return "nobody reads what this command prints any more.", 1
    if isinstance(error, OSError):
        said = machine_says(error) or path_says(error, sys.argv[1:])
        return (said, 1) if said else None
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "Stopped. What is committed stays; the same command goes on from there.", 130
    return None


def _told(error: BaseException) -> dict[str, Any]:
    message, code = ending(error) or (f"{type(error).__name__}: {error}", 1)
    return {"kind": type(error).__name__, "message": message, "exit_code": code}
