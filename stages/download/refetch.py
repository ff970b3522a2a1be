"""Fetch videos again that a release names: the download stage without its filter.

What passed somebody's filter once is wanted as it is now, whatever that filter was; whether it is
still the same video is for the caller to find out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import DownloadConfig
from pipeline.records.schema import Source, Video
from pipeline.release.document import VideoRow
from pipeline.run.stage import Drop, Fail, WorkerContext
from pipeline.workspace.storage import Storage
from stages.download.fetch_videos import FetchVideos

_FORMAT = re.compile(r"[A-Za-z0-9_-]{1,20}")


class Answer(NamedTuple):
    """The answer about a video: a file, or why there is none."""

    video_id: str
    file: Path | None
    kind: str
    detail: str


def refetch(config: DownloadConfig, folder: Path, wanted: Sequence[VideoRow]) -> Iterator[Answer]:
    """Fetch each video into ``folder``, in any order; a file may be deleted once it was yielded.

    Those of one size and format are fetched together.

    Raises:
        StopRun: no identity is left, or the disk is full.
    """

    def lookup(_table: str, _column: str) -> Any:
        raise AssertionError("the download stage joins no table")

    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    context = WorkerContext(Storage(folder), scratch, lookup)
    form = attrgetter("width", "height", "format_id")
    for _, group in groupby(sorted(wanted, key=form), key=form):
        videos = list(group)
        stage = FetchVideos(_lenient(config, videos[0]))
        stage.open(context)
        try:
            size = stage.spec.batch_size
            for first in range(0, len(videos), size):
                yield from _batch(stage, context.storage, videos[first : first + size])
        finally:
            stage.close()


def _batch(stage: FetchVideos, storage: Storage, videos: Sequence[VideoRow]) -> Iterator[Answer]:
    rows = [Source(video_id=row.video_id, label="", split="", start_s=0) for row in videos]
    for outcome in stage.process(rows):
        if isinstance(outcome, Drop):
            yield Answer(outcome.id, None, outcome.reason, outcome.detail)
        elif isinstance(outcome, Fail):
            yield Answer(outcome.id, None, outcome.kind, outcome.detail)
        else:
            (video,) = outcome.rows
            assert isinstance(video, Video)
            yield Answer(outcome.id, storage.path(video.path), "", "")


def _lenient(config: DownloadConfig, video: VideoRow) -> DownloadConfig:
    known = _FORMAT.fullmatch(video.format_id) and not config.source_template
    return config.model_copy(
        update={
            "width": video.width,
            "height": video.height,
            "min_fps": 0.0,
            "max_fps": float("inf"),
            "min_duration_s": 0.0,
            "min_bitrate_bps": 0,
            "require_license": "",
            "format": f"{video.format_id}/{config.format}" if known else config.format,
        }
    )
