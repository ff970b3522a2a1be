"""How seconds, memory and files grow with the workspace, per stage and per command.

    python -m benchmarks.scale --videos 4000 --videos 17500 [--out FILE] [--keep FOLDER]

Workspaces are filled by the real runner: the stages of the flow with the units, tables and lookups
they have, where fetching, decoding and models alone are left out. Each stage and each command is a
process of its own, so that its CPU seconds (workers included) and the largest memory of any of
them are the system's own figures. Growth is the exponent between the two largest sizes, the seconds
of a tiny workspace taken off; above ``MOST`` the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from benchmarks.machine import describe
from labeling.automatic.accept import AcceptProposals
from pipeline.columns import columns
from pipeline.config import LabelConfig
from pipeline.flow import STAGES, Step
from pipeline.records.schema import (
    Clip,
    Frame,
    Instance,
    Mask,
    Proposal,
    Rle,
    SoundCategory,
    SoundClass,
    Sounds,
    Source,
    Video,
    clip_id,
    content_id,
    frame_id,
)
from pipeline.run.runner import RunOptions, run_stage
from pipeline.run.stage import Drop, Fail, Ok, Outcome, Stage, StageSpec, WorkerContext
from pipeline.workspace.table import read_records
from pipeline.workspace.workspace import Workspace
from stages.download.import_list import import_list

LIST = "list.csv"
SIZES = (4_000, 17_500)
"""The numbers of videos unless others are named; the paper's is 70,000."""

MOST = 1.2
"""The largest exponent of growth that passes."""

_SMALL_S = 2.0
"""The CPU seconds at the largest size, starting left out, below which growth is not judged."""

_LEAST = 64
"""The videos of the run that shows what starting costs."""

_FRAMES = 5


class Nothing(BaseModel):
    """The settings of a stage without any."""


class _Made(Stage[Nothing]):
    """A stage that makes its rows up, after the lookups the real one does."""

    def open(self, ctx: WorkerContext) -> None:
        """Open the lookups."""
        self.lookup = ctx.lookup


class MadeDownload(_Made):
    """A tenth of the videos is too short, one in forty is gone."""

    spec: ClassVar[StageSpec] = STAGES["download"].load().spec

    def process(self, rows: Sequence[Source]) -> Iterator[Outcome]:
        """Make a video's row."""
        for row in rows:
            digest = sha256(row.id.encode()).digest()
            if digest[0] < 26:
                yield Drop(row.id, "too_short", "9.1 s")
            elif digest[1] < 6:
                yield Fail(row.id, "gone", "the site says: video unavailable")
            else:
                yield Ok(row.id, [_video(row, digest)])


class MadeSample(_Made):
    """A clip and five frames of a video; one in twenty is silent."""

    spec: ClassVar[StageSpec] = STAGES["sample"].load().spec

    def process(self, rows: Sequence[Video]) -> Iterator[Outcome]:
        """Make clips and frames."""
        for row in rows:
            digest = bytes.fromhex(row.sha256)
            if digest[2] < 13:
                yield Drop(row.id, "too_quiet")
                continue
            clip = Clip(
                clip_id=clip_id(row.id, digest[3]),
                video_id=row.id,
                start_s=digest[3],
                end_s=digest[3] + 10.0,
                active_seconds=8,
                rms_per_second=[byte / 255 for byte in digest[:10]],
                candidates=1,
            )
            yield Ok(row.id, [clip, *(_frame(clip, rank, digest) for rank in range(_FRAMES))])


class MadeHear(_Made):
    """Ten classes and three categories of a clip."""

    spec: ClassVar[StageSpec] = STAGES["hear"].load().spec

    def open(self, ctx: WorkerContext) -> None:
        """Open the lookups."""
        self.videos = ctx.lookup("videos", "video_id")

    def process(self, rows: Sequence[Clip]) -> Iterator[Outcome]:
        """Make sounds."""
        for row in rows:
            video = self.videos.one(row.video_id)
            assert video is not None
            digest = bytes.fromhex(video.sha256)
            sounds = Sounds(
                clip_id=row.id,
                tagger="made",
                classes=[SoundClass(name=f"class {n}", score=digest[n] / 255) for n in range(10)],
                categories=[
                    SoundCategory(category=f"thing {n}", score=digest[n] / 255, active=n < 2)
                    for n in range(3)
                ],
            )
            yield Ok(row.id, [sounds])


class MadePropose(_Made):
    """Two boxes of a frame; one frame in ten has none."""

    spec: ClassVar[StageSpec] = STAGES["propose"].load().spec

    def open(self, ctx: WorkerContext) -> None:
        """Open the lookups."""
        self.videos = ctx.lookup("videos", "video_id")
        self.sounds = ctx.lookup("sounds", "clip_id")
        self.frames = ctx.lookup("frames", "clip_id")

    def process(self, rows: Sequence[Frame]) -> Iterator[Outcome]:
        """Make proposals."""
        for row in rows:
            video = self.videos.one(row.video_id)
            (sounds,) = self.sounds.rows(row.clip_id)
            assert video is not None
            assert len(self.frames.rows(row.clip_id)) == _FRAMES
            digest = sha256(row.id.encode()).digest()
            if digest[0] < 26:
                yield Drop(row.id, "no_box")
                continue
            heard = [one for one in sounds.categories if one.active]
            yield Ok(
                row.id,
                [
                    Proposal(
                        proposal_id=content_id("p", row.id, one.category),
                        frame_id=row.id,
                        bbox=[10.0, 20.0, 30.0 + digest[1], 40.0 + digest[2]],
                        detector="made",
                        detector_class=one.category,
                        detector_score=0.5 + digest[3] / 512,
                        categories=[one.category],
                        audible=True,
                        audio_score=one.score,
                    )
                    for one in heard
                ],
            )


class MadeSegment(_Made):
    """A mask of an instance."""

    spec: ClassVar[StageSpec] = STAGES["segment"].load().spec

    def open(self, ctx: WorkerContext) -> None:
        """Open the lookups."""
        self.frames = ctx.lookup("frames", "frame_id")

    def process(self, rows: Sequence[Instance]) -> Iterator[Outcome]:
        """Make masks."""
        for row in rows:
            frame = self.frames.one(row.frame_id)
            assert frame is not None
            digest = sha256(row.id.encode()).hexdigest()
            mask = Mask(
                instance_id=row.id,
                frame_id=row.frame_id,
                rle=Rle(size=[frame.height, frame.width], counts=digest * 4),
                area=1000,
                bbox=row.bbox,
                source="made",
                model_digest="",
                predicted_iou=None,
                verified=False,
            )
            yield Ok(row.id, [mask])


def _video(row: Source, digest: bytes) -> Video:
    return Video(
        video_id=row.id,
        label=row.label,
        split=row.split,
        source_url=f"https://www.youtube.com/watch?v={row.id}",
        path=f"media/videos/{row.id}.mp4",
        sha256=digest.hex(),
        size_bytes=18_000_000 + digest[4],
        width=640,
        height=360,
        fps=29.97,
        frame_count=7200,
        duration_s=240.0 + digest[5],
        bitrate_bps=600_000,
        video_codec="h264",
        audio_codec="aac",
        sample_rate_hz=44100,
        channels=2,
        license="",
        title=f"A title as long as such titles are, {digest.hex()[:12]}",
        uploader=f"somebody {digest[6]}",
        upload_date="20150101",
        format_id="18",
        video_stream=0,
        audio_stream=1,
    )


def _frame(clip: Clip, rank: int, digest: bytes) -> Frame:
    index = 50 * rank + digest[7] % 50
    return Frame(
        frame_id=frame_id(clip.id, index),
        clip_id=clip.id,
        video_id=clip.video_id,
        frame_index=index,
        time_s=clip.start_s + index / 25,
        event_time_s=clip.start_s + index / 25,
        event_rms=digest[8 + rank] / 255,
        event_rank=rank,
        sharpness=100.0 + digest[13],
        path=f"media/frames/{frame_id(clip.id, index)}.jpg",
        width=640,
        height=360,
        sha256=sha256(digest + bytes([rank])).hexdigest(),
        size_bytes=40_000 + digest[14],
    )


MADE: dict[str, tuple[type[Stage[Any]], BaseModel]] = {
    "download": (MadeDownload, Nothing()),
    "sample": (MadeSample, Nothing()),
    "hear": (MadeHear, Nothing()),
    "propose": (MadePropose, Nothing()),
    "accept": (AcceptProposals, LabelConfig(accept_score=0.6)),
    "segment": (MadeSegment, Nothing()),
}
"""The stages, as they are run here, and their settings."""


def list_of(videos: int) -> str:
    """Return a list of so many videos as the VGGSound page has it."""
    rows = []
    for number in range(videos):
        name = sha256(f"video {number}".encode()).hexdigest()[:11]
        rows.append(f"{name},{number % 200},thing {number % 300},test")
    return "\n".join(rows) + "\n"


def do_stage(workspace: Workspace, name: str, workers: int) -> None:
    """Run one stage over a workspace to its end."""
    if name == "list":
        import_list(workspace, workspace.storage.path(LIST))
        return
    kind, config = MADE[name]
    step = Step(name, stage=f"{kind.__module__}:{kind.__name__}", section=STAGES[name].section)
    summary = run_stage(workspace, name, RunOptions(workers=workers), step=step, config=config)
    assert not summary.bugs, summary.bugs[0]
    assert not summary.pending


@dataclass(frozen=True)
class Cost:
    """The cost of one process and all it started."""

    cpu_s: float
    wall_s: float
    memory_mb: float
    """The largest of any process."""


# A child's largest memory is at least its parent's when it was started, so this one is small.
_MEASURE = """
import json, os, sys, time
started = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
cpu_s, wall_s = usage.ru_utime + usage.ru_stime, time.perf_counter() - started
print(json.dumps([os.waitstatus_to_exitcode(status), cpu_s, wall_s, usage.ru_maxrss / 1024]))
"""


def measured(command: Sequence[str]) -> Cost:
    """Run Python with these arguments to its end, and return what that cost."""
    python = sys.executable
    whole = [python, "-I", "-S", "-c", _MEASURE, python, *command]
    done = subprocess.run(whole, capture_output=True, text=True, check=True)
    code, *cost = json.loads(done.stdout.splitlines()[-1])
    if code:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return Cost(*(round(value, 2) for value in cost))


def cost_of(folder: Path, videos: int, workers: int) -> dict[str, dict[str, Cost]]:
    """Fill a workspace and look at it; return what each stage and each command cost."""
    Workspace.create(folder)
    (folder / LIST).write_text(list_of(videos))
    # Not -m: workers know nothing of the classes of a script that is run.
    inner = ["-c", "from benchmarks.scale import main; main()", "--workers", str(workers)]
    inner += ["--keep", str(folder), "--stage"]
    stages = {name: measured([*inner, name]) for name in ("list", *MADE)}
    stages["again"] = measured([*inner, "sample"])
    some = Workspace(folder)
    last = some.files("masks")[-1]
    mask = read_records(Mask, some.storage, last.file, last.sha256)[-1]
    asked = {
        "status": ["status"],
        "failures": ["failures"],
        "why MASK": ["why", mask.id],
        "why VIDEO": ["why", mask.frame_id[:11]],
        "why ID's START": ["why", mask.id[:10]],
    }
    cli = ["-m", "pipeline.cli"]
    commands = {name: measured([*cli, *of, "-w", str(folder)]) for name, of in asked.items()}
    return {"stages": stages, "commands": commands}


def files_in(folder: Path) -> dict[str, int]:
    """Count the files of each table, those of the ledgers, and all but media."""
    tables = {path.name: len(list(path.iterdir())) for path in (folder / "tables").iterdir()}
    ledgers, every = (
        sum(path.is_file() for path in place.rglob("*")) for place in (folder / "commits", folder)
    )
    return {**tables, "ledgers": ledgers, "all": every}


def exponent(first: tuple[int, float], last: tuple[int, float]) -> float:
    """Return the power of the size that a cost grows by; 1 is linear.

    >>> round(exponent((1000, 2.0), (4000, 32.0)), 3)
    2.0
    """
    return math.log(last[1] / first[1]) / math.log(last[0] / first[0])


def growth_of(runs: dict[int, dict[str, dict[str, Cost]]]) -> dict[str, float]:
    """Return by stage and command how its CPU seconds grow between the two largest sizes.

    Those of the smallest size, which are for starting processes, are taken off both; where little
    is left, there is nothing to judge.
    """
    if len(runs) < 3:
        return {}
    least, small, large = sorted(runs)[0], *sorted(runs)[-2:]
    found = {}
    for kind, costs in runs[large].items():
        for name in costs:
            start, before, after = (runs[size][kind][name].cpu_s for size in (least, small, large))
            if after - start >= _SMALL_S and before - start > _SMALL_S / 10:
                power = exponent((small, before - start), (large, after - start))
                found[name] = round(power, 2)
    return found


def table_of(runs: dict[int, dict[str, dict[str, Cost]]], growth: dict[str, float]) -> str:
    """Lay the costs out: a line per stage and command, CPU seconds and MB by size."""
    rows = []
    for kind, costs in runs[max(runs)].items():
        for name in costs:
            cells = (runs[size][kind][name] for size in sorted(runs))
            cost = [f"{cell.cpu_s:.2f} s {cell.memory_mb:.0f} MB" for cell in cells]
            rows.append([name, *cost, f"{growth.get(name, '')}"])
    return "\n".join(columns(["", *(f"{size:,} videos" for size in sorted(runs)), "power"], rows))


def files_per_1000(files: dict[int, dict[str, int]]) -> dict[int, int]:
    """Return the files of a workspace for 1,000 videos, by its size."""
    return {videos: round(1000 * found["all"] / videos) for videos, found in files.items()}


def result_of(
    runs: dict[int, dict[str, dict[str, Cost]]], files: dict[int, dict[str, int]], workers: int
) -> dict[str, Any]:
    """Return all that was measured, for a file."""
    return {
        "what": "CPU seconds (workers included), wall seconds and the largest process's memory",
        "machine": describe(),
        "workers": workers,
        "load": os.getloadavg()[0],
        "runs": {
            videos: {
                kind: {name: asdict(cost) for name, cost in costs.items()}
                for kind, costs in found.items()
            }
            for videos, found in runs.items()
        },
        "files": files,
        "files_per_1000_videos": files_per_1000(files),
        "exponents": growth_of(runs),
    }


def main() -> None:
    """Measure, print and write the result; exit with 1 where something grows too fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, action="append", help="may be repeated")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--keep", type=Path, help="leave the workspaces in this folder")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:  # in a process of its own, see cost_of
        do_stage(Workspace(given.keep), given.stage, given.workers)
        return
    runs, files = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        for videos in (_LEAST, *sorted(given.videos or SIZES)):
            folder = (given.keep or Path(temporary)) / f"{videos}-videos"
            runs[videos] = cost_of(folder, videos, given.workers)
            files[videos] = files_in(folder)
            if given.out:  # what is known so far: the next size may take an hour
                result = result_of(runs, files, given.workers)
                given.out.write_text(json.dumps(result, indent=1) + "\n")
    growth = growth_of(runs)
    print(table_of(runs, growth))
    print("files:", json.dumps(files))
    print("files per 1,000 videos:", json.dumps(files_per_1000(files)))
    if too_fast := {name: power for name, power in growth.items() if power > MOST}:
        print(f"grows faster than with the power {MOST}: {too_fast}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
