"""What a training clip costs: read from its small copy, or from the source each time.

    python -m benchmarks.clip_cache

A generated minute of 640x360 video at 30 frames/s is cut into clips of 10 s; CPU time of one
process, medians of 5 interleaved rounds. Targets: 2.5 times cheaper, 1.2 MB per clip at most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2

from benchmarks.machine import describe
from benchmarks.media import draw_minute, join
from pipeline.media import Media, frames_between, read_timeline, waveform
from pipeline.media.clip_cache import RATE_HZ, SIZE_PX, read_cached_clip, write_cached_clip

RESULT = Path(__file__).parent / "results" / "clip_cache.json"
ROUNDS = 5
STARTS = (0.0, 20.0, 40.0)


def from_source(path: Path, start_s: float) -> None:
    """Decode and shrink the clip's frames from the source, and read its sound."""
    for picture in frames_between(path, start_s, start_s + 9.99):
        cv2.resize(picture.rgb(), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    media = Media(path)
    waveform(media, read_timeline(media), start_s, start_s + 10, RATE_HZ)


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure and write the result."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_minute(folder / "silent.mp4")
        source = folder / "minute.mp4"
        join(folder / "silent.mp4", 1, source)
        copies = {start: folder / f"{start:.0f}.mkv" for start in STARTS}
        written = [
            cpu_s(lambda s=start, f=copy: write_cached_clip(Media(source), s, s + 10, f))  # type: ignore[misc]
            for start, copy in copies.items()
        ]
        cached, sources = [], []
        for _ in range(ROUNDS):
            for start, copy in copies.items():
                cached.append(cpu_s(lambda f=copy: read_cached_clip(f)))  # type: ignore[misc]
                sources.append(cpu_s(lambda s=start: from_source(source, s)))  # type: ignore[misc]
        sizes = [copy.stat().st_size for copy in copies.values()]
    read, slow = statistics.median(cached), statistics.median(sources)
    result = {
        "what": "CPU of reading a 10 s clip for training, small copy against source",
        "machine": describe(),
        "read_copy_cpu_ms": 1000 * read,
        "read_source_cpu_ms": 1000 * slow,
        "times_cheaper": slow / read,
        "write_cpu_ms": 1000 * statistics.median(written),
        "megabytes_per_clip": statistics.mean(sizes) / 1e6,
        "targets": {"times_cheaper": 2.5, "megabytes_per_clip": 1.2},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
