"""A clip's small copy holds every frame and all of its sound."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import MediaError
from pipeline.media import Media, frames_between, read_timeline, waveform
from pipeline.media.clip_cache import RATE_HZ, SIZE_PX, read_cached_clip, write_cached_clip
from tests.video_factory import bursts, make_video, scene


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache") / "v.mp4"
    make_video(path, frames=300, fps=25, draw=scene(320, 180), sound=bursts(12, [1.0, 4.5, 7.2]))
    return path


def test_it_holds_the_clips_frames_in_their_order_and_its_sound_exactly(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "clip.mkv"
    assert write_cached_clip(Media(source), 1.0, 11.0, target).num_frames == 250
    clip = read_cached_clip(target)
    assert clip.frames.shape == (250, SIZE_PX, SIZE_PX, 3)
    shown = [picture.rgb() for picture in frames_between(source, 1.0, 11.0)]
    assert len(shown) == 251  # frames_between gives the end too
    for number in (0, 1, 100, 248, 249):
        small = cv2.resize(shown[number], (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
        errors = np.abs(clip.frames.astype(float) - small).mean((1, 2, 3))
        assert errors.argmin() == number, "the stored frame nearest to it is its own"
        assert errors[number] < 6  # noise keeps half of its colour in 4:2:0
    media = Media(source)
    heard = waveform(media, read_timeline(media), 1.0, 11.0, RATE_HZ)
    np.testing.assert_array_equal(clip.waveform, heard)


def test_the_same_clip_gives_the_same_bytes_and_the_same_file_the_same_arrays(
    source: Path, tmp_path: Path
) -> None:
    write_cached_clip(Media(source), 0.0, 10.0, tmp_path / "a.mkv")
    for _ in range(3):
        write_cached_clip(Media(source), 0.0, 10.0, tmp_path / "again.mkv")
        assert (tmp_path / "again.mkv").read_bytes() == (tmp_path / "a.mkv").read_bytes()
    one, other = read_cached_clip(tmp_path / "a.mkv"), read_cached_clip(tmp_path / "a.mkv")
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.waveform, other.waveform)


def test_a_video_without_sound_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    silent = tmp_path / "silent.mp4"
    make_video(silent, frames=260, fps=25)
    with pytest.raises(MediaError, match="no_audio"):
        write_cached_clip(Media(silent), 0.0, 10.0, tmp_path / "clip.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["silent.mp4"]


@pytest.mark.parametrize("share", [0.05, 0.6, 0.97])
def test_a_cached_clip_that_lost_its_end_is_not_read_as_a_shorter_clip(
    source: Path, tmp_path: Path, share: float
) -> None:
    write_cached_clip(Media(source), 0.0, 2.0, tmp_path / "clip.mkv")
    data = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match="ends after"):
        read_cached_clip(tmp_path / "cut.mkv")
