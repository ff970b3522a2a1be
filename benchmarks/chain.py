"""The offline chain on a few videos, command by command: CPU seconds and processes started.

    python -m benchmarks.chain --videos DIR --list CSV [--rounds 5] [--against CHECKOUT]

From ``init`` to ``export --verify``, each command a process of its own as a user types it. CPU
seconds are its own and its children's; the bound is on the wall time, of two cores with nothing
else to do. Then commands that find nothing to do, which is what a start costs. With ``--against``
another checkout's commands take turns with ours, in the same environment.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import describe

RESULT = Path(__file__).parent / "results" / "chain.json"
ROOT = Path(__file__).parent.parent
BOUND_WALL_S = 20.0
"""For all commands together on five clips of 10 s; on two cores with nothing else to do."""

_WATCH = """
import os, sys
def note(*words):
    with open(os.environ["STARTED"], "a") as file:
        print(*words, file=file)
note("python", *sys.orig_argv[1:])
def heard(event, args):
    if event == "subprocess.Popen" and not str(args[0]).endswith("python"):
        note(*args[1])
sys.addaudithook(heard)
"""
"""Notes in each process of Python that it was started, and what else it starts."""


@dataclass(frozen=True)
class Measured:
    """What one command took."""

    cpu_s: float
    wall_s: float
    started: list[str]
    """The command line of every process, the command's own first."""
    said: str


def measure(words: Sequence[str], folder: Path, checkout: Path = ROOT) -> Measured:
    """Run a command and count.

    Args:
        words: what follows ``avatar-build``.
        folder: for what it takes to count.
        checkout: whose command.
    """
    (folder / "sitecustomize.py").write_text(_WATCH)
    started = folder / "started.txt"
    started.write_text("")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(folder), str(checkout))),
        "STARTED": str(started),
    }
    before, wall = _cpu_s(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    wall, cpu = time.perf_counter() - wall, _cpu_s() - before
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr or done.stdout}")
    return Measured(cpu, wall, started.read_text().splitlines(), done.stdout)


def chain(workspace: str, videos: Path, rows: Path) -> dict[str, list[str]]:
    """Return the words of each command, by name."""
    here = ["--workspace", workspace]
    template = f"{videos}/{{video_id}}.mp4"
    return {
        "init": ["init", workspace, "--profile", "offline"],
        "download": ["download", *here, "--list", str(rows), "--source-template", template],
        "sample": ["sample", *here],
        "propose": ["propose", *here],
        "label accept": ["label", "accept", *here],
        "segment": ["segment", *here],
        "export": ["export", *here, "--version", "1.0", "--unverified"],
        "export --verify": ["export", "--verify", f"{workspace}/releases/1.0"],
    }


NOTHING_TO_DO = (
    *("download", "sample", "propose", "label accept", "segment", "run --check"),
    *("status", "failures"),
)
"""Commands after the chain, of which none finds anything to do."""


def _round(
    checkout: Path, videos: Path, rows: Path
) -> tuple[dict[str, Measured], dict[str, Measured]]:
    """Measure the chain, and then what finds nothing to do."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = chain(str(folder / "ws"), videos, rows)
        made = {name: measure(words, folder, checkout) for name, words in commands.items()}
        again = {
            name: measure([*name.split(), "--workspace", str(folder / "ws")], folder, checkout)
            for name in NOTHING_TO_DO
        }
        return made, again


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _medians(runs: Sequence[Measured]) -> dict[str, Any]:
    """Return medians and, of CPU seconds, the spread; processes are those of the last round."""
    cpu = sorted(run.cpu_s for run in runs)
    return {
        "cpu_s": round(median(cpu), 2),
        "cpu_spread_s": [round(cpu[0], 2), round(cpu[-1], 2)],
        "wall_s": round(median(run.wall_s for run in runs), 2),
        "processes": len(runs[-1].started),
    }


def _summary(rounds: Sequence[dict[str, Measured]]) -> dict[str, Any]:
    whole = [
        Measured(
            sum(one.cpu_s for one in found.values()),
            sum(one.wall_s for one in found.values()),
            [line for one in found.values() for line in one.started],
            "",
        )
        for found in rounds
    ]
    each = {name: _medians([found[name] for found in rounds]) for name in rounds[0]}
    return each | {"all": _medians(whole)}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, required=True, help="a folder of <id>.mp4")
    parser.add_argument("--list", type=Path, required=True, help="their rows, as vggsound.csv")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, before ours")
    arguments = parser.parse_args()
    videos, rows = arguments.videos.resolve(), arguments.list.resolve()
    checkouts = {"before": arguments.against.resolve()} if arguments.against else {}
    checkouts["chain"] = ROOT
    rounds: dict[str, list[dict[str, Measured]]] = {name: [] for name in checkouts}
    idle: dict[str, list[dict[str, Measured]]] = {name: [] for name in checkouts}
    loads = []
    for _ in range(arguments.rounds):
        loads.append(os.getloadavg()[0])
        for name, checkout in checkouts.items():
            made, again = _round(checkout, videos, rows)
            rounds[name].append(made)
            idle[name].append(again)
    result = {
        "what": "the offline chain, command by command; CPU seconds of all its processes",
        "machine": describe(),
        "load": [round(one, 1) for one in loads],
        "rounds": arguments.rounds,
        "made": [
            line.rpartition(". ")[0]
            for one in rounds["chain"][-1].values()
            for line in one.said.splitlines()
            if ": " in line and " ok" in line
        ],
        **{name: _summary(found) for name, found in rounds.items()},
        "nothing to do": {
            name: {word: _medians([one[word] for one in found]) for word in NOTHING_TO_DO}
            for name, found in idle.items()
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if result["chain"]["all"]["wall_s"] > BOUND_WALL_S:
        sys.exit(f"over its bound of {BOUND_WALL_S:g} s")


if __name__ == "__main__":
    main()
