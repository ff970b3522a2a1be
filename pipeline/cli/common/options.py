"""The root of the command line and the options commands share.

Nothing heavy is imported before a command runs, so that ``--help`` is instant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.common.groups import Root
from pipeline.flow import STAGES

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_SECTIONS = {
    "Build": ("init", "download", "sample", "propose", "segment", "run", "retry"),
    "People": ("label",),
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


def workspace_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--workspace`` and ``--set``."""
    for option in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="A setting, e.g. sample.active_rms=0.02. What decides results is written into"
            " avatar.toml with them; the rest is for this call. Repeatable.",
        ),
        click.option(
            "-w",
            "--workspace",
            default=".",
            metavar="DIR",
            help="The workspace: a folder or an object-store URL. Default: the current folder.",
        ),
    ):
        command = option(command)
    return command


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that runs a stage; they arrive as one ``RunOptions``."""

    @wraps(command)
    def gathered(
        *args: Any,
        workers: int | None,
        units: str,
        redo: bool,
        dry_run: bool,
        max_failed: str | None,
        settings: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        from pipeline.run.runner import RunOptions

        # These two are settings that have an option of their own.
        if max_failed is not None:
            settings = (*settings, f"run.max_failed={json.dumps(max_failed)}")
        if workers is not None:
            settings = (*settings, f"run.workers={workers}")
        options = RunOptions(part=_part(units), redo=redo, dry_run=dry_run)
        return command(*args, options=options, settings=settings, **kwargs)

    for option in (
        click.option("--max-failed", metavar="N|P%", help="Exit 1 when more rows fail than this."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option(
            "--redo", is_flag=True, help="Retire results made with other settings, and start anew."
        ),
        click.option(
            "--units",
            default="1/1",
            metavar="I/N",
            help="Do every N-th unit only, from the I-th on: one task of a job array.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            metavar="N",
            help="Processes. Default: one per core; fewer where models share GPUs.",
        ),
    ):
        gathered = option(gathered)
    return workspace_options(gathered)


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--device``, which becomes a setting of each stage that uses a device."""

    @click.option("--device", metavar="D", help="Where models run: auto, cpu, cuda or cuda:N.")
    @wraps(command)
    def placed(*args: Any, device: str | None, settings: tuple[str, ...], **kwargs: Any) -> Any:
        if device is not None:
            sections = [step.section for step in STAGES.values() if step.uses_device]
            settings = (*settings, *(f"{name}.device={json.dumps(device)}" for name in sections))
        return command(*args, settings=settings, **kwargs)

    return placed


def _part(units: str) -> tuple[int, int]:
    first, slash, count = units.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise click.BadParameter(f"{units!r}: write it as I/N with 1 <= I <= N, e.g. 3/16.")
    return int(first), int(count)


def open_workspace(workspace: str, settings: Sequence[str]) -> Workspace:
    """Open the workspace of the options, with what was typed on top of its settings."""
    from pipeline.workspace.workspace import Workspace

    return Workspace(workspace, settings)
