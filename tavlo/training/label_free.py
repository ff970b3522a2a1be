"""The label-free numbers of a validation: does the model hear, or does it always say the same?

What they are says ``tavlo.metrics.sound_sensitivity``. Here the maps are on the model's own grid,
of clips drawn once for all validations, and a clip's other sound is of another video: a training
reads no labels, so other categories are not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.media.clip_cache import ClipTensors
from tavlo.metrics.sound_sensitivity import (
    MEAN_MAP,
    SENSITIVITY,
    draw_clips,
    exchange_sounds,
    mean_map_correlations,
    sound_sensitivity,
)
from tavlo.training.cached_clips import CachedClip
from tavlo.training.data import read_clip
from tavlo.training.recipe import Recipe
from tavlo.training.training_config import TrainConfig

DEAF = 0.05
"""A model below this sound sensitivity is called deaf. On drawn clips (``benchmarks/results``) the
printed objective came to 0.002, the least of all models that localised to 0.14."""


@dataclass
class LabelFree:
    """The clips whose sounds are exchanged at each validation.

    Args:
        recipe: the model.
        clips: of the validation.
        config: the loop's settings.
    """

    recipe: Recipe
    clips: Sequence[CachedClip]
    config: TrainConfig

    def __post_init__(self) -> None:
        by_id = {clip.clip_id: clip for clip in self.clips}
        chosen = draw_clips(by_id, self.config.sensitivity_clips, self.config.seed)
        videos = {name: (by_id[name].video_id, *sorted(by_id[name].readings)) for name in chosen}
        self._heard_with, _ = exchange_sounds(videos, self.config.seed)
        self._by_id = by_id
        self._sounds: dict[str, NDArray[np.float32]] = {}

    def numbers(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Ask the model about each clip twice, with its own and with another clip's sound.

        Args:
            model: in evaluation mode, on the device.
            device: where it runs.

        Returns:
            ``SENSITIVITY`` and ``MEAN_MAP``, means over clips; nothing where there are less than
            two clips.
        """
        own: list[NDArray[np.float32]] = []
        changed: list[float] = []
        # Every sound is another clip's too; in memory they are a hundredth of the pictures.
        if not self._sounds:
            self._sounds = {name: self._read(name).waveform for name in self._heard_with}
        for name, other in self._heard_with.items():
            clip = self._read(name)
            index = self.recipe.frames_to_judge(len(clip.frames))
            exchanged = ClipTensors(clip.frames, self._sounds[other])
            with self.config.autocast(device):
                maps, foreign = (
                    self.recipe.heatmaps(model, one, index) for one in (clip, exchanged)
                )
            own.append(maps)
            changed.append(sound_sensitivity(maps, foreign))
        if not changed:
            return {}
        alike = mean_map_correlations(lambda: own)
        return {SENSITIVITY: float(np.mean(changed)), MEAN_MAP: float(np.mean(alike))}

    def _read(self, name: str) -> ClipTensors:
        return read_clip(self._by_id[name].path, self.config.clip_s)


def goes_deaf(rows: Sequence[dict[str, Any]]) -> bool:
    """Say whether the last of a log's rows makes the model deaf, and none before did.

    The rule: the sound sensitivity of two validations in a row is below ``DEAF``, the first of them
    after a tenth of the steps at least; a network that has hardly begun does not hear yet.
    """
    steps = next((row["steps"] for row in rows if row.get("event") == "start"), 0)
    heard = [row for row in rows if SENSITIVITY in row and row["step"] >= steps / 10]
    if len(heard) < 2 or any(row.get("event") == "deaf" for row in rows):
        return False
    return all(row[SENSITIVITY] < DEAF for row in heard[-2:])
