from __future__ import annotations

from pathlib import Path

from pipeline.config import DownloadConfig
from pipeline.release.document import VideoRow
from stages.download.refetch import refetch
from tests.video_factory import bursts, make_video

SMALL, WIDE, GONE = "small_video", "wide__video", "gone__video"


def row(name: str, width: int, height: int, format_id: str) -> VideoRow:
    return VideoRow.of(id=name, video_id=name, width=width, height=height, format_id=format_id)


def test_each_video_comes_back_whatever_its_size_and_what_is_missing_says_why(
    tmp_path: Path,
) -> None:
    make_video(tmp_path / f"{SMALL}.mp4", frames=10, sound=bursts(0.4, [0.2]))
    make_video(tmp_path / f"{WIDE}.mp4", frames=10, fps=10, sound=bursts(1, [0.5]))
    config = DownloadConfig(source_template=f"{tmp_path}/{{video_id}}.mp4", min_free_bytes=0)
    wanted = [row(name, 96, 72, "18") for name in (SMALL, WIDE, GONE)]
    answers = {answer.video_id: answer for answer in refetch(config, tmp_path / "ws", wanted)}
    for name in (SMALL, WIDE):
        file = answers[name].file
        assert file is not None
        assert file.read_bytes() == (tmp_path / f"{name}.mp4").read_bytes()
    assert answers[GONE].file is None
    assert answers[GONE].kind == "missing_file"


def test_a_video_of_another_size_than_before_is_told_so(tmp_path: Path) -> None:
    make_video(tmp_path / f"{SMALL}.mp4", frames=10, sound=bursts(0.4, [0.2]))
    config = DownloadConfig(source_template=f"{tmp_path}/{{video_id}}.mp4", min_free_bytes=0)
    (answer,) = refetch(config, tmp_path / "ws", [row(SMALL, 640, 360, "")])
    assert (answer.file, answer.kind) == (None, "resolution")
