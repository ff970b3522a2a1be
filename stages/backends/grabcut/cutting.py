"""OpenCV's GrabCut from a box; no weights (Rother, Kolmogorov, Blake, "GrabCut", SIGGRAPH 2004).

The mask never leaves the box, grown to whole pixels: everything outside is background by
definition, and its colours in a margin around the box are what the thing is told from. Only the
box and that margin are looked at, and where the box is large they are shrunk, so cost follows
neither the frame nor the box: what is cut in the small has each pixel speak for all it stands for,
and at full size the rim alone is cut again.

Two boxes leave GrabCut nothing to learn from, and it then says that there is no thing at all:

- one as large as the picture, with no margin: its outermost pixels are then taken for likely
  background (``grabcut-rim``);
- one whose surround has the thing's colours, such as a box around a part of a thing: its middle is
  then taken for the thing, which grows from there up to the edges it meets (``grabcut-centre``).
  Where it meets none, the box holds nothing that colour can tell apart: ``colours_alike``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import SegmentConfig
from pipeline.records.boxes import to_pixels
from stages.backends.interfaces import Hint, Image, Prompt, Segmented

_MARGIN = 0.5
"""Background looked at on each side, as a fraction of the box's side."""

_MIN_MARGIN_PX = 10

_LEARNED_PX = 12_000
"""Pixels of a larger box while colours are learned. Fewer are faster and worse: what is small is
lost."""

_HEADROOM = 600.0
"""The logarithm of the largest density that a cut is made with: far from what a double cannot hold
at either end."""

_RIM_PX = 2
"""Pixels of the small picture on each side of its rim that are cut again at full size."""

_MODES = 5
"""Colour modes GrabCut fits to either side; it needs as many pixels of each."""

_NO_SURROUND = 0.05
"""The least background around a box, as a fraction of the box's area, that shows its colours."""

_BAND = 0.05
"""Width of the band inside such a box that is likely background, as a fraction of its shorter
side."""

_CORE = 0.5
"""Axes of the ellipse in the middle of a box, as a fraction of the box's sides."""

_MOSTLY_CORE = 0.6
"""The fraction of a mask above which it is the ellipse we put there, and nothing was found."""

_PART = 0.1
"""The least area of a part that is kept, as a fraction of the largest part's."""

_DOT = 0.02
"""Radius of what a person's point speaks for, as a fraction of the box's diagonal."""

_THING = (cv2.GC_FGD, cv2.GC_PR_FGD)

_ALL = (0, 0, 1, 1)
"""What GrabCut takes for a rectangle and, given states, does not look at."""

Point = tuple[float, float, bool]
States = NDArray[np.uint8]
"""The states of pixels, ``(height, width)``: what is known of each, as OpenCV's ``GC_*``."""
Model = NDArray[np.float64]
"""The colours of a side, ``(1, 65)``, as OpenCV has them: weights, means, covariances of modes."""


class GrabCut:
    """Cut each box's thing from its surroundings by colour."""

    whole_px: float = 80_000
    """Pixels of a box, at most, that is cut at full size: about a third of a 640x360 frame. Shrunk,
    some come out as another thing, and what shrinking saves grows with the box."""
    settled: float = 0.005
    """The share of the box's pixels that change sides in a round, up to which no further one is
    made: most boxes settle in the third, and each round is another cut from nothing."""
    seed = 0
    """The seed of k-means, which draws the first colour modes."""

    def __init__(self, config: SegmentConfig) -> None:
        self._iterations = config.grabcut_iterations
        self._least = config.min_mask_area

    def segment(self, prompts: Iterable[Prompt]) -> Iterator[list[Segmented]]:
        """Yield one mask per box; an empty one with the reason."""
        for prompt in prompts:
            bgr = self.embed(prompt.image)
            yield [self._segmented(bgr, box, ()) for box in prompt.boxes]

    def embed(self, image: Image) -> Image:
        """Return the picture as OpenCV wants it; nothing is computed of a whole frame."""
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)

    def refine(self, embedding: Image, hint: Hint) -> Segmented:
        """Return the thing a person means, its box grown to hold every point that is on it."""
        return self._segmented(embedding, _grown(hint), hint.points)

    def _segmented(self, bgr: Image, box: Sequence[float], points: Sequence[Point]) -> Segmented:
        mask = np.zeros(bgr.shape[:2], dtype=bool)
        inner = to_pixels(box, bgr.shape[1], bgr.shape[0])
        if inner is None:
            return Segmented(mask, None, reason="box_outside_frame")
        view = _View.of(bgr, inner, points, max(2, round(_DOT * math.hypot(box[2], box[3]))))
        assumed = "" if view.has_surround else "rim"
        found = self._cut(view)
        if found is None:
            return Segmented(mask, None, reason="box_too_small")
        pointed = any(inside for *_, inside in points)
        if found.sum() < max(1, self._least * view.area) and not pointed:
            assumed = "centre"
            found = self._cut(view, core=True)
            known = np.count_nonzero(view.states(core=True) == cv2.GC_FGD)
            if found is None or known > _MOSTLY_CORE * found.sum():
                return Segmented(mask, None, reason="colours_alike")
        mask[view.top : view.top + len(found), view.left : view.left + found.shape[1]] = found
        return Segmented(mask, None, assumed=assumed)

    def _cut(self, view: _View, *, core: bool = False) -> NDArray[np.bool_] | None:
        """Cut the thing out of a view; none where there are too few pixels of either side."""
        scale = 1.0 if view.area <= self.whole_px else math.sqrt(_LEARNED_PX / view.area)
        states = view.states(scale, core=core)
        inside = int(np.isin(states, _THING).sum())
        if min(inside, states.size - inside) < _MODES:
            return None
        size = (states.shape[1], states.shape[0])
        small = np.asarray(cv2.resize(view.pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        colours = (np.zeros((1, 13 * _MODES)), np.zeros((1, 13 * _MODES)))
        cv2.setRNGSeed(self.seed)
        mode = cv2.GC_INIT_WITH_MASK
        for _ in range(self._iterations):
            before = states.copy()
            if scale < 1:
                _learn(small, states, colours, mode)
                weighed = _to_the_power(colours, 1 / scale)
                cv2.grabCut(small, states, _ALL, *weighed, 1, cv2.GC_EVAL_FREEZE_MODEL)
            else:
                cv2.grabCut(small, states, _ALL, *colours, 1, mode)
            if np.count_nonzero(states != before) <= self.settled * inside:
                break
            mode = cv2.GC_EVAL
        known = view.states(core=core)
        if scale < 1:
            # Shrunk, pixels are means of several, and more alike than those the rim is made of.
            some = cv2.resize(view.pixels, size, interpolation=cv2.INTER_NEAREST)
            _learn(np.asarray(some, np.uint8), states, colours, cv2.GC_EVAL)
            states = _rim_alone(np.isin(states, _THING), known)
            cv2.grabCut(view.pixels, states, _ALL, *colours, 1, cv2.GC_EVAL_FREEZE_MODEL)
        return _large_parts(np.isin(states, _THING), known == cv2.GC_FGD)


@dataclass(frozen=True)
class _View:
    """A box and the margin around it, cut out of the picture, and what a person said of it."""

    pixels: Image
    """BGR, ``(height, width, 3)``."""
    left: int
    top: int
    inner: tuple[int, int, int, int]
    """The box in it: x0, y0, x1, y1, pixels with open ends."""
    points: Sequence[Point]
    """x, y in pixels of the picture, and whether the thing is there."""
    radius: int
    """Radius of what a point speaks for, pixels."""

    @classmethod
    def of(
        cls, bgr: Image, box: tuple[int, int, int, int], points: Sequence[Point], radius: int
    ) -> _View:
        """Cut it out."""
        x0, y0, x1, y1 = box
        margin_x = max(_MIN_MARGIN_PX, round(_MARGIN * (x1 - x0)))
        margin_y = max(_MIN_MARGIN_PX, round(_MARGIN * (y1 - y0)))
        left, top = max(0, x0 - margin_x), max(0, y0 - margin_y)
        pixels = np.ascontiguousarray(bgr[top : y1 + margin_y, left : x1 + margin_x])
        inner = (x0 - left, y0 - top, x1 - left, y1 - top)
        return cls(pixels, left, top, inner, points, radius)

    @property
    def area(self) -> int:
        """Pixels of the box."""
        x0, y0, x1, y1 = self.inner
        return (x1 - x0) * (y1 - y0)

    @property
    def has_surround(self) -> bool:
        """There is enough around the box to show the background's colours."""
        height, width = self.pixels.shape[:2]
        return bool(height * width >= (1 + _NO_SURROUND) * self.area)

    def states(self, scale: float = 1.0, *, core: bool) -> States:
        """Write down what is known before anything is looked at, of the view times ``scale``.

        Args:
            scale: at most 1.
            core: take the box's middle for the thing.
        """
        height, width = (max(1, round(side * scale)) for side in self.pixels.shape[:2])
        states = np.full((height, width), cv2.GC_BGD, dtype=np.uint8)
        x0, y0, x1, y1 = (round(place * scale) for place in self.inner)
        box = states[y0:y1, x0:x1]
        box[:] = cv2.GC_PR_FGD
        if not self.has_surround:
            band = max(1, round(_BAND * min(box.shape)))
            box[:] = cv2.GC_PR_BGD
            box[band:-band, band:-band] = cv2.GC_PR_FGD
        if core:
            middle = ((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2)
            axes = (_CORE * (x1 - x0), _CORE * (y1 - y0))
            cv2.ellipse(states, (middle, axes, 0.0), cv2.GC_FGD, cv2.FILLED)
        for x, y, inside in self.points:
            place = (round((x - self.left) * scale), round((y - self.top) * scale))
            colour = cv2.GC_FGD if inside else cv2.GC_BGD
            cv2.circle(states, place, max(1, round(self.radius * scale)), colour, cv2.FILLED)
        return states


def _learn(pixels: Image, states: States, colours: tuple[Model, Model], mode: int) -> None:
    """Learn the colours of either side, and cut nothing: no pixel is left in doubt."""
    sides = np.where(np.isin(states, _THING), cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
    cv2.grabCut(pixels, sides, _ALL, *colours, 1, mode)


def _to_the_power(colours: tuple[Model, Model], power: float) -> tuple[Model, Model]:
    """Return colour models whose densities are those of ``colours`` to a power.

    A pixel of a picture shrunk to 1/n of its sides stands for n² pixels, and what separates it from
    the next for n such pairs: to cut as at full size, colours weigh n times as much against the rim
    as GrabCut has them, and a cost is the logarithm of a density. Else things vanish in the small.

    The power of a sum of modes is taken as the sum of their powers: of a colour one is by far the
    likeliest. A factor that both models share, and no cut knows, keeps small densities above 0.
    """
    models = np.concatenate(colours)
    weights, covariances = models[:, :_MODES], models[:, 4 * _MODES :].reshape(2, _MODES, 3, 3)
    used = weights > 0
    spreads = np.linalg.slogdet(covariances[used])[1] / 2
    peaks = power * (np.log(weights[used]) - spreads)
    covariances /= power
    spreads -= 1.5 * math.log(power)
    weights[used] = np.exp(peaks - peaks.max() + spreads + _HEADROOM)
    return models[:1], models[1:]


def _rim_alone(small: NDArray[np.bool_], known: States) -> States:
    """Enlarge a small cut and leave open what lies along its rim; what was known stays known."""
    size = (known.shape[1], known.shape[0])
    square = np.ones((2 * _RIM_PX + 1, 2 * _RIM_PX + 1), np.uint8)
    thing = small.astype(np.uint8)

    def enlarged(mask: NDArray[Any]) -> NDArray[np.bool_]:
        wide: NDArray[np.bool_] = (
            cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
        )
        return wide

    states = np.full(known.shape, cv2.GC_BGD, dtype=np.uint8)
    states[enlarged(cv2.dilate(thing, square))] = cv2.GC_PR_BGD
    states[enlarged(thing)] = cv2.GC_PR_FGD
    states[enlarged(cv2.erode(thing, square))] = cv2.GC_FGD
    sure = np.isin(known, (cv2.GC_BGD, cv2.GC_FGD))
    states[sure] = known[sure]
    return states


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
