"""OpenCV's GrabCut from a box; no weights.

The mask never leaves the box, grown to whole pixels: everything outside is background by
definition, and its colours in a margin around the box are what the thing is told from. Only the
box and that margin are looked at, so cost follows the box and not the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import SegmentConfig
from pipeline.geometry import to_pixels
from pipeline.storage import Storage
from stages.backends.interfaces import Image, Prompt, Segmented

_MARGIN = 0.5
"""Background looked at on each side, as a share of the box's side."""

_MIN_MARGIN_PX = 10

_MODES = 5
"""Colour modes GrabCut fits to either side; it needs as many pixels of each."""

_PART = 0.1
"""A part is kept from this share of the largest part's area on; smaller ones are speckles."""


class GrabCutSegmenter:
    """Cut each box's thing from its surroundings by colour."""

    name = "grabcut"
    digest = ""

    def __init__(self, config: SegmentConfig) -> None:
        self._iterations = config.grabcut_iterations

    def fingerprint(self) -> Mapping[str, str]:
        """Nothing beside the settings decides."""
        return {}

    def open(self, storage: Storage) -> None:
        """Nothing to load."""

    def segment(self, prompts: Iterable[Prompt]) -> Iterator[list[Segmented]]:
        """Yield one mask per box; empty where the box leaves nothing to tell it from."""
        for prompt in prompts:
            bgr = cv2.cvtColor(prompt.image, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)
            yield [Segmented(self._mask(bgr, box), None) for box in prompt.boxes]

    def _mask(self, bgr: Image, box: Sequence[float]) -> NDArray[np.bool_]:
        height, width = bgr.shape[:2]
        mask = np.zeros((height, width), dtype=bool)
        inner = to_pixels(box, width, height)
        if inner is None:
            return mask
        x0, y0, x1, y1 = inner
        margin_x = max(_MIN_MARGIN_PX, round(_MARGIN * (x1 - x0)))
        margin_y = max(_MIN_MARGIN_PX, round(_MARGIN * (y1 - y0)))
        left, top = max(0, x0 - margin_x), max(0, y0 - margin_y)
        crop = np.ascontiguousarray(bgr[top : y1 + margin_y, left : x1 + margin_x])
        states = np.full(crop.shape[:2], cv2.GC_BGD, dtype=np.uint8)
        states[y0 - top : y1 - top, x0 - left : x1 - left] = cv2.GC_PR_FGD
        inside = (x1 - x0) * (y1 - y0)
        if min(inside, states.size - inside) < _MODES:
            return mask
        cv2.setRNGSeed(0)  # the colour modes start from k-means, which draws
        models = [np.zeros((1, 13 * _MODES)) for _ in range(2)]
        cut, _, _ = cv2.grabCut(
            crop,
            states,
            (0, 0, 1, 1),
            models[0],
            models[1],
            self._iterations,
            cv2.GC_INIT_WITH_MASK,
        )
        kept = _large_parts(cut == cv2.GC_PR_FGD)
        mask[top : top + len(kept), left : left + kept.shape[1]] = kept
        return mask


def _large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without speckles."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    kept = (areas > 0) & (areas >= _PART * areas.max())
    large: NDArray[np.bool_] = kept[labels]
    return large
