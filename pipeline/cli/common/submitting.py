"""Hand stages to Slurm for a command, and say how to watch and to stop them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.common.options import settings_typed
from pipeline.cli.common.output import output
from pipeline.words import command_line, counted

if TYPE_CHECKING:
    from pipeline.run.runner import RunOptions
    from pipeline.workspace.workspace import Workspace


def submit_stages(
    workspace: Workspace, stages: Sequence[str], options: RunOptions, *, coming: int = 0
) -> None:
    """Submit a job array for each stage that has or will have work; print them in a dry run.

    Args:
        workspace: where.
        stages: which, in their order.
        options: how.
        coming: rows that the first of them would have more, in a dry run.
    """
    from pipeline.run.derive import bring_up_to_date
    from pipeline.run.slurm import batch_script, plan_arrays, submission_lines, submit

    config, storage, said = workspace.config, workspace.storage, output()
    if config.run.executor != "local":
        raise click.UsageError(
            f"--slurm: run.executor is {config.run.executor}; a task of an array runs its units"
            " itself. Take that setting out."
        )
    if not options.dry_run:
        bring_up_to_date(workspace)
    arrays, left_out = plan_arrays(workspace, stages, options, coming)
    said.tell({"left_out": left_out}, *([] if options.dry_run else left_out))
    place = str(storage.local or storage.url)
    typed = settings_typed(click.get_current_context().params["settings"])
    script = batch_script(config.slurm, place, typed, config.run.workers, redo=options.redo)
    if options.dry_run:
        lines = submission_lines(arrays, "run.sbatch")
        shown = [f"# {line}" for line in (*left_out, *lines)]
        said.tell({"script": script, "commands": lines}, script, *shown)
        return
    if not arrays:
        said.tell({"jobs": []})
        return
    folder = (storage.local or Path.cwd()) / "slurm"
    file, ids = submit(arrays, script, folder)
    if storage.mount and not storage.mount.is_shared:
        click.echo(
            f"{place}: {storage.mount.kind} at {storage.mount.place} is this machine's own disk;"
            " other nodes will find no workspace there.",
            err=True,
        )
    said.tell(
        {
            "jobs": [
                {"id": number, "stage": array.name, "tasks": array.tasks}
                for number, array in zip(ids, arrays, strict=True)
            ],
            "script": str(file),
        },
        *(
            f"job {number}: {array.name}, {counted(array.tasks, 'task')}."
            for number, array in zip(ids, arrays, strict=True)
        ),
    )
    said.hint(
        f"Watch:  {command_line('status', '--workspace', place)}\n"
        f"        squeue --jobs={','.join(ids)}\n"
        f"Logs:   {shlex.quote(str(folder))}\n"
        f"Cancel: scancel {' '.join(ids)}"
    )
