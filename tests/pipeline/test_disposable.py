"""What no picture refers to is passed over on the way, and nothing wanted is lost by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import av
import pytest
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media import Media, decode_pictures, picture, read_timeline
from pipeline.media.disposable import disposable_packets, is_disposable
from tests.video_factory import flipped, make_video

FAST = {"preset": "veryfast"}
RECIPES: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "b_frames.mp4": {"b_frames": 3, "options": FAST},
    "b_frames.mkv": {"b_frames": 3, "options": FAST},
    "pyramid.mp4": {"b_frames": 3, "options": FAST | {"x264-params": "b-pyramid=normal:ref=4"}},
    "slices.mp4": {"b_frames": 3, "options": FAST | {"x264-params": "slices=4:aud=1"}},
    "interlaced.mp4": {"b_frames": 3, "options": FAST | {"x264-params": "interlaced=1"}},
    "fragmented.mp4": {"b_frames": 3, "options": FAST, "movflags": "frag_keyframe+empty_moov"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "start_codes.ts": {"b_frames": 3, "options": FAST},
    "hevc.mp4": {"codec": "libx265", "options": FAST | {"x265-params": "log-level=none:bframes=3"}},
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
}


@pytest.mark.parametrize("name", RECIPES)
def test_libav_too_decodes_the_others_without_them(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, frames=90, gop=30, **RECIPES[name])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        tell = disposable_packets(stream)
        assert tell is not None
        found = {packet.pts for packet in container.demux(stream) if packet.size and tell(packet)}
    assert found == shown(path, "DEFAULT") - shown(path, "NONREF")
    assert bool(found) == (name != "plain.mp4")


def shown(path: Path, skip_frame: Literal["DEFAULT", "NONREF"]) -> set[int | None]:
    """Timestamps of what libav decodes."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.skip_frame = skip_frame
        return {frame.pts for frame in container.decode(video=0)}


@pytest.mark.parametrize("name", OTHERS)
def test_where_it_cannot_be_told_nothing_is_passed_over(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, frames=40, gop=20, **OTHERS[name])
    with av.open(str(path)) as container:
        assert disposable_packets(container.streams.video[0]) is None


def test_only_what_is_wanted_is_decoded_of_the_disposable(tmp_path: Path) -> None:
    every_third = FAST | {"x264-params": "b-adapt=0:b-pyramid=none:scenecut=0"}
    path = make_video(tmp_path / "a.mp4", frames=61, gop=61, b_frames=2, options=every_third)
    assert len(shown(path, "NONREF")) == 21
    timeline, media = read_timeline(Media(path)), Media(path)
    (found,) = decode_pictures(media, timeline, [range(58, 59)])
    assert found.index == 58
    assert media.counts.frames <= 20 + 2  # of which one is the last, which is referred to


def units(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4) + part for part in parts)


SLICE, REFERENCE, KEY = b"\x01\x9a\x02", b"\x41\x9a\x02", b"\x65\x88"
MESSAGE, DELIMITER, PARAMETERS = b"\x06\x05\x01", b"\x09\xf0", b"\x68\xee"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (units(SLICE), True),
        (units(DELIMITER, MESSAGE, SLICE, SLICE), True),
        (units(REFERENCE), False),
        (units(KEY), False),
        (units(SLICE, REFERENCE), False),  # of two fields one is referred to
        (units(PARAMETERS, SLICE), False),  # later pictures are read by them
        (units(MESSAGE), False),
        (b"", False),
        (bytes(12), False),
        (units(SLICE)[:-1], False),
        (units(SLICE) + b"\x00\x00", False),
        (units(SLICE) + bytes(4), False),
    ],
)
def test_what_is_not_whole_and_plain_is_decoded(data: bytes, expected: bool) -> None:
    assert is_disposable(memoryview(data), 4) == expected


@given(st.binary(max_size=40), st.integers(1, 4))
def test_no_bytes_are_too_odd_to_be_judged(data: bytes, length_bytes: int) -> None:
    if is_disposable(memoryview(data), length_bytes):
        assert len(data) > length_bytes


def test_what_is_seen_whole_from_the_first_frame_on_is_seen_so_by_a_seek(tmp_path: Path) -> None:
    """Of a broken file; by a seek less that is broken may be met on the way, and never more."""
    whole = make_video(tmp_path / "whole.mp4", frames=150, gop=30, b_frames=3, options=FAST)
    for part in range(8):
        broken = flipped(whole, tmp_path / f"{part}.mp4", 0.1 + part / 10, 0.13 + part / 10)
        good = {one.index for one in every(broken) if not one.damaged}
        assert 60 < len(good) < 150
        assert seen_alone(broken).keys() >= good


def test_damage_that_no_other_picture_can_have_is_that_pictures_alone(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", frames=60, gop=60, b_frames=3, options=FAST)
    true = {one.index: as_bytes(one.frame) for one in every(whole)}
    timeline = read_timeline(Media(whole))
    with av.open(str(whole)) as container:
        stream = container.streams.video[0]
        tell = disposable_packets(stream)
        assert tell is not None
        packets = [one for one in container.demux(stream) if one.size > 60 and tell(one)]
        hit = packets[len(packets) // 2]
        assert hit.pos is not None
        index = timeline.pts.tolist().index(hit.pts)
        data = bytearray(whole.read_bytes())
        # Behind the header of the slice, so that it is still known for what it is.
        data[hit.pos + 25 : hit.pos + hit.size] = bytes(hit.size - 25)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    assert {one.index for one in every(broken) if one.damaged} >= {index, index + 1, 59}
    assert seen_alone(broken) == {at: seen for at, seen in true.items() if at != index}


def seen_alone(path: Path) -> dict[int, bytes]:
    """Frames each of which is asked for alone, without those that are damaged."""
    timeline = read_timeline(Media(path))
    return {
        one.index: as_bytes(one.frame)
        for index in range(len(timeline.pts))
        for one in decode_pictures(Media(path), timeline, [range(index, index + 1)])
        if not one.damaged
    }


def every(path: Path) -> Iterator[picture.Picture]:
    timeline = read_timeline(Media(path))
    return decode_pictures(Media(path), timeline, [range(len(timeline.pts))])


def as_bytes(frame: VideoFrame) -> bytes:
    return frame.to_ndarray().tobytes()


@pytest.mark.parametrize("lost", [[44], [47], [44, 45, 46, 47]])
def test_a_decoder_that_loses_wanted_pictures_for_it_is_given_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: list[int]
) -> None:
    path = make_video(tmp_path / "a.mp4", frames=60, gop=60, b_frames=3, options=FAST)
    timeline = read_timeline(Media(path))
    expected = [as_bytes(one.frame) for one in every(path)][44:48]
    times = {int(timeline.pts[index]) for index in lost}
    given: list[int | None] = []
    decode_packet = picture.decode_packet

    def forgetful(packet: Packet[VideoStream]) -> list[VideoFrame] | None:
        if packet.is_keyframe:
            given.clear()
        given.append(packet.pts)
        frames = decode_packet(packet) or []
        knows_all = set(timeline.pts[:40].tolist()) <= set(given)
        return [frame for frame in frames if knows_all or frame.pts not in times]

    monkeypatch.setattr(picture, "decode_packet", forgetful)
    found = list(decode_pictures(Media(path), timeline, [range(44, 48)]))
    assert [one.index for one in found] == [44, 45, 46, 47]
    assert [as_bytes(one.frame) for one in found] == expected
