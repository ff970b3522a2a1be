"""The evidence, pixel by pixel, of motion in a frame that is not the camera's."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
"""A luma plane at working size, ``(height, width)``."""

Evidence = NDArray[np.float32]
"""Grey levels by which motion explains a pixel better, ``(height, width)``, at working size."""

_MIN_MOVE_PX = 0.3
"""Motion against the camera below this is the flow's own noise; full weight from twice it on."""

_MAX_RETURN_PX = 0.5
"""Flow there and flow back may miss the start by this before a pixel's evidence shrinks."""

_ONE_SIDED = 0.5
"""Taken off evidence seen only before or only after the frame. Not all of it: a thing may start
to move just now."""

_MAX_LEVELS = 30.0
"""Grey levels one pixel can add, so that contrast does not outweigh size."""

_MIN_FLOW_PX = 64
"""Least side of a picture that the flow is given."""


def motion_evidence(reference: Grey, before: Sequence[Grey], after: Sequence[Grey]) -> Evidence:
    """Average the evidence of motion in ``reference`` over comparable neighbours; zeros without."""
    nothing = np.zeros(reference.shape, np.float32)
    corners = cv2.goodFeaturesToTrack(reference, 600, 0.005, 5)
    if corners is None or len(corners) < 3:  # an affine fit needs three
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


def _evidence_against(
    reference: Grey, other: Grey, corners: NDArray[np.float32]
) -> Evidence | None:
    """Return a neighbour's evidence; none where the camera's motion cannot be told (a cut)."""
    flow, back = dense_flow(reference, other), dense_flow(other, reference)
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
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    by_flow = x + flow[..., 0], y + flow[..., 1]
    by_camera = tuple((a * x + b * y + c).astype(np.float32) for a, b, c in camera)
    moved = _length(by_flow[0] - by_camera[0], by_flow[1] - by_camera[1])
    unexplained = _misfit(reference, other, by_camera) - _misfit(reference, other, by_flow)
    shown = (by_camera[0] >= 0) & (by_camera[0] <= width - 1)
    shown &= (by_camera[1] >= 0) & (by_camera[1] <= height - 1)
    returned = (
        cv2.remap(back, by_flow[0], by_flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        + flow
    )
    missed = _length(returned[..., 0], returned[..., 1])
    trusted = 1 - (missed - _MAX_RETURN_PX) / (_MAX_RETURN_PX + moved / 2)
    weight = np.clip(moved / _MIN_MOVE_PX - 1, 0, 1) * np.clip(trusted, 0, 1) * shown
    evidence: Evidence = (np.clip(unexplained, 0, _MAX_LEVELS) * weight).astype(np.float32)
    return evidence


def _length(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the lengths of vectors: ``np.hypot`` of finite numbers, in half its time.

    >>> _length(np.array([3, 0], np.float32), np.array([4, 2], np.float32)).tolist()
    [5.0, 2.0]
    """
    lengths: NDArray[np.float64] = np.square(x, dtype=np.float64)
    lengths += np.square(y, dtype=np.float64)
    return np.sqrt(lengths, out=lengths).astype(np.float32)


def dense_flow(
    start: Grey, end: Grey, tracker: cv2.DISOpticalFlow | None = None
) -> NDArray[np.float32]:
    """Return where each pixel of ``start`` went, ``(height, width, 2)``, x and y in pixels.

    Args:
        start: a picture.
        end: one of the same size.
        tracker: with settings of its own; none: OpenCV's fast ones.
    """
    height, width = start.shape
    # OpenCV's own pyramid runs out of a flat or tiny picture, and the process dies of it.
    below = max(0, _MIN_FLOW_PX - height, width // 2 - height)
    beside = max(0, _MIN_FLOW_PX - width)
    if below or beside:
        start, end = (np.pad(one, ((0, below), (0, beside)), mode="edge") for one in (start, end))
    tracker = tracker or cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = tracker.calc(start, end, np.zeros((*start.shape, 2), np.float32))
    return flow.astype(np.float32, copy=False)[:height, :width]


def _misfit(reference: Grey, other: Grey, places: Sequence[NDArray[np.float32]]) -> Evidence:
    """Return the grey levels between the reference and ``other`` looked up at ``places`` (x, y)."""
    moved = cv2.remap(
        other, places[0], places[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    misfit = cv2.absdiff(reference, moved).astype(np.float32)
    return cv2.GaussianBlur(misfit, (0, 0), 1.0).astype(np.float32, copy=False)
