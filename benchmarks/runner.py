"""What the runner costs per row, and whether that grows with the table.

    python -m benchmarks.runner [--rows 100000]

A stage that does nothing but answer is run over 1,000 rows and over many, in a temporary
workspace; the difference of the two CPU times leaves out starting processes. The commit, the
Parquet files, the plan and the checks are all in it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe
from pipeline.run.runner import RunOptions, run_stage
from pipeline.workspace.workspace import Workspace
from tests.pipeline.faulty import QUICK, FaultyConfig, add_sources

RESULT = Path(__file__).parent / "results" / "runner.json"
LIST_SHARD = 10_000


def measure(rows: int, workers: int) -> dict[str, float]:
    """CPU and wall seconds of one run over ``rows`` rows, processes included."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.create(Path(folder) / "ws")
        for number, start in enumerate(range(0, rows, LIST_SHARD)):
            labels = ["drop" if n % 2 else "ok" for n in range(min(LIST_SHARD, rows - start))]
            add_sources(workspace, labels, f"{number:06d}-list")
        wall, cpu = time.perf_counter(), _cpu_s()
        options = RunOptions(workers=workers)
        summary = run_stage(workspace, "quick", options, step=QUICK, config=FaultyConfig())
        assert summary.counts["input"] == rows
        return {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_s() - cpu}


def _cpu_s() -> float:
    own = time.process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own + children.ru_utime + children.ru_stime


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    sizes = sorted({1_000, 10_000, arguments.rows})
    runs = {size: measure(size, workers) for size in sizes}
    base = runs[sizes[0]]
    result = {
        "what": "runner overhead per row, a stage that only answers; 1,000 rows subtracted",
        "machine": describe(),
        "workers": workers,
        "runs": {str(size): runs[size] for size in sizes},
        "cpu_ms_per_row": {
            str(size): 1000 * (runs[size]["cpu_s"] - base["cpu_s"]) / (size - sizes[0])
            for size in sizes[1:]
        },
        "wall_ms_per_row": {
            str(size): 1000 * (runs[size]["wall_s"] - base["wall_s"]) / (size - sizes[0])
            for size in sizes[1:]
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
