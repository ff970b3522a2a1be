"""The sample stage against method.md written a second time, slowly."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import find_peaks

from pipeline.config import SampleConfig
from pipeline.errors import MediaError
from pipeline.media import Media, SoundEnergy, SoundTrack, probe, read_timeline
from pipeline.media.picture import luma_plane
from pipeline.records.schema import Clip, Frame, Video
from pipeline.run.stage import Drop, Ok, Outcome, WorkerContext
from pipeline.workspace.storage import Storage
from stages.sample.sample_frames import SampleFrames
from stages.sample.sampler import Sampler, candidate_windows, find_events, seeded_order
from tests.video_factory import RATE, bursts, chained, make_video, scene

DEFAULT = SampleConfig()


def video_row(path: str, video_id: str, size: tuple[int, int]) -> Video:
    return Video(
        video_id=video_id,
        label="drawn",
        split="train",
        source_url="",
        path=path,
        sha256="",
        size_bytes=1,
        width=size[0],
        height=size[1],
        fps=25,
        frame_count=1,
        duration_s=10,
        bitrate_bps=1000,
        video_codec="h264",
        audio_codec="aac",
        sample_rate_hz=16000,
        channels=1,
        license="",
        title="",
        uploader="",
        upload_date="",
        format_id="",
    )


def no_lookup(table: str, column: str) -> Any:
    raise AssertionError(f"sample joins nothing, but asked for {table}.{column}")


class Bench:
    """A workspace with one stage on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scratch").mkdir(parents=True)
        (root / "media/videos").mkdir(parents=True)
        self.context = WorkerContext(Storage(root), root / "scratch", no_lookup)

    def add(self, source: Path, video_id: str | None = None) -> Video:
        target = self.root / "media/videos" / source.name
        if not target.exists():
            target.symlink_to(source)
        try:
            facts = probe(source)
            size = facts.width, facts.height
        except MediaError:
            size = 96, 72
        return video_row(f"media/videos/{source.name}", video_id or source.stem, size)

    def sample(self, videos: Sequence[Video], config: SampleConfig = DEFAULT) -> list[Outcome]:
        stage = SampleFrames(config)
        stage.open(self.context)
        outcomes = list(stage.process(videos))
        stage.close()
        assert [outcome.id for outcome in outcomes] == [video.video_id for video in videos]
        return outcomes

    def clips_and_frames(
        self, source: Path, config: SampleConfig = DEFAULT
    ) -> tuple[list[Clip], list[Frame]]:
        (outcome,) = self.sample([self.add(source)], config)
        assert isinstance(outcome, Ok), outcome
        rows = outcome.rows
        return [r for r in rows if isinstance(r, Clip)], [r for r in rows if isinstance(r, Frame)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "ws")


# method.md, a second time: everything decoded from the first frame to the last, float64, loops.


def rms_of(wave: NDArray[np.float64], length: int, hop: int) -> NDArray[np.float64]:
    """The root mean square of each ``length`` samples that begin a ``hop`` apart."""
    starts = range(0, len(wave) - length + 1, hop)
    return np.array([np.sqrt(np.mean(wave[at : at + length] ** 2)) for at in starts])


@pytest.mark.slow  # of a new environment numba compiles librosa first
@pytest.mark.parametrize(("length", "hop"), [(16_000, 16_000), (800, 160)])
def test_the_slow_definition_of_loudness_is_librosas(length: int, hop: int) -> None:
    import librosa

    wave = np.random.default_rng(0).normal(size=5 * 16_000 + 77)
    theirs = librosa.feature.rms(y=wave, frame_length=length, hop_length=hop, center=False)[0]
    assert rms_of(wave, length, hop) == pytest.approx(theirs, rel=1e-6)  # it answers in float32


class SlowVideo:
    """Every frame and every sample of a file, by their timestamps."""

    def __init__(self, path: Path) -> None:
        with av.open(str(path)) as container:
            self.frames = list(container.decode(video=0))
        base = cast(Fraction, self.frames[0].time_base)
        self.zero = cast(int, self.frames[0].pts) * base
        self.times = [cast(int, frame.pts) * base - self.zero for frame in self.frames]
        self.wave, self.rate = self._waveform(path)

    def _waveform(self, path: Path) -> tuple[NDArray[np.float64], int]:
        with av.open(str(path)) as container:
            rate = container.streams.audio[0].rate
            length = round(float(self.times[-1]) + 60) * rate
            wave = np.full(length, np.nan)
            for frame in container.decode(audio=0):
                time = cast(int, frame.pts) * cast(Fraction, frame.time_base) - self.zero
                samples = frame.to_ndarray().astype(np.float64).mean(axis=0)
                at = int(time * rate // 1)
                places = np.arange(at, at + len(samples))
                free = places[places >= 0]
                free = free[np.isnan(wave[free])]
                wave[free] = samples[free - at]
        return np.nan_to_num(wave), rate

    def rms_per_second(self, seconds: int) -> NDArray[np.float64]:
        return rms_of(self.wave[: seconds * self.rate], self.rate, self.rate)

    def events(self, start_s: int, config: SampleConfig) -> list[tuple[float, float]]:
        """Time and strength of the local maxima, strongest first."""
        wave = self.wave[start_s * self.rate : (start_s + config.clip_s) * self.rate]
        hop = self.rate // 100
        rms = rms_of(wave, 5 * hop, hop)
        peaks = []
        for i in range(1, len(rms) - 1):
            if rms[i - 1] < rms[i] and (later := rms[i:][rms[i:] != rms[i]]).size:
                plateau = int(np.argmax(rms[i:] != rms[i]))
                if later[0] < rms[i]:
                    peaks.append((start_s + (i + (plateau - 1) // 2) / 100 + 0.025, rms[i]))
        return sorted(peaks, key=lambda peak: (-peak[1], peak[0]))

    def choose(self, start_s: int, config: SampleConfig) -> list[tuple[float, int]]:
        """Event time and frame number of each chosen frame, strongest first."""
        chosen: list[tuple[float, int]] = []
        for time, _ in self.events(start_s, config):
            if len(chosen) == config.max_frames:
                break
            if any(abs(time - other) <= 0.7 + 1e-9 for other, _ in chosen):
                continue
            near = [
                number
                for number, shown in enumerate(self.times)
                if abs(float(shown) - time) <= 0.1 + 1e-9
                and start_s <= shown < start_s + config.clip_s
                and not self.frames[number].is_corrupt
            ]
            if near:
                chosen.append((time, max(near, key=lambda n: (self.sharpness(n), -n))))
        return chosen

    def sharpness(self, number: int) -> float:
        return float(cv2.Laplacian(luma_plane(self.frames[number]), cv2.CV_64F).var())

    def rgb(self, number: int) -> NDArray[np.uint8]:
        return cast("NDArray[np.uint8]", self.frames[number].to_ndarray(format="rgb24"))


REAL = [
    "-1pRmoJIGQc",
    "-Qowmc0P9ic",
    "00W1lcxW-WU",
    "0nib7bMm8BA",
    "3HgbEKrbA9s",
    "3JYjNHFJfO4",
    "3qesirWAGt4",
    "54bz5yqN2IA",
    "6zlMP_kQ_-w",
    "KlsG1EnBEjc",
    "compDogDrum",
    "compHarpBab",
    "longQuietMd",
    "silentWater",
    "vasDog02677",
]


# Of the module: what tests of one video need is made once, and one video's is kept at a time.
@pytest.fixture(scope="module", params=REAL)
def real(request: pytest.FixtureRequest, shared: Path) -> Path:
    return shared / "data/raw_videos" / f"{request.param}.mp4"


@pytest.fixture(scope="module")
def slow(real: Path) -> SlowVideo:
    return SlowVideo(real)


@pytest.fixture(scope="module")
def outcome(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What the stage, as it comes, says of a real video."""
    bench = Bench(tmp_path_factory.mktemp("real") / "ws")
    (outcome,) = bench.sample([bench.add(real)])
    return outcome


def test_every_real_video_is_tested(shared: Path) -> None:
    assert sorted(p.stem for p in (shared / "data/raw_videos").glob("*.mp4")) == sorted(REAL)


def test_clips_and_frames_of_real_video_are_those_of_the_slow_definition(
    real: Path, slow: SlowVideo, outcome: Outcome
) -> None:
    # The end is the last frame's; real files here run at a constant rate, one frame is granted.
    step = slow.times[-1] - slow.times[-2]
    seconds = int(slow.times[-1] + 2 * step)
    rms = slow.rms_per_second(seconds)
    media = Media(real)
    track = SoundTrack.of_video(media, read_timeline(media), 100)
    # float32 products, float64 sums: relative 1e-6 is asked, 1e-7 was seen.
    assert track.span(0, track.seconds).rms_per_second() == pytest.approx(
        rms[: track.seconds], rel=1e-6, abs=1e-9
    )
    windows = [
        start
        for start in range(track.seconds - 9)
        if sum(value >= 0.01 for value in rms[start : start + 10]) >= 5
    ]
    if not windows:
        assert isinstance(outcome, Drop)
        assert outcome.reason == "no_active_window"
        return
    assert isinstance(outcome, Ok)
    clip, *frames = outcome.rows
    assert isinstance(clip, Clip)
    assert clip.start_s in windows
    assert clip.candidates == len(windows)
    start_s = int(clip.start_s)
    assert clip.rms_per_second == pytest.approx(rms[start_s : start_s + 10], rel=1e-6, abs=1e-9)
    assert clip.active_seconds == sum(value >= 0.01 for value in clip.rms_per_second)
    expected = slow.choose(start_s, DEFAULT)
    found = [cast(Frame, frame) for frame in frames]
    assert [round(frame.event_time_s, 6) for frame in found] == [
        round(time, 6) for time, _ in expected
    ]
    first = next(n for n, time in enumerate(slow.times) if time >= start_s)
    assert [first + frame.frame_index for frame in found] == [number for _, number in expected]
    for rank, (frame, (_, number)) in enumerate(zip(found, expected, strict=True)):
        assert frame.event_rank == rank
        assert frame.time_s == pytest.approx(float(slow.times[number]))
        assert frame.sharpness == pytest.approx(slow.sharpness(number), rel=1e-9)


def test_a_saved_frame_is_that_of_a_sequential_decode_pixel_by_pixel(
    real: Path, slow: SlowVideo, bench: Bench
) -> None:
    config = SampleConfig(image_format="png")
    (outcome,) = bench.sample([bench.add(real)], config)
    if isinstance(outcome, Drop):
        assert real.stem in ("silentWater", "vasDog02677")
        return
    for frame in cast(Ok, outcome).rows[1:]:
        assert isinstance(frame, Frame)
        number = slow.times.index(min(slow.times, key=lambda time: abs(float(time) - frame.time_s)))
        image: Any = cv2.imread(str(bench.root / frame.path), cv2.IMREAD_COLOR_RGB)
        assert np.array_equal(image, slow.rgb(number))
        assert image.shape == (frame.height, frame.width, 3)


def test_opencv_chooses_the_same_frames(real: Path, outcome: Outcome) -> None:
    """OpenCV's own decoder and gray (from BGR, at full range): another measure, the same choice.

    Rounding through BGR moves a sharpness by under 1 %, so where two frames of an event are nearer
    than that either is right.
    """
    if isinstance(outcome, Drop):
        return
    clip, *frames = cast(Ok, outcome).rows
    assert isinstance(clip, Clip)
    chosen = [cast(Frame, frame) for frame in frames]
    capture = cv2.VideoCapture(str(real))
    rate = capture.get(cv2.CAP_PROP_FPS)
    sharpness: list[dict[int, float]] = [{} for _ in chosen]
    for number in itertools.count():
        read, bgr = capture.read()
        if not read:
            break
        if not clip.start_s <= number / rate < clip.end_s:
            continue
        for frame, near in zip(chosen, sharpness, strict=True):
            if abs(number / rate - frame.event_time_s) <= 0.1 + 1e-9:
                gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
                near[number] = float(cv2.Laplacian(gray, cv2.CV_64F).var())
    first = round(clip.start_s * rate)
    for frame, near in zip(chosen, sharpness, strict=True):
        assert near[first + frame.frame_index] >= 0.99 * max(near.values())


def drawn(path: Path, config: SampleConfig) -> Clip:
    """The clip that is drawn, without its pictures."""
    sampler, media = Sampler(config), Media(path)
    track = SoundTrack.of_video(media, read_timeline(media), sampler.hops_per_s)
    ((clip, _),) = sampler.draw_clips(path.stem, track)
    return clip


def test_the_real_videos_give_what_their_readme_says(shared: Path, bench: Bench) -> None:
    folder = shared / "data/raw_videos"
    (silent,) = bench.sample([bench.add(folder / "silentWater.mp4")])
    assert isinstance(silent, Drop)
    (harp,), _ = bench.clips_and_frames(folder / "compHarpBab.mp4")
    assert (harp.start_s, harp.end_s, harp.candidates) == (0, 10, 1)
    with (folder / "vggsound_subset.csv").open() as file:
        listed = {row[0] for row in csv.reader(file)}
    assert listed >= set(REAL)
    for seed in range(20):
        clip = drawn(folder / "longQuietMd.mp4", SampleConfig(seed=seed))
        # Sound in [0, 10) and [26, 36): at least five of a clip's seconds touch it.
        assert clip.start_s <= 5 or clip.start_s >= 21
        assert clip.active_seconds >= 5


# Awkward files, drawn


PEAKS = [1.2, 3.3, 5.1, 7.4, 8.8]

AWKWARD: dict[str, dict[str, Any]] = {
    "constant": {},
    "b_frames": {"b_frames": 3, "options": {"preset": "veryfast"}},
    "open_gop": {
        "b_frames": 3,
        "options": {
            "preset": "veryfast",
            "x264-params": "open-gop=1:keyint=20:min-keyint=20:scenecut=0:b-adapt=0",
        },
    },
    "variable": {
        "pts_ms": [int(t) for t in np.cumsum(np.random.default_rng(5).integers(20, 60, 310))],
        "b_frames": 2,
        "options": {"preset": "veryfast"},
    },
    "late": {"start_s": 3.2, "sound_start_s": 3.2},
    "ten_bit": {"pix_fmt": "yuv420p10le"},
}


@pytest.mark.parametrize("name", AWKWARD)
def test_frames_of_awkward_files_are_those_of_the_slow_definition(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    recipe: dict[str, Any] = {"frames": 300, "sound": bursts(12.5, PEAKS)} | AWKWARD[name]
    path = make_video(tmp_path / f"{name}.mp4", **recipe)
    (clip,), frames = bench.clips_and_frames(path)
    slow = SlowVideo(path)
    start_s = int(clip.start_s)
    expected = slow.choose(start_s, DEFAULT)
    first = next(n for n, time in enumerate(slow.times) if time >= start_s)
    assert len(frames) == DEFAULT.max_frames
    assert [first + f.frame_index for f in frames] == [number for _, number in expected]
    assert [f.event_time_s for f in frames] == pytest.approx([time for time, _ in expected])
    times = [float(slow.times[number]) for _, number in expected]
    assert [f.time_s for f in frames] == pytest.approx(times)


def test_a_rotated_frame_is_saved_upright(bench: Bench, tmp_path: Path) -> None:
    path = make_video(tmp_path / "r.mp4", frames=260, rotation=90, sound=bursts(10.4, PEAKS))
    _, frames = bench.clips_and_frames(path, SampleConfig(image_format="png"))
    slow = SlowVideo(path)
    for frame in frames:
        image: Any = cv2.imread(str(bench.root / frame.path), cv2.IMREAD_COLOR_RGB)
        assert (frame.width, frame.height) == (72, 96) == image.shape[1::-1]
        assert np.array_equal(image, np.rot90(slow.rgb(round(frame.time_s * 25))))


def test_a_frame_of_pixels_that_are_not_square_is_saved_as_displayed(
    bench: Bench, tmp_path: Path
) -> None:
    path = make_video(
        tmp_path / "a.mp4",
        frames=260,
        draw=scene(72, 72),
        pixel_aspect=Fraction(4, 3),
        sound=bursts(10.4, PEAKS),
    )
    _, frames = bench.clips_and_frames(path, SampleConfig(image_format="png"))
    slow = SlowVideo(path)
    for frame in frames:
        image: Any = cv2.imread(str(bench.root / frame.path), cv2.IMREAD_COLOR_RGB)
        assert (frame.width, frame.height) == (96, 72) == image.shape[1::-1]
        narrow = cv2.resize(image, (72, 72), interpolation=cv2.INTER_AREA).astype(float)
        off = [np.abs(narrow - shown).mean() for shown in map(slow.rgb, range(len(slow.frames)))]
        assert int(np.argmin(off)) == round(frame.time_s * 25)
        # Sharpness is that of what was decoded: what frames of one video are compared by.
        assert frame.sharpness == pytest.approx(slow.sharpness(round(frame.time_s * 25)))


@pytest.mark.parametrize("codec", ["libx264", "libvpx"])
def test_a_size_that_changes_is_a_drop_where_a_frame_would_have_another(
    bench: Bench, tmp_path: Path, codec: str
) -> None:
    options = {
        "libx264": {"x264-params": "repeat-headers=1"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    }[codec]
    parts = [
        make_video(
            tmp_path / f"{size}.mkv", frames=130, draw=scene(*size), codec=codec, options=options
        )
        for size in ((96, 72), (64, 48))
    ]
    for name, peaks in {"both": PEAKS, "first": [1.2, 2.4, 3.6, 4.6]}.items():
        heard = make_video(
            tmp_path / f"{name}_heard.mkv", frames=2, sound=bursts(10.4, peaks, level=0.5)
        )
        path = chained(tmp_path / f"{name}.mkv", parts, heard)
        (outcome,) = bench.sample([bench.add(path)], SampleConfig(max_frames=4))
        if name == "first":  # nobody looks at the other size
            assert isinstance(outcome, Ok), outcome
            sizes = {(f.width, f.height) for f in outcome.rows if isinstance(f, Frame)}
            assert sizes == {(96, 72)}
        else:
            assert isinstance(outcome, Drop)
            assert outcome.reason == "resolution"
            assert "shows 64x48 at" in outcome.detail
            assert not (bench.root / "media/frames" / name).exists()


def test_a_damaged_frame_is_never_chosen_and_its_event_gives_way(
    bench: Bench, tmp_path: Path
) -> None:
    options = {"x264-params": "keyint=25:min-keyint=25:scenecut=0"}
    # Keyframes each second; the pictures of second 3 are broken, the sound is whole.
    whole = make_video(
        tmp_path / "whole.mp4", frames=260, gop=25, options=options, sound=bursts(10.4, PEAKS)
    )
    with av.open(str(whole)) as container:
        spoiled = [
            (packet.pos, packet.size)
            for packet in container.demux(video=0)
            if packet.size and 75 <= (packet.pts or 0) * (packet.time_base or 0) * 25 < 100
        ]
    data = bytearray(whole.read_bytes())
    noise = np.random.default_rng(0)
    for position, size in spoiled:
        assert position is not None
        middle = position + 12 + (size - 12) // 4
        data[middle : position + size] = noise.bytes(position + size - middle)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    _, frames = bench.clips_and_frames(whole)
    assert any(3 <= frame.time_s < 4 for frame in frames)
    _, frames = bench.clips_and_frames(broken)
    assert len(frames) == DEFAULT.max_frames
    assert not any(3 <= frame.time_s < 4 for frame in frames)
    times = sorted(frame.event_time_s for frame in frames)
    assert min(np.diff(times)) > DEFAULT.min_gap_s


def test_an_event_at_the_edge_is_clipped_to_the_clip(bench: Bench, tmp_path: Path) -> None:
    # Loud in [3, 13) alone, so that only that clip has ten active seconds; the pictures outside it
    # are the sharper ones.
    sound = bursts(16, [3.04, 8.0, 12.96], level=0.4)
    sound *= np.isin(np.arange(len(sound)) // RATE, range(3, 13))
    crisp = scene()

    def draw(number: int) -> NDArray[np.uint8]:
        picture = crisp(number)
        inside = 75 <= number < 325
        return (
            cast("NDArray[np.uint8]", cv2.GaussianBlur(picture, (0, 0), 2)) if inside else picture
        )

    path = make_video(
        tmp_path / "edge.mkv", frames=400, draw=draw, sound=sound, sound_codec="pcm_s16le"
    )
    (clip,), frames = bench.clips_and_frames(path, SampleConfig(min_active_s=10))
    assert (clip.start_s, clip.end_s) == (3, 13)
    indices = {frame.frame_index for frame in frames}
    assert indices & set(range(4)), "the event is nearer to the edge than 0.1 s"
    assert indices & set(range(246, 250))
    assert indices <= set(range(250))


def test_of_equally_sharp_frames_the_earliest_is_chosen(bench: Bench, tmp_path: Path) -> None:
    still = scene()(0)
    path = make_video(
        tmp_path / "still.mp4",
        frames=260,
        draw=lambda _: still,
        options={"qp": "0"},
        sound=bursts(10.4, PEAKS),
    )
    _, frames = bench.clips_and_frames(path)
    assert len({frame.sharpness for frame in frames}) == 1, "lossless: all frames are the same"
    for frame in frames:
        earliest = np.ceil((frame.event_time_s - DEFAULT.event_half_s) * 25 - 1e-6)
        assert frame.frame_index == max(0, earliest)


def test_a_sound_that_never_peaks_is_no_event(bench: Bench, tmp_path: Path) -> None:
    rising = np.linspace(0.02, 0.5, 12 * RATE, dtype=np.float32)
    path = make_video(tmp_path / "ramp.mkv", frames=250, sound=rising, sound_codec="pcm_f32le")
    (outcome,) = bench.sample([bench.add(path)])
    assert outcome == Drop("ramp", "no_event", "0 events in 1 clips")


def test_a_video_shorter_than_a_clip_has_no_window(bench: Bench, tmp_path: Path) -> None:
    # The header says 12 s; the pictures end after 8.
    path = make_video(tmp_path / "short.mp4", frames=200, sound=bursts(12, PEAKS))
    (outcome,) = bench.sample([bench.add(path)])
    assert isinstance(outcome, Drop)
    assert outcome.reason == "no_active_window"


def test_windows_end_with_the_pictures(bench: Bench, tmp_path: Path) -> None:
    # 13 s of pictures, 20 s of sound, loud only behind second 6: one start of 0 to 3 does.
    sound = bursts(20, list(np.arange(6.1, 20, 0.5)), level=0.5) * (np.arange(20 * RATE) > 6 * RATE)
    path = make_video(tmp_path / "long_sound.mp4", frames=325, sound=sound.astype(np.float32))
    starts = {
        bench.clips_and_frames(path, SampleConfig(seed=seed))[0][0].start_s for seed in range(12)
    }
    assert starts == {1, 2, 3}


def test_clips_of_one_video_do_not_overlap(bench: Bench, tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "many.mp4", frames=480, fps=10, sound=bursts(48, list(np.arange(0.5, 48)))
    )
    clips, frames = bench.clips_and_frames(path, SampleConfig(clips_per_video=3))
    starts = sorted(clip.start_s for clip in clips)
    assert len(starts) == 3
    assert min(np.diff(starts)) >= 10
    assert {frame.clip_id for frame in frames} == {clip.clip_id for clip in clips}
    (one,), _ = bench.clips_and_frames(path)
    assert one == clips[0]


def test_a_file_that_is_no_video_fails_with_its_kind(bench: Bench, tmp_path: Path) -> None:
    page = tmp_path / "page.mp4"
    page.write_text("<html>Sign in to confirm</html>")
    with pytest.raises(MediaError, match="not_media"):
        bench.sample([bench.add(page)])


def test_a_video_that_takes_too_long_fails_with_its_kind(bench: Bench, tmp_path: Path) -> None:
    path = make_video(tmp_path / "slow.mp4", frames=260, sound=bursts(10.4, PEAKS))
    with pytest.raises(MediaError, match="too_slow"):
        bench.sample([bench.add(path)], SampleConfig(decode_timeout_s=1e-6))


# The draw


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 s, loud in [5, 20) and [40, 58): 32 of its 51 windows are candidates."""
    at = [t for t in np.arange(0.5, 60) if 5 <= t < 20 or 40 <= t < 58]
    hum = bursts(60, at, level=0.4)
    hum *= np.isin(np.arange(60 * RATE) // RATE, [int(t) for t in at])
    return make_video(tmp_path_factory.mktemp("long") / "long.mp4", frames=600, fps=10, sound=hum)


def test_the_lazy_draw_is_the_full_draw(long_video: Path) -> None:
    for seed in range(30):
        full, lazy = (
            drawn(long_video, SampleConfig(draw=draw, seed=seed)) for draw in ("full", "lazy")
        )
        assert full.start_s == lazy.start_s


def test_the_lazy_draw_decodes_less_sound_and_says_what_it_knows(
    long_video: Path, bench: Bench
) -> None:
    decoded = {}
    for draw in ("full", "lazy"):
        decoded[draw] = 0.0
        for seed in range(10):
            sampler = Sampler(SampleConfig.model_validate({"draw": draw, "seed": seed}))
            media = Media(long_video)
            track = SoundTrack.of_video(media, read_timeline(media), sampler.hops_per_s)
            ((clip, _),) = sampler.draw_clips("long", track)
            decoded[draw] += media.counts.audio_s / 10
            assert clip.candidates == (1 if draw == "lazy" else 32)
    assert decoded["full"] == pytest.approx(60, abs=0.5)
    assert decoded["lazy"] < 0.5 * decoded["full"]


def test_the_draw_is_uniform_over_the_candidates() -> None:
    rng = np.random.default_rng(0)
    active = rng.random(40) < 0.5
    windows = candidate_windows(active, 10, 5)
    draws = 20_000
    found = Counter(
        next(start for start in seeded_order(range(31), 0, f"v{i}") if start in windows)
        for i in range(draws)
    )
    assert set(found) == set(windows)
    expected = draws / len(windows)
    chi_square = sum((count - expected) ** 2 / expected for count in found.values())
    # The statistic's mean is its degrees of freedom and its deviation sqrt(2 df): five of them.
    freedom = len(windows) - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_neither_order_nor_company_changes_a_row(
    long_video: Path, bench: Bench, tmp_path: Path
) -> None:
    other = make_video(tmp_path / "other.mp4", frames=300, sound=bursts(12, PEAKS))
    videos = [bench.add(long_video, f"video{i:06d}") for i in range(4)] + [bench.add(other)]
    together = bench.sample(videos)
    backwards = bench.sample(videos[::-1])
    alone = [bench.sample([video])[0] for video in videos]
    assert together == backwards[::-1] == alone
    drawn = [cast(Clip, cast(Ok, outcome).rows[0]).start_s for outcome in together[:4]]
    assert len(set(drawn)) > 1, "the id takes part in the draw"


def test_a_second_run_writes_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", frames=260, sound=bursts(10.4, PEAKS))
    _, frames = bench.clips_and_frames(path)
    before = {frame.path: (bench.root / frame.path).read_bytes() for frame in frames}
    assert bench.clips_and_frames(path)[1] == frames
    assert {name: (bench.root / name).read_bytes() for name in before} == before
    assert list(bench.context.scratch.iterdir()) == []
    for frame in frames:
        assert frame.path == f"media/frames/a/{frame.frame_id}.jpg"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=14))
@example([1, 2, 2, 0])
def test_events_are_the_peaks_that_scipy_finds(energies: list[int]) -> None:
    sound = SoundEnergy(0, 10, np.array(energies, float), np.ones(len(energies), int))
    times = {float(10 * event.time - Fraction(1, 2)) for event in find_events(sound, 1)}
    assert times == set(find_peaks(energies)[0].tolist())


# What it costs, counted


def test_five_events_decode_their_neighbourhoods_alone(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "a.mp4", frames=900, fps=30, gop=15, sound=bursts(30, [11.1, 13, 15, 17, 19])
    )
    media = Media(path)
    sampler = Sampler(SampleConfig(clip_s=30))
    timeline = read_timeline(media)
    track = SoundTrack.of_video(media, timeline, sampler.hops_per_s)
    ((clip, sound),) = sampler.draw_clips("a", track)
    assert media.counts.audio_s == pytest.approx(30, abs=0.2)
    assert media.counts.frames == 0
    events = find_events(sound, sampler.window_hops)
    choices = sampler.choose_frames(clip, events, media, timeline)
    assert len(choices) == 5
    # At most a group of 15 before each window of at most 7 frames.
    assert media.counts.frames <= 5 * (14 + 7)


def test_each_second_of_sound_is_decoded_once(bench: Bench, long_video: Path) -> None:
    media = Media(long_video)
    track = SoundTrack.of_video(media, read_timeline(media), 100)
    Sampler(SampleConfig(clips_per_video=2)).draw_clips("long", track)
    assert media.counts.audio_s == pytest.approx(60, abs=0.5)
