"""Boxes around what moves at the event, whatever it is; no weights.

A frame is compared with up to six neighbours in the source video. For each, dense optical flow
(DIS) says where every pixel went, and an affine fit to the flow at trackable corners (RANSAC) says
where the camera alone would have put it. A pixel speaks for motion by as much as the flow explains
it better than the camera does, in grey levels: that is tight around a thing, where the flow alone
spreads over its surroundings, and it is zero where nothing can be told. Ground that a thing
uncovers looks as if it moved, too: its flow does not lead back to where it came from, and it shows
on one side in time only. Boxes are what connects at several levels of the evidence and over several
gaps.

What it cannot do: a thing that covers most of the trackable corners is taken for the background,
a still source is not seen, and a logo on a moving picture moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.media import Media, Picture, Timeline, decode_pictures, read_timeline
from pipeline.media.timeline import exact
from pipeline.records.schema import Frame
from pipeline.workspace.recorded import video_file
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Detection, FrameInput, Vocabulary

Grey = NDArray[np.uint8]
"""A luma plane at working size, ``(height, width)``."""

Evidence = NDArray[np.float32]
"""Grey levels by which motion explains a pixel better, ``(height, width)``, at working size."""

_WORK_PX = 320
"""Longest side at working size. Bounds the cost; boxes are exact to 2 pixels of a 640x360 frame."""

_NEIGHBOURS = 3
"""Compared frames on either side."""

_MIN_MOVE_PX = 0.3
"""Motion against the camera below this is the flow's own noise; full weight from twice it on."""

_MAX_RETURN_PX = 0.5
"""Flow there and flow back may miss the start by this before a pixel's evidence shrinks."""

_ONE_SIDED = 0.5
"""Taken off evidence seen only before or only after the frame. Not all of it: a thing may start
to move just now."""

_MAX_LEVELS = 30.0
"""Grey levels one pixel can add, so that contrast does not outweigh size."""

_MIN_LEVELS = 1.5
"""Evidence above this counts; compression noise stays below."""

_LEVELS = (0.0, 0.15, 0.3, 0.5)
"""Heights at which regions are cut, between _MIN_LEVELS and the frame's strongest evidence."""

_GAPS_PX = (2, 5, 9, 15)
"""Parts up to twice this apart, at working size, are one region."""

_MIN_SIDE_PX = 4
"""Smallest region, at working size."""


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
        reference, before, after, scale = self._neighbourhood(frame, media, timeline)
        cv2.setRNGSeed(0)  # RANSAC draws; each frame for itself
        evidence = motion_evidence(reference, before, after)
        return [
            Detection([side / scale for side in box], "moving region", score)
            for box, score in moving_regions(evidence)
        ]

    def _neighbourhood(
        self, frame: Frame, media: Media, timeline: Timeline
    ) -> tuple[Grey, list[Grey], list[Grey], float]:
        """Return the frame, its neighbours on both sides, and their size over the frame's size."""
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
        scale = min(1.0, _WORK_PX / max(centre.size))
        before, after = (
            [_grey(p, scale) for p in _spread(side)]
            for side in (
                [p for p in pictures if p.index < centre.index],
                [p for p in pictures if p.index > centre.index],
            )
        )
        return _grey(centre, scale), before, after, scale


def motion_evidence(reference: Grey, before: Sequence[Grey], after: Sequence[Grey]) -> Evidence:
    """Average the evidence of motion in ``reference`` over comparable neighbours; zeros without."""
    nothing = np.zeros(reference.shape, np.float32)
    corners = cv2.goodFeaturesToTrack(reference, 600, 0.005, 5)
    if corners is None:
        return nothing
    points = corners[:, 0].astype(np.float32)
    sides: list[Evidence] = []
    for neighbours in (before, after):
        compared = [_evidence_against(reference, other, points) for other in neighbours]
        useful = [evidence for evidence in compared if evidence is not None]
        if useful:
            sides.append(np.stack(useful).mean(axis=0))
    if len(sides) < 2:
        return sides[0] if sides else nothing
    smooth = [cv2.GaussianBlur(side, (0, 0), 2.0) for side in sides]
    agreement = 2 * np.minimum(*smooth) / (smooth[0] + smooth[1] + 1e-6)
    evidence: Evidence = (sides[0] + sides[1]) / 2 * (1 - _ONE_SIDED * (1 - agreement))
    return evidence.astype(np.float32)


def moving_regions(
    evidence: Evidence,
) -> Iterator[tuple[tuple[int, int, int, int], float]]:
    """Find candidate boxes ``(x, y, w, h)`` at working size with their scores, in [0, 1]."""
    strongest = float(np.percentile(evidence, 99.5))
    if strongest <= _MIN_LEVELS:
        return
    seen = set()
    for level in _LEVELS:
        hot = evidence > _MIN_LEVELS + (strongest - _MIN_LEVELS) * level
        for gap in _GAPS_PX:
            for box in _connected(hot, gap):
                if box not in seen and min(box[2:]) >= _MIN_SIDE_PX:
                    seen.add(box)
                    yield box, _score(evidence, box)


def _evidence_against(
    reference: Grey, other: Grey, corners: NDArray[np.float32]
) -> Evidence | None:
    """Return a neighbour's evidence; none where the camera's motion cannot be told (a cut)."""
    flow, back = _flow(reference, other), _flow(other, reference)
    columns, rows = corners.astype(int).T
    camera, agreeing = cv2.estimateAffine2D(
        corners,
        corners + flow[rows, columns],
        method=cv2.RANSAC,
        ransacReprojThreshold=0.5,
        maxIters=500,
    )
    if camera is None or np.mean(agreeing) < 0.25:
        return None
    height, width = reference.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    by_flow = x + flow[..., 0], y + flow[..., 1]
    by_camera = tuple((a * x + b * y + c).astype(np.float32) for a, b, c in camera)
    moved = np.hypot(by_flow[0] - by_camera[0], by_flow[1] - by_camera[1])
    unexplained = _misfit(reference, other, by_camera) - _misfit(reference, other, by_flow)
    shown = (by_camera[0] >= 0) & (by_camera[0] <= width - 1)
    shown &= (by_camera[1] >= 0) & (by_camera[1] <= height - 1)
    returned = (
        cv2.remap(back, by_flow[0], by_flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        + flow
    )
    missed = np.hypot(returned[..., 0], returned[..., 1])
    trusted = 1 - (missed - _MAX_RETURN_PX) / (_MAX_RETURN_PX + moved / 2)
    weight = np.clip(moved / _MIN_MOVE_PX - 1, 0, 1) * np.clip(trusted, 0, 1) * shown
    evidence: Evidence = (np.clip(unexplained, 0, _MAX_LEVELS) * weight).astype(np.float32)
    return evidence


def _flow(start: Grey, end: Grey) -> NDArray[np.float32]:
    """Return where each pixel of ``start`` went, ``(height, width, 2)``, x and y in pixels."""
    tracker = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = tracker.calc(start, end, np.zeros((*start.shape, 2), np.float32))
    return flow.astype(np.float32, copy=False)


def _misfit(reference: Grey, other: Grey, places: Sequence[NDArray[np.float32]]) -> Evidence:
    """Return the grey levels between the reference and ``other`` looked up at ``places`` (x, y)."""
    moved = cv2.remap(
        other, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    misfit = cv2.absdiff(reference, moved).astype(np.float32)
    return cv2.GaussianBlur(misfit, (0, 0), 1.0).astype(np.float32, copy=False)


def _connected(hot: NDArray[np.bool_], gap: int) -> list[tuple[int, int, int, int]]:
    """Return boxes of what connects once gaps are closed by a disc of radius ``gap``."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1))
    padded = np.pad(hot, gap).astype(np.uint8)  # else closing reaches to the image's edge
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)[gap:-gap, gap:-gap]
    stats = cv2.connectedComponentsWithStats(np.ascontiguousarray(closed), connectivity=8)[2]
    return [(x, y, w, h) for x, y, w, h, _ in stats[1:].tolist()]


def _score(evidence: Evidence, box: tuple[int, int, int, int]) -> float:
    """Return how much a box stands out, in [0, 1].

    Its mean evidence against that of a margin of a quarter of its size all around, how strong the
    evidence is, and (weakly) how much of the frame's evidence it holds: whole things before parts.
    """
    x, y, w, h = box
    margin_x, margin_y = max(3, round(w / 4)), max(3, round(h / 4))
    inner = evidence[y : y + h, x : x + w]
    outer = evidence[
        max(0, y - margin_y) : y + h + margin_y, max(0, x - margin_x) : x + w + margin_x
    ]
    held, mean = float(inner.sum()), float(inner.mean())
    around = (float(outer.sum()) - held) / max(1, outer.size - inner.size)
    contrast = max(0.0, (mean - around) / (mean + around))
    strength = mean / (mean + _MIN_LEVELS)
    score = contrast * strength**0.5 * (held / float(evidence.sum())) ** 0.25
    return float(min(1.0, max(0.0, score)))


def _spread(pictures: Sequence[Picture]) -> list[Picture]:
    """Choose up to ``_NEIGHBOURS`` of the pictures, evenly spread, the ends among them."""
    if len(pictures) <= _NEIGHBOURS:
        return list(pictures)
    places = np.linspace(0, len(pictures) - 1, _NEIGHBOURS).round().astype(int)
    return [pictures[place] for place in places]


def _grey(picture: Picture, scale: float) -> Grey:
    luma = picture.luma()
    if scale == 1.0:
        return np.ascontiguousarray(luma)
    small = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)
