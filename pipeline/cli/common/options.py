"""The root of the command line and the options commands share.

Nothing heavy is imported before a command runs, so that ``--help`` is instant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.common.groups import Root
from pipeline.errors import UsageError
from pipeline.flow import STAGES

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

COUNT, SOME = click.IntRange(min=0), click.IntRange(min=1)
POSITIVE = click.FloatRange(min=0, min_open=True)
"""The kinds of values that options take."""


class _LocalPath(click.Path):
    """A path of this machine; an address is refused before anything is begun."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        if "://" in text and not text.startswith("file://"):
            raise UsageError(
                f"{text} is an address; this reads and writes files of this machine. Copy it here"
                f" first, for instance with 'aws s3 cp --recursive {text} DIR'."
            )
        return super().convert(value, param, ctx)


PATH = _LocalPath(path_type=Path)
"""A file or folder of this machine."""

_SECTIONS = {
    "Build": ("init", "download", "sample", "propose", "segment", "run", "retry"),
    "People": ("label", "tune"),
    "Release": ("export", "release", "takedown", "fetch-media", "import-release"),
    "Train and score": ("train-tavlo", "evaluate", "evaluate-images", "tables", "synth"),
    "Look": ("status", "failures", "why", "report"),
    "Set up": ("doctor", "config", "models", "demo"),
}
"""The commands as the help lists them: what people type, whatever steps they run."""


@click.group(cls=Root, sections=_SECTIONS, context_settings=_CONTEXT)
@click.version_option(package_name="avatar-build")
def cli() -> None:
    """Build audio-visual localization datasets as AVATAR was built, and score models on them.

    \b
    The flow: init, download, sample, propose, label, segment, export.
    See it on a small rendered world first:

    \b
        avatar-build demo
    """


_SETTINGS = f"{__name__}.settings"
"""The place in click's context of settings that were typed as options of their own."""


def setting_option(*names: str, sets: Sequence[str], **how: Any) -> Callable[..., Any]:
    """Make an option that is another way to type settings; it wins over ``--set``.

    Args:
        names: as click takes them.
        sets: the settings that get its value.
        how: all else click takes.
    """

    def noted(context: click.Context, _option: click.Parameter, value: Any) -> None:
        if value is not None:
            typed = [f"{key}={json.dumps(value)}" for key in sets]
            context.meta.setdefault(_SETTINGS, []).extend(typed)

    return click.option(*names, expose_value=False, callback=noted, **how)


def settings_typed(settings: Sequence[str]) -> list[str]:
    """Return what ``--set`` was given, and then what options of their own were."""
    return [*settings, *click.get_current_context().meta.get(_SETTINGS, [])]


place_option = click.option(
    "-w",
    "--workspace",
    default=".",
    metavar="DIR",
    help="The workspace: a folder or an object-store URL. Default: the current folder.",
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting, e.g. sample.active_rms=0.02. What decides results is written into avatar.toml"
    " with them; the rest is for this call. Repeatable.",
)


def in_workspace(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--workspace`` and ``--set``; the workspace arrives open, with these settings."""

    @place_option
    @set_option
    @wraps(command)
    def opened(*args: Any, workspace: str, settings: Sequence[str], **kwargs: Any) -> Any:
        return command(*args, workspace=open_workspace(workspace, settings), **kwargs)

    return opened


def looks_at_workspace(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what ``in_workspace`` adds to a command that does nothing by the settings.

    They are read only where some are typed: such a command is done before they would be, and
    answers also where ``avatar.toml`` is damaged.
    """

    @place_option
    @set_option
    @wraps(command)
    def opened(*args: Any, workspace: str, settings: Sequence[str], **kwargs: Any) -> Any:
        return command(*args, workspace=_opened(workspace, settings), **kwargs)

    return opened


def open_workspace(workspace: str, settings: Sequence[str]) -> Workspace:
    """Open the workspace of the options, with what was typed on top of its settings.

    Raises:
        ConfigError: a setting is wrong.
    """
    found = _opened(workspace, settings_typed(settings))
    _ = found.config  # read now: nothing is begun where one is wrong
    return found


def _opened(workspace: str, settings: Sequence[str]) -> Workspace:
    from pipeline.workspace.workspace import Workspace

    return Workspace(workspace, settings)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that runs a stage; they arrive as one ``RunOptions``."""

    @in_workspace
    @setting_option(
        "--workers",
        sets=["run.workers"],
        type=COUNT,
        metavar="N",
        help="Processes. Default: one per core; fewer where models share GPUs.",
    )
    @click.option(
        "--units",
        "part",
        default="1/1",
        metavar="I/N",
        callback=_part,
        help="Do every N-th unit only, from the I-th on: one task of a job array.",
    )
    @click.option(
        "--redo", is_flag=True, help="Retire results made with other settings, and start anew."
    )
    @click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
    @setting_option(
        "--max-failed",
        sets=["run.max_failed"],
        metavar="N|P%",
        help="Exit 1 when more rows fail than this.",
    )
    @wraps(command)
    def gathered(
        *args: Any, part: tuple[int, int], redo: bool, dry_run: bool, **kwargs: Any
    ) -> Any:
        from pipeline.arrow import spare_pandas
        from pipeline.run.runner import RunOptions

        spare_pandas()
        options = RunOptions(part=part, redo=redo, dry_run=dry_run)
        with kwargs["workspace"].storage.listed_once():
            return command(*args, options=options, **kwargs)

    return gathered


def _part(_context: click.Context, _option: click.Parameter, units: str) -> tuple[int, int]:
    first, slash, count = units.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise click.BadParameter(f"{units!r}: write it as I/N with 1 <= I <= N, e.g. 3/16.")
    return int(first), int(count)


device_option = setting_option(
    "--device",
    sets=[f"{step.section}.device" for step in STAGES.values() if step.uses_device],
    metavar="D",
    help="Where models run: auto, cpu, cuda or cuda:N.",
)
"""``--device``, a setting of each stage that uses a device."""

template_option = setting_option(
    "--source-template",
    sets=["download.source_template"],
    metavar="T",
    help="Fetch from a mirror or archive: 'http://host/{video_id}.mp4', '/data/{video_id}.mp4'.",
)
"""``--source-template``, of what fetches videos."""
