"""Boxes around what moves at the event, whatever it is; no weights.

Bars beside the picture are left out first. A frame is compared with up to six neighbours in the
source video. For each, dense optical flow (DIS) says where every pixel went, and an affine fit to
the flow at trackable corners (RANSAC) says where the camera alone would have put it. A pixel speaks
for motion by as much as the flow explains it better than the camera does, in grey levels: that is
tight around a thing, where the flow alone spreads over its surroundings, and it is zero where
nothing can be told. Ground that a thing uncovers looks as if it moved, too: its flow does not lead
back to where it came from, and it shows on one side in time only. Boxes are what connects at
several levels of the evidence and over several gaps.

What it cannot do: a thing that covers most of the trackable corners is taken for the background,
a still source is not seen, and a logo on a moving picture moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import cv2
import numpy as np

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.media import Media, Picture, Timeline, decode_pictures, read_timeline
from pipeline.media.timeline import exact
from pipeline.records.schema import Frame
from pipeline.workspace.recorded import video_file
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Detection, FrameInput, Vocabulary
from stages.backends.motion.bars import picture_inside
from stages.backends.motion.evidence import Grey, motion_evidence
from stages.backends.motion.regions import moving_regions

_WORK_PX = 320
"""Longest side at working size. Bounds the cost; boxes are exact to 2 pixels of a 640x360 frame."""

_NEIGHBOURS = 3
"""Compared frames on either side."""

_CLASS = "moving region"


class MotionDetector:
    """Find moving regions."""

    name = "motion"
    has_weights = False
    nothing = "nothing_moves"
    vocabulary: Vocabulary = "none"

    def __init__(self, config: ProposeConfig) -> None:
        self._window_s = config.motion_window_s

    def fingerprint(self) -> Mapping[str, str]:
        """Return nothing: only the settings decide."""
        return {}

    def open(self, storage: Storage) -> None:
        """Keep the workspace at hand."""
        self._storage = storage

    def detect(self, inputs: Iterable[FrameInput]) -> Iterator[list[Detection]]:
        """Yield the moving regions of each frame; a video is opened once for frames in a row."""
        for video, group in groupby(inputs, key=lambda item: item.video):
            with video_file(self._storage, video) as path:
                media = Media(path)
                timeline = read_timeline(media)
                for item in group:
                    yield self._moving(item.frame, media, timeline)

    def _moving(self, frame: Frame, media: Media, timeline: Timeline) -> list[Detection]:
        centre, before, after = self._neighbourhood(frame, media, timeline)
        near = [*before[-1:], centre, *after[:1]]
        left, top, width, height = _inside(near)
        scale = min(1.0, _WORK_PX / max(width, height))

        def seen(luma: Grey) -> Grey:
            return _resized(luma[top : top + height, left : left + width], scale)

        cv2.setRNGSeed(0)  # RANSAC draws; each frame for itself
        evidence = motion_evidence(
            seen(centre), [seen(other) for other in before], [seen(other) for other in after]
        )
        return [
            Detection([x / scale + left, y / scale + top, w / scale, h / scale], _CLASS, score)
            for (x, y, w, h), score in moving_regions(evidence)
        ]

    def _neighbourhood(
        self, frame: Frame, media: Media, timeline: Timeline
    ) -> tuple[Grey, list[Grey], list[Grey]]:
        """Return the frame and its neighbours before and after it, in order."""
        window = timeline.between(
            exact(frame.time_s - self._window_s),
            exact(frame.time_s + self._window_s),
            closed=True,
        )
        # Neighbours of another size, behind a change of it, cannot be compared.
        pictures = [
            p
            for p in decode_pictures(media, timeline, [window], any_size=True)
            if not p.damaged and p.size == (frame.width, frame.height)
        ]
        centre = min(pictures, key=lambda p: abs(p.time - exact(frame.time_s)), default=None)
        if centre is None:
            raise InputError(
                "frame_not_in_source",
                f"no whole picture of {frame.width}x{frame.height} near {frame.time_s:.3f} s",
            )
        before, after = (
            [p.luma() for p in _spread(side)]
            for side in (
                [p for p in pictures if p.index < centre.index],
                [p for p in pictures if p.index > centre.index],
            )
        )
        return centre.luma(), before, after


def _inside(lumas: Sequence[Grey]) -> tuple[int, int, int, int]:
    """Return ``(x, y, width, height)`` of the picture without bars, in pixels of the frame."""
    height, width = lumas[0].shape
    scale = min(1.0, _WORK_PX / max(width, height))
    small = [_resized(luma, scale) for luma in lumas]
    x, y, w, h = picture_inside(small)
    # Where there is a bar, one line more goes with it: the boundary is a line of the frame itself.
    rows, columns = small[0].shape
    left, top = (math.ceil((at + 1) / scale) if at else 0 for at in (x, y))
    right = math.floor((x + w - 1) / scale) if x + w < columns else width
    bottom = math.floor((y + h - 1) / scale) if y + h < rows else height
    return left, top, right - left, bottom - top


def _spread(pictures: Sequence[Picture]) -> list[Picture]:
    """Choose up to ``_NEIGHBOURS`` of the pictures, evenly spread, the ends among them."""
    if len(pictures) <= _NEIGHBOURS:
        return list(pictures)
    places = np.linspace(0, len(pictures) - 1, _NEIGHBOURS).round().astype(int)
    return [pictures[place] for place in places]


def _resized(luma: Grey, scale: float) -> Grey:
    if scale == 1.0:
        return np.ascontiguousarray(luma)
    small = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)
