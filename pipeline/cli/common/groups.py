"""The classes of commands and their groups: parsing, listing and ending them."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import click

from pipeline.cli.common.output import Output, ending
from pipeline.errors import UsageError
from pipeline.extras import extra_of

_ID = re.compile(r"-[A-Za-z0-9_-]{10,}(#[0-9]+)?")
"""An id as it may be typed: a YouTube id that begins with '-', or one that is made from it."""


class SomeId(click.ParamType[str]):
    """An id of a video or of what came of one; a leading '-' needs no '--' before it."""

    name = "id"


class Command(click.Command):
    """A command with the options all have, and whose ids may begin with '-'."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            _switch("json", "--json", help="Print one JSON object, errors included."),
            _switch("quiet", "-q", "--quiet", help="Print results and errors only."),
            _switch("verbose", "-v", "--verbose", help="Print units, times and tracebacks too."),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as typed; where that is wrong, take what looks like an id for one."""
        ctx.ensure_object(Output).command = _name(ctx)
        takes_ids = any(
            isinstance(param, click.Argument) and isinstance(param.type, SomeId)
            for param in self.params
        )
        marked = self._mark_ids(args) if takes_ids else args
        try:
            return super().parse_args(ctx, list(args))
        except click.UsageError as error:
            if marked == args:
                raise
            try:
                return super().parse_args(ctx, marked)
            except click.UsageError:
                raise error from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; where a package of an extra is missing, name the extra."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            extra = extra_of(package)
            if extra is None:
                raise
            raise UsageError(
                f"'avatar-build {_name(ctx)}' needs {package}, which is not installed: pip install"
                f" 'avatar-build[{extra}]'."
            ) from error

    def _mark_ids(self, args: list[str]) -> list[str]:
        """Move what looks like an id behind a '--'."""
        known = {name: param for param in self.params for name in param.opts if name[:1] == "-"}
        kept: list[str] = []
        ids: list[str] = []
        words = iter(args)
        for word in words:
            if word == "--":
                break
            name = word.partition("=")[0]
            if name in known:
                kept.append(word)
                param = known[name]
                if word == name and isinstance(param, click.Option) and not param.is_flag:
                    kept += [value for value in (next(words, None),) if value is not None]
            elif _ID.fullmatch(word) and not difflib.get_close_matches(word, known, 1, 0.8):
                ids.append(word)
            else:
                kept.append(word)
        return [*kept, "--", *ids, *words] if ids else args


def _switch(name: str, *spellings: str, help: str) -> click.Option:
    def noted(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        setattr(ctx.ensure_object(Output), name, value)

    return click.Option(
        spellings, is_flag=True, expose_value=False, is_eager=True, callback=noted, help=help
    )


class Group(click.Group):
    """Lists its commands in the order they were made, each with a whole sentence.

    Args:
        sections: names of commands by the headings of the help; all under one where there are none.
    """

    command_class = Command

    def __init__(
        self, *args: Any, sections: Mapping[str, Iterable[str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections or {"Commands": self.commands}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whose words these are."""
        ctx.ensure_object(Output).command = _name(ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return them in the order of the help."""
        return [name for names in self.sections.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section per heading."""
        for title, names in self.sections.items():
            with formatter.section(title):
                commands = {name: self.commands[name] for name in names}
                formatter.write_dl(
                    [(name, one.get_short_help_str(limit=1_000)) for name, one in commands.items()]
                )


Group.group_class = Group  # also of the groups below the root


class Root(Group):
    """Ends each command with the JSON that was asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note that JSON is wanted before anything can be wrong with the rest."""
        options = args[: args.index("--")] if "--" in args else args
        ctx.ensure_object(Output).json = "--json" in options
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was typed; with ``--json`` print its one object, come what may."""
        said = ctx.ensure_object(Output)
        try:
            value = super().invoke(ctx)
        except (click.exceptions.Exit, SystemExit):
            raise
        except BaseException as caught:  # noqa: BLE001
            # An import that a signal cuts short may end in an error of its own.
            error = KeyboardInterrupt() if Output.stopped else caught
            said.print_json(error)
            if ending(error) is not None:
                said.detail(traceback.format_exc())
            raise error from (None if error is caught else caught)
        said.print_json()
        return value


def _name(context: click.Context) -> str:
    """Return a command's words, without the program's."""
    return context.command_path.removeprefix(context.find_root().command_path).strip()
