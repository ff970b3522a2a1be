"""Say what each clip sounds like, in the tagger's classes and in target categories (paper 3.1.3).

Reads ``clips``, writes ``sounds``. A clip without any target category keeps its row: it was
listened to, and that is the answer. Its frames are dropped by ``propose``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from pipeline.config import HearConfig
from pipeline.schema import Clip, Video
from pipeline.stage import Fail, Ok, Outcome, Stage, StageSpec, WorkerContext
from stages.backends.interfaces import TAGGERS, Tagger, make_backend


class HearClips(Stage[HearConfig]):
    """Tag clips with what sounds in them."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="hear",
        version=1,
        reads="clips",
        joins=("videos",),
        writes=("sounds",),
        rows_per_unit=1024,
        batch_size=16,
    )

    def __init__(self, config: HearConfig) -> None:
        self.tagger: Tagger = make_backend(TAGGERS, config.tagger, config)

    def fingerprint(self) -> Mapping[str, str]:
        """The tagger's."""
        return self.tagger.fingerprint()

    def open(self, ctx: WorkerContext) -> None:
        """Load the tagger."""
        self._videos = ctx.lookup("videos", "video_id")
        self.tagger.open(ctx.storage)

    def process(self, rows: Sequence[Clip]) -> Iterator[Outcome]:
        """Yield each clip's sounds."""
        found: list[tuple[Clip, Video]] = []
        for clip in rows:
            video = self._videos.one(clip.video_id)
            if video is None:
                yield Fail(clip.clip_id, "missing_video", f"no video {clip.video_id}", True)
            else:
                found.append((clip, video))
        for (clip, _), sounds in zip(found, self.tagger.tag(found), strict=True):
            yield Ok(clip.clip_id, [sounds])
