"""Turn each instance's box into a mask (paper 3.1.3).

Reads ``instances``, writes ``masks``. A mask that is empty, nearly so, or off its box is a failure
and not a row, of the kind the segmenter names as its cause where it knows one. A mask for which it
had to take something for granted says so in its source, as ``grabcut-centre`` does. Instances of
one frame are segmented together, so that a segmenter looks at the frame once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import ClassVar

from pipeline.config import SegmentConfig
from pipeline.errors import InputError
from pipeline.records import rle
from pipeline.records.boxes import to_pixels
from pipeline.records.schema import Frame, Instance, Mask
from pipeline.run.stage import Fail, Ok, Outcome, Stage, StageSpec, WorkerContext
from stages.backends.frame_image import read_frame_image
from stages.backends.interfaces import SEGMENTERS, Prompt, Segmented, Segmenter, make_backend


class SegmentInstances(Stage[SegmentConfig]):
    """Prompt the segmenter with the instances' boxes."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="segment",
        version=1,
        reads="instances",
        joins=("frames",),
        writes=("masks",),
        rows_per_unit=256,
        rows_worth_a_worker=8,
        batch_size=64,
        row_timeout_s=900,  # SAM's largest encoder takes minutes for a frame on a busy core
    )

    def __init__(self, config: SegmentConfig) -> None:
        self.config = config
        self.segmenter: Segmenter = make_backend(SEGMENTERS, config.segmenter, config)

    def fingerprint(self) -> Mapping[str, str]:
        """Return the segmenter's digests."""
        return self.segmenter.fingerprint()

    def device(self) -> str:
        """Return the settings' device where the segmenter is a model."""
        return self.config.device if self.segmenter.has_weights else "cpu"

    def open(self, ctx: WorkerContext) -> None:
        """Load OpenCV and the segmenter."""
        import cv2

        cv2.setNumThreads(1)  # processes fill the machine, not threads
        self._storage = ctx.storage
        self._heartbeat = ctx.heartbeat
        self._frames = ctx.lookup("frames", "frame_id")
        self.segmenter.open(ctx.storage)

    def process(self, rows: Sequence[Instance]) -> Iterator[Outcome]:
        """Yield each instance's mask."""
        asked: deque[tuple[Frame, list[Instance]]] = deque()
        failed: list[Outcome] = []
        for found in self.segmenter.segment(self._prompts(rows, asked, failed)):
            frame, instances = asked.popleft()
            for row, segmented in zip(instances, found, strict=True):
                yield self._judged(row, segmented, frame)
            self._heartbeat()
        yield from failed

    def _prompts(
        self,
        rows: Sequence[Instance],
        asked: deque[tuple[Frame, list[Instance]]],
        failed: list[Outcome],
    ) -> Iterator[Prompt]:
        """Read each frame once; the segmenter may take them from a thread of its own."""
        for frame_id, group in groupby(rows, key=lambda row: row.frame_id):
            instances = list(group)
            frame = self._frames.one(frame_id)
            if frame is None:
                failed += [
                    Fail(row.id, "missing_frame", f"no frame {frame_id}", True) for row in instances
                ]
                continue
            try:
                image = read_frame_image(self._storage, frame)
            except InputError as error:
                failed += [
                    Fail(row.id, error.kind, error.detail, error.retryable) for row in instances
                ]
                continue
            asked.append((frame, instances))
            yield Prompt(image, [row.bbox for row in instances])

    def _judged(self, row: Instance, found: Segmented, frame: Frame) -> Outcome:
        box = to_pixels(row.bbox, frame.width, frame.height)
        if box is None:
            detail = f"box {row.bbox} is outside of the {frame.width}x{frame.height} frame"
            return Fail(row.id, "box_outside_frame", detail)
        x0, y0, x1, y1 = box
        if found.predicted_iou is not None and not math.isfinite(found.predicted_iou):
            return Fail(row.id, "not_a_number", f"{self.segmenter.name} computed no number")
        area, inside = int(found.mask.sum()), int(found.mask[y0:y1, x0:x1].sum())
        fraction = inside / ((x1 - x0) * (y1 - y0))
        if not inside or fraction < self.config.min_mask_area:
            detail = f"{inside} pixels in the box, {fraction:.4f} of it"
            return Fail(row.id, found.reason or "empty_mask", detail)
        if area > 2 * inside:
            return Fail(row.id, "mask_off_box", f"{area} pixels, {inside} of them in the box")
        packed = rle.encode(found.mask)
        mask = Mask(
            instance_id=row.id,
            frame_id=row.frame_id,
            rle=packed,
            area=area,
            bbox=rle.bbox(packed),
            source="-".join(filter(None, (self.segmenter.name, found.assumed))),
            model_digest=self.segmenter.digest,
            predicted_iou=found.predicted_iou,
            stability=found.stability,
            verified=False,
        )
        return Ok(row.id, [mask])
