"""A release of the paper's size: export without media, verify and report, in seconds and memory.

    python -m benchmarks.release [--frames 25000] [--rounds 5] [--against CHECKOUT]

5,000 videos, 25,000 frames of 640x360 and 28,500 instances with ragged masks and holes, generated.
The pictures of the report are real files, shared by all frames. Each step is one process: its CPU
seconds, which the bounds are for, are its wall time on an idle machine. With ``--against`` another
checkout's steps take turns with ours, in the same environment.
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
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import describe
from exports.release.freeze import write_release
from exports.release.selection import ReleaseTables
from exports.report.frame_pictures import ReportTables
from exports.report.write_report import write_report
from exports.verify.verify_release import verify_release
from pipeline.config import ExportConfig
from pipeline.records import rle
from pipeline.records.schema import (
    Clip,
    Frame,
    Instance,
    Mask,
    Review,
    ReviewedInstance,
    Scenario,
    Video,
    clip_id,
    frame_id,
)
from pipeline.workspace.storage import Storage

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "release.json"
WIDTH, HEIGHT = 640, 360
FRAMES_PER_CLIP = 5
CATEGORIES = [f"category {number:02d}" for number in range(80)]
PICTURE = "media/frames/picture_{number}.jpg"
PICTURES = 16
BOUNDS = {"export_cpu_s": 50, "verify_cpu_s": 30, "report_cpu_s": 30, "memory_gb": 2.0}


def tables(frames: int) -> ReleaseTables:
    """Generated tables; one frame in 36 is off-screen, one in 6 has a second instance."""
    rng = np.random.default_rng(0)
    shapes = [_shape(rng) for _ in range(400)]
    rows: dict[str, list[Any]] = {
        "videos": [],
        "clips": [],
        "frames": [],
        "reviews": [],
        "instances": [],
        "masks": [],
    }
    for number in range(frames):
        place, index = divmod(number, FRAMES_PER_CLIP)
        video_id = f"v{place:010d}"
        clip = clip_id(video_id, 10)
        if index == 0:
            rows["videos"].append(_video(video_id, place))
            rows["clips"].append(_clip(clip, video_id))
        frame = _frame(clip, video_id, index, number)
        rows["frames"].append(frame)
        off_screen = number % 36 == 0
        count = 0 if off_screen else 2 if number % 6 == 1 else 1
        rows["reviews"].append(_review(frame, off_screen, count, place))
        for which in range(count):
            scenario: Scenario = "Mixed-sound" if count > 1 else "Single-sound"
            if count == 1 and number % 3 == 0:
                scenario = "Multi-entity"
            name = f"i_{frame.frame_id}_{which}"
            mask, box, area = shapes[int(rng.integers(len(shapes)))]
            rows["instances"].append(
                Instance(
                    instance_id=name,
                    frame_id=frame.frame_id,
                    bbox=box,
                    audio_visual_category=CATEGORIES[(place + which) % 80],
                    scenario=scenario,
                    review_ids=[f"r_{frame.frame_id}"],
                    proposal_id=f"p_{name}",
                    verified=True,
                )
            )
            rows["masks"].append(
                Mask(
                    instance_id=name,
                    frame_id=frame.frame_id,
                    rle=mask,
                    area=area,
                    bbox=box,
                    source="sam-vit-h",
                    model_digest="0" * 64,
                    predicted_iou=0.9,
                    verified=True,
                )
            )
    return ReleaseTables(**rows)


def _shape(rng: np.random.Generator) -> tuple[Any, list[float], int]:
    """A blob as segmenters draw them: smooth outside, ragged in detail, here and there a hole."""
    noise = cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)), (0, 0), 3)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    centre = rng.uniform((150, 90), (490, 270))
    radius = rng.uniform((40, 30), (160, 120))
    distance = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2
    inside = distance + noise < 1
    if rng.random() < 0.3:
        inside &= distance > 0.05
    mask = rle.encode(inside)
    return mask, rle.bbox(mask), rle.area(mask)


def _video(video_id: str, place: int) -> Video:
    return Video(
        video_id=video_id,
        label=CATEGORIES[place % 80],
        split="test",
        source_url=f"https://www.youtube.com/watch?v={video_id}",
        path=f"media/videos/{video_id}.mp4",
        sha256="0" * 64,
        size_bytes=18_000_000,
        width=WIDTH,
        height=HEIGHT,
        fps=25.0,
        frame_count=5000,
        duration_s=200.0,
        bitrate_bps=700_000,
        video_codec="h264",
        audio_codec="aac",
        sample_rate_hz=44_100,
        channels=2,
        license="Creative Commons Attribution license (reuse allowed)",
        title=f"A title of video {place}",
        uploader="Somebody",
        upload_date="20200102",
        format_id="18",
    )


def _clip(clip: str, video_id: str) -> Clip:
    return Clip(
        clip_id=clip,
        video_id=video_id,
        start_s=10,
        end_s=20,
        active_seconds=10,
        rms_per_second=[0.1] * 10,
        candidates=1,
    )


def _frame(clip: str, video_id: str, index: int, number: int) -> Frame:
    return Frame(
        frame_id=frame_id(clip, 20 + 40 * index),
        clip_id=clip,
        video_id=video_id,
        frame_index=20 + 40 * index,
        time_s=10 + (20 + 40 * index) / 25,
        event_time_s=10 + (20 + 40 * index) / 25,
        event_rms=0.2,
        event_rank=index,
        sharpness=100.0,
        path=PICTURE.format(number=number % PICTURES),
        width=WIDTH,
        height=HEIGHT,
    )


def _review(frame: Frame, off_screen: bool, count: int, place: int) -> Review:
    seen = [
        ReviewedInstance(
            bbox=[0, 0, 10, 10],
            category=CATEGORIES[(place + which) % 80],
            scenario="Single-sound",
            origin="kept",
            proposal_id=None,
        )
        for which in range(count)
    ]
    return Review(
        review_id=f"r_{frame.frame_id}",
        frame_id=frame.frame_id,
        kind="boxes",
        annotator=f"person:{place % 7}",
        annotation_id="1",
        updated_at="2026-01-02T03:04:05Z",
        lead_time_s=12.0,
        decision="off_screen" if off_screen else "labelled",
        reject_reasons=[],
        off_screen_category=CATEGORIES[place % 80] if off_screen else None,
        instances=seen,
        verified=True,
    )


def _draw_pictures(storage: Storage) -> None:
    rng = np.random.default_rng(1)
    for number in range(PICTURES):
        small = rng.integers(0, 256, (18, 32, 3), np.uint8)
        picture = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        storage.write(PICTURE.format(number=number), data.tobytes())


def _timed(results: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    results[f"{name}_wall_s"] = round(time.perf_counter() - wall, 1)
    results[f"{name}_cpu_s"] = round(time.process_time() - cpu, 1)
    return answer


def once(frames: int) -> dict[str, Any]:
    """Take each step once, in this process; whatever package is found first is measured."""
    rows = tables(frames)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        storage = Storage(root)

        def export() -> None:
            write_release(
                rows,
                storage,
                "1.0",
                unverified=False,
                media=False,
                config=ExportConfig(),
                provenance={},
            )

        _timed(results, "export", export)
        folder = Path(root) / "releases/1.0"
        findings = _timed(results, "verify", lambda: verify_release(folder))
        if findings:
            sys.exit(f"the release does not verify: {findings[0]}")
        _draw_pictures(storage)
        report = Path(root) / "report.html"
        shown = ReportTables(**vars(rows))
        _timed(results, "report", lambda: write_report(storage, shown, [], [], [], target=report))
        results["report_mb"] = round(report.stat().st_size / 1e6, 1)
    results["memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
    return results


def _in_a_process(checkout: Path, frames: int) -> dict[str, float]:
    """Take each step once in a process of its own, with the packages of a checkout."""
    # Not as a module: its folder would come before the checkout's.
    command = [sys.executable, str(Path(__file__)), "--once", "--frames", str(frames)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Return the median of each figure, and the least and most CPU seconds.

    >>> summary([{"export_cpu_s": 3.0}, {"export_cpu_s": 1.0}, {"export_cpu_s": 2.0}])
    {'export_cpu_s': 2.0, 'export_cpu_spread_s': [1.0, 3.0]}
    """
    found: dict[str, Any] = {}
    for name in rounds[0]:
        values = sorted(one[name] for one in rounds)
        found[name] = round(median(values), 2)
        if name.endswith("_cpu_s"):
            found[name.replace("_cpu_s", "_cpu_spread_s")] = [values[0], values[-1]]
    return found


def main() -> None:
    """Measure, print and write the result; exit with 1 where a bound is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=25_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, help="another checkout, before ours")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(once(given.frames)))
        return
    checkouts = {"before": given.against.resolve()} if given.against else {}
    checkouts["release"] = ROOT
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    loads = []
    for _ in range(given.rounds):
        loads.append(round(os.getloadavg()[0], 1))
        for name, checkout in checkouts.items():
            rounds[name].append(_in_a_process(checkout, given.frames))
    found = {name: summary(taken) for name, taken in rounds.items()}
    results = {
        "machine": describe(),
        "frames": given.frames,
        "rounds": given.rounds,
        "load": loads,
        **found,
    }
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    over = [
        f"{name} {found['release'][name]} > {bound}"
        for name, bound in BOUNDS.items()
        if found["release"][name] > bound
    ]
    if over:
        sys.exit("over its bound: " + ", ".join(over))


if __name__ == "__main__":
    main()
