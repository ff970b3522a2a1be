"""Boxes around what moves at the event, whatever it is; no weights. ``video_motion`` says how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from pipeline.config import ProposeConfig
from pipeline.workspace.recorded import video_file
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Detection, FrameInput, Vocabulary

_VERSION = "2"
"""Raised when the same pictures give other boxes than before; those are not mixed with these."""


class MotionDetector:
    """Find moving regions."""

    name = "motion"
    has_weights = False
    nothing = "nothing_moves"
    vocabulary: Vocabulary = "none"

    def __init__(self, config: ProposeConfig) -> None:
        self._window_s = config.motion_window_s

    def fingerprint(self) -> Mapping[str, str]:
        """Return the version of what it does: boxes of another one are not taken for these."""
        return {"motion": _VERSION}

    def open(self, storage: Storage) -> None:
        """Load OpenCV and PyAV, and keep the workspace at hand."""
        from stages.backends.motion.video_motion import VideoMotion

        self._of_video = VideoMotion
        self._storage = storage

    def detect(self, inputs: Iterable[FrameInput]) -> Iterator[list[Detection]]:
        """Yield the moving regions of each frame; a video is opened once for frames in a row."""
        for video, group in groupby(inputs, key=lambda item: item.video):
            with video_file(self._storage, video) as path:
                source = self._of_video(path, self._window_s)
                for item in group:
                    yield source.boxes(item)
