"""Draw each video's clip and choose the frames that annotators will see (paper 3.1.2).

Reads ``videos``, writes ``clips`` and ``frames``. A clip is a span of its source and frames are
decoded from the source: nothing is cut here. Everything drawn depends on the seed and the video's
id alone, so shards may run in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pipeline.config import SampleConfig
from pipeline.records.schema import Video
from pipeline.run.stage import Outcome, Stage, StageSpec, WorkerContext
from pipeline.workspace.recorded import video_file


class SampleFrames(Stage[SampleConfig]):
    """Draw clips and keep frames; ``sampler`` says which."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="sample",
        version=2,
        reads="videos",
        writes=("clips", "frames"),
        rows_per_unit=32,
        batch_size=1,
        # Above the largest decode_timeout_s, which fails the row by name before it is a hang.
        row_timeout_s=660.0,
    )

    def open(self, ctx: WorkerContext) -> None:
        """Load PyAV and OpenCV."""
        import cv2

        from stages.sample.sampler import Sampler

        cv2.setNumThreads(1)  # processes fill the machine, not threads
        self._ctx = ctx
        self._sampler = Sampler(self.config)

    def process(self, rows: Sequence[Video]) -> Iterator[Outcome]:
        """Yield each video's clips and frames, or why it has none."""
        for video in rows:
            with video_file(self._ctx.storage, video) as path:
                outcome = self._sampler.outcome(video, path, self._ctx)
            yield outcome
