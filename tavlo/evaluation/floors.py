"""The floor every score stands on: what a map that neither looks nor listens would get.

With one threshold for all frames a broad guess at the middle is worth a lot, and a table that does
not show it says little. The fixed map of a frame is the mean truth of all *other* videos' frames;
in AVATAR's tables its top tenth is predicted, in those of older benchmarks it is compared as the
model's own heatmaps are. It knows where things tend to be in this release, and nothing else. The
object prior, which looks and hears nothing, is a model of its own that may be asked for beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tavlo.evaluation.evaluation_set import LabelledFrame, TruthKind
from tavlo.evaluation.predictions import GRID_HW

FIXED_MAP = "fixed map"
OBJECT_PRIOR = "object prior"
"""ImageNet's ResNet-18, as EZ-VSL mixes it in: what stands out in a picture."""
EXPLAINED = (
    f"{FIXED_MAP}: the mean truth of the other videos' frames, the same for all frames of a video,"
    " its top 10 % predicted; it looks at nothing and hears nothing."
)


class FixedMaps:
    """The mean truth of all other videos' frames, for each frame.

    Args:
        frames: labelled ones; those of off-screen sounds have a map and no part in the mean.
        truth_of: the pixels that sound in a frame, ``GRID_HW``.
    """

    def __init__(
        self,
        frames: Sequence[LabelledFrame],
        truth_of: Callable[[LabelledFrame], NDArray[Any]],
    ) -> None:
        self._counts: dict[str, int] = {}
        # A video's own sum must come off the whole; as bits a frame's truth takes 6 kB.
        self._packed: dict[str, list[NDArray[np.uint8]]] = {}
        self._total, self._number = np.zeros(GRID_HW), 0
        self._last: tuple[str, NDArray[np.float64]] = ("", self._total)
        for frame in frames:
            if frame.off_screen:
                continue
            pixels = truth_of(frame) > 0
            self._total += pixels
            self._number += 1
            self._packed.setdefault(frame.video_id, []).append(np.packbits(pixels))
            self._counts[frame.video_id] = self._counts.get(frame.video_id, 0) + 1

    def __bool__(self) -> bool:
        """Say whether every frame has another video's to learn from."""
        return len(self._counts) > 1

    def of(self, frame: LabelledFrame) -> NDArray[np.float64]:
        """Return the share of the other videos' frames in which each pixel sounds, ``GRID_HW``."""
        video = frame.video_id
        if self._last[0] != video:  # a video's frames follow one another
            sums = np.zeros(GRID_HW[0] * GRID_HW[1])
            for bits in self._packed.get(video, []):
                sums += np.unpackbits(bits, count=len(sums))
            rest = self._number - self._counts.get(video, 0)
            self._last = video, (self._total - sums.reshape(GRID_HW)) / rest
        return self._last[1]


def fixed_maps(
    frames: Sequence[LabelledFrame], truth: TruthKind, fraction: float
) -> Iterator[NDArray[np.bool_]]:
    """Yield what the fixed map predicts in each frame, ``GRID_HW``; nothing without two videos.

    Args:
        frames: the labelled frames.
        truth: by mask or by box.
        fraction: of the pixels of a map, predicted; ties at its end are all in.
    """
    maps = FixedMaps(frames, lambda frame: frame.truth(GRID_HW, truth, None))
    size = GRID_HW[0] * GRID_HW[1]
    wanted = max(1, round(size * fraction))
    for frame in frames if maps else ():
        found = maps.of(frame)
        threshold = np.partition(found.reshape(-1), size - wanted)[size - wanted]
        yield found >= max(threshold, np.nextafter(0, 1))
