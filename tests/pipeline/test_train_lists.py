"""One way of naming a video: every spelling is read, and no two videos are taken for one."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.release.video_lists import VideoNames, parse_row, read_list, read_name, safe_id

IDS = st.text(string.ascii_letters + string.digits + "-_", min_size=11, max_size=11)
OWN = st.from_regex(r"[a-z0-9][a-zA-Z0-9-]{0,9}[-_ .]?[a-z][a-z0-9-]{3,9}", fullmatch=True).filter(
    lambda name: len(name) != 11
)
"""Eleven characters are a YouTube id."""
STARTS = st.integers(0, 599)
PLACES = st.sampled_from(["{}", " {} ", "clips/{}.mp4", "C:\\data\\{}.MP4", "/a.b/c_1/{}.wav"])

OF_YOUTUBE: list[Callable[[str, int], str]] = [
    lambda v, _: v,
    lambda v, s: f"{v}_{s:06d}",
    lambda v, s: f"{v}_{s:05d}",
    lambda v, s: f"{v}_{s * 1000}_{s * 1000 + 10000}",
    lambda v, s: f"{v}_{s}_{s + 10}",
    lambda v, s: f"{v}_{s}.000_{s + 10}.000",
    lambda v, s: f"{v}_{s * 1000:08d}",
    lambda v, _: f"A title, and more [{v}]",
]
ADDRESSES: list[Callable[[str, int], str]] = [
    lambda v, s: f"https://www.youtube.com/watch?v={v}&t={s}s",
    lambda v, s: f"https://m.youtube.com/watch?list=x&v={v}#t={s}",
    lambda v, _: f"http://youtu.be/{v}?si=abc",
    lambda v, _: f"https://www.youtube.com/shorts/{v}",
    lambda v, _: f"youtube.com/embed/{v}",
    lambda v, s: f"https://mirror.example/videos/{v}_{s:06d}.mp4?size=1",
]
OF_OWN: list[Callable[[str, int], str]] = [
    lambda v, _: v,
    lambda v, s: f"{v}_{s:05d}",
    lambda v, s: f"{v}_{s:06d}",
    lambda v, s: f"{v}_{s * 1000:08d}",
    lambda v, s: f"{v}_{s * 1000}_{s * 1000 + 10000}",
]


def same(one: str, other: str) -> bool:
    """Whether two names are of one video, whichever is looked up among which."""
    found = VideoNames.of([other]).same(read_name(one))
    back = VideoNames.of([one]).same(read_name(other))
    assert bool(found) == bool(back)
    return bool(found)


@given(IDS, IDS, STARTS, st.sampled_from(OF_YOUTUBE), st.sampled_from(OF_YOUTUBE), PLACES)
def test_a_youtube_id_is_found_in_every_spelling_and_no_other_is(
    video: str, other: str, start: int, spell: Callable[[str, int], str],
    again: Callable[[str, int], str], place: str,
) -> None:  # fmt: skip
    text = place.format(spell(video, start))
    assert read_name(text).youtube_id == video
    assert same(text, video)
    assert same(text, again(video, start + 1))
    assert same(text, other) == (video == other)
    assert same(text, again(other, start)) == (video == other)


@given(IDS, STARTS, st.sampled_from(ADDRESSES))
def test_an_address_names_its_video(
    video: str, start: int, spell: Callable[[str, int], str]
) -> None:
    assert read_name(spell(video, start)).youtube_id == video


@given(OWN, OWN, STARTS, st.sampled_from(OF_OWN), PLACES)
def test_a_clip_of_a_persons_own_video_is_that_videos_and_no_others(
    video: str, other: str, start: int, spell: Callable[[str, int], str], place: str
) -> None:
    text = place.format(spell(video, start))
    assert same(text, video)
    assert same(text, safe_id(video))
    assert same(text, other) == (video == other)
    assume(not other.startswith("_"))
    # One being the other's beginning makes them no one video.
    assert not same(text, video + other)
    assert not same(text, f"{video}-{other}")


@given(OWN, st.integers(0, 98), st.sampled_from(OF_OWN[1:]))
def test_two_parts_of_what_may_be_one_video_are_neither_the_same_nor_passed_over(
    video: str, start: int, spell: Callable[[str, int], str]
) -> None:
    one, other = spell(video, start), spell(video, start + 1)
    found = VideoNames.of([one]).shared_with(VideoNames.of([other]))
    assert not found.same
    assert found.unsure == [(one, other)]
    assert f"1 names may be parts of the same video, which names alone do not tell ({one}" in (
        found.doubt()
    )


@pytest.mark.parametrize(
    ("text", "start_s"),
    [
        ("l_7B1wnTNtA", None),
        ("l_7B1wnTNtA_000012.mp4", 12.0),
        ("l_7B1wnTNtA_12000.mp4", None),  # hours, or milliseconds
        ("l_7B1wnTNtA_12000_22000.mp4", 12.0),
        ("l_7B1wnTNtA_12_22.mp4", 12.0),
        ("l_7B1wnTNtA_12.000_22.000.wav", 12.0),
        ("Yl_7B1wnTNtA.wav", None),
        ("l_7B1wnTNtA.f137.mp4", None),
        ("l_7B1wnTNtA_00012000", 12.0),
        ("l_7B1wnTNtA_12", 12.0),
    ],
)
def test_a_start_is_told_where_the_spelling_tells_it(text: str, start_s: float | None) -> None:
    assert same(text, "l_7B1wnTNtA")
    assert read_name(text).start_s == start_s


def test_numbered_videos_of_one_series_are_different_videos() -> None:
    for one, other in (
        ("dog_barking_1", "dog_barking_2"),
        ("video_00001", "video_00002"),
        ("synth5-000000_00000", "synth5-000001_00000"),
        ("synth5-000000", "synth5-0000000"),
        ("3912345678", "39123456789"),
        ("take.v2", "take.v3"),
    ):
        assert not same(one, other), one


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_that_name_no_video_are_counted_and_named(tmp_path: Path) -> None:
    text = (
        "# a comment\n\nlabel,video_id,start\ndog,l_7B1wnTNtA,20\ncat,my own clip 1.mp4,0\n"
        "cat,unknown,3\ncat\ncat,https://www.youtube.com/@channel,1\n"
    )
    found = read_list(write(tmp_path, "a.csv", text))
    assert [one.name for one in found.names] == ["l_7B1wnTNtA", "my own clip 1"]
    assert [one.start_s for one in found.names] == [20.0, 0.0]
    assert found.unread == ["unknown,3", "", "https://www.youtube.com/@channel,1"]
    assert found.doubt() == "3 lines name no video ('unknown,3')."
    spaced = write(tmp_path, "b.txt", "l_7B1wnTNtA 20 dog barking\n-1pRmoJIGQc\t5\n")
    assert [(one.youtube_id, one.start_s) for one in read_list(spaced).names] == [
        ("l_7B1wnTNtA", 20.0),
        ("-1pRmoJIGQc", 5.0),
    ]


def test_json_says_which_of_its_texts_are_names(tmp_path: Path) -> None:
    rows = [{"file": "l_7B1wnTNtA_000002", "class": "saxophoning"}, {"file": "12345678901"}]
    found = read_list(write(tmp_path, "a.json", json.dumps(rows)))
    assert {one.name for one in found.names} == {"l_7B1wnTNtA_000002", "12345678901"}
    numbers = read_list(write(tmp_path, "b.json", json.dumps(["4861234567", 4861234568])))
    assert {one.name for one in numbers.names} == {"4861234567", "4861234568"}
    keyed = read_list(write(tmp_path, "c.json", json.dumps({"-1pRmoJIGQc": {"label": "dog"}})))
    assert [one.name for one in keyed.names] == ["-1pRmoJIGQc"]


def test_a_list_in_another_encoding_is_refused_not_misread(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("l_7B1wnTNtA,20\n".encode("utf-16"))
    with pytest.raises(UsageError, match="not a text in UTF-8"):
        read_list(path)


@given(st.text(max_size=60))
def test_any_line_is_read_or_set_aside(text: str) -> None:
    one = parse_row([text])
    assert one is None or (one.name and one.sure <= one.readings)
