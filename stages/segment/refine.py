"""A segmenter at work for one person: frames embedded once, asked about one thing at a time."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any

from pipeline.config import SegmentConfig
from pipeline.records.schema import Frame
from pipeline.workspace.recorded import frame_bytes
from pipeline.workspace.storage import Storage
from stages.backends.frame_image import decode_frame_image
from stages.backends.interfaces import SEGMENTERS, Hint, Refiner, Segmented, make_backend


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
        """Embeddings by the frame's id and the digest of its file."""
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The segmenter's name."""
        return self._segmenter.name

    @property
    def digest(self) -> str:
        """SHA-256 of its weights; empty without weights."""
        return self._segmenter.digest

    def refine(
        self, frame: Frame, box: list[float], points: list[tuple[float, float, bool]]
    ) -> Segmented:
        """Segment the thing a person means.

        Args:
            frame: it is in.
            box: ``[x, y, w, h]`` around it, pixels.
            points: x, y in pixels, and whether the thing is there.

        Raises:
            InputError: ``unreadable_frame``, ``missing_file``, ``changed_file``.
        """
        with self._lock:
            return self._segmenter.refine(self._embedding(frame), Hint(box, points))

    def _embedding(self, frame: Frame) -> Any:
        # Read each time: the person asks about the picture that lies there now.
        data = frame_bytes(self._storage, frame)
        key = (frame.frame_id, hashlib.sha256(data).hexdigest())
        if key not in self._embeddings:
            made = self._segmenter.embed(decode_frame_image(data, frame))
            self._embeddings[key] = made
            while len(self._embeddings) > self._kept:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(key)
        return self._embeddings[key]
