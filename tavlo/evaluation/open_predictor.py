"""Any checkpoint, ours or its authors', as a model that may be scored on a release."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.devices import choose_device
from pipeline.errors import UsageError
from pipeline.files import sha256_of
from tavlo.baselines.checkpoints import trained_here
from tavlo.baselines.interface import MODELS, checkpoint_path, open_model
from tavlo.evaluation.clip_models import ClipPredictor
from tavlo.evaluation.evaluation_set import EvaluationSet
from tavlo.evaluation.image_models import ImagePredictor
from tavlo.evaluation.training_overlap import count_seen
from tavlo.training.checkpoint import load_checkpoint
from tavlo.training.training_config import train_config


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
