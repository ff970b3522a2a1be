"""The label-free numbers of a model on a release: what its maps owe to the sound.

What they are says ``tavlo.metrics.sound_sensitivity``. The sensitivity takes the model, asked a
second time with another clip's sound, so it is computed with the heatmaps and kept in
``model.json``; heatmaps of a model that is not at hand have the correlation with their mean alone.
Both are of a share of the clips, drawn by seed, with maps on the grid on which they are scored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError
from tavlo.evaluation.evaluation_set import LabelledFrame
from tavlo.evaluation.predictions import HEARING, MADE_BY, Predictions
from tavlo.metrics.bootstrap import Bootstrap
from tavlo.metrics.sound_sensitivity import (
    MEAN_MAP,
    SENSITIVITY,
    draw_clips,
    mean_map_correlations,
)

CLIPS = 64
"""Clips that are asked about by default; it leaves means a deviation of 0.04 where clips differ by
0.3."""


@dataclass(frozen=True)
class LabelFreeNumber:
    """A mean over clips with its interval; no percentage."""

    value: float
    low: float
    """Lower end of the 95 % interval, by bootstrap over videos."""
    high: float
    clips: int

    @classmethod
    def of(
        cls, values: Mapping[str, float], videos: Mapping[str, str], seed: int
    ) -> LabelFreeNumber:
        """Summarise clips.

        Args:
            values: by clip.
            videos: of each clip.
            seed: of the bootstrap.
        """
        found = np.array([values[clip] for clip in values], np.float64)
        draws = Bootstrap([videos[clip] for clip in values], seed).means(slice(None), found)
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        return cls(float(found.mean()), float(low), float(high), len(found))

    def told(self) -> str:
        """Say it for people."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def label_free_numbers(
    frames: Sequence[LabelledFrame], predictions: Predictions, count: int, seed: int
) -> dict[str, LabelFreeNumber]:
    """Compute what can be told without labels.

    Args:
        frames: those that have a heatmap.
        predictions: their heatmaps.
        count: clips to look at; 0 for none.
        seed: of which they are, and of the bootstrap.

    Returns:
        ``MEAN_MAP`` where there are two clips, ``SENSITIVITY`` where the model was asked for it.
    """
    by_clip: dict[str, list[int]] = {}
    for frame in frames:
        by_clip.setdefault(frame.clip_id, []).append(frame.frame_index)
    videos = {frame.clip_id: frame.video_id for frame in frames}
    found: dict[str, LabelFreeNumber] = {}
    about = predictions.about()
    heard = about.get(HEARING) if about.get(MADE_BY) else None
    if count and heard is not None and (values := _of_clips(heard, videos)):
        found[SENSITIVITY] = LabelFreeNumber.of(values, videos, seed)
    chosen = draw_clips(by_clip, count, seed)

    def maps() -> Iterator[NDArray[np.float32]]:
        for clip in chosen:
            yield np.stack([predictions.heatmap(clip, index) for index in by_clip[clip]])

    alike = mean_map_correlations(maps)
    if alike:
        of_clips = dict(zip(chosen, alike, strict=True))
        found[MEAN_MAP] = LabelFreeNumber.of(of_clips, videos, seed)
    return found


def _of_clips(heard: Any, clips: Collection[str]) -> dict[str, float]:
    """Return the sensitivity of each clip that ``model.json`` states."""
    try:
        values = {clip: float(heard["of_clips"][clip]) for clip in sorted(heard["of_clips"])}
    except (TypeError, KeyError, ValueError) as error:
        raise AvatarBuildError(
            f"model.json: {HEARING} is no sound sensitivity: {error}."
        ) from error
    if not all(0 <= value <= 2 for value in values.values()):
        raise AvatarBuildError(f"model.json: {HEARING}: a sound sensitivity is not in [0, 2].")
    return {clip: value for clip, value in values.items() if clip in clips}


def label_free_sentence(numbers: Mapping[str, LabelFreeNumber]) -> str:
    """Say the numbers in a line; and why one is missing."""
    sound, alike = numbers.get(SENSITIVITY), numbers.get(MEAN_MAP)
    said = [
        f"sound sensitivity {sound.told()} of {sound.clips} clips (0 is deaf)"
        if sound
        else "sound sensitivity not known: it takes the model, asked again with another clip's"
        " sound ('evaluate --checkpoint')",
        f"correlation with the mean map {alike.told()} of {alike.clips} clips (1 is one fixed map)"
        if alike
        else "no correlation with the mean map, which takes two clips",
    ]
    return f"Without labels: {'; '.join(said)}."
