"""OpenCV's GrabCut from a box; no weights.

The mask never leaves the box, grown to whole pixels: everything outside is background by
definition, and its colours in a margin around the box are what the thing is told from. Only the
box and that margin are looked at, so cost follows the box and not the frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import SegmentConfig
from pipeline.records.boxes import to_pixels
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Hint, Image, Prompt, Segmented

_MARGIN = 0.5
"""Background looked at on each side, as a fraction of the box's side."""

_MIN_MARGIN_PX = 10

_MODES = 5
"""Colour modes GrabCut fits to either side; it needs as many pixels of each."""

_PART = 0.1
"""The least area of a part that is kept, as a fraction of the largest part's."""

_DOT = 0.02
"""Radius of what a person's point speaks for, as a fraction of the box's diagonal."""

_UNSAID = 255
_THING = (cv2.GC_FGD, cv2.GC_PR_FGD)


class GrabCutSegmenter:
    """Cut each box's thing from its surroundings by colour."""

    name = "grabcut"
    has_weights = False
    digest = ""

    def __init__(self, config: SegmentConfig) -> None:
        self._iterations = config.grabcut_iterations

    def fingerprint(self) -> Mapping[str, str]:
        """Return nothing: only the settings decide."""
        return {}

    def open(self, storage: Storage) -> None:
        """Load nothing."""

    def segment(self, prompts: Iterable[Prompt]) -> Iterator[list[Segmented]]:
        """Yield one mask per box; empty where the box leaves nothing to tell it from."""
        for prompt in prompts:
            bgr = self.embed(prompt.image)
            yield [Segmented(self._mask(bgr, box), None) for box in prompt.boxes]

    def embed(self, image: Image) -> Image:
        """Return the picture as OpenCV wants it; nothing is computed of a whole frame."""
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)

    def refine(self, embedding: Image, hint: Hint) -> Segmented:
        """Return the thing a person means, its box grown to hold every point that is on it."""
        box = _grown(hint)
        radius = max(2, round(_DOT * math.hypot(box[2], box[3])))
        said = np.full(embedding.shape[:2], _UNSAID, dtype=np.uint8)
        for x, y, inside in hint.points:
            colour = cv2.GC_FGD if inside else cv2.GC_BGD
            cv2.circle(said, (round(x), round(y)), radius, colour, cv2.FILLED)
        return Segmented(self._mask(embedding, box, said), None)

    def _mask(
        self, bgr: Image, box: Sequence[float], said: NDArray[np.uint8] | None = None
    ) -> NDArray[np.bool_]:
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
        if said is not None:
            part = said[top : top + len(crop), left : left + crop.shape[1]]
            states[part != _UNSAID] = part[part != _UNSAID]
        inside = int(np.isin(states, _THING).sum())
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
        kept = _large_parts(np.isin(cut, _THING), cut == cv2.GC_FGD)
        mask[top : top + len(kept), left : left + kept.shape[1]] = kept
        return mask


def _grown(hint: Hint) -> list[float]:
    x, y, w, h = hint.box
    on_it = [(px, py) for px, py, inside in hint.points if inside]
    x0, y0 = min([x, *(px for px, _ in on_it)]), min([y, *(py for _, py in on_it)])
    x1, y1 = max([x + w, *(px for px, _ in on_it)]), max([y + h, *(py for _, py in on_it)])
    return [x0, y0, x1 - x0, y1 - y0]


def _large_parts(mask: NDArray[np.bool_], said: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask without speckles; what a person pointed at is none."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    kept = (areas > 0) & (areas >= _PART * areas.max())
    kept[labels[said]] = True
    large: NDArray[np.bool_] = kept[labels]
    return large
