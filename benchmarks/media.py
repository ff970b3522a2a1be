"""What probing, scanning, choosing and sampling cost, against the usual way to write them.

    python -m benchmarks.media --rounds 5 --out benchmarks/results/media.json

Draws videos of 1, 4 and 10 minutes, then measures every variant in turn, round after round, as CPU
time (user and system, children included), each in a process of its own that has it warm: imports
are paid by none, the start of ffmpeg by those that start it. Only ratios inside one run mean
anything. Needs ffmpeg
and ffprobe on the PATH and librosa: they are the reference; the product uses neither.

FA is ``ffmpeg`` decoding all sound of a file, FC is ``ffmpeg`` decoding the pictures of one 10 s
clip, both on one thread and including the start of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import functools
import importlib.metadata
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import av
import cv2
import numpy as np

from benchmarks.machine import describe
from pipeline.config import SampleConfig
from pipeline.media import Media, SoundTrack, probe, read_timeline
from pipeline.records.schema import Clip, Video
from pipeline.run.stage import Ok, WorkerContext
from pipeline.workspace.storage import Storage
from stages.sample.sample_frames import SampleFrames
from stages.sample.sampler import Sampler, find_events

MINUTES = (1, 4, 10)
FPS = 30
RATE = 44_100
GOP = 150


@dataclasses.dataclass(frozen=True)
class Target:
    """A bound on a ratio of two medians."""

    name: str
    of: str
    to: str
    at_most: float
    minutes: tuple[int, ...] = MINUTES


TARGETS = (
    Target("probe / ffprobe", "probe", "ffprobe", 0.15),
    Target("full RMS scan / FA", "rms", "FA", 1.5, (4, 10)),
    Target("full RMS scan / librosa", "rms", "librosa", 0.5, (4, 10)),
    Target("five events / FC", "events", "FC", 0.7),
    Target("five events / OpenCV on all frames", "events", "opencv", 1 / 4),
    Target("sample stage / (FA + FC)", "sample", "FA+FC", 1.2),
    Target("sample stage / reference, stream copy", "sample", "reference_copy", 1 / 3),
    Target("sample stage / reference, x264", "sample", "reference_x264", 1 / 8),
)

MEMORY_OVER_IMPORT_MB = 40.0
MEMORY_GROWTH_MB = 5.0
"""From the shortest to the longest video."""


# Drawing the videos


def draw_minute(path: Path, b_frames: int = 0) -> None:
    """60 s like a 360p download: baseline H.264, 500 kb/s, a keyframe every 5 s.

    Args:
        path: to write to.
        b_frames: in a row, of main H.264, as in films that were encoded anew.
    """
    rng = np.random.default_rng(0)
    scenes = [_leaves(rng) for _ in range(6)]
    with av.open(str(path), "w") as output:
        profile = "main" if b_frames else "baseline"
        options = {"preset": "veryfast", "profile": profile, "maxrate": "600k", "bufsize": "1M"}
        stream: Any = output.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.gop_size, stream.max_b_frames, stream.bit_rate = GOP, b_frames, 500_000
        grain = rng.normal(0, 3, (8, 360, 640, 1))
        for number in range(60 * FPS):
            shift = number % (10 * FPS)
            view = scenes[number // (10 * FPS)][shift // 4 : shift // 4 + 360, shift : shift + 640]
            blur = 0.3 + abs(np.sin(number * 0.11))
            picture = cv2.GaussianBlur(view, (0, 0), blur) + grain[number % 8]
            cv2.circle(picture, (320 + int(200 * np.sin(number / 20)), 180), 40, (40, 80, 220), -1)
            rgb = np.clip(picture, 0, 255).astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        output.mux(stream.encode())


def _leaves(rng: np.random.Generator) -> Any:
    """Overlapping discs of all sizes: edges at every scale, as in photographs."""
    image = np.full((450, 960, 3), 128, np.float64)
    for _ in range(900):
        radius = int(4 / rng.random() ** 0.7)
        centre = int(rng.integers(960)), int(rng.integers(450))
        cv2.circle(image, centre, min(radius, 120), rng.integers(0, 256, 3).tolist(), -1)
    return image


def join(minute: Path, minutes: int, target: Path) -> None:
    """Repeat the minute's pictures; noise swells every second or so, with quiet stretches."""
    rng = np.random.default_rng(minutes)
    with av.open(str(minute)) as source, av.open(str(target), "w") as output:
        template = source.streams.video[0]
        picture: Any = output.add_stream_from_template(template)
        voice: Any = output.add_stream("aac", rate=RATE, layout="stereo", options={"b": "96k"})
        packets = [
            (bytes(p), p.pts, p.dts, p.is_keyframe) for p in source.demux(template) if p.size
        ]
        base = template.time_base
        assert base is not None
        for number in range(minutes):
            offset = int(60 * number / base)
            for data, pts, dts, key in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = picture, base, key
                packet.pts, packet.dts = (pts or 0) + offset, (dts or 0) + offset
                output.mux(packet)
            for second in range(60 * number, 60 * number + 60):
                _mux_second(output, voice, second, rng)
        output.mux(voice.encode())


def _mux_second(output: Any, voice: Any, second: int, rng: np.random.Generator) -> None:
    level = 0.15 if second // 12 % 2 == 0 else 0.004
    time = np.arange(RATE) / RATE
    swell = level * (0.1 + np.exp(-(((time - rng.uniform(0.2, 0.8)) / 0.08) ** 2)))
    samples = (rng.normal(0, 1, (2, RATE)) * swell).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, second * RATE, Fraction(1, RATE)
    output.mux(voice.encode(frame))


# The variants


class Case:
    """One video and every way of doing each job on it."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.video = _row(path)
        self.sampler = Sampler(SampleConfig())
        self.stages = {draw: self._stage(draw) for draw in ("full", "lazy")}
        (outcome,) = self.stages["full"].process([self.video])
        assert isinstance(outcome, Ok)
        clip = outcome.rows[0]
        assert isinstance(clip, Clip)
        self.clip = clip
        media = Media(path)
        self.timeline = read_timeline(media)
        track = SoundTrack.of_video(media, self.timeline, self.sampler.hops_per_s)
        sound = track.span(int(clip.start_s), int(clip.end_s))
        self.events = find_events(sound, self.sampler.window_hops)

    def _stage(self, draw: str) -> SampleFrames:
        stage = SampleFrames(SampleConfig.model_validate({"draw": draw}))
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        stage.open(WorkerContext(Storage(self.folder), scratch, _no_lookup))
        return stage

    def variants(self) -> dict[str, Callable[[], object]]:
        """Every way of doing something, by name."""
        return {
            "probe": lambda: probe(self.path),
            "ffprobe": self.ffprobe,
            "rms": self.scan,
            "FA": lambda: _run("ffmpeg", "-threads", "1", "-i", self.path, "-vn", *NULL),
            "librosa": lambda: self.librosa(22_050),
            "librosa_native_rate": lambda: self.librosa(None),
            "events": self.choose,
            "FC": self.decode_clip,
            "opencv": self.opencv_on_source,
            "opencv_kept_heap": self.opencv_with_kept_heap,
            "sample": lambda: list(self.stages["full"].process([self.video])),
            "sample_lazy": lambda: list(self.stages["lazy"].process([self.video])),
            "reference_copy": lambda: self.reference("-c", "copy"),
            "reference_x264": lambda: self.reference("-c:v", "libx264", "-c:a", "aac"),
        }

    def ffprobe(self) -> None:
        options = ("-v", "error", "-of", "json", "-show_format", "-show_streams")
        _run("ffprobe", *options, self.path)

    def scan(self) -> Media:
        media = Media(self.path)
        track = SoundTrack.of_video(media, read_timeline(media), self.sampler.hops_per_s)
        track.span(0, track.seconds).rms_per_second()
        return media

    def librosa(self, rate: int | None) -> Any:
        import librosa

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # audioread is deprecated; it is what users run
            wave, loaded = librosa.load(self.path, sr=rate)
        second = int(loaded)
        return librosa.feature.rms(y=wave, frame_length=second, hop_length=second, center=False)

    def choose(self) -> Media:
        """With the timeline the scan has read, as in the stage."""
        media = Media(self.path)
        assert len(self.sampler.choose_frames(self.clip, self.events, media, self.timeline)) == 5
        return media

    def decode_clip(self) -> None:
        start = f"{self.clip.start_s:g}"
        _run("ffmpeg", "-threads", "1", "-ss", start, "-t", "10", "-i", self.path, "-an", *NULL)

    def opencv_on_source(self) -> None:
        _sharpest(self.path, self.clip.start_s)

    def opencv_with_kept_heap(self) -> None:
        """The same when malloc keeps its memory, as it does once a large array was freed.

        Much of ``opencv`` is page faults of its float64 images; this leaves them out.
        """
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_threshold = -1, -3  # M_* of glibc's malloc.h
        libc.mallopt(trim_threshold, 1 << 30)
        libc.mallopt(mmap_threshold, 1 << 27)
        _sharpest(self.path, self.clip.start_s)

    def reference(self, *codec: str) -> None:
        """librosa, a cut, OpenCV on all frames of it, five JPEGs: the chain people write."""
        self.librosa(22_050)
        cut = self.folder / "cut.mp4"
        start = f"{self.clip.start_s:g}"
        _run("ffmpeg", "-y", "-ss", start, "-i", self.path, "-t", "10", *codec, cut)
        for number, picture in enumerate(_sharpest(cut, 0.0)):
            cv2.imwrite(str(self.folder / f"{number}.jpg"), picture)


NULL = ("-f", "null", "-")

VARIANTS = (
    "probe",
    "ffprobe",
    "rms",
    "FA",
    "librosa",
    "librosa_native_rate",
    "events",
    "FC",
    "opencv",
    "opencv_kept_heap",
    "sample",
    "sample_lazy",
    "reference_copy",
    "reference_x264",
)


def _sharpest(path: Path, start_s: float) -> list[Any]:
    """Every frame of 10 s through gray and Laplacian; the five sharpest."""
    capture = cv2.VideoCapture(str(path))
    if start_s:
        capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * start_s)
    scored: list[tuple[float, Any]] = []
    for _ in range(10 * FPS):
        read, picture = capture.read()
        if not read:
            break
        gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        scored.append((cv2.Laplacian(gray, cv2.CV_64F).var(), picture))
    capture.release()
    return [picture for _, picture in sorted(scored, key=lambda row: -row[0])[:5]]


def _row(path: Path) -> Video:
    facts = dataclasses.asdict(probe(path))
    del facts["start_s"]
    texts = ("label", "split", "source_url", "sha256", "license", "title", "uploader")
    return Video(
        video_id=path.stem,
        path=path.name,
        size_bytes=path.stat().st_size,
        upload_date="",
        format_id="",
        **dict.fromkeys(texts, ""),
        **facts,
    )


def _no_lookup(table: str, column: str) -> Any:
    raise AssertionError(f"sample joins nothing, but asked for {table}.{column}")


def _run(tool: str, *arguments: object) -> None:
    quiet = ("-v", "error", "-nostdin") if tool == "ffmpeg" else ()
    command = [tool, *quiet, *(str(argument) for argument in arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


# Measuring


def cpu_ms(path: Path, folder: Path, name: str) -> float:
    """One call, in a process that does nothing but this variant: each has its own heap."""
    call = _case(path, folder).variants()[name]
    before = _cpu_s()
    call()
    return 1000 * (_cpu_s() - before)


def _cpu_s() -> float:
    who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, who))


@functools.cache
def _case(path: Path, folder: Path) -> Case:
    own = folder / str(os.getpid())
    own.mkdir(exist_ok=True)
    shutil.copy(path, own)
    return Case(own / path.name, own)


def measure(
    paths: dict[int, Path], folder: Path, rounds: int
) -> tuple[dict[int, dict[str, list[float]]], list[float]]:
    """CPU milliseconds of every variant on every video, ``rounds`` times in turn.

    Also the machine's load at the start of each round: our own is about 1.
    """
    loads = []
    times: dict[int, dict[str, list[float]]] = {m: {n: [] for n in VARIANTS} for m in paths}
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
            for name in VARIANTS
        }
        for number in range(rounds + 1):
            if number:
                loads.append(round(os.getloadavg()[0], 1))
            for minutes, path in paths.items():
                for name in VARIANTS:
                    spent = workers[name].submit(cpu_ms, path, folder, name).result()
                    if number:  # the first round warms imports and caches
                        times[minutes][name].append(spent)
            print(f"round {number} of {rounds}", file=sys.stderr)
    return times, loads


MEMORY = """
import sys
from pathlib import Path
from pipeline.media import Media, SoundTrack, read_timeline
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
imported = peak()
media = Media(Path(sys.argv[1]))
track = SoundTrack.of_video(media, read_timeline(media), 100)
track.span(0, track.seconds).rms_per_second()
print(imported, peak())
"""


def memory_mb(path: Path) -> dict[str, float]:
    """Peak resident memory of a process that scans one file, after its imports and at its end."""
    command = [sys.executable, "-c", MEMORY, str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    imported, peak = (float(number) for number in text.split())
    return {"imported": round(imported, 1), "over_import": round(peak - imported, 1)}


def counts(case: Case) -> dict[str, float]:
    """What was decoded: the same on every machine."""
    scanned, chosen = case.scan().counts, case.choose().counts
    return {
        "audio_s_decoded": round(scanned.audio_s, 1),
        "frames_decoded_for_5_events": chosen.frames,
    }


def counts_with_b_frames(folder: Path) -> dict[str, int]:
    """Count what is decoded for five events of a film with B-frames, and what would be of all."""
    minute, path = folder / "b_frames.mp4", folder / "b_frames_0001.mp4"
    draw_minute(minute, b_frames=3)
    join(minute, 1, path)
    case = Case(path, folder)
    found = case.choose().counts.frames
    with mock.patch("pipeline.media.picture.disposable_packets", return_value=None):
        every = case.choose().counts.frames
    return {"frames_decoded_for_5_events": found, "with_those_no_other_refers_to": every}


def machine() -> dict[str, object]:
    """The machine, and the tools of the reference."""
    ffmpeg = subprocess.run(["ffmpeg", "-version"], check=True, capture_output=True, text=True)
    return {
        **describe(),
        "ffmpeg": ffmpeg.stdout.split()[2],
        "librosa": importlib.metadata.version("librosa"),
        "opencv": cv2.__version__,
    }


def judge(medians: dict[int, dict[str, float]], memory: dict[int, dict[str, float]]) -> list[Any]:
    rows: list[dict[str, object]] = []
    for target in TARGETS:
        for minutes in target.minutes:
            of, to = medians[minutes][target.of], medians[minutes][target.to]
            rows.append(_verdict(target.name, minutes, of / to, target.at_most))
    for minutes, row in memory.items():
        rows.append(
            _verdict(
                "scan memory over import, MB", minutes, row["over_import"], MEMORY_OVER_IMPORT_MB
            )
        )
    growth = memory[max(memory)]["over_import"] - memory[min(memory)]["over_import"]
    rows.append(_verdict("scan memory growth, MB", max(memory), growth, MEMORY_GROWTH_MB))
    return rows


def _verdict(name: str, minutes: int, value: float, at_most: float) -> dict[str, object]:
    return {
        "target": name,
        "minutes": minutes,
        "value": round(value, 3),
        "at_most": round(at_most, 3),
        "met": value <= at_most,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    options = parser.parse_args()
    missing = [tool for tool in ("ffmpeg", "ffprobe") if not shutil.which(tool)]
    if missing:
        print(f"Needs {' and '.join(missing)} on the PATH: the reference is measured with them.")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        minute = folder / "minute.mp4"
        draw_minute(minute)
        paths = {minutes: folder / f"minutes{minutes:04d}.mp4" for minutes in MINUTES}
        for minutes, path in paths.items():
            join(minute, minutes, path)
        times, loads = measure(paths, folder, options.rounds)
        memory = {minutes: memory_mb(path) for minutes, path in paths.items()}
        counted: dict[Any, Any] = {
            minutes: counts(Case(path, folder)) for minutes, path in paths.items()
        }
        counted["1, with B-frames"] = counts_with_b_frames(folder)
    medians = {
        minutes: {name: round(statistics.median(values), 1) for name, values in row.items()}
        for minutes, row in times.items()
    }
    for row in medians.values():
        row["FA+FC"] = round(row["FA"] + row["FC"], 1)
    verdicts = judge(medians, memory)
    for minutes, row in medians.items():
        ratio = row["events"] / row["opencv_kept_heap"]
        print(
            f"for information: five events / OpenCV with its heap kept, {minutes} min: {ratio:.3f}"
        )
    for verdict in verdicts:
        sign = "<=" if verdict["met"] else "> "
        print("{target:40} {minutes:3} min  {value:8} ".format(**verdict), sign, verdict["at_most"])
    results = {
        "machine": machine(),
        "rounds": options.rounds,
        "load": loads,
        "median_cpu_ms": medians,
        "spread_cpu_ms": {
            minutes: {name: [round(min(v), 1), round(max(v), 1)] for name, v in row.items()}
            for minutes, row in times.items()
        },
        "memory_mb": memory,
        "counts": counted,
        "targets": verdicts,
    }
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(verdict["met"] for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
