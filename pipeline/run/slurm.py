"""Stages as job arrays of Slurm: one script, an array for each stage, each after the one before.

Every task of an array is an ordinary run of the stage beside the others: runs on one workspace
share its units, so a task that is killed leaves its own to those that live.

An array starts when the one before has ended, however its tasks did (``afterany``): the exit code
of one task says nothing about the stage, whose work others may have finished. What counts is in the
ledger: each task looks first whether the stages before have rows pending, and stops if they have.
With ``afterok`` the chain would wait in the queue for ever because one node was lost.

At its time limit a task is told two minutes before (``SIGUSR1``), stops and goes back into the
queue. Preemption and lost nodes put it back as well (``--requeue``); ``scancel`` ends it for good.

The options are those of sbatch's manual, https://slurm.schedmd.com/sbatch.html; job arrays are
described in https://slurm.schedmd.com/job_array.html.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import SlurmConfig
from pipeline.errors import AvatarBuildError
from pipeline.flow import STAGES
from pipeline.run.derive import is_derived
from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.workspace import Workspace

CHECK = "check"
"""The last job: it says what the stages left pending, and fails if that is anything."""

_WARNING_S = 120
"""The seconds before its time limit at which a task is told; Slurm may tell it a minute earlier."""

_START = """\
set -u
stage=$1
shift  # what is left names the stages before it

run=
again=
stop() {
    heard=yes
    if [ -n "$run" ]; then kill -TERM "$run" 2>/dev/null; else exit 143; fi
}
trap stop TERM INT
trap 'again=yes; stop' USR1  # the time limit is near
leave() {
    code=$?
    trap '' TERM INT USR1
    if [ -n "$again" ] && [ "$code" -ne 0 ]; then
        if [ "${SLURM_RESTART_COUNT:-0}" -lt "$restarts" ]; then
            echo "At the time limit. What is committed stays; this task goes back into the queue."
            scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
        else
            echo "At the time limit once too often (slurm.restarts): raise slurm.time." >&2
        fi
    fi
    exit "$code"
}
trap leave EXIT

cd -- "$folder" || exit 1
"""

_WORK = """\
if [ "$#" -gt 0 ]; then
    "${avatar[@]}" run --check "${settings[@]}" "$@" || exit
fi
[ "$stage" = check ] && exit 0
"${avatar[@]}" run --stage="$stage" "${settings[@]}" "${manner[@]}" &
run=$!
while heard=; wait "$run"; code=$?; [ -n "$heard" ]; do :; done  # a signal ends a wait early
exit "$code"
"""


@dataclass(frozen=True)
class JobArray:
    """The job array of a stage, or the last check."""

    name: str
    """The stage; ``CHECK``."""
    tasks: int
    options: tuple[str, ...] = ()
    """The options of sbatch it has beside those of all."""
    before: tuple[str, ...] = ()
    """The stages that may have no row pending when it starts."""

    @property
    def head(self) -> tuple[str, ...]:
        """The words of its submission up to what it depends on."""
        return ("sbatch", "--parsable", f"--job-name=avatar-{self.name}", *self.options)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the script is told: the stage, and those before it."""
        return (self.name, *(f"--stage={stage}" for stage in self.before))


def plan_arrays(
    workspace: Workspace, stages: Sequence[str], options: RunOptions, coming: int = 0
) -> tuple[list[JobArray], list[str]]:
    """Choose the job arrays that bring stages up to date, in their order.

    Nothing is written. What would stop a run before it begins (weights that are missing, settings
    that changed) is an error here, before anything is submitted.

    Args:
        workspace: where.
        stages: which, in their order.
        options: how.
        coming: rows of a list that the first of them would have more, in a dry run.

    Returns:
        The arrays, the last check among them, or none where there is nothing to do; and what to say
        of the stages that were left out.
    """
    settings = workspace.config.slurm
    look = RunOptions(dry_run=True, redo=options.redo)
    arrays: list[JobArray] = []
    said: list[str] = []
    to_come: dict[str, bool] = {}
    for number, name in enumerate(stages):
        step = STAGES[name]
        stage = step.load()(getattr(workspace.config, step.section))
        spec = stage.spec
        summary = run_stage(workspace, name, look, coming=0 if number else coming, to_come=to_come)
        of_people = is_derived(spec.reads)
        if of_people and not workspace.files("reviews"):
            said.append(
                f"{name}: left out, as it takes what people say of the proposals, and nobody has"
                " yet. Once answers are pulled or accepted, the same command goes on there."
            )
            continue
        if not (summary.pending or summary.after):
            said.append(f"{name}: nothing to do.")
            continue
        to_come |= dict.fromkeys(spec.writes, summary.anew)
        # What the stages before will add is not known; a task too many ends at once.
        units = settings.tasks if summary.after else -(-summary.pending // spec.rows_per_unit)
        tasks = min(settings.tasks, spec.max_workers or units, units)
        own = [_range(tasks, settings.at_once)]
        if stage.device() != "cpu" and settings.gres:
            own.append(f"--gres={settings.gres}")
            own += [f"--partition={settings.gpu_partition}"] if settings.gpu_partition else []
        arrays.append(JobArray(name, tasks, tuple(own), tuple(stages[:number])))
    if arrays:
        last = (_range(1, 0), "--cpus-per-task=1")
        arrays.append(JobArray(CHECK, 1, last, tuple(stages)))
    return arrays, said


def _range(tasks: int, at_once: int) -> str:
    bound = f"%{at_once}" if at_once and at_once < tasks else ""
    return f"--array=1-{tasks}{bound}"


def batch_script(
    settings: SlurmConfig, place: str, typed: Sequence[str], workers: int, *, redo: bool
) -> str:
    r"""Write the script of all arrays; which stage it runs is its first argument.

    No path stands in a ``#SBATCH`` line, where Slurm would read ``%`` and ``\`` in it; below them
    every word is quoted for the shell.

    Args:
        settings: what to ask Slurm for.
        place: the workspace: an absolute path or a URL.
        typed: ``section.key=value`` of the command line, which the tasks get as well.
        workers: of each task; 0 takes one per core that Slurm gave it.
        redo: retire results made with other settings.
    """
    asked = {
        "cpus-per-task": settings.cpus,
        "mem": settings.mem,
        "time": settings.time,
        "partition": settings.partition,
        "account": settings.account,
    }
    header = [
        "#!/bin/bash",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=%x-%A_%a.log",
        f"#SBATCH --signal=B:USR1@{_WARNING_S}",
        *(f"#SBATCH --{name}={value}" for name, value in asked.items() if value),
        *(f"#SBATCH {option}" for option in settings.options),
    ]
    program = shlex.split(settings.command) or [sys.executable, "-m", "pipeline.cli"]
    common = [f"--workspace={place}", *(f"--set={one}" for one in typed)]
    own = "" if workers else ' --workers="${SLURM_CPUS_PER_TASK:-0}"'
    values = [
        f"folder={shlex.quote(str(Path.cwd()))}",
        f"avatar=({shlex.join(program)})",
        f"settings=({shlex.join(common)})",
        f"manner=(--quiet{' --redo' if redo else ''}{own})",
        f"restarts={settings.restarts}",
    ]
    return "\n".join([*header, "", *values, "", _START + "\n".join([*settings.setup, _WORK])])


def submission_lines(arrays: Sequence[JobArray], script: str) -> list[str]:
    """Write the commands that submit arrays, for a shell; a variable holds each one's id."""
    lines, after = [], ""
    for array in arrays:
        depends = f' --dependency="afterany:${after}"' if after else ""
        told = shlex.join([script, *array.arguments])
        lines.append(f"{array.name}=$({shlex.join(array.head)}{depends} {told})")
        after = array.name
    return lines


def submit(arrays: Sequence[JobArray], script: str, folder: Path) -> tuple[Path, list[str]]:
    """Submit arrays, each after the one before; all of them or none.

    Args:
        arrays: at least one.
        script: its text.
        folder: of the script and of the tasks' logs, on a disk that the nodes see.

    Returns:
        The script's path, and an id for each array.

    Raises:
        AvatarBuildError: there is no sbatch here, or it refused; what it had taken is cancelled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Of its owner alone: it holds what was typed.
    number, name = tempfile.mkstemp(prefix="run-", suffix=".sbatch", dir=folder)
    with os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(script)
    ids: list[str] = []
    try:
        for array in arrays:
            depends = [f"--dependency=afterany:{ids[-1]}"] if ids else []
            ids.append(_sbatch([*array.head, *depends, name, *array.arguments], folder))
    except BaseException as error:
        Path(name).unlink()
        if ids and not _cancelled(ids) and isinstance(error, AvatarBuildError):
            raise AvatarBuildError(
                f"{error} What it had taken is still there: scancel {' '.join(ids)}"
            ) from error
        raise
    return Path(name), ids


def _sbatch(words: list[str], folder: Path) -> str:
    """Submit one job and return its id."""
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace")
    except FileNotFoundError as error:
        raise AvatarBuildError(
            "sbatch: not found. Run this on a machine of the Slurm cluster, or add --dry-run to see"
            " the script."
        ) from error
    said = " ".join((done.stderr.strip() or done.stdout.strip()).split())
    if done.returncode:
        raise AvatarBuildError(f"sbatch refused {words[2]}: {said or f'exit {done.returncode}'}")
    # With --parsable: the id, and after a ';' the cluster's name where there are several.
    number = done.stdout.strip().partition(";")[0]
    if not number.isdecimal():
        raise AvatarBuildError(f"sbatch gave no job id for {words[2]}, but {said[:200]!r}.")
    return number


def _cancelled(ids: Sequence[str]) -> bool:
    """Cancel jobs; say whether that went well."""
    try:
        return subprocess.run(["scancel", *ids], capture_output=True).returncode == 0
    except OSError:
        return False
