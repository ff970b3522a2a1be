"""Measure all that waits for a GPU, in under eight minutes, and write a JSON after each step.

    python -m benchmarks.gpu.run [--out gpu.json] [--device cuda] [--tiny]

Run in the folder ``prepare`` made, with nothing but Python and PyTorch; in a checkout it takes what
is installed. Each step is a process of its own with a time of its own, so that one that crashes,
hangs or runs out of memory costs itself alone; what is not reached in time says so. ``--tiny``
rehearses every step with small networks, on a CPU in a minute.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.gpu.prepare import ABOUT, ARCHIVE, PACKAGES

ROOT = Path(__file__).parents[2]
STEPS = {
    "machine": 50,
    "parity": 90,
    "train": 90,
    "train-recomputed": 60,
    "models": 90,
    "resume": 80,
    "feed": 70,
    "train-compiled": 120,
}
"""Each step and the seconds it may take, the most telling first."""
TOTAL_S = 460.0


def unpack(root: Path, target: Path) -> None:
    """Unpack the packages that this machine lacks.

    Raises:
        SystemExit: they are for another Python.
    """
    about = json.loads((root / ABOUT).read_text())
    lacking = [name for name in about["packages"] if not importlib.util.find_spec(PACKAGES[name])]
    if lacking and about["python"] != list(sys.version_info[:2]):
        wanted = ".".join(map(str, about["python"]))
        sys.exit(f"no {', '.join(lacking)} here, and those brought along are for Python {wanted}.")
    wanted_parts = {PACKAGES[name] for name in lacking}
    with zipfile.ZipFile(root / ARCHIVE) as archive:
        for name in archive.namelist():
            top = name.split("/")[0].removesuffix(".py").removesuffix(".libs")
            if top in wanted_parts or top.lower() in lacking:
                archive.extract(name, target)


def run_step(name: str, seconds: float, words: list[str], environment: dict[str, str]) -> Any:
    """Run a step in a process of its own; what it found, or why it found nothing."""
    command = [sys.executable, "-m", "benchmarks.gpu.steps", name, *words]
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        # What a step has found before it failed counts.
        found = json.loads(lines[-1]) if lines else {}
        if process.returncode:
            found["error"] = (err.strip().splitlines() or [f"ended with {process.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, _ = process.communicate()
        lines = [line for line in out.splitlines() if line.startswith("{") and line.endswith("}")]
        found = (json.loads(lines[-1]) if lines else {}) | {"error": f"over {seconds:.0f} s"}
    found["wall_s"] = round(time.monotonic() - started, 1)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="rehearse with small networks")
    parser.add_argument("--only", action="append", choices=list(STEPS), help="repeatable")
    parser.add_argument("--seconds", type=float, default=TOTAL_S, help="for all of it")
    asked = parser.parse_args(arguments)
    started = time.monotonic()
    results: dict[str, Any] = {"tiny": asked.tiny, "device": asked.device, "steps": {}}
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        environment = dict(os.environ)
        if (ROOT / ARCHIVE).exists():
            unpack(ROOT, Path(folder))
            kept = [folder, *filter(None, [environment.get("PYTHONPATH")])]
            environment["PYTHONPATH"] = os.pathsep.join(kept)
        words = ["--device", asked.device, *(["--tiny"] if asked.tiny else [])]
        for name, seconds in STEPS.items():
            if asked.only and name not in asked.only:
                continue
            left = asked.seconds - (time.monotonic() - started)
            found = {"error": "no time was left"}
            if left > 10:
                # A rehearsal is of what happens, not of how fast.
                allowed = left if asked.tiny else min(seconds, left)
                found = run_step(name, allowed, words, environment)
            results["steps"][name] = found
            fed, taken = (results["steps"].get(one, {}) for one in ("feed", "train"))
            if "clips_per_s" in fed and "clips_per_s" in taken:
                results["feed_over_training"] = fed["clips_per_s"] / taken["clips_per_s"]
            results["wall_s"] = round(time.monotonic() - started, 1)
            beside = asked.out.with_suffix(".tmp")
            beside.write_text(json.dumps(results, indent=1) + "\n")
            beside.replace(asked.out)
            print(f"{name}: {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
