"""pipeline.media against slow second definitions, on drawn and on broken files."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from pipeline.errors import MediaError
from pipeline.media import (
    Media,
    Picture,
    SoundTrack,
    decode_pictures,
    frames_between,
    make_clip,
    probe,
    read_sound,
    read_timeline,
)
from pipeline.media import waveform as heard_waveform
from pipeline.media.clip_cache import write_cached_clip
from pipeline.media.picture import luma_plane
from pipeline.media.probe import hidden_frames
from tests.pipeline.sounds import SHIFTS_MS, SOUNDS, assert_rms_is_the_reference, waveform
from tests.video_factory import (
    RATE,
    boxed,
    bursts,
    chained,
    edited,
    flipped,
    make_video,
    remuxed,
    retimed,
    scene,
    truncated,
)

BETTER = {"preset": "veryfast"}
OPEN_GOP = "open-gop=1:keyint=20:min-keyint=20:scenecut=0"
UNEVEN_MS = [int(t) for t in np.cumsum(np.random.default_rng(1).integers(15, 140, 70))]

RECIPES: dict[str, dict[str, Any]] = {
    "constant.mp4": {},
    "b_frames.mp4": {"b_frames": 3, "options": BETTER},
    "pyramid.mp4": {"b_frames": 3, "options": BETTER | {"x264-params": "b-pyramid=normal:ref=4"}},
    "open_gop.mp4": {
        "frames": 120,
        "b_frames": 3,
        "options": BETTER | {"x264-params": f"{OPEN_GOP}:b-adapt=0"},
    },
    "open_gop.mkv": {
        "frames": 120,
        "b_frames": 3,
        "options": BETTER | {"x264-params": f"{OPEN_GOP}:b-adapt=0"},
    },
    "open_gop_hevc.mp4": {
        "codec": "libx265",
        "frames": 120,
        "options": BETTER | {"x265-params": f"log-level=none:{OPEN_GOP}:bframes=3"},
    },
    "intra_refresh.mp4": {"frames": 120, "options": {"x264-params": "intra-refresh=1:keyint=20"}},
    "variable.mp4": {"pts_ms": UNEVEN_MS, "b_frames": 2, "options": BETTER},
    "late.mp4": {"start_s": 3.2, "b_frames": 2, "options": BETTER, "sound": bursts(5, [2])},
    "rotated.mp4": {"rotation": 90},
    "ten_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "gray.mp4": {"pix_fmt": "gray"},
    "full_chroma_odd.mp4": {"draw": scene(97, 71), "pix_fmt": "yuv444p"},
    "rgb.mp4": {"codec": "libx264rgb", "pix_fmt": "rgb24"},
    "fragmented.mp4": {"movflags": "frag_keyframe+empty_moov", "sound": bursts(2.4, [1])},
    "vp9.webm": {
        "codec": "libvpx-vp9",
        "frames": 100,
        "options": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "16"},
        "sound": np.stack([bursts(4, [1])] * 2),
        "sound_codec": "libopus",
    },
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
}

Drawn = Callable[[str], Path]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """The video of a recipe, drawn once."""
    folder = tmp_path_factory.mktemp("drawn")

    def get(name: str) -> Path:
        path = folder / name
        return path if path.exists() else make_video(path, **RECIPES[name])

    return get


def sequential(path: Path) -> list[tuple[int, bytes, bool]]:
    """Timestamp, bytes and damage of every frame, decoded from the first to the last."""
    with av.open(str(path)) as container:
        return [
            (frame.pts or 0, as_bytes(frame), frame.is_corrupt)
            for frame in container.decode(video=0)
        ]


def as_bytes(frame: av.VideoFrame) -> bytes:
    return frame.to_ndarray().tobytes()


def kind_of(call: Callable[[], object]) -> str:
    with pytest.raises(MediaError) as error:
        call()
    assert "\n" not in str(error.value)
    return error.value.kind


@pytest.mark.parametrize("name", RECIPES)
def test_the_timeline_holds_the_frames_a_sequential_decode_shows(drawn: Drawn, name: str) -> None:
    path = drawn(name)
    assert read_timeline(Media(path)).pts.tolist() == [pts for pts, _, _ in sequential(path)]


@pytest.mark.parametrize("name", RECIPES)
def test_frames_reached_by_a_seek_are_those_of_a_sequential_decode(drawn: Drawn, name: str) -> None:
    path = drawn(name)
    every, timeline = sequential(path), read_timeline(Media(path))
    rng = random.Random(name)
    for _ in range(25):
        cuts = sorted(rng.sample(range(len(every) + 1), 6))
        ranges = [range(*cuts[:2]), range(*cuts[2:4]), range(*cuts[4:])]
        ranges = [part[: rng.randrange(1, 8)] for part in ranges]
        found = list(decode_pictures(Media(path), timeline, ranges))
        assert [picture.index for picture in found] == [i for part in ranges for i in part]
        for picture in found:
            assert picture.frame.pts == every[picture.index][0]
            assert as_bytes(picture.frame) == every[picture.index][1]
            assert not picture.damaged


def test_a_clip_cut_with_an_edit_list_counts_only_what_is_shown(
    drawn: Drawn, tmp_path: Path
) -> None:
    source, target = drawn("open_gop.mp4"), tmp_path / "cut.mp4"
    make_clip(Media(source), 1.2, 3.2, target)
    every = sequential(source)
    timeline = read_timeline(Media(target))
    assert probe(target).frame_count == len(timeline.pts) == len(sequential(target))
    found = list(decode_pictures(Media(target), timeline, [range(50)]))
    assert [as_bytes(picture.frame) for picture in found] == [row[1] for row in every[30:80]]
    assert 0 <= len(timeline.pts) - 50 <= 2  # B-frames carry their later references along


def test_only_the_neighbourhood_is_decoded(drawn: Drawn) -> None:
    media = Media(drawn("constant.mp4"))  # keyframes at 0, 20, 40
    timeline = read_timeline(media)
    list(decode_pictures(media, timeline, [range(3, 5), range(8, 10), range(45, 47)]))
    assert media.counts.frames == 10 + 7


def test_a_hidden_vp8_frame_is_no_frame(drawn: Drawn, tmp_path: Path) -> None:
    source = drawn("vp8.webm")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for number in (7, 30):
        data[data.index(packets[number])] &= 0xEF  # show_frame off
    hiding = tmp_path / "hiding.webm"
    hiding.write_bytes(data)
    shown = sequential(hiding)
    assert len(shown) == len(packets) - 2
    assert read_timeline(Media(hiding)).pts.tolist() == [pts for pts, _, _ in shown]


def test_frames_between_takes_both_ends_on_the_clock_of_the_first_frame(drawn: Drawn) -> None:
    times = [float(picture.time) for picture in frames_between(drawn("late.mp4"), 0.2, 0.4)]
    assert times == pytest.approx([0.2, 0.24, 0.28, 0.32, 0.36, 0.4])
    milliseconds = [t - UNEVEN_MS[0] for t in UNEVEN_MS]
    start, end = milliseconds[20], milliseconds[26]
    found = frames_between(drawn("variable.mp4"), start / 1000, end / 1000)
    assert [round(picture.time * 1000) for picture in found] == milliseconds[20:27]


# What a picture is


def pictures(path: Path) -> list[Picture]:
    timeline = read_timeline(Media(path))
    return list(decode_pictures(Media(path), timeline, [range(len(timeline.pts))]))


@pytest.mark.parametrize("name", RECIPES)
def test_luma_is_the_first_plane_at_eight_bits(drawn: Drawn, name: str) -> None:
    for picture in pictures(drawn(name))[::9]:
        frame = picture.frame
        expected: Any
        if frame.format.name == "yuv420p10le":
            expected = frame.to_ndarray()[: frame.height].astype(np.uint16) >> 2
        elif frame.format.is_rgb:
            expected = cv2.cvtColor(frame.to_ndarray(format="rgb24"), cv2.COLOR_RGB2GRAY)
            assert np.abs(luma_plane(frame).astype(int) - expected).max() <= 2
            continue
        else:
            planes = frame.to_ndarray()
            expected = planes[0] if planes.ndim == 3 else planes[: frame.height]
        assert luma_plane(frame).dtype == np.uint8
        assert np.array_equal(luma_plane(frame), expected)


def test_sharpness_is_the_variance_of_the_laplacian(drawn: Drawn) -> None:
    for picture in pictures(drawn("b_frames.mp4"))[::7]:
        y = np.pad(luma_plane(picture.frame).astype(np.float64), 1, mode="reflect")
        laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
        assert picture.sharpness() == pytest.approx(laplacian.var(), rel=1e-9)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_rotated_video_is_shown_upright(tmp_path: Path, degrees: int) -> None:
    plain = pictures(make_video(tmp_path / "plain.mp4", frames=3))[1]
    path = make_video(tmp_path / "turned.mp4", frames=3, rotation=degrees)
    turned = pictures(path)[1]
    # The factory's degrees turn counter-clockwise, and so does rot90.
    assert np.array_equal(turned.rgb(), np.rot90(plain.rgb(), degrees // 90))
    assert np.array_equal(turned.luma(), np.rot90(plain.luma(), degrees // 90))
    facts = probe(path)
    assert (facts.width, facts.height) == turned.size == turned.luma().shape[::-1]
    image: Any = cv2.imdecode(
        np.frombuffer(turned.encode("png", 95), np.uint8), cv2.IMREAD_COLOR_RGB
    )
    assert np.array_equal(image, turned.rgb())


def test_a_mirrored_video_is_shown_as_libav_would(tmp_path: Path) -> None:
    # OpenCV applies rotations only, so the mirror is checked against its definition.
    plain = pictures(make_video(tmp_path / "plain.mp4", frames=2))[0]
    path = tmp_path / "mirrored.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        stream.gop_size, stream.max_b_frames = 20, 0
        stream.set_display_rotation(0, hflip=True)
        frame = av.VideoFrame.from_ndarray(scene()(0), format="rgb24")
        output.mux([*stream.encode(frame), *stream.encode()])
    assert np.array_equal(pictures(path)[0].rgb(), plain.rgb()[:, ::-1])


def made_of_bars(path: Path, **recipe: Any) -> Path:
    """A picture of 60x40 whose bars are 20 pixels wide as coded, dark, bright, dark."""
    bars = np.repeat(np.array([[40, 200, 40]], np.uint8), 20, axis=1)
    picture = np.repeat(np.repeat(bars, 40, axis=0)[:, :, None], 3, axis=2)
    return make_video(path, frames=4, draw=lambda _: picture, options={"qp": "1"}, **recipe)


@pytest.mark.parametrize("turned", [None, 90])
@pytest.mark.parametrize(
    ("aspect", "width"), [("4/3", 80), ("3/4", 45), ("16/11", 87), ("1/1", 60), ("101/100", 60)]
)
def test_pixels_are_shown_square(
    tmp_path: Path, aspect: str, width: int, turned: int | None
) -> None:
    path = made_of_bars(tmp_path / "a.mp4", pixel_aspect=Fraction(aspect), rotation=turned)
    size = (40, width) if turned else (width, 40)
    facts = probe(path)
    assert (facts.width, facts.height) == size
    for picture in pictures(path):
        assert picture.size == size == picture.luma().shape[::-1] == picture.rgb().shape[1::-1]
        line = picture.luma()[:, 20] if turned else picture.luma()[20]
        assert np.mean(line > 120) == pytest.approx(1 / 3, abs=1.01 / width)
    make_clip(Media(path), 0, 1, tmp_path / "cut.mp4")
    facts = probe(tmp_path / "cut.mp4")
    assert (facts.width, facts.height) == size


def test_the_containers_pixels_beat_the_codecs_and_either_may_be_alone(tmp_path: Path) -> None:
    data = made_of_bars(tmp_path / "both.mp4", pixel_aspect=Fraction(4, 3)).read_bytes()
    at = data.index(b"pasp")
    for name, box, width in [
        ("codec_alone", b"free" + data[at + 4 : at + 12], 80),
        ("container", b"pasp" + bytes([0, 0, 0, 3, 0, 0, 0, 2]), 90),
        ("nonsense", b"pasp" + bytes(8), 80),
    ]:
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data[:at] + box + data[at + 12 :])
        assert probe(path).width == width
        assert {picture.size for picture in pictures(path)} == {(width, 40)}
        make_clip(Media(path), 0, 1, tmp_path / "cut.mp4")
        assert probe(tmp_path / "cut.mp4").width == width
    absurd = tmp_path / "absurd.mp4"
    absurd.write_bytes(data[:at] + b"pasp" + bytes([0, 0, 3, 232, 0, 0, 0, 1]) + data[at + 12 :])
    assert kind_of(lambda: probe(absurd)) == "pixel_aspect"
    assert kind_of(lambda: pictures(absurd)) == "pixel_aspect"


@pytest.mark.parametrize("what", ["size", "pixels"])
def test_a_picture_that_changes_on_the_way_is_never_mixed(tmp_path: Path, what: str) -> None:
    headers = {"x264-params": "repeat-headers=1"}
    other = {"draw": scene(80, 72)} if what == "size" else {"pixel_aspect": Fraction(5, 6)}
    parts = [
        make_video(tmp_path / "a.mp4", frames=50, options=headers),
        make_video(tmp_path / "b.mp4", frames=50, options=headers, **other),
    ]
    heard = make_video(tmp_path / "heard.mp4", frames=2, sound=bursts(4, [1]))
    path = chained(tmp_path / "chained.mp4", parts, heard)
    timeline = read_timeline(Media(path))
    assert probe(path).width == 96

    def sizes(part: range, **of: Any) -> set[tuple[int, int]]:
        found = decode_pictures(Media(path, size=of.pop("size", None)), timeline, [part], **of)
        return {picture.size for picture in found}

    assert sizes(range(50)) == {(96, 72)}
    assert sizes(range(60, 100)) == {(80, 72)}
    assert sizes(range(100), any_size=True) == {(96, 72), (80, 72)}
    assert kind_of(lambda: sizes(range(40, 60))) == "size_changes"
    assert kind_of(lambda: sizes(range(60, 70), size=(96, 72))) == "size_changes"
    target = tmp_path / "feed.mkv"
    assert kind_of(lambda: write_cached_clip(Media(path), 1, 3, target)) == "size_changes"
    assert not target.exists()
    assert write_cached_clip(Media(path), 0, 1.5, target).num_frames > 30
    assert kind_of(lambda: make_clip(Media(path), 1, 3, tmp_path / "cut.mp4")) == "size_changes"


def test_damaged_frames_are_marked_until_the_next_keyframe(tmp_path: Path) -> None:
    options = {"x264-params": "keyint=30:min-keyint=30:scenecut=0"}
    whole = make_video(tmp_path / "whole.mp4", frames=150, gop=30, options=options)
    broken = flipped(whole, tmp_path / "broken.mp4", 0.3, 0.45)
    unbroken = sequential(whole)
    timeline = read_timeline(Media(broken))
    good = [p for p in pictures(broken) if not p.damaged]
    marks = set(range(150)) - {p.index for p in good}
    assert 10 < len(marks) < 90
    for first in range(0, 150, 30):
        group = range(first, first + 30)
        broken_at = min(marks & set(group), default=group.stop)
        assert marks >= set(range(broken_at, group.stop))
        if broken_at == group.stop:  # before its first mark a broken group may hide a wrong frame
            for picture in (p for p in good if p.index in group):
                assert as_bytes(picture.frame) == unbroken[picture.index][1]
    # Reached by seeks, the same frames are good.
    alone = {
        p.index
        for i in range(len(timeline.pts))
        for p in decode_pictures(Media(broken), timeline, [range(i, i + 1)])
        if not p.damaged
    }
    assert alone == {p.index for p in good}


# What a file is


def test_a_probe_gives_the_facts_as_displayed(drawn: Drawn) -> None:
    facts = probe(drawn("late.mp4"))
    assert (facts.width, facts.height, facts.frame_count) == (96, 72, 60)
    assert facts.fps == pytest.approx(25)
    assert facts.start_s == pytest.approx(3.2)
    assert facts.duration_s == pytest.approx(5.6, abs=0.1)
    assert (facts.video_codec, facts.audio_codec) == ("h264", "aac")
    assert (facts.sample_rate_hz, facts.channels) == (RATE, 1)
    size = drawn("late.mp4").stat().st_size
    assert facts.bitrate_bps == pytest.approx(size * 8 / facts.duration_s, rel=1e-3)
    assert probe(drawn("rotated.mp4")).width == 72
    webm = probe(drawn("vp9.webm"))
    assert (webm.frame_count, webm.video_codec, webm.audio_codec) == (100, "vp9", "opus")
    assert webm.fps == pytest.approx(25)


def test_a_file_without_sound_has_no_sound_facts(drawn: Drawn) -> None:
    facts = probe(drawn("constant.mp4"))
    assert facts.audio_codec is None
    assert (facts.sample_rate_hz, facts.channels) == (0, 0)
    media = Media(drawn("constant.mp4"))
    track = SoundTrack.of_video(media, read_timeline(media), 100)
    assert kind_of(lambda: track.span(0, 1)) == "no_audio"


# Which tracks


DEFAULT, PLAIN = Disposition.default, Disposition(0)
SECOND_OF_TWO = {
    "default": (PLAIN, DEFAULT),
    "beside_commentary": (DEFAULT | Disposition.comment, DEFAULT),
    "beside_a_dub": (DEFAULT | Disposition.dub, DEFAULT),
    "beside_description": (Disposition.visual_impaired, PLAIN),
}
FIRST_OF_TWO = {
    "default": (DEFAULT, PLAIN),
    "both": (DEFAULT, DEFAULT),
    "neither": (PLAIN, PLAIN),
    "default_commentary": (DEFAULT | Disposition.comment, PLAIN),
}
PAIRS = [(name, pair, 1) for name, pair in SECOND_OF_TWO.items()]
PAIRS += [(name, pair, 0) for name, pair in FIRST_OF_TWO.items()]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("name", "pair", "taken"), PAIRS, ids=[f"{n}{t}" for n, _, t in PAIRS])
def test_every_reader_takes_the_tracks_a_player_plays(
    tmp_path: Path, suffix: str, name: str, pair: tuple[Disposition, Disposition], taken: int
) -> None:
    if suffix == "mp4" and pair != (PLAIN, DEFAULT) and taken:
        return  # MP4 knows enabled and disabled tracks alone
    files = [
        make_video(tmp_path / "a.mkv", frames=50, sound=0 * bursts(2, [])),
        make_video(tmp_path / "b.mkv", frames=50, draw=scene(80, 48), sound=bursts(2, [1])),
    ]
    tracks = [
        (file, kind, disposition)
        for kind in ("video", "audio")
        for file, disposition in zip(files, pair, strict=True)
    ]
    path = remuxed(tmp_path / f"both.{suffix}", tracks)
    facts = probe(path)
    assert (facts.width, facts.height) == ((96, 72), (80, 48))[taken]
    assert {picture.size for picture in pictures(path)} == {(facts.width, facts.height)}
    make_clip(Media(path), 0, 2, tmp_path / "cut.mp4")
    assert probe(tmp_path / "cut.mp4").width == facts.width
    for file in (path, tmp_path / "cut.mp4"):
        media = Media(file)
        timeline = read_timeline(media)
        loud = SoundTrack.of_video(media, timeline, 100).span(0, 1).rms_per_second()[0]
        assert (loud > 0.005) == bool(taken)
        assert (np.abs(heard_waveform(media, timeline, 0, 1, RATE)).max() > 0.01) == bool(taken)
        assert (np.abs(read_sound(file, RATE).wave).max() > 0.01) == bool(taken)


@pytest.mark.parametrize("still", [Disposition.attached_pic, Disposition.attached_pic | DEFAULT])
def test_cover_art_is_no_moving_picture(tmp_path: Path, still: Disposition) -> None:
    cover = make_video(tmp_path / "c.mkv", frames=1, codec="mjpeg", pix_fmt="yuvj420p")
    film = make_video(tmp_path / "f.mp4", frames=50, draw=scene(80, 48), sound=bursts(2, [1]))
    for order in (0, 1):
        tracks = [(film, "video", PLAIN), (film, "audio", DEFAULT)]
        tracks.insert(order, (cover, "video", still))
        path = remuxed(tmp_path / f"{order}.mp4", tracks)
        facts = probe(path)
        assert (facts.width, facts.height, facts.frame_count) == (80, 48, 50)
        assert len(pictures(path)) == 50
        assert len(read_sound(path, RATE).wave) == pytest.approx(2 * RATE, abs=2000)
    tracks = [(cover, "video", Disposition.attached_pic), (film, "audio", DEFAULT)]
    song = remuxed(tmp_path / "song.mp4", tracks)
    assert kind_of(lambda: probe(song)) == "no_video"


@pytest.mark.parametrize(
    ("name", "movflags"),
    [
        ("index_first.mp4", "faststart"),
        ("index_last.mp4", ""),
        ("fragmented.mp4", "frag_keyframe+empty_moov"),
        ("matroska.mkv", ""),
    ],
)
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_truncated_file_is_found(tmp_path: Path, name: str, movflags: str, share: float) -> None:
    whole = make_video(
        tmp_path / f"whole_{name}", frames=100, fps=10, movflags=movflags, sound=bursts(10, [1])
    )
    assert probe(whole).frame_count == 100
    part = truncated(whole, tmp_path / name, share)
    assert kind_of(lambda: probe(part)) == "truncated"


def test_what_is_appended_to_a_whole_file_cuts_nothing(drawn: Drawn, tmp_path: Path) -> None:
    path = tmp_path / "tagged.mp4"
    for tail in (b"TAG" + bytes([48]) * 125, b"<html>not found</html>", bytes(99)):
        path.write_bytes(drawn("constant.mp4").read_bytes() + tail)
        assert probe(path).frame_count == probe(drawn("constant.mp4")).frame_count


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "text",
    [
        "<!doctype html><title>Sign in</title>" * 40,
        PLAYLIST.format("{video}"),
        PLAYLIST.format("http://127.0.0.1:9/video.ts"),
        "ffconcat version 1.0\nfile '{video}'\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'/>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        "\x00" * 4096,
    ],
    ids=["html", "playlist", "network_playlist", "concat", "dash", "sdp", "zeros"],
)
@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "txt"])
def test_what_is_no_media_is_refused(drawn: Drawn, tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"file.{suffix}"
    path.write_text(text.replace("{video}", str(drawn("constant.mp4"))))
    assert kind_of(lambda: probe(path)) == "not_media"
    assert kind_of(lambda: read_timeline(Media(path))) == "not_media"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xef\xbb\xbf <!DOCTYPE html><title>Video unavailable</title>", "a web page"),
        (b'{"error": "not found"}', "a text"),
        (cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes(), "a PNG picture"),
        (cv2.imencode(".jpg", np.zeros((9, 9, 3), np.uint8))[1].tobytes(), "a JPEG picture"),
        (b"PK\x03\x04" + bytes(99), "a ZIP archive"),
        (bytes(4096), "zeros"),
        ((b"G" + b"\xff" * 187) * 9, "an MPEG transport stream"),
    ],
    ids=["html", "json", "png", "jpeg", "zip", "zeros", "ts"],
)
def test_what_is_no_media_is_said(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "file.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=f"file but {words}$"):
        probe(path)


def test_nothing_is_not_a_video(tmp_path: Path) -> None:
    assert kind_of(lambda: probe(tmp_path / "absent.mp4")) == "missing_file"
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert kind_of(lambda: probe(empty)) == "empty_file"


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=RATE, layout="mono")
        wave = av.AudioFrame.from_ndarray(bursts(1, [])[None], format="fltp", layout="mono")
        wave.sample_rate = RATE
        output.mux([*stream.encode(wave), *stream.encode()])
    assert kind_of(lambda: probe(path)) == "no_video"


def test_a_picture_of_absurd_size_is_not_decoded(tmp_path: Path) -> None:
    flat = np.zeros((5000, 9000, 3), np.uint8)
    path = make_video(
        tmp_path / "huge.mkv", frames=1, draw=lambda _: flat, codec="mjpeg", pix_fmt="yuvj420p"
    )
    assert kind_of(lambda: probe(path)) == "too_large"


def test_timestamps_of_days_are_not_believed(tmp_path: Path) -> None:
    path = make_video(tmp_path / "days.mkv", pts_ms=[0, 40, 80, 200_000_000])
    assert kind_of(lambda: read_timeline(Media(path))) == "bad_timestamps"


def test_work_beyond_its_time_is_given_up(drawn: Drawn) -> None:
    path = drawn("late.mp4")
    timeline = read_timeline(Media(path))
    assert kind_of(lambda: read_timeline(Media(path, timeout_s=0))) == "too_slow"
    late = Media(path, timeout_s=0)
    assert kind_of(lambda: list(decode_pictures(late, timeline, [range(9)]))) == "too_slow"
    assert kind_of(lambda: SoundTrack.of_video(late, timeline, 100).span(0, 1)) == "too_slow"


# How long a file is


def test_a_duration_is_the_end_minus_the_start_wherever_the_clock_begins(tmp_path: Path) -> None:
    def drawn_at(name: str, start_s: float, movflags: str = "") -> Path:
        return make_video(
            tmp_path / name,
            frames=60,
            fps=10,
            draw=scene(32, 32),
            start_s=start_s,
            sound=bursts(6, [1]),
            sound_start_s=start_s,
            movflags=movflags,
        )

    paths = [drawn_at(f"{s}.{suffix}", s) for s in (0.3, 4, 20_000) for suffix in ("mkv", "mp4")]
    paths.append(drawn_at("fragmented.mp4", 4, "frag_keyframe+empty_moov"))
    paths += [drawn_at("plain.mp4", 0), drawn_at("plain.mkv", 0)]
    # Matroska: Duration (44 89) in 8 bytes of milliseconds. Some muxers write the length there, and
    # what is recorded live has none.
    data = (tmp_path / "4.mkv").read_bytes()
    at = data.index(b"\x44\x89\x88") + 3
    assert struct.unpack(">d", data[at : at + 8])[0] == pytest.approx(10_000, abs=100)
    for name, told_ms in {"length.mkv": 6000, "live.mkv": 0}.items():
        (tmp_path / name).write_bytes(data[:at] + struct.pack(">d", told_ms) + data[at + 8 :])
        paths.append(tmp_path / name)
    data = (tmp_path / "plain.mkv").read_bytes()
    at = data.index(b"\x44\x89\x88") + 3
    (tmp_path / "shy.mkv").write_bytes(data[:at] + struct.pack(">d", 2000) + data[at + 8 :])
    paths.append(tmp_path / "shy.mkv")
    # MP4: a movie header (mvhd) that claims a hundred times as much.
    data = (tmp_path / "plain.mp4").read_bytes()
    at = data.index(b"mvhd") + 20
    told = int.from_bytes(data[at : at + 4]) * 100
    (tmp_path / "boasts.mp4").write_bytes(data[:at] + told.to_bytes(4) + data[at + 4 :])
    paths.append(tmp_path / "boasts.mp4")
    # MP4: all its headers claim a third.
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        for part in range(1, data.count(box) + 1):
            at = len(box.join(data.split(box)[:part])) + offset
            told = int.from_bytes(data[at : at + 4]) // 3
            data = data[:at] + told.to_bytes(4) + data[at + 4 :]
    (tmp_path / "shy.mp4").write_bytes(data)
    paths.append(tmp_path / "shy.mp4")
    for path in paths:
        facts = probe(path)
        assert facts.duration_s == pytest.approx(6, abs=0.15), path.name
        assert facts.bitrate_bps == round(path.stat().st_size * 8 / facts.duration_s)
        assert facts.frame_count == 60
        assert facts.fps == pytest.approx(10, rel=0.02)
        # No frame more is granted than the file is long.
        assert float(read_timeline(Media(path)).end) == pytest.approx(6, abs=0.07), path.name


def test_a_last_frame_is_held_in_a_late_file_too(tmp_path: Path) -> None:
    for name in ("late.mp4", "late.mkv"):
        path = make_video(
            tmp_path / name,
            frames=59,
            fps=20,
            start_s=2,
            sound=bursts(3.02, [1]),
            sound_start_s=2,
        )
        assert float(read_timeline(Media(path)).end) == pytest.approx(3, abs=1e-9)


def test_a_late_file_that_lost_its_end_is_found(tmp_path: Path) -> None:
    whole = make_video(
        tmp_path / "w.mkv",
        frames=100,
        fps=10,
        start_s=50,
        sound=bursts(10, [1]),
        sound_start_s=50,
    )
    part = truncated(whole, tmp_path / "part.mkv", 0.6)
    assert kind_of(lambda: probe(part)) == "truncated"


def test_a_track_beside_that_runs_on_neither_lengthens_a_file_nor_cuts_it(tmp_path: Path) -> None:
    film = make_video(tmp_path / "film.mkv", frames=60, fps=10, sound=bursts(6, [1]))
    longer = make_video(tmp_path / "longer.mkv", frames=2, sound=bursts(14, [1]))
    seen, beside = Disposition.default, Disposition.comment
    path = remuxed(
        tmp_path / "beside.mkv",
        [(film, "video", seen), (film, "audio", seen), (longer, "audio", beside)],
    )
    facts = probe(path)
    assert facts.duration_s == pytest.approx(6, abs=0.1)
    assert (facts.frame_count, facts.audio_stream) == (60, 1)
    part = truncated(path, tmp_path / "part.mkv", 0.4)
    assert kind_of(lambda: probe(part)) == "truncated"


def test_an_edit_list_that_begins_with_nothing_makes_a_late_file_not_a_cut_one(
    tmp_path: Path,
) -> None:
    whole = make_video(tmp_path / "w.mp4", frames=60, fps=10, sound=bursts(6, [1]))
    path = edited(whole, tmp_path / "late.mp4", [(-2, 0), (0, 3)])
    facts = probe(path)
    assert facts.start_s == pytest.approx(2, abs=0.01)
    assert facts.duration_s == pytest.approx(3, abs=0.1)
    assert facts.frame_count == 30


EDITS: dict[str, list[tuple[float, float]]] = {
    "whole": [(0, 12)],
    "begins_later": [(1.3, 12)],
    "ends_earlier": [(0, 9.7)],
    "middle": [(5.1, 6.3)],
    "late": [(-2, 0), (0, 12)],
    "late_middle": [(-2, 0), (2.3, 7.1)],
    "without_the_middle": [(0, 4.1), (7.9, 12)],
    "thrice": [(3, 5.3), (3, 5.3), (0.2, 6)],
    "middle_twice": [(0, 7.1), (5.3, 12)],
}


@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("kind", ["constant", "pyramid", "open_gop"])
def test_frames_that_an_edit_list_hides_are_not_counted(
    tmp_path: Path, kind: str, edits: str
) -> None:
    recipe = RECIPES[f"{kind}.mp4"] | {"frames": 300, "draw": scene(32, 32)}
    whole = make_video(tmp_path / "whole.mp4", **recipe)
    path = edited(whole, tmp_path / "edited.mp4", EDITS[edits])
    shown = len(read_timeline(Media(path)).pts)
    assert probe(path).frame_count == shown


@pytest.mark.parametrize("how", ["to_the_end", "compressed"])
def test_an_index_written_in_another_way_tells_of_its_edits_too(tmp_path: Path, how: str) -> None:
    whole = make_video(tmp_path / "whole.mp4", frames=300, draw=scene(32, 32))
    path = edited(whole, tmp_path / "edited.mp4", EDITS["middle_twice"])
    shown = len(read_timeline(Media(path)).pts)
    data = path.read_bytes()
    at = data.index(b"moov") - 4
    movie = bytes(4) + data[at + 4 :]  # a length of 0: to the end of the file
    if how == "compressed":
        packed = struct.pack(">I", len(data) - at) + zlib.compress(data[at:])
        parts = boxed(b"dcom", b"zlib") + boxed(b"cmvd", packed)
        movie = boxed(b"moov", boxed(b"cmov", parts))
    path.write_bytes(data[:at] + movie)
    assert len(read_timeline(Media(path)).pts) == shown
    assert probe(path).frame_count == shown


class Entries(list[Any]):
    """Entries of an index, that count how many of them are looked at."""

    seen = 0

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        self.seen += len(found) if isinstance(place, slice) else 1
        return found

    def __iter__(self) -> Any:
        for place in range(len(self)):
            yield self[place]


@pytest.mark.parametrize("hidden", [[], [0, 1, 2], [3], [17_990], [17_999], [9000]])
def test_of_a_long_index_only_the_ends_are_looked_at_where_that_suffices(
    hidden: list[int],
) -> None:
    entries = Entries(SimpleNamespace(is_discard=i in hidden) for i in range(18_000))
    assert hidden_frames(entries, one_edit=False) == len(hidden)
    assert entries.seen == 18_000
    if hidden != [9000]:  # no single edit hides that alone
        entries.seen = 0
        assert hidden_frames(entries, one_edit=True) == len(hidden)
        assert (entries.seen < 200) == (not hidden)


def test_one_picture_under_music_is_a_video_of_one_frame(tmp_path: Path) -> None:
    path = make_video(tmp_path / "still.mp4", frames=1, sound=bursts(12, [1]))
    facts = probe(path)
    assert (facts.frame_count, facts.width) == (1, 96)
    assert facts.duration_s == pytest.approx(12, abs=0.1)
    media = Media(path)
    timeline = read_timeline(media)
    assert SoundTrack.of_video(media, timeline, 100).seconds == 0, "its picture is over at once"


def test_a_picture_that_begins_after_the_sound_is_time_0(tmp_path: Path) -> None:
    for name in ("late.mp4", "late.mkv"):
        path = make_video(tmp_path / name, frames=50, start_s=3, sound=bursts(6, [4.5], 0.5))
        facts = probe(path)
        assert facts.start_s == pytest.approx(3, abs=0.01)
        assert facts.duration_s == pytest.approx(6, abs=0.1)
        media = Media(path)
        sound = SoundTrack.of_video(media, read_timeline(media), 100).span(0, 2)
        assert int(sound.short_time_rms(5).argmax()) == pytest.approx(147, abs=3)


# When a video ends


def test_the_end_is_where_the_frames_stop_not_what_the_header_says(tmp_path: Path) -> None:
    path = make_video(tmp_path / "short.mp4", frames=60, fps=20, sound=bursts(9, [1]))
    assert probe(path).duration_s == pytest.approx(9, abs=0.1)
    assert read_timeline(Media(path)).end == Fraction(61, 20)  # 3 s, and one frame held


def test_a_last_frame_is_held_as_long_as_the_file_lasts(tmp_path: Path) -> None:
    path = make_video(tmp_path / "held.mp4", frames=59, fps=20, sound=bursts(3.02, [1]))
    assert read_timeline(Media(path)).end == 3


# Sound


@pytest.mark.parametrize("name", SOUNDS)
def test_rms_per_second_is_that_of_the_waveform_with_silence_in_its_gaps(
    tmp_path: Path, name: str
) -> None:
    path = make_video(tmp_path / name, **({"frames": 150} | SOUNDS[name]))
    assert_rms_is_the_reference(path)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 s whose every packet of 50 ms is another, and the louder the later it is."""
    wave = np.random.default_rng(0).uniform(-1, 1, 6 * RATE) * np.linspace(0.05, 0.4, 6 * RATE)
    return make_video(
        tmp_path_factory.mktemp("noise") / "noise.mkv",
        frames=155,
        draw=scene(32, 32),
        sound=wave.astype(np.float32),
        sound_codec="pcm_s16le",
        sound_block=800,
    )


@pytest.mark.parametrize("name", SHIFTS_MS)
def test_sound_is_heard_where_its_timestamps_say_in_whatever_order(
    noise: Path, tmp_path: Path, name: str
) -> None:
    path = retimed(noise, tmp_path / "r.mkv", SHIFTS_MS[name])
    assert_rms_is_the_reference(path)
    media = Media(path)
    heard = heard_waveform(media, read_timeline(media), 0, 6, RATE)
    wave = np.nan_to_num(waveform(path)[0][: len(heard)])
    np.testing.assert_allclose(heard[: len(wave)], wave, rtol=0, atol=2**-14)


@pytest.mark.parametrize("kept_s", [0.04, 0.25, 0.7])
def test_sound_that_is_there_now_and_then_is_as_loud_as_with_silence_between(
    noise: Path, tmp_path: Path, kept_s: float
) -> None:
    def keep(packet: Any) -> bool:
        return packet.stream.type == "video" or bool(packet.pts * packet.time_base % 1 < kept_s)

    tracks = [(noise, "video", DEFAULT), (noise, "audio", DEFAULT)]
    path = remuxed(tmp_path / "sparse.mkv", tracks, keep)
    assert_rms_is_the_reference(path)
    whole, sparse = (
        SoundTrack.of_video(Media(file), read_timeline(Media(file)), 100).span(0, 6)
        for file in (noise, path)
    )
    kept = np.arange(600) % 100 < 5 * np.ceil(kept_s / 0.05)
    assert sparse.energy == pytest.approx(np.where(kept, whole.energy, 0))
    assert sparse.count.tolist() == whole.count.tolist() == [RATE // 100] * 600


def joined_mp3(path: Path, parts: Sequence[tuple[int, int]]) -> Path:
    """A second of loud sound per part, ``(rate, channels)``, in one track under 3 s of pictures."""
    film = make_video(path.with_name("film.mkv"), frames=75, draw=scene(32, 32))
    with av.open(str(film)) as given, av.open(str(path), "w") as output:
        picture = output.add_stream_from_template(given.streams.video[0])
        voice = output.add_stream("libmp3lame", rate=parts[0][0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = picture
                output.mux(packet)
        for second, (rate, channels) in enumerate(parts):
            encoder: Any = av.CodecContext.create("libmp3lame", "w")
            encoder.sample_rate, encoder.format = rate, "s16p"
            encoder.layout = {1: "mono", 2: "stereo"}[channels]
            wave = np.random.default_rng(second).integers(-9000, 9000, rate, np.int16)
            sound = np.stack([wave] * channels)
            block = av.AudioFrame.from_ndarray(sound, "s16p", encoder.layout.name)
            block.sample_rate, block.pts = rate, 0
            for coded in [*encoder.encode(block), *encoder.encode(None)]:
                time_s = second + max(0, coded.pts) / rate
                coded.pts = coded.dts = round(time_s * 1000)
                coded.time_base = Fraction(1, 1000)
                coded.stream = voice
                output.mux(coded)
    return path


def test_sound_whose_channels_change_is_heard_and_whose_rate_changes_is_refused(
    tmp_path: Path,
) -> None:
    path = joined_mp3(tmp_path / "channels.mkv", [(16_000, 1), (16_000, 2), (16_000, 1)])
    assert_rms_is_the_reference(path)
    path = joined_mp3(tmp_path / "rates.mkv", [(16_000, 1), (24_000, 1)])
    media = Media(path)
    timeline = read_timeline(media)
    for read in (
        lambda: SoundTrack.of_video(media, timeline, 100).span(0, 2),
        lambda: heard_waveform(media, timeline, 0, 2, RATE),
        lambda: read_sound(path, RATE),
    ):
        with pytest.raises(MediaError, match=r"undecodable: .* from 16000 to 24000 Hz"):
            read()


def test_the_down_mix_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    one = bursts(3, [1.5])
    for name, sound, share in [("same", [one, one], 1.0), ("half", [one, 0 * one], 0.5)]:
        path = make_video(
            tmp_path / f"{name}.mkv", frames=75, sound=np.stack(sound), sound_codec="pcm_f32le"
        )
        media = Media(path)
        rms = SoundTrack.of_video(media, read_timeline(media), 100).span(1, 2).rms_per_second()
        assert rms == pytest.approx(share * np.sqrt(np.mean(one[RATE : 2 * RATE] ** 2)), rel=1e-3)


def test_a_gap_in_the_sound_shifts_nothing_behind_it(tmp_path: Path) -> None:
    sound = bursts(4, [1.5, 3.5], level=0.5)
    path = make_video(
        tmp_path / "gap.mkv", frames=200, sound=sound, sound_gap=(2, 3), sound_codec="pcm_s16le"
    )
    media = Media(path)
    rms = SoundTrack.of_video(media, read_timeline(media), 100).span(0, 7).rms_per_second()
    assert rms[2:5].tolist() == [0, 0, 0]
    assert int(np.argmax(rms[5:])) == 1  # the burst at 3.5 is heard at 6.5


@pytest.mark.parametrize("window_hops", [1, 5, 7])
def test_short_time_rms_is_that_of_windows_of_whole_hops(tmp_path: Path, window_hops: int) -> None:
    path = make_video(tmp_path / "a.mp4", frames=75, sound=bursts(3, [1.1, 2.3]))
    media = Media(path)
    sound = SoundTrack.of_video(media, read_timeline(media), 100).span(1, 3)
    wave, rate = waveform(path)
    hop = rate // 100
    part = wave[rate : 3 * rate]
    expected = [
        np.sqrt(np.mean(part[i * hop : (i + window_hops) * hop] ** 2))
        for i in range(200 - window_hops + 1)
    ]
    assert sound.short_time_rms(window_hops) == pytest.approx(np.array(expected), abs=1e-6)


def test_a_part_of_the_sound_is_that_part_of_the_whole_and_decoded_alone(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "long.mp4", frames=600, fps=10, sound=bursts(60, list(np.arange(0.5, 60)))
    )
    timeline = read_timeline(Media(path))
    whole, part = Media(path), Media(path)
    expected = SoundTrack.of_video(whole, timeline, 100).span(0, 60).rms_per_second()
    track = SoundTrack.of_video(part, timeline, 100)
    for start in (42, 47, 12):  # the second overlaps the first
        found = track.span(start, start + 10).rms_per_second()
        assert found == pytest.approx(expected[start : start + 10], abs=1e-4)
    assert whole.counts.audio_s == pytest.approx(60, abs=0.5)
    assert part.counts.audio_s < 25 + 3 * 0.6
    decoded = part.counts.audio_s
    track.span(45, 55)
    assert part.counts.audio_s == decoded


def test_damaged_sound_is_a_gap(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4", frames=10, fps=1, sound=bursts(10, [2, 8]))
    broken = flipped(whole, tmp_path / "broken.mp4", 0.4, 0.6)
    rms = []
    for path in (whole, broken):
        media = Media(path)
        rms.append(
            SoundTrack.of_video(media, read_timeline(media), 100).span(0, 10).rms_per_second()
        )
    assert rms[0][[1, 2, 8]] == pytest.approx(rms[1][[1, 2, 8]], abs=1e-3)


def test_sound_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    sound = bursts(3, [1])
    sound[RATE] = np.nan
    path = make_video(tmp_path / "nan.mkv", frames=75, sound=sound, sound_codec="pcm_f32le")
    media = Media(path)
    track = SoundTrack.of_video(media, read_timeline(media), 100)
    assert kind_of(lambda: track.span(0, 3)) == "undecodable"
