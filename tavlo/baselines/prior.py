"""The object prior: how much anything stands out in a picture. It hears nothing.

ResNet-18 of ImageNet, the mean magnitude of its last features. EZ-VSL calls it object-guided
localisation (OGL). On Flickr-SoundNet alone it scores near the models that hear, so a result that
holds it is no measure of hearing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from tavlo.baselines.batching import concatenated, in_batches
from tavlo.baselines.checkpoints import load_into, read_released
from tavlo.baselines.encoders import Trunk
from tavlo.baselines.frontends import RATE_HZ, squeeze_front
from tavlo.baselines.interface import GRID, ImageModel, Picture, PostProcessing, Sound


class PriorNetwork(Trunk):
    """torchvision's ResNet-18 without its classifier, answering with one number per location."""

    def forward(self, image: Tensor) -> Tensor:
        """Turn ``(b, 3, y, x)`` into ``(b, h, w)``, not negative."""
        return super().forward(image).abs().mean(1)


def load_prior(path: Path) -> PriorNetwork:
    """Read torchvision's ImageNet weights, new or old.

    Raises:
        UsageError: they are not a ResNet-18's.
    """
    network = PriorNetwork()
    tensors, _ = read_released(path, "state_dict")
    load_into(network, tensors, path, unused=("fc.",), counters=False)
    return network.eval().requires_grad_(False)


class ObjectPrior(ImageModel):
    """The prior as a model of its own, to set beside those that hear.

    Args:
        network: with its weights.
        device: where it runs.
    """

    name = "object-prior"
    sample_rate_hz = RATE_HZ
    window_s = 0.0
    post = PostProcessing("bilinear", True, "min-max", "rank", ">=")

    def __init__(self, network: PriorNetwork, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device)

    def heatmaps(self, pictures: Sequence[Picture], sounds: Sequence[Sound]) -> NDArray[np.float32]:
        """See ``ImageModel``; the sounds are not heard and may be missing."""
        found = []
        for image in in_batches(lambda part: _images(pictures[part]), len(pictures)):
            with torch.inference_mode():
                maps = self.network(image.to(self.device)).float().cpu().numpy()
            found.append(self.post.upsample(maps))
        return concatenated(found, (GRID, GRID))

    def embeddings(
        self, pictures: Sequence[Picture], sounds: Sequence[Sound]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Refuse: there are none to compare."""
        raise UsageError("object-prior hears nothing: there is no retrieval with it.")


class _PriorOpener:
    """Opens torchvision's file."""

    def open(self, checkpoint: Path, prior: Path | None, variant: str, device: str) -> ImageModel:
        """See ``interface.open_model``."""
        if prior is not None or variant:
            raise UsageError("object-prior: takes no prior and has no variants.")
        return ObjectPrior(load_prior(checkpoint), device)


OBJECT_PRIOR = _PriorOpener()


def _images(pictures: Sequence[Picture]) -> Tensor:
    return torch.stack([squeeze_front(picture) for picture in pictures])
