"""The floor every score stands on: what a map that neither looks nor listens would get.

With one threshold for all frames a broad guess at the middle is worth a lot, and a table that does
not show it says little. The fixed map of a frame is the mean truth of all *other* videos' frames;
its top tenth is predicted. It knows where things tend to be in this release, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tavlo.evaluation.evaluation_set import LabelledFrame, TruthKind
from tavlo.evaluation.predictions import GRID_HW

FIXED_MAP = "fixed map"
EXPLAINED = (
    f"{FIXED_MAP}: the mean truth of the other videos' frames, the same for all frames of a video,"
    " its top 10 % predicted; it looks at nothing and hears nothing."
)


def fixed_maps(
    frames: Sequence[LabelledFrame], truth: TruthKind, fraction: float
) -> Iterator[NDArray[np.bool_]]:
    """Yield what the fixed map predicts in each frame, ``GRID_HW``; nothing without two videos.

    Args:
        frames: the labelled frames; off-screen ones get a prediction and have no part in the mean.
        truth: by mask or by box.
        fraction: of the pixels of a map, predicted; ties at its end are all in.
    """
    own: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    # A video's own sum must come off the whole; as bits a frame's truth takes 6 kB.
    packed: dict[str, list[NDArray[np.uint8]]] = {}
    total, number = np.zeros(GRID_HW), 0
    for frame in frames:
        if frame.off_screen:
            continue
        pixels = np.asarray(frame.truth(GRID_HW, truth, None), np.bool_)
        total += pixels
        number += 1
        packed.setdefault(frame.video_id, []).append(np.packbits(pixels))
        counts[frame.video_id] = counts.get(frame.video_id, 0) + 1
    if len(counts) < 2:
        return
    size = GRID_HW[0] * GRID_HW[1]
    wanted = max(1, round(size * fraction))
    for frame in frames:
        video = frame.video_id
        if video not in own:
            own.clear()  # a video's frames follow one another
            sums = np.zeros(size)
            for bits in packed.get(video, []):
                sums += np.unpackbits(bits, count=size)
            others = (total - sums.reshape(GRID_HW)) / (number - counts.get(video, 0))
            own[video] = others
        threshold = np.partition(own[video].reshape(-1), size - wanted)[size - wanted]
        yield own[video] >= max(threshold, np.nextafter(0, 1))
