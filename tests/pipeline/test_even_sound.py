"""Sound decoded by libav alone against the same sound read frame by frame."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.audio.frame import AudioFrame

from pipeline.errors import MediaError
from pipeline.media import Media, SoundTrack, read_timeline
from pipeline.media.even_sound import EvenSound, Uneven
from pipeline.media.sound import even_blocks, sound_blocks
from tests.pipeline.sounds import SHIFTS_MS, SOUNDS, assert_rms_is_the_reference
from tests.video_factory import RATE, bursts, flipped, make_video, retimed, scene

Blocks = Iterator[tuple[int, AudioFrame]]


def as_bytes(blocks: Blocks) -> list[tuple[int, bytes]]:
    return [(first, block.to_ndarray().tobytes()) for first, block in blocks]


def is_even(path: Path, stop_s: int = 100) -> bool:
    """Whether libav alone may decode a file's sound; what it then gives is the same."""
    media = Media(path)
    zero = read_timeline(media).start
    one_by_one = as_bytes(sound_blocks(media, zero, 0, stop_s))
    try:
        alone = as_bytes(even_blocks(media, zero, stop_s))
    except Uneven:
        return False
    assert alone == one_by_one
    return True


EVEN = {"stereo.mp4", "late_picture.mp4", "late_sound.mp4", "short_sound.mp4", "wide.mkv"}
EVEN |= {"bytes.mkv", "float.mkv", "flac.mkv", "opus.webm"}


@pytest.mark.parametrize("name", SOUNDS)
def test_blocks_decoded_by_libav_alone_are_those_read_frame_by_frame(
    tmp_path: Path, name: str
) -> None:
    path = make_video(tmp_path / name, **({"frames": 150} | SOUNDS[name]))
    assert is_even(path) == (name in EVEN)


@pytest.mark.parametrize("cut_s", [1, 2, 5])
def test_they_hold_all_sound_before_the_end_that_is_asked_for(tmp_path: Path, cut_s: int) -> None:
    path = make_video(tmp_path / "a.mp4", frames=150, sound=bursts(6, [1.5, 4.2]))
    media = Media(path)
    (whole,) = joined(sound_blocks(media, Fraction(0), 0, 6))
    (part,) = joined(even_blocks(media, Fraction(0), cut_s))
    assert part.start == whole.start <= 0
    assert cut_s * RATE <= part.stop < (cut_s + 2) * RATE


def joined(blocks: Blocks) -> list[range]:
    """The spans of samples that blocks hold without a gap."""
    spans: list[range] = []
    for first, block in blocks:
        stop = first + block.samples
        if spans and spans[-1].stop == first:
            first = spans.pop().start
        spans.append(range(first, stop))
    return spans


@pytest.fixture(scope="module")
def regular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 s of PCM in packets of 50 ms."""
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 6 * RATE).astype(np.float32)
    path = tmp_path_factory.mktemp("regular") / "regular.mkv"
    codec: dict[str, Any] = {"sound_codec": "pcm_s16le", "sound_block": 800}
    return make_video(path, frames=155, draw=scene(32, 32), sound=wave, **codec)


def one_moved(at: int, shift_ms: int) -> Callable[[int], int]:
    return lambda number: shift_ms if number == at else 0


@pytest.mark.parametrize("shift_ms", [-50, 50, 3])
def test_a_frame_out_of_its_time_is_noticed_whichever_it_is(
    regular: Path, tmp_path: Path, shift_ms: int
) -> None:
    assert is_even(regular)
    for at in range(1, 120):
        path = retimed(regular, tmp_path / "r.mkv", one_moved(at, shift_ms))
        assert not is_even(path), f"packet {at}"


@pytest.mark.parametrize("name", SHIFTS_MS)
def test_shifted_sound_is_even_only_where_all_is_shifted(
    regular: Path, tmp_path: Path, name: str
) -> None:
    path = retimed(regular, tmp_path / "r.mkv", SHIFTS_MS[name])
    assert is_even(path) == name.startswith("all_")


def promised(path: Path, **other: Any) -> EvenSound:
    """What ``regular`` promises, and otherwise."""
    even: dict[str, Any] = {
        "stream": 1,
        "rate_hz": RATE,
        "position": 0,
        "pts": 0,
        "first": 800,
        "size": 800,
    }
    return EvenSound(**(even | {"time_base": Fraction(1, 1000), "jitter": 16} | other))


@pytest.mark.parametrize("other", [{"first": 799}, {"size": 400}, {"size": 801}, {"pts": 90}])
def test_frames_of_another_size_or_time_than_promised_are_uneven(
    regular: Path, other: dict[str, int]
) -> None:
    media = Media(regular)
    whole = as_bytes(promised(regular).blocks(media, 9 * RATE))
    assert sum(len(data) for _, data in whole) == 2 * 6 * RATE
    with pytest.raises(Uneven):
        list(promised(regular, **other).blocks(media, 9 * RATE))


def test_a_file_that_names_another_is_not_followed(regular: Path, tmp_path: Path) -> None:
    script = tmp_path / "list.mkv"
    script.write_text(f"ffconcat version 1.0\nfile '{regular}'\n")
    with pytest.raises(Uneven):
        list(promised(script).blocks(Media(script), 9 * RATE))


@pytest.mark.parametrize(
    "name", ["a b.mkv", "it's [a],b;c=d:e\\f.mkv", "concat:a|b.mkv", "%03d.mkv", "é 音.mkv"]
)
def test_any_name_of_a_file_is_a_name(regular: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(regular.read_bytes())
    assert is_even(path)


def test_it_ends_when_the_time_is_over(regular: Path) -> None:
    media = Media(regular, timeout_s=0)
    with pytest.raises(MediaError, match="too_slow"):
        list(promised(regular).blocks(media, 9 * RATE))


LONG: dict[str, dict[str, Any]] = {
    "even.mp4": {},
    "gap.mp4": {"sound_gap": (33.1, 1.7)},
    "late.mp4": {"sound_start_s": 2.3},
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_scan_is_that_of_the_waveform_even_or_not(tmp_path: Path, name: str) -> None:
    sound = np.stack([bursts(40, [1.5, 20, 36]), -0.5 * bursts(40, [0.5, 34])])
    recipe: dict[str, Any] = {"frames": 400, "fps": 10, "draw": scene(32, 32), "sound": sound}
    recipe |= LONG[name]
    path = make_video(tmp_path / name, **recipe)
    assert is_even(path) == ("sound_gap" not in recipe)
    assert_rms_is_the_reference(path)
    whole, parts = (
        SoundTrack.of_video(Media(path), read_timeline(Media(path)), 100) for _ in range(2)
    )
    energy = whole.span(0, 40).energy
    # Never asked for 30 s at once, it is read frame by frame.
    assert energy[:2000].tobytes() == parts.span(0, 20).energy.tobytes()


def test_a_long_damaged_file_is_scanned_as_frame_by_frame(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", frames=40, fps=1, sound=bursts(40, [2, 38]))
    broken = flipped(whole, tmp_path / "broken.mp4", 0.4, 0.6)
    assert is_even(whole)
    assert not is_even(broken)
    media = Media(broken)
    timeline = read_timeline(media)
    energy = SoundTrack.of_video(media, timeline, 100).span(0, 40).energy
    assert energy[:1500].tobytes() == (
        SoundTrack.of_video(media, timeline, 100).span(0, 15).energy.tobytes()
    )


def turns_of_python(call: Callable[[], object]) -> int:
    """How many functions, of Python and of C, a call makes."""
    made = itertools.count()

    def seen(_frame: object, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            next(made)

    sys.setprofile(seen)
    try:
        call()
    finally:
        sys.setprofile(None)
    return next(made)


def test_a_second_of_sound_takes_python_a_few_turns(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 60 * RATE).astype(np.float32)
    path = make_video(tmp_path / "a.mp4", frames=60, fps=1, draw=scene(32, 32), sound=sound)
    media = Media(path)
    timeline = read_timeline(media)

    def scan(seconds: int) -> Callable[[], object]:
        return lambda: SoundTrack.of_video(media, timeline, 100).span(0, seconds)

    scan(60)()
    a_second = (turns_of_python(scan(60)) - turns_of_python(scan(30))) / 30
    assert a_second < 60
    by_frames = turns_of_python(lambda: list(sound_blocks(media, Fraction(0), 0, 60))) / 60
    assert by_frames > 5 * RATE / 1024


def test_no_promise_is_kept_by_another_file(regular: Path, tmp_path: Path) -> None:
    other = make_video(tmp_path / "other.mp4", frames=75, sound=bursts(3, [1]))
    with pytest.raises(Uneven):
        list(promised(other).blocks(Media(other), 9 * RATE))
    missing = dataclasses.replace(promised(regular), stream=7)
    with pytest.raises(Uneven):
        list(missing.blocks(Media(regular), 9 * RATE))
