"""Any two-sided network as an evaluation asks it: pictures and sounds in, heatmaps out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from tavlo.baselines.batching import concatenated, in_batches
from tavlo.baselines.checkpoints import load_into, read_released
from tavlo.baselines.encoders import DualEncoder
from tavlo.baselines.frontends import RATE_HZ, ImageFront, SoundFront
from tavlo.baselines.interface import GRID, ImageModel, Picture, PostProcessing, Prior, Sound
from tavlo.baselines.prior import PriorNetwork, load_prior
from tavlo.training.recipe import make_recipe

Vectors = NDArray[np.float32]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Published:
    """A published model, but for its weights."""

    name: str
    wrapper: str
    """Key of its checkpoints under which the tensors lie."""
    network: Callable[[Collection[str]], DualEncoder]
    """Given the names of a checkpoint's tensors."""
    image_front: ImageFront
    sound_front: SoundFront
    posts: Mapping[str, PostProcessing]
    """The post-processing of each variant; the empty name is the test scripts'."""
    prior: Prior | None = None
    """The way the authors mix the object prior in; None if they do not."""

    def open(self, checkpoint: Path, prior: Path | None, variant: str, device: str) -> Localiser:
        """See ``interface.open_model``."""
        if variant not in self.posts:
            known = ", ".join(repr(name) for name in self.posts)
            raise UsageError(f"{self.name}: no variant {variant!r}; there is {known}.")
        post, saliency = self.posts[variant], None
        if prior is not None:
            if self.prior is None:
                raise UsageError(f"{self.name}: its authors mix no object prior in.")
            post, saliency = replace(post, prior=self.prior), load_prior(prior)
        tensors, beside = read_released(checkpoint, self.wrapper)
        network = self._network(tensors, beside, checkpoint)
        load_into(network, tensors, checkpoint)
        return Localiser(
            self.name, network, self.image_front, self.sound_front, post, saliency, device
        )

    def _network(
        self, names: Collection[str], beside: Mapping[str, Any], checkpoint: Path
    ) -> DualEncoder:
        """Make the authors' network, or for a checkpoint of ours the one of its recipe."""
        if "recipe_config" not in beside:
            return self.network(names)
        if beside["recipe"] != self.name:
            raise UsageError(
                f"{checkpoint}: trained as {beside['recipe']!r}, and {self.name!r} is asked for."
            )
        network = make_recipe(self.name, beside["recipe_config"]).make_model()
        assert isinstance(network, DualEncoder)
        return network


class Localiser(ImageModel):
    """A network with its front ends and what happens to its map.

    Args:
        name: in ``MODELS``.
        network: with its weights.
        image_front: of its pictures.
        sound_front: of its sounds.
        post: of its maps.
        prior: mixed in where ``post`` says how.
        device: where the networks run.
    """

    def __init__(
        self,
        name: str,
        network: DualEncoder,
        image_front: ImageFront,
        sound_front: SoundFront,
        post: PostProcessing,
        prior: PriorNetwork | None = None,
        device: str = "cpu",
    ) -> None:
        self.name, self.post, self.sample_rate_hz = name, post, RATE_HZ
        self.window_s = sound_front.window_s
        self.channels = sound_front.channels
        self.device = torch.device(device)
        # Colours last in memory: a CPU's convolutions take about a fifth less time that way.
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.eval().requires_grad_(False)
        self._prior = prior.to(self.device) if prior is not None else None
        self._image_front, self._sound_front = image_front, sound_front

    def images(self, pictures: Sequence[Picture]) -> Tensor:
        """Make the network's input of pictures, ``(b, 3, y, x)``."""
        return torch.stack([self._image_front(picture) for picture in pictures])

    def spectrograms(self, sounds: Sequence[Sound]) -> Tensor:
        """Make the network's input of sounds, ``(b, 1, f, s)``."""
        return self._sound_front.spectrograms(sounds)

    def answer(self, image: Tensor, spectrogram: Tensor) -> NDArray[np.float32]:
        """Return the heatmaps of prepared inputs, ``(b, GRID, GRID)``."""
        with torch.inference_mode():
            image = image.to(self.device)
            maps = self.network.maps(image, spectrogram.to(self.device))
            heatmaps = self.post.upsample(_array(maps))
            if self._prior is None:
                return heatmaps
            priors = _array(self._prior(image))
        mixed = [self.post.mix(*pair) for pair in zip(heatmaps, priors, strict=True)]
        return np.asarray(mixed, np.float32)

    def heatmaps(self, pictures: Sequence[Picture], sounds: Sequence[Sound]) -> NDArray[np.float32]:
        """See ``ImageModel``."""
        if len(pictures) != len(sounds):
            raise ValueError(f"{len(pictures)} pictures and {len(sounds)} sounds")

        def prepare(part: slice) -> tuple[Tensor, Tensor]:
            return self.images(pictures[part]), self.spectrograms(sounds[part])

        found = [self.answer(*pair) for pair in in_batches(prepare, len(pictures))]
        return concatenated(found, (GRID, GRID))

    def embeddings(
        self, pictures: Sequence[Picture], sounds: Sequence[Sound]
    ) -> tuple[Vectors, Vectors]:
        """See ``ImageModel``."""
        seen = self._vectors(self.network.picture_vectors, self.images, pictures)
        return seen, self._vectors(self.network.sound_vectors, self.spectrograms, sounds)

    def _vectors(
        self,
        network: Callable[[Tensor], Tensor],
        front: Callable[[Sequence[Item]], Tensor],
        items: Sequence[Item],
    ) -> Vectors:
        found = []
        for given in in_batches(lambda part: front(items[part]), len(items)):
            with torch.inference_mode():
                found.append(_array(network(given.to(self.device))))
        return concatenated(found, (0,))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.float().cpu().numpy()
    return found
