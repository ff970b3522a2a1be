"""What fetching costs per video besides the bytes, in this process and with one of yt-dlp's each.

    python -m benchmarks.download [--items 200] [--rounds 5]

Small drawn videos from a server in another process, whose CPU time does not count. Per round, all
three in turn: the whole stage (fetch, probe, digest, sidecar, publish), the fetch alone, and a
``yt-dlp`` process per video. Medians of the rounds; the target is 60 ms of CPU per item.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from pipeline.cli.demo.server import serve
from pipeline.config import DownloadConfig
from pipeline.records.schema import Source
from pipeline.run.stage import Ok, WorkerContext
from pipeline.workspace.storage import Storage
from stages.download.fetch_videos import FetchVideos
from stages.download.fetching import Watch
from stages.download.identity import Identity
from stages.download.ytdlp import YtDlp
from tests.video_factory import bursts, make_video

RESULT = Path(__file__).parent / "results" / "download.json"
TARGET_MS = 60.0
PROCESSES = 3
"""A process per video costs seconds: a few show it."""


def _serve(folder: Path, pipe: Connection) -> None:
    with serve(folder) as url:
        pipe.send(url)
        pipe.recv()


def _no_lookup(table: str, column: str) -> Any:
    raise AssertionError(f"download looks nothing up, asked for {table}.{column}")


def _stage_ms(config: DownloadConfig, ids: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        stage = FetchVideos(config)
        stage.open(WorkerContext(Storage(folder), scratch, _no_lookup))
        rows = [Source(video_id=one, label="drawn", split="test", start_s=0) for one in ids]
        before = time.process_time()
        outcomes = list(stage.process(rows))
        cpu_s = time.process_time() - before
        stage.close()
    assert all(isinstance(one, Ok) for one in outcomes)
    return 1000 * cpu_s / len(ids)


def _fetch_ms(config: DownloadConfig, ids: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        site = YtDlp(config, [Identity()], Watch(), lambda text: None, Path(folder) / "cache")
        before = time.process_time()
        for one in ids:
            site.fetch(one, Path(folder), Identity())
        cpu_s = time.process_time() - before
        site.close()
    return 1000 * cpu_s / len(ids)


def _process_ms(config: DownloadConfig, ids: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        before = _children_s()
        for one in ids:
            url = config.source_template.replace("{video_id}", one)
            command = [sys.executable, "-m", "yt_dlp", "--quiet", "-P", folder, "-f", "b", url]
            subprocess.run(command, check=True)
        return 1000 * (_children_s() - before) / len(ids)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    ids = [f"{n:011d}" for n in range(arguments.items)]
    rounds: dict[str, list[float]] = {"stage": [], "fetch": [], "process_each": []}
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / f"{ids[0]}.mp4"
        make_video(first, frames=300, sound=bursts(12, [2, 7]))
        for one in ids[1:]:
            os.link(first, first.with_name(f"{one}.mp4"))
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(Path(folder), theirs)
        )
        server.start()
        config = DownloadConfig(
            source_template=f"{ours.recv()}/{{video_id}}.mp4", width=96, height=72, min_free_bytes=0
        )
        size = first.stat().st_size
        _fetch_ms(config, ids[:5])  # what is loaded once is not per item
        for _ in range(arguments.rounds):
            rounds["stage"].append(_stage_ms(config, ids))
            rounds["fetch"].append(_fetch_ms(config, ids))
            rounds["process_each"].append(_process_ms(config, ids[:PROCESSES]))
        ours.send("end")
        server.join()
    medians = {name: round(statistics.median(values), 2) for name, values in rounds.items()}
    result = {
        "what": "CPU per downloaded video (user + sys), server not counted",
        "machine": describe(),
        "items": len(ids),
        "bytes_per_item": size,
        "cpu_ms_per_item": medians,
        "rounds": {name: [round(value, 2) for value in found] for name, found in rounds.items()},
        "target_ms": TARGET_MS,
        "within_target": medians["stage"] <= TARGET_MS,
        "process_each_over_stage": round(medians["process_each"] / medians["stage"], 1),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
