"""A Slurm of one machine: it reads scripts as sbatch does, and runs two tasks at a time.

Its ``sbatch``, ``scancel`` and ``scontrol`` are this module run as a program, which leaves notes in
a folder; ``Cluster.run`` is the controller. What it holds to is what the manuals of sbatch and
scontrol say: options stand in the lines before the first command, the command line wins, the script
is copied at its submission, a signal with ``B:`` goes to the batch shell alone, ``afterany`` waits
for every task of an array whatever became of it, and a task that was put back begins anew.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VALUES = frozenset(
    [
        "account",
        "array",
        "comment",
        "cpus-per-task",
        "dependency",
        "gres",
        "job-name",
        "mail-type",
        "mem",
        "nodes",
        "ntasks",
        "open-mode",
        "output",
        "partition",
        "qos",
        "signal",
        "time",
    ]
)
FLAGS = frozenset(["parsable", "requeue"])
NOTES = "SLURM_STAND_IN"


def options_in(script: str) -> list[str]:
    """The words of the ``#SBATCH`` lines that Slurm reads: those before the first command."""
    found = []
    for line in script.splitlines():
        if line.startswith("#SBATCH"):
            found += shlex.split(line.removeprefix("#SBATCH"), comments=True)
        elif line.strip() and not line.startswith("#"):
            break
    return found


def parsed(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options as sbatch takes them, and what is left: the script and its arguments."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).removeprefix("--").partition("=")
        if name in FLAGS and not equals:
            found[name] = "yes"
        elif name in VALUES and value:
            found[name] = value
        else:
            sys.exit(f"sbatch: error: unrecognized option '--{name}'\nTry \"sbatch --help\"")
    return found, rest


def array_of(text: str) -> tuple[list[int], int]:
    """The tasks of ``--array``, and how many may run at once."""
    match = re.fullmatch(r"(\d+)-(\d+)(?:%(\d+))?", text)
    if not match or int(match[2]) > 1000 or int(match[1]) > int(match[2]):
        sys.exit("sbatch: error: Batch job submission failed: Invalid job array specification")
    return [*range(int(match[1]), int(match[2]) + 1)], int(match[3] or 1000)


def sbatch(notes: Path, words: list[str]) -> None:
    typed, rest = parsed(words)
    script = Path(rest[0]).read_text(encoding="utf-8", errors="surrogateescape")
    assert script.startswith("#!"), "sbatch refuses what has no shebang"
    options = parsed(options_in(script))[0] | typed
    after = re.fullmatch(r"afterany:(\d+)", options.get("dependency", "afterany:0"))
    assert after
    tasks, at_once = array_of(options["array"])
    if (notes / "refuse").exists() and options["job-name"] == (notes / "refuse").read_text():
        sys.exit("sbatch: error: Batch job submission failed:\n  Invalid account or account/parti"
                 "tion combination specified")  # fmt: skip
    number = 100 + len([*notes.glob("job-*.json")])
    copy = notes / f"job-{number}.script"
    copy.write_text(script, encoding="utf-8", errors="surrogateescape")
    said = {
        "number": number,
        "options": options,
        "arguments": rest[1:],
        "tasks": tasks,
        "at_once": at_once,
        "after": int(after[1]),
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
    }
    (notes / f"job-{number}.json").write_text(json.dumps(said))
    sys.stdout.write(f"{number}\n" if "parsable" in options else f"Submitted batch job {number}\n")


@dataclass
class Task:
    """A task of an array, and what became of it."""

    job: dict[str, Any]
    number: int
    process: subprocess.Popen[bytes] | None = None
    state: str = "PENDING"
    exits: list[int] = field(default_factory=list)
    restarts: int = 0
    started: float = 0.0

    @property
    def stage(self) -> str:
        return str(self.job["arguments"][0])

    @property
    def name(self) -> str:
        return f"{self.job['number']}_{self.number}"


class Cluster:
    """The controller and its notes; ``install`` puts its commands on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self.notes.mkdir(parents=True)
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("sbatch", "scancel", "scontrol"):
            program = self.bin / name
            words = shlex.join([sys.executable, __file__, name])
            program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            program.chmod(0o755)
        self.tasks: dict[str, Task] = {}

    def environment(self) -> dict[str, str]:
        """What to add to a submitting process's environment."""
        return {NOTES: str(self.notes), "PATH": f"{self.bin}:{os.environ['PATH']}"}

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs that were submitted and not cancelled, in their order."""
        found = [json.loads(path.read_text()) for path in sorted(self.notes.glob("job-*.json"))]
        return [job for job in found if not (self.notes / f"cancel-{job['number']}").exists()]

    def run(
        self,
        meddle: Callable[[Cluster, list[Task]], None] | None = None,
        limit_s: float = 400,
    ) -> list[Task]:
        """Run all jobs to their end; ``meddle`` is called with what runs, ten times a second."""
        for job in self.jobs():
            for number in job["tasks"]:
                task = Task(job, number)
                self.tasks.setdefault(task.name, task)
        until = time.monotonic() + limit_s
        try:
            while any(task.state in ("PENDING", "RUNNING") for task in self.tasks.values()):
                assert time.monotonic() < until, {t.name: t.state for t in self.tasks.values()}
                self._look()
                self._start()
                if meddle:
                    running = [t for t in self.tasks.values() if t.state == "RUNNING"]
                    meddle(self, running)
                time.sleep(0.1 if meddle else 0.02)
        finally:
            for task in self.tasks.values():
                if task.process and task.process.poll() is None:
                    self._end(task, signal.SIGKILL)
        return [*self.tasks.values()]

    def _look(self) -> None:
        for task in self.tasks.values():
            if (self.notes / f"cancel-{task.job['number']}").exists() and task.state == "PENDING":
                task.state = "CANCELLED"
            if task.state != "RUNNING" or task.process is None:
                continue
            note = self.notes / f"requeue-{task.name}"
            if note.exists():
                note.unlink()
                self.put_back(task)
            elif (code := task.process.poll()) is not None:
                task.exits.append(code)
                task.state = "COMPLETED" if code == 0 else "FAILED"

    def _start(self) -> None:
        states = [*self.tasks.values()]
        for task in states:
            before = [t for t in states if t.job["number"] == task.job["after"]]
            waits = any(t.state in ("PENDING", "RUNNING") for t in before)
            running = [t for t in states if t.state == "RUNNING"]
            own = [t for t in running if t.job is task.job]
            if task.state != "PENDING" or waits or len(running) >= 2:
                continue
            if len(own) < task.job["at_once"]:
                self._begin(task)

    def _begin(self, task: Task) -> None:
        options, number = task.job["options"], task.job["number"]
        own = 1000 + sum(map(ord, task.name))
        named = {"%x": options["job-name"], "%A": str(number), "%a": str(task.number), "%j": own}
        output = re.sub("%[xAaj]", lambda m: str(named[m[0]]), options["output"])
        environment: Mapping[str, str] = task.job["environment"] | {
            "SLURM_JOB_ID": str(own),
            "SLURM_ARRAY_JOB_ID": str(number),
            "SLURM_ARRAY_TASK_ID": str(task.number),
            "SLURM_ARRAY_TASK_COUNT": str(len(task.job["tasks"])),
            "SLURM_RESTART_COUNT": str(task.restarts),
            "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
        }
        with (Path(task.job["folder"]) / output).open("ab") as log:
            task.process = subprocess.Popen(
                ["/bin/bash", self.notes / f"job-{number}.script", *task.job["arguments"]],
                cwd=task.job["folder"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        task.state, task.started = "RUNNING", time.monotonic()

    def _end(self, task: Task, sent: signal.Signals) -> None:
        assert task.process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(task.process.pid, sent)
        task.exits.append(task.process.wait())

    def kill(self, task: Task) -> None:
        """End a task and all it started, as the kernel does for want of memory."""
        self._end(task, signal.SIGKILL)
        task.state = "OUT_OF_MEMORY"

    def put_back(self, task: Task) -> None:
        """End a task and let it begin anew, as after a lost node or a preemption."""
        self._end(task, signal.SIGKILL)
        task.state = "PENDING"
        task.restarts += 1

    def preempt(self, task: Task) -> None:
        """Ask every process of a task to end, and put it back."""
        assert task.process
        os.killpg(task.process.pid, signal.SIGTERM)
        for _ in itertools.repeat(None, 100):
            if task.process.poll() is not None:
                break
            time.sleep(0.05)
        self.put_back(task)

    def warn(self, task: Task) -> None:
        """Send the signal that announces the time limit, to the batch shell alone."""
        assert task.process
        assert task.job["options"]["signal"].startswith("B:USR1@")
        task.process.send_signal(signal.SIGUSR1)


def main() -> None:
    notes, (program, *words) = Path(os.environ[NOTES]), sys.argv[1:]
    if program == "sbatch":
        sbatch(notes, words)
    elif program == "scancel":
        for number in words:
            (notes / f"cancel-{number}").touch()
    else:
        assert words[0] == "requeue", words
        assert re.fullmatch(r"\d+_\d+", words[1]), words
        (notes / f"requeue-{words[1]}").touch()


if __name__ == "__main__":
    main()
