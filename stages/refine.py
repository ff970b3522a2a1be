"""A segmenter at work for one person: frames embedded once, asked about one thing at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from pipeline.config import SegmentConfig
from pipeline.schema import Frame
from pipeline.storage import Storage
from stages.backends.interfaces import SEGMENTERS, Hint, Refiner, Segmented, make_backend
from stages.frame_image import read_frame_image


class FrameRefiner:
    """Masks of frames from a person's boxes and points.

    May be asked by several threads; the model answers one at a time.

    Args:
        storage: of the workspace.
        config: which segmenter, and where it runs.
        kept: frames whose embeddings are kept; the one unused longest goes first.

    Raises:
        UsageError: the segmenter's weights or packages are not here.
    """

    def __init__(self, storage: Storage, config: SegmentConfig, kept: int) -> None:
        self._storage = storage
        self._segmenter: Refiner = make_backend(SEGMENTERS, config.segmenter, config)
        self._segmenter.fingerprint()
        self._segmenter.open(storage)
        self._kept = kept
        self._embeddings: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The segmenter's."""
        return self._segmenter.name

    def refine(
        self, frame: Frame, box: list[float], points: list[tuple[float, float, bool]]
    ) -> Segmented:
        """The thing a person means.

        Args:
            frame: it is in.
            box: ``[x, y, w, h]`` around it, pixels.
            points: x, y in pixels, and whether the thing is there.

        Raises:
            InputError: ``unreadable_frame``.
        """
        with self._lock:
            return self._segmenter.refine(self._embedding(frame), Hint(box, points))

    def _embedding(self, frame: Frame) -> Any:
        key = (frame.frame_id, frame.path)
        if key not in self._embeddings:
            made = self._segmenter.embed(read_frame_image(self._storage, frame))
            self._embeddings[key] = made
            while len(self._embeddings) > self._kept:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(key)
        return self._embeddings[key]
