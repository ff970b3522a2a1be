"""A clip's file shows what its span of the source shows, however the source is written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media import (
    BROWSER,
    Media,
    Picture,
    SoundTrack,
    Timeline,
    decode_pictures,
    make_clip,
    probe,
    read_timeline,
)
from tests.video_factory import bursts, edited, garbled, make_video

SWIFT = {"preset": "veryfast"}
OPEN_GOP = "open-gop=1:keyint=20:min-keyint=20:scenecut=0"
REALTIME = {"deadline": "realtime", "cpu-used": "8"}
SOUND = bursts(6, [0.5, 1.7, 2.6, 3.3, 4.4, 5.2])
UNEVEN_MS = [int(t) for t in np.cumsum(np.random.default_rng(1).integers(15, 140, 70))]

REMUXED: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"b_frames": 3, "options": SWIFT},
    "ntsc.mkv": {"fps": Fraction(30000, 1001), "b_frames": 2, "options": SWIFT},
    "open_gop.mkv": {
        "b_frames": 3,
        "options": SWIFT | {"x264-params": f"{OPEN_GOP}:b-adapt=0"},
    },
    "open_gop_hevc.mp4": {
        "codec": "libx265",
        "options": SWIFT | {"x265-params": f"log-level=none:{OPEN_GOP}:bframes=3"},
    },
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": REALTIME, "sound_codec": "libopus"},
    "uneven.mp4": {"pts_ms": UNEVEN_MS, "b_frames": 2, "options": SWIFT},
    "late.mp4": {"start_s": 3.2, "b_frames": 2, "options": SWIFT},
    "fragmented.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "rotated.mp4": {"rotation": 90},
    "mp3.mp4": {"sound_codec": "libmp3lame"},
    "flac.mkv": {"sound_codec": "flac"},
    "late_sound.mp4": {"sound_start_s": 1.4},
    "gap.mp4": {"sound_gap": (2.1, 0.6)},
    "mute.mp4": {"sound": None},
}
ENCODED: dict[str, tuple[str, dict[str, Any]]] = {
    "vp8.webm": (
        "holds no vp8",
        {
            "codec": "libvpx",
            "options": REALTIME | {"deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "9"},
            "sound_codec": "libopus",
        },
    ),
    "pcm.mkv": ("holds no pcm_s16le", {"sound_codec": "pcm_s16le"}),
    "stereo.mkv": ("holds no pcm_s16le", {"sound_codec": "pcm_s16le", "sound": [SOUND, SOUND / 2]}),
    "turned.mkv": ("holds no pcm_s16le", {"sound_codec": "pcm_s16le", "rotation": 90}),
    "silence.mp4": ("no audio packet lies in the span", {"sound": SOUND[:12_000]}),
}


def draw(path: Path, recipe: dict[str, Any]) -> Path:
    given = {"frames": 130, "sound": SOUND, **recipe}
    if "pts_ms" in given:
        del given["frames"]
    if given["sound"] is not None:
        given["sound"] = np.asarray(given["sound"])
    return make_video(path, **given)


def shown(path: Path) -> tuple[Timeline, list[Picture]]:
    timeline = read_timeline(Media(path))
    return timeline, list(decode_pictures(Media(path), timeline, [range(len(timeline.pts))]))


def small(picture: Picture) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(picture.rgb(), cv2.COLOR_RGB2GRAY), np.uint8)


def rms(path: Path, start_s: int, stop_s: int) -> NDArray[np.float64]:
    media = Media(path)
    return (
        SoundTrack.of_video(media, read_timeline(media), 100).span(start_s, stop_s).rms_per_second()
    )


@pytest.mark.parametrize("name", sorted(REMUXED))
def test_a_clip_is_remuxed_where_its_packets_show_what_the_source_shows(
    tmp_path: Path, name: str
) -> None:
    recipe = {"sound": SOUND, **REMUXED[name]}
    source, target = draw(tmp_path / name, recipe), tmp_path / "clip.mp4"
    clip = make_clip(Media(source), 1, 3, target)
    assert (clip.made, clip.why_encoded) == ("remuxed", "")
    timeline, pictures = shown(source)
    wanted = timeline.between(Fraction(1), Fraction(3))
    assert clip.frames == len(wanted)
    assert clip.first_s == float(timeline.time(wanted.start))
    theirs = [pictures[index].luma().tobytes() for index in wanted]
    assert [picture.luma().tobytes() for picture in shown(target)[1]][: len(wanted)] == theirs
    if recipe["sound"] is not None and clip.first_s == 1:
        assert rms(target, 0, 2) == pytest.approx(rms(source, 1, 3), abs=2e-3)


@pytest.mark.parametrize("name", sorted(ENCODED))
def test_a_clip_is_encoded_where_they_cannot(tmp_path: Path, name: str) -> None:
    why, recipe = ENCODED[name]
    source, target = draw(tmp_path / name, recipe), tmp_path / "clip.mp4"
    clip = make_clip(Media(source), 1, 3, target)
    assert clip.made == "encoded"
    assert why in clip.why_encoded
    timeline, pictures = shown(source)
    wanted = timeline.between(Fraction(1), Fraction(3))
    ours, found = shown(target)
    assert len(ours.pts) == clip.frames == len(wanted)
    for index, picture in zip(wanted, found, strict=True):
        off = picture.time - (timeline.time(index) - timeline.time(wanted.start))
        assert abs(off) < Fraction(1, 1000)
        assert np.abs(small(picture).astype(int) - small(pictures[index])).mean() < 6
    facts = probe(target)
    assert (facts.video_codec, facts.audio_codec) in {("h264", "aac"), ("h264", None)}
    if facts.audio_codec:
        assert rms(target, 0, 2) == pytest.approx(rms(source, 1, 3), rel=0.03)
        assert facts.channels == probe(source).channels


@pytest.mark.parametrize(
    ("parts", "start_s"),
    [
        ([(0.3, 2.3), (3.5, 5.1)], 1),  # joined: a part is missing
        ([(1, 3), (1, 4)], 1),  # a part is played twice
        ([(3.2, 5), (0.4, 3)], 0),  # the end comes first
        ([(0.5, 1), (2.5, 3), (1.5, 4.4)], 0),
    ],
)
def test_a_clip_of_a_file_that_is_played_in_parts_is_what_a_player_shows(
    tmp_path: Path, parts: list[tuple[float, float]], start_s: int
) -> None:
    whole = make_video(
        tmp_path / "whole.mp4", frames=130, gop=30, b_frames=2, options=SWIFT, sound=SOUND
    )
    source, target = edited(whole, tmp_path / "parts.mp4", parts), tmp_path / "clip.mp4"
    clip = make_clip(Media(source), start_s, start_s + 2, target)
    timeline, pictures = shown(source)
    wanted = timeline.between(Fraction(start_s), Fraction(start_s + 2))
    by_index = {picture.index: picture for picture in pictures}
    assert clip.frames == len(wanted)
    found = shown(target)[1][: len(wanted)]
    for index, picture in zip(wanted, found, strict=True):
        assert np.abs(small(picture).astype(int) - small(by_index[index])).mean() < 6
    assert rms(target, 0, 2) == pytest.approx(rms(source, start_s, start_s + 2), rel=0.05)


def test_a_whole_file_told_to_begin_later_is_remuxed(tmp_path: Path) -> None:
    whole = make_video(
        tmp_path / "whole.mp4", frames=130, gop=30, b_frames=2, options=SWIFT, sound=SOUND
    )
    source = edited(whole, tmp_path / "part.mp4", [(0.7, 4.9)])
    assert make_clip(Media(source), 1, 3, tmp_path / "clip.mp4").made == "remuxed"


def test_annotators_get_what_their_browser_plays(tmp_path: Path) -> None:
    source = draw(tmp_path / "hevc.mp4", REMUXED["open_gop_hevc.mp4"])
    clip = make_clip(Media(source), 1, 2, tmp_path / "clip.mp4", codecs=BROWSER)
    assert "holds no hevc" in clip.why_encoded
    assert probe(tmp_path / "clip.mp4").video_codec == "h264"


def test_the_same_span_is_encoded_to_the_same_bytes(tmp_path: Path) -> None:
    source = draw(tmp_path / "pcm.mkv", ENCODED["pcm.mkv"][1])
    for name in ("one.mp4", "two.mp4"):
        make_clip(Media(source), 1, 3, tmp_path / name)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_a_remux_that_is_not_accepted_is_encoded_and_a_second_no_is_an_error(
    tmp_path: Path,
) -> None:
    source, target = draw(tmp_path / "source.mp4", {}), tmp_path / "clip.mp4"
    asked: list[Path] = []

    def once(path: Path, late: Fraction, made: str) -> None:
        asked.append(path)
        if len(asked) != 2:
            raise MediaError("other_sound", "is no good")

    clip = make_clip(Media(source), 1, 2, target, accept=once)
    assert (clip.made, clip.why_encoded) == ("encoded", "is no good")
    asked.clear()
    asked.append(target)  # so that the next one passes and the one after does not
    asked.append(target)
    with pytest.raises(MediaError, match="other_sound"):
        make_clip(Media(source), 1, 2, target, accept=once)
    assert not target.exists()


def test_a_span_without_frames_gives_no_clip(tmp_path: Path) -> None:
    source, target = draw(tmp_path / "source.mp4", {}), tmp_path / "clip.mp4"
    with pytest.raises(MediaError, match="empty_span"):
        make_clip(Media(source), 50, 60, target)
    assert not target.exists()


def test_a_clip_at_the_very_end_has_the_last_frame(tmp_path: Path) -> None:
    source = draw(tmp_path / "source.mp4", {"b_frames": 2, "options": SWIFT})
    make_clip(Media(source), 4, 6, tmp_path / "clip.mp4")
    last = [shown(path)[1][-1].luma().tobytes() for path in (source, tmp_path / "clip.mp4")]
    assert last[0] == last[1]


def test_the_codec_is_named_and_not_the_decoder(tmp_path: Path) -> None:
    source = draw(tmp_path / "av1.mkv", REMUXED["av1.mkv"] | {"sound_codec": "libmp3lame"})
    facts = probe(source)
    assert (facts.video_codec, facts.audio_codec) == ("av1", "mp3")
    with av.open(str(source)) as container:
        assert container.streams.video[0].codec_context.name == "libdav1d"


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_probe_refuses_what_no_decoder_reads(tmp_path: Path, kind: str) -> None:
    source = garbled(draw(tmp_path / "whole.mp4", {}), tmp_path / "garbled.mp4", kind)
    with pytest.raises(MediaError, match=r"undecodable.* in its first 300 packets"):
        probe(source)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"frames": 40}, "frames"),
        ({"pts_ms": [ms + 15 * (ms == 400) for ms in range(0, 2000, 40)]}, "shows frame 10"),
        ({"frames": 50, "draw": lambda _: np.zeros((48, 96, 3), np.uint8)}, "is 96x48, not"),
        ({"frames": 50, "sound": np.roll(SOUND, 16_000)}, "sounds otherwise"),
    ],
)
def test_a_remux_that_shows_or_sounds_otherwise_is_encoded_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], why: str
) -> None:
    source = draw(tmp_path / "source.mp4", {})

    def cut_wrong(*arguments: Any) -> None:
        """Stand in for a muxer that is wrong about a file."""
        draw(arguments[4], {"sound": SOUND[16_000:], **other})

    monkeypatch.setattr("pipeline.media.clip.cut", cut_wrong)
    clip = make_clip(Media(source), 1, 3, tmp_path / "clip.mp4")
    assert clip.made == "encoded"
    assert why in clip.why_encoded
    assert clip.frames == 50
