"""The clips to train on: lists as people write them, the cache, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import AvatarBuildError, MediaError, UsageError
from pipeline.release.document import Document, ImageRow, Info, write_document
from pipeline.release.video_lists import VideoNames
from tavlo.training.cached_clips import CachedClip, cache_clip, cached, check_failed, fill_cache
from tavlo.training.data import read_clip
from tavlo.training.setup import split
from tavlo.training.train import data_digest
from tavlo.training.training_clips import (
    ClipRules,
    ClipSource,
    held_out_videos,
    read_clips,
    refuse_overlap,
)
from tests.tavlo import small
from tests.video_factory import bursts, make_video

RULES = small.config().rules
ID = "l_7B1wnTNtA"


def listed(folder: Path, text: str) -> Path:
    path = folder / "train.csv"
    path.write_text(text)
    return path


def clip(number: int, video_id: str = "") -> CachedClip:
    return CachedClip(f"c{number}", video_id or f"v{number}", Path(f"c{number}.mkv"), f"k{number}")


def held(folder: Path, *video_ids: str) -> Path:
    """A release that evaluation would read, of these videos."""
    images = [image(number, name) for number, name in enumerate(video_ids, 1)]
    write_document(Document.of(info=Info.of(version="1"), images=images), folder)
    return folder


def image(number: int, video_id: str) -> ImageRow:
    return ImageRow.of(
        id=number,
        width=8,
        height=8,
        video_id=video_id,
        clip_id=f"{video_id}_00003000",
        frame_id=f"{video_id}_00003000_0001",
        clip_start_s=3.0,
        file_name=f"metadata/{video_id}_00003/00001.png",
        clip_file=f"video/{video_id}_00003.mp4",
    )


def test_a_list_names_files_ids_and_starts_in_every_usual_way(tmp_path: Path) -> None:
    text = (
        f"# comment\n\n{ID},20\nabcdefghijk_000030\nabcdefghijl_00030\nabcdefghijm_40000_50000\n"
        "clips/own-video.mp4\nclips/own-video.mp4,12.5\nclips/abcdefghijn_000060.mp4\n"
    )
    template = "/data/{video_id}.mp4"
    assert read_clips(listed(tmp_path, text), template) == [
        ClipSource(f"{ID}_00020000", ID, Path(f"/data/{ID}.mp4"), 20.0),
        ClipSource("abcdefghijk_00030000", "abcdefghijk", Path("/data/abcdefghijk.mp4"), 30.0),
        ClipSource("abcdefghijl_00030000", "abcdefghijl", Path("/data/abcdefghijl.mp4"), 30.0),
        ClipSource("abcdefghijm_00040000", "abcdefghijm", Path("/data/abcdefghijm.mp4"), 40.0),
        ClipSource("own-video_00000000", "own-video", tmp_path / "clips/own-video.mp4", 0.0),
        ClipSource("own-video_00012500", "own-video", tmp_path / "clips/own-video.mp4", 12.5),
        ClipSource(
            "abcdefghijn_00060000", "abcdefghijn", tmp_path / "clips/abcdefghijn_000060.mp4", 0.0
        ),
    ]


def test_a_template_with_a_start_names_clips_cut_already(tmp_path: Path) -> None:
    template = "/clips/{video_id}_{start:06d}.mp4"
    (found,) = read_clips(listed(tmp_path, f"{ID},20,dog,train\n"), template)
    assert (found.path, found.start_s) == (Path(f"/clips/{ID}_000020.mp4"), 0.0)


@pytest.mark.parametrize(
    ("text", "template", "message"),
    [
        ("", "", "no clip in it"),
        (f"{ID},20\n", "", "line 1: .* is an id; say where videos are"),
        (f"{ID}\n", "/data/{video_id}.mp4", "line 1: .* is neither a file nor a YouTube id"),
        ("one\ntwo\n", "/data/{video_id}.mp4", "line 1"),
        ("a.mp4,later\n", "", "line 1: start 'later': seconds"),
        ("a.mp4\nb/a.mp4\n", "", "clip a_00000000 is there twice"),
        ("we ird.mp4\n", "", "is no id"),
        (f"{ID},20\n", "/data/{name}.mp4", "may hold {video_id} and {start}"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_line(
    tmp_path: Path, text: str, template: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read_clips(listed(tmp_path, text), template)
    assert "\n" not in str(error.value)


def test_a_folder_or_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no release and no list"):
        read_clips(tmp_path / "none")
    with pytest.raises(UsageError, match="No release at"):
        read_clips(tmp_path)


def test_a_release_without_clips_says_how_to_restore_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a release without clips.*fetch-media"):
        read_clips(held(tmp_path, "abc"))
    path = tmp_path / "annotations" / "instances.json"
    path.write_text(path.read_text().replace("video/abc_00003.mp4", "../../abc_00003.mp4"))
    with pytest.raises(AvatarBuildError, match=r"images\.0\.clip_file: is not written"):
        read_clips(tmp_path)


@pytest.mark.parametrize(
    "spelling", [ID, f"{ID}_00020", f"{ID}_000020", f"{ID}_20000_30000", f"{ID}_00020000"]
)
def test_a_video_held_out_is_refused_however_it_is_spelled(tmp_path: Path, spelling: str) -> None:
    clips = [
        ClipSource("a", ID, Path("a"), 0.0),
        ClipSource("b", "abcdefghijk", Path("b"), 0.0),
    ]
    text = tmp_path / "test.txt"
    text.write_text(f"zzzzzzzzzzz\n{spelling}\n")
    for held_out in (text, held(tmp_path / "release", "zzzzzzzzzzz", spelling)):
        with pytest.raises(UsageError, match=f"1 videos .* also in .*{ID}"):
            refuse_overlap(clips, held_out)
    assert refuse_overlap(clips[1:], text) == []


def test_clip_files_of_a_release_are_told_to_be_its_videos(tmp_path: Path) -> None:
    release = held(tmp_path / "release", "synth5-000000", "synth5-000001")
    for name in ("synth5-000000_00000.mp4", "deep/synth5-000000_00000010.MP4", "synth5-000000.mp4"):
        clips = read_clips(listed(tmp_path, f"{name}\nsynth6-000000_00000.mp4\n"))
        with pytest.raises(UsageError, match=r"1 videos .*synth5-000000"):
            refuse_overlap(clips, release)
        # A model that was trained on them has seen the release, however its list was read.
        names = VideoNames.of(clip.video_id for clip in clips)
        assert len(names.shared_with(held_out_videos(release)).same) == 1
    others = read_clips(listed(tmp_path, "synth5-00000_00000.mp4\nsynth5-000002_00000.mp4\n"))
    assert refuse_overlap(others, release) == []


def test_names_that_cannot_be_told_are_said(tmp_path: Path) -> None:
    clips = read_clips(listed(tmp_path, "take_00002.mp4\nother.mp4\n"))
    path = tmp_path / "test.txt"
    path.write_text("take_00007.mp4\nnobody\n")
    doubts = refuse_overlap(clips, path)
    assert [text.removeprefix(f"{path}: ")[:26] for text in doubts] == [
        "1 names may be parts of th",
        "1 lines name no video ('no",
    ]


def test_the_cache_is_made_once_and_gone_on_with(tmp_path: Path) -> None:
    sources = read_clips(small.draw_videos(tmp_path / "videos"))
    cache = tmp_path / "cache"
    some, failed = fill_cache(sources[:3], cache, RULES, 1)
    before = {clip.path: clip.path.stat().st_mtime_ns for clip in some}
    seen: list[tuple[int, str]] = []
    whole, failed = fill_cache(sources, cache, RULES, 2, lambda *done: seen.append(done))
    assert not failed
    assert [clip.clip_id for clip in whole] == [source.clip_id for source in sources]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert seen[0] == (3, "0 cannot be read")
    assert seen[-1] == (8, "0 cannot be read")
    assert sorted(cache.glob("*.mkv")) == sorted(clip.path for clip in whole)
    assert {len(read_clip(clip.path, 1.0).frames) for clip in whole} == {10, 12}


def spoiled_inside(path: Path) -> None:
    """Another byte in the middle: the same size, the same ends."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.unlink()
    path.write_bytes(data)


def test_a_source_that_changed_in_its_middle_is_made_anew_and_is_other_data(tmp_path: Path) -> None:
    source = read_clips(small.draw_videos(tmp_path / "videos", small.NAMES[:1]))[0]
    filling = (1_000_008).to_bytes(4) + b"free" + bytes(1_000_000)
    source.path.write_bytes(source.path.read_bytes() + filling)
    before, _ = fill_cache([source], tmp_path / "cache", RULES, 1)
    spoiled_inside(source.path)
    after, failed = fill_cache([source], tmp_path / "cache", RULES, 1)
    assert not failed
    assert after[0].path == before[0].path
    assert data_digest(after) != data_digest(before)


def test_a_cached_clip_that_is_not_the_one_that_was_made_is_made_again(tmp_path: Path) -> None:
    sources = read_clips(small.draw_videos(tmp_path / "videos", small.NAMES[:2]))
    (one, other), _ = fill_cache(sources, tmp_path / "cache", RULES, 1)
    whole = one.path.read_bytes()
    one.path.write_bytes(other.path.read_bytes())
    with pytest.raises(MediaError, match="changed_file"):
        read_clip(one.path, 1.0, one.sha256)
    again, failed = fill_cache(sources, tmp_path / "cache", RULES, 1)
    assert not failed
    assert again == [one, other]
    assert one.path.read_bytes() == whole


def test_a_clip_that_is_not_the_one_its_release_names_cannot_be_used(tmp_path: Path) -> None:
    listed = read_clips(small.draw_videos(tmp_path / "videos", small.NAMES[:1]))[0]
    digest = hashlib.sha256(listed.path.read_bytes()).hexdigest()
    source = replace(listed, sha256=digest)
    assert not fill_cache([source], tmp_path / "cache", RULES, 1)[1]
    spoiled_inside(source.path)
    _, failed = fill_cache([source], tmp_path / "cache", RULES, 1)
    assert "not the clip that was released" in failed[source.clip_id]


def test_a_cached_clip_is_known_by_what_it_was_made_from(tmp_path: Path) -> None:
    source = read_clips(small.draw_videos(tmp_path / "videos", small.NAMES[:1]))[0]
    key = cached(source, tmp_path, RULES).key
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(source.path.read_bytes())
    same = ClipSource(source.clip_id, source.video_id, moved, source.start_s)
    assert cached(same, tmp_path, RULES).key == key
    later = ClipSource(source.clip_id, source.video_id, moved, 0.5)
    assert cached(later, tmp_path, RULES).key != key
    assert cached(same, tmp_path, ClipRules(0.9, 8, 12)).key != key
    moved.write_bytes(moved.read_bytes() + b"\0")
    assert cached(same, tmp_path, RULES).key != key


@pytest.mark.parametrize(
    ("frames", "fps", "seconds", "kind", "says"),
    [
        (7, 7, 1.0, "frame_count", "7 frames in 1 s (7/s); it must be 8 to 12"),
        (30, 30, 1.0, "frame_count", "30 frames in 1 s (30/s); it must be 8 to 12"),
        (6, 10, 0.6, "short", "ends at 0.60 s, the clip at 1 s"),
        (10, 10, 0.0, "no_audio", "x.mp4"),
    ],
)
def test_a_clip_that_does_not_fit_is_named_with_what_is_wrong(
    tmp_path: Path, frames: int, fps: int, seconds: float, kind: str, says: str
) -> None:
    sound = bursts(seconds, [0.3]) if seconds else None
    make_video(tmp_path / "x.mp4", frames=frames, fps=fps, sound=sound)
    source = ClipSource("x_00000000", "x", tmp_path / "x.mp4", 0.0)
    with pytest.raises(MediaError) as error:
        cache_clip(source, tmp_path / "x.mkv", RULES)
    assert error.value.kind == kind
    assert says in str(error.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.mp4"]


def test_a_start_after_the_end_is_a_short_file(tmp_path: Path) -> None:
    make_video(tmp_path / "x.mp4", frames=10, fps=10, sound=bursts(1.0, [0.3]))
    with pytest.raises(MediaError, match=r"short: x\.mp4: ends at 1\.00 s, the clip at 4 s"):
        cache_clip(ClipSource("x", "x", tmp_path / "x.mp4", 3.0), tmp_path / "x.mkv", RULES)


def test_199_frames_are_one_too_few_for_the_paper(tmp_path: Path) -> None:
    make_video(tmp_path / "x.mp4", frames=199, fps=20, sound=bursts(10.0, [0.3]))
    source = ClipSource("x_00000000", "x", tmp_path / "x.mp4", 0.0)
    with pytest.raises(MediaError, match="199 frames in 10 s"):
        cache_clip(source, tmp_path / "x.mkv", ClipRules())


def test_broken_clips_are_counted_named_and_never_replaced(tmp_path: Path) -> None:
    path = small.draw_videos(tmp_path / "videos")
    (tmp_path / "videos" / f"{small.NAMES[2]}.mp4").write_bytes(b"<html>no</html>")
    (tmp_path / "videos" / f"{small.NAMES[5]}.mp4").unlink()
    ready, failed = fill_cache(read_clips(path), tmp_path / "cache", RULES, 1)
    assert set(failed) == {f"{small.NAMES[number]}_00000000" for number in (2, 5)}
    assert len(ready) == 6
    check_failed(failed, 2)
    with pytest.raises(AvatarBuildError, match=rf"2 clips .*{small.NAMES[2]}.*--max-failed 2"):
        check_failed(failed, 1)


@pytest.mark.parametrize("codec", ["aac", "flac"])
@pytest.mark.parametrize(
    ("left", "right", "silent"), [(1, 1, False), (1, 0, False), (0, 1, False), (1, -1, True)]
)
def test_a_clip_is_heard_in_the_mean_of_its_channels(
    tmp_path: Path, codec: str, left: int, right: int, silent: bool
) -> None:
    tone = bursts(1.0, [0.3, 0.7], level=0.5)
    path = tmp_path / ("x.mkv" if codec == "flac" else "x.mp4")
    sound = np.stack([left * tone, right * tone])
    make_video(path, frames=10, fps=10, sound=sound, sound_codec=codec)
    source = ClipSource("x_00000000", "x", path, 0.0)
    (found,), failed = fill_cache([source], tmp_path / "cache", RULES, 1)
    assert not failed
    assert cached(source, tmp_path / "cache", RULES) == found
    assert found.silent == silent
    heard = read_clip(found.path, 1.0).waveform
    wanted = np.abs(tone).max() * abs(left + right) / 2
    assert np.abs(heard).max() == pytest.approx(wanted, rel=0.1, abs=1e-3)


def test_sound_that_ends_early_is_followed_by_silence(tmp_path: Path) -> None:
    make_video(tmp_path / "x.mkv", frames=10, fps=10, sound=bursts(0.4, [0.2]), sound_codec="flac")
    source = ClipSource("x_00000000", "x", tmp_path / "x.mkv", 0.0)
    cache_clip(source, tmp_path / "copy.mkv", RULES)
    heard = read_clip(tmp_path / "copy.mkv", 1.0).waveform
    assert heard.shape == (16_000,)
    assert np.abs(heard[:6_400]).max() > 0.1
    assert not heard[6_400:].any()


def test_the_split_is_by_video_and_few_move_when_the_list_grows() -> None:
    clips = [clip(number, f"v{number // 2}") for number in range(200)]
    training, validation = split(clips, 0.1, seed=0)
    assert not {c.video_id for c in training} & {c.video_id for c in validation}
    assert len(validation) == 20
    assert sorted([*training, *validation], key=clips.index) == clips
    assert split(clips[::-1], 0.1, seed=0)[1] == validation[::-1]
    assert split(clips, 0.1, seed=1)[1] != validation
    grown = split([*clips, *(clip(1000 + n) for n in range(20))], 0.1, seed=0)[1]
    assert len({c.video_id for c in validation} - {c.video_id for c in grown}) <= 4
    assert split(clips, 0.0, seed=0) == (clips, [])


def test_files_that_may_be_parts_of_one_video_are_on_one_side_of_the_split(tmp_path: Path) -> None:
    names = [f"take{take}_{start:05d}.mp4" for take in range(30) for start in (0, 10, 20)]
    named = read_clips(listed(tmp_path, "\n".join(names)))
    for one in named:
        one.path.write_bytes(one.clip_id.encode())
    clips = [cached(one, tmp_path, RULES) for one in named]
    training, validation = split(clips, 0.2, seed=0)
    takes = [{c.clip_id.partition("_")[0] for c in side} for side in (training, validation)]
    assert all(takes)
    assert not takes[0] & takes[1]
    assert 18 <= len(validation) <= 20
    assert split(clips[::-1], 0.2, seed=0)[1] == validation[::-1]


def test_numbered_files_do_not_all_become_validation() -> None:
    numbered = [replace(clip(n, f"file_{n:05d}"), readings=frozenset({"file"})) for n in range(90)]
    assert split(numbered, 0.1, seed=0) == (numbered, [])
    training, validation = split([*numbered, *map(clip, range(100, 120))], 0.1, seed=0)
    assert set(numbered) <= set(training)
    assert len(validation) == 11


def test_validation_has_at_least_two_clips() -> None:
    assert len(split([clip(number) for number in range(10)], 0.01, seed=0)[1]) == 2


def test_the_digest_of_the_data_ignores_order_alone() -> None:
    clips = [clip(number) for number in range(3)]
    assert data_digest(clips) == data_digest(clips[::-1])
    assert data_digest(clips) != data_digest(clips[:2])
    other = CachedClip("c0", "v0", Path("elsewhere.mkv"), "another source")
    assert data_digest([other, *clips[1:]]) != data_digest(clips)
