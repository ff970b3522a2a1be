"""EdgeTAM with box prompts, through transformers: SAM 2 made small enough for a laptop.

Zhou et al., "EdgeTAM: On-Device Track Anything Model", 2025. Code and weights are Apache-2.0. SAM
2's decoder stands behind a convolutional encoder, RepViT-M1, which transformers takes from timm.
The published folder holds the video model; its memory is left out, as each frame stands alone.

56 MB, and 1.05 s of CPU time for a frame with three boxes on one thread, where SAM 2.1 tiny takes
3.8 (``benchmarks/models.py``): 0.77 s for the frame, 0.09 s for each mask. Not run with real
weights: these figures are of random numbers in the published format.

There is one EdgeTAM, so its sizes stand here and a folder is held against them. Nothing of the
folder's settings chooses a network: timm would fetch what they name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from stages.backends.sam2 import Sam2Segmenter, fill

_MODELS = ("edgetam", "edgetam_video")

_ENCODER = "repvit_m1"

_STRIDES = (4, 8, 16)
"""Pixels of the input per cell of the three feature maps."""

_SIDES = range(64, 1025, 64)
"""The sides of the square input that the network can have; the published one's is 1,024."""


class EdgeTamSegmenter(Sam2Segmenter):
    """EdgeTAM, of which there is one size."""

    packages = ("transformers", "timm", "torchvision")

    def network(self, folder: Path) -> Any:
        """Build the network from its folder."""
        return load_edgetam(folder)


def load_edgetam(folder: Path) -> Any:
    """Load the network of a published folder, ready to run, on the CPU.

    RepViT learns with three branches where it runs with one: their sum is one convolution, and is
    computed here once.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.

    Raises:
        UsageError: the settings are not EdgeTAM's, or naming the first tensor that is not as this
            network has it.
    """
    from timm.utils.model import reparameterize_model
    from transformers import EdgeTamConfig, EdgeTamModel, EdgeTamVisionConfig, TimmWrapperConfig

    side = _input_side(folder / "config.json")
    encoder = TimmWrapperConfig(
        architecture=_ENCODER,
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    vision = EdgeTamVisionConfig(
        backbone_config=encoder,
        backbone_feature_sizes=[[side // stride, side // stride] for stride in _STRIDES],
    )
    config = EdgeTamConfig(vision_config=vision, prompt_encoder_config={"image_size": side})
    model = fill(EdgeTamModel, config, folder / "model.safetensors")
    body = model.vision_encoder.backbone
    body.timm_model = reparameterize_model(body.timm_model, inplace=True)
    return model


def _input_side(file: Path) -> int:
    """Return the side of the square input of a folder's settings, pixels.

    Raises:
        UsageError: they are another model's.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        kind = document["model_type"]
        encoder = document["vision_config"]["backbone_config"]["architecture"]
        side = document["prompt_encoder_config"].get("image_size", _SIDES[-1])
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{file}: not the settings of an EdgeTAM ({error!r:.120}).") from error
    if kind not in _MODELS:
        raise UsageError(f"{file}: model_type {str(kind)[:40]!r}, EdgeTAM's is {_MODELS[1]!r}.")
    if encoder != _ENCODER:
        raise UsageError(f"{file}: encoder {str(encoder)[:40]!r}, EdgeTAM's is {_ENCODER!r}.")
    if type(side) is not int or side not in _SIDES:
        raise UsageError(f"{file}: image_size {str(side)[:40]}, EdgeTAM's is {_SIDES[-1]}.")
    return side
