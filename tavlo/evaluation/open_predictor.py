"""Any checkpoint, ours or its authors', as a model that may be scored on a release.

Models that take a whole clip, its frames and its sound, as TAVLO does, are asked here; those of one
picture and one sound in ``image_models``.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.devices import choose_device
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.files import sha256_of
from pipeline.media.clip_cache import ClipTensors
from pipeline.versions import code_revision
from tavlo.baselines.interface import MODELS, checkpoint_path, open_model
from tavlo.evaluation.evaluation_set import EvaluationSet
from tavlo.evaluation.image_models import ImagePredictor
from tavlo.evaluation.older_benchmarks import USUAL_POST
from tavlo.evaluation.predictions import Answer, Notes
from tavlo.evaluation.training_overlap import count_seen
from tavlo.training.cached_clips import CACHE_VERSION, CachedClip, fill_cache
from tavlo.training.checkpoint import load_checkpoint, trained_here
from tavlo.training.data import in_threads, read_clip
from tavlo.training.recipe import Recipe
from tavlo.training.training_clips import read_clips
from tavlo.training.training_config import TrainConfig, train_config

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
            "post": asdict(POST),
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
        sounds_of: Mapping[str, str] | None = None,
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
        sounds_of = sounds_of or {}
        for clip_id, tensors, other in self._read_with(data, labelled, notes, sounds_of):
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
                exchanged = None
                if other is not None:
                    swapped = ClipTensors(tensors.frames, other)
                    pair = (heatmaps, self.recipe.heatmaps(model, swapped, index))
                    exchanged = dict.fromkeys(windows, pair)
            yield Answer(clip_id, index, dict.fromkeys(windows, heatmaps), exchanged)

    def read(
        self, data: EvaluationSet, wanted: Collection[str], notes: Notes
    ) -> Iterator[tuple[str, ClipTensors]]:
        """Yield some clips by id, as the model was trained on them; note those that cannot be read.

        Raises:
            UsageError: the release has no clips.
            AvatarBuildError: more frames lack their clip than may.
        """
        for clip_id, tensors, _ in self._read_with(data, wanted, notes, {}):
            yield clip_id, tensors

    def _read_with(
        self,
        data: EvaluationSet,
        wanted: Collection[str],
        notes: Notes,
        sounds_of: Mapping[str, str],
    ) -> Iterator[tuple[str, ClipTensors, NDArray[np.float32] | None]]:
        """Yield clips as ``read`` does, each with the other sound it gets too, if there is."""
        clips = [clip for clip in read_clips(data.folder) if clip.clip_id in wanted]
        with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
            notes.show(0, "making small copies")
            processes = len(os.sched_getaffinity(0))
            cache = self.cache or Path(scratch)
            ready, failed = fill_cache(clips, cache, self.config.rules, processes)
            reasons = {one.frame_id: failed.get(one.clip_id, "") for one in data.frames}
            notes.miss({frame: why for frame, why in reasons.items() if why})
            copies = {clip.clip_id: clip for clip in ready}

            def read(clip: CachedClip) -> tuple[str, ClipTensors, NDArray[np.float32] | None]:
                copy = copies.get(sounds_of.get(clip.clip_id, ""))
                own = read_clip(clip.path, self.config.clip_s, clip.sha256)
                if copy is None:
                    return clip.clip_id, own, None
                other = read_clip(copy.path, self.config.clip_s, copy.sha256)
                return clip.clip_id, own, other.waveform

            # Of 16 clips ahead none waits for the disk, and they are 0.7 GB.
            yield from in_threads(read, ready, min(processes, 16))


def open_predictor(
    checkpoint: str,
    data: EvaluationSet,
    *,
    model: str = "",
    prior: str = "",
    variant: str = "",
    device: str = "auto",
    cache: Path | None = None,
    allow_overlap: bool = False,
) -> tuple[ImagePredictor | ClipPredictor, str]:
    """Open a checkpoint; nothing is written.

    Args:
        checkpoint: a file of ``train-tavlo`` or of a model's authors, or a registered name.
        data: the labelled frames it shall be scored on.
        model: whose it is, in ``MODELS``; a checkpoint of ``train-tavlo`` tells that itself.
        prior: ImageNet's ResNet-18, to mix in the object prior.
        variant: of the authors' post-processing.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        cache: where small copies of clips stay, for models that take whole clips.
        allow_overlap: score videos the model was trained on.

    Returns:
        The model, and a sentence on names that do not tell whether it was trained on their videos;
        empty when all do.

    Raises:
        UsageError: no such checkpoint, model or device, or it has seen the release's videos.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("scoring runs in one process: start it without torchrun.")
    place, path = choose_device(device), checkpoint_path(checkpoint)
    origin: dict[str, Any] = {"checkpoint": path.name, "checkpoint_sha256": sha256_of(path)}
    state, doubt = None, ""
    if trained_here(path):
        state = load_checkpoint(path)
        trained_on = state.data["videos"] + state.data["validation_videos"]
        seen, doubt = count_seen(trained_on, data, str(path), allowed=allow_overlap)
        origin |= {
            "step": state.step,
            "preset": state.preset,
            "weights_from": state.weights_from,
            "data_digest": state.data["digest"],
            "revision": state.revision,
            "videos_seen_in_training": seen,
        }
    name = model or (state.recipe if state else "")
    if not name:
        raise UsageError(
            f"{path}: not a checkpoint of 'train-tavlo'. Say whose it is: --model"
            f" {', '.join(sorted(MODELS))}."
        )
    if name in MODELS or state is None or name != state.recipe:
        saliency = checkpoint_path(prior) if prior else None
        if saliency is not None:
            origin["prior_sha256"] = sha256_of(saliency)
        origin["variant"] = variant
        opened = open_model(name, path, prior=saliency, variant=variant, device=str(place))
        return ImagePredictor(opened, origin), doubt
    if prior or variant:
        raise UsageError(f"{name}: has no object prior and no variants.")
    recipe, network = state.open(path)
    config = train_config(state.train_config)
    return ClipPredictor(recipe, network, config, place, origin, cache), doubt
