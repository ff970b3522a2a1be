"""Models that take a whole clip, its frames and its sound, as TAVLO does."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from pipeline.errors import AvatarBuildError
from pipeline.media.clip_cache import ClipTensors
from pipeline.versions import code_revision
from tavlo.evaluation.evaluation_set import EvaluationSet
from tavlo.evaluation.older_benchmarks import USUAL_POST
from tavlo.evaluation.predict import Answer, Notes
from tavlo.training.cached_clips import CACHE_VERSION, fill_cache
from tavlo.training.data import read_clip
from tavlo.training.recipe import Recipe
from tavlo.training.training_clips import read_clips
from tavlo.training.training_config import TrainConfig

POST = replace(USUAL_POST, upsampling="opencv-bilinear", align_corners=False)
"""The way from a clip model's heatmap to a prediction; ``Predictions`` upsamples it so."""


@dataclass(frozen=True)
class ClipPredictor:
    """A trained model that is asked about a clip as a whole."""

    of_images: ClassVar[bool] = False

    recipe: Recipe
    model: nn.Module = field(repr=False)
    config: TrainConfig
    """The loop's settings it was trained with."""
    device: torch.device
    origin: Mapping[str, Any]
    """Facts that tell its results from another's, for ``model.json``."""
    cache: Path | None = None
    """A folder where small copies of clips stay; None makes them for this run alone."""

    @property
    def about(self) -> dict[str, Any]:
        """Return what it is and all that decides its heatmaps."""
        return {
            "name": self.recipe.name,
            **self.origin,
            "post": POST.as_dict(),
            "preparation": "small copies of whole clips, as in training",
            "small_copies": CACHE_VERSION,
            "precision": "bf16" if self.config.uses_bf16(self.device) else "float32",
            "predicted_by": code_revision(),
        }

    def answers(
        self,
        data: EvaluationSet,
        windows: Sequence[Any],
        every_frame_of: Collection[str],
        notes: Notes,
    ) -> Iterator[Answer]:
        """See ``Predictor``; a clip has all its sound, whatever the window.

        Raises:
            UsageError: the release has no clips.
            AvatarBuildError: a clip lacks a labelled frame.
        """
        labelled: dict[str, set[int]] = defaultdict(set)
        for frame in data.frames:
            labelled[frame.clip_id].add(frame.frame_index)
        model = self.model.to(self.device)
        for clip_id, tensors in self.read(data, labelled, notes):
            index = sorted(labelled[clip_id])
            if index[-1] >= len(tensors.frames):
                raise AvatarBuildError(
                    f"{clip_id}: frame {index[-1]} is labelled, and the clip has"
                    f" {len(tensors.frames)} frames. Verify the release: 'avatar-build export"
                    f" --verify {data.folder}'."
                )
            if clip_id in every_frame_of:
                index = list(range(len(tensors.frames)))
            with self.config.autocast(self.device):
                heatmaps = self.recipe.heatmaps(model, tensors, index)
            yield Answer(clip_id, index, dict.fromkeys(windows, heatmaps))

    def read(
        self, data: EvaluationSet, wanted: Collection[str], notes: Notes
    ) -> Iterator[tuple[str, ClipTensors]]:
        """Yield some clips by id, as the model was trained on them; note those that cannot be read.

        Raises:
            UsageError: the release has no clips.
            AvatarBuildError: more frames lack their clip than may.
        """
        clips = [clip for clip in read_clips(data.folder) if clip.clip_id in wanted]
        with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
            notes.show(0, "making small copies")
            processes = len(os.sched_getaffinity(0))
            cache = self.cache or Path(scratch)
            ready, failed = fill_cache(clips, cache, self.config.rules, processes)
            reasons = {one.frame_id: failed.get(one.clip_id, "") for one in data.frames}
            notes.miss({frame: why for frame, why in reasons.items() if why})
            for clip in ready:
                yield clip.clip_id, read_clip(clip.path, self.config.clip_s, clip.sha256)
