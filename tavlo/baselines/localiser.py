"""Networks as an evaluation asks them: pictures and sounds in, heatmaps out.

Any two-sided network is a ``Localiser``. The object prior hears nothing: it is how much anything
stands out in a picture, the mean magnitude of the last features of ImageNet's ResNet-18. EZ-VSL
calls it object-guided localisation (OGL). On Flickr-SoundNet alone it scores near the models that
hear, so a result that holds it is no measure of hearing.

Inputs are prepared by threads ahead of the network: Pillow, torch, decoders and resamplers let go
of the interpreter for the parts that take long.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from tavlo.baselines.checkpoints import load_into, read_released
from tavlo.baselines.encoders import DualEncoder, Trunk, without_classifier
from tavlo.baselines.frontends import RATE_HZ, ImageFront, SoundFront, squeeze_front
from tavlo.baselines.interface import GRID, ImageModel, Picture, PostProcessing, Prior, Sound
from tavlo.training.checkpoint import load_checkpoint, trained_here
from tavlo.training.recipe import make_recipe

Vectors = NDArray[np.float32]
In = TypeVar("In")
Out = TypeVar("Out")

BATCH = 32
"""The number of items the network is given at once."""


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
    load_into(network, without_classifier(read_released(path, "state_dict")), path)
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Published:
    """A published model, but for its weights."""

    name: str
    wrapper: str
    """Key of its checkpoints under which the tensors lie."""
    network: Callable[..., DualEncoder]
    """Takes the width of its trunks; 64 by default."""
    image_front: ImageFront
    sound_front: SoundFront
    posts: Mapping[str, PostProcessing]
    """The post-processing of each variant; the empty name is the test scripts'."""
    prior: Prior | None = None
    """The way the authors mix the object prior in; None if they do not."""
    bare: Callable[[], DualEncoder] | None = None
    """The network of released files without the tensors ``project_...`` of ``network``."""

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
        if trained_here(checkpoint):
            state = load_checkpoint(checkpoint)
            if state.recipe != self.name:
                raise UsageError(
                    f"{checkpoint}: trained as {state.recipe!r}, and {self.name!r} is asked for."
                )
            tensors = state.model
            network = make_recipe(self.name, state.recipe_config).make_network()
        else:
            tensors = read_released(checkpoint, self.wrapper)
            projected = any(name.startswith("project_") for name in tensors)
            network = self.network() if projected or self.bare is None else self.bare()
        assert isinstance(network, DualEncoder)
        load_into(network, tensors, checkpoint)
        return Localiser(self, network, post, saliency, device)


class Localiser(ImageModel):
    """A network with its front ends and what happens to its map.

    Args:
        about: what is published of it.
        network: with its weights.
        post: of its maps.
        prior: mixed in where ``post`` says how.
        device: where the networks run.
    """

    def __init__(
        self,
        about: Published,
        network: DualEncoder,
        post: PostProcessing,
        prior: PriorNetwork | None = None,
        device: str = "cpu",
    ) -> None:
        self.name, self.post, self.sample_rate_hz = about.name, post, RATE_HZ
        self.window_s, self.channels = about.sound_front.window_s, about.sound_front.channels
        self.device = torch.device(device)
        # Colours last in memory: a CPU's convolutions take about a fifth less time that way.
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.eval().requires_grad_(False)
        self._prior = prior.to(self.device) if prior is not None else None
        self._about = about

    def images(self, pictures: Sequence[Picture]) -> Tensor:
        """Make the network's input of pictures, ``(b, 3, y, x)``."""
        return _stacked(self._about.image_front, pictures)

    def spectrograms(self, sounds: Sequence[Sound]) -> Tensor:
        """Make the network's input of sounds, ``(b, 1, f, s)``."""
        return self._about.sound_front.spectrograms(sounds)

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

        def prepare(pairs: Sequence[tuple[Picture, Sound]]) -> tuple[Tensor, Tensor]:
            seen, heard = zip(*pairs, strict=True)
            return self.images(seen), self.spectrograms(heard)

        pairs = list(zip(pictures, sounds, strict=True))
        found = [self.answer(*given) for given in _in_batches(prepare, pairs)]
        return _concatenated(found, (GRID, GRID))

    def embeddings(
        self, pictures: Sequence[Picture], sounds: Sequence[Sound]
    ) -> tuple[Vectors, Vectors]:
        """See ``ImageModel``."""
        seen = self._vectors(self.network.picture_vectors, self.images, pictures)
        return seen, self._vectors(self.network.sound_vectors, self.spectrograms, sounds)

    def _vectors(
        self,
        network: Callable[[Tensor], Tensor],
        front: Callable[[Sequence[In]], Tensor],
        items: Sequence[In],
    ) -> Vectors:
        found = []
        for given in _in_batches(front, items):
            with torch.inference_mode():
                found.append(_array(network(given.to(self.device))))
        return _concatenated(found, (0,))


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

    @classmethod
    def open(cls, checkpoint: Path, prior: Path | None, variant: str, device: str) -> Self:
        """Open torchvision's file; see ``interface.open_model``."""
        if prior is not None or variant:
            raise UsageError("object-prior: takes no prior and has no variants.")
        return cls(load_prior(checkpoint), device)

    def heatmaps(self, pictures: Sequence[Picture], sounds: Sequence[Sound]) -> NDArray[np.float32]:
        """See ``ImageModel``; the sounds are not heard and may be missing."""
        found = []
        for images in _in_batches(partial(_stacked, squeeze_front), pictures):
            with torch.inference_mode():
                found.append(self.post.upsample(_array(self.network(images.to(self.device)))))
        return _concatenated(found, (GRID, GRID))

    def embeddings(
        self, pictures: Sequence[Picture], sounds: Sequence[Sound]
    ) -> tuple[Vectors, Vectors]:
        """Refuse: there are none to compare."""
        raise UsageError("object-prior hears nothing: there is no retrieval with it.")


def in_threads(work: Callable[[In], Out], items: Sequence[In]) -> Iterator[Out]:
    """Yield what ``work`` makes of each item, in order."""
    threads = min(len(items), os.cpu_count() or 1)
    if threads <= 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:  # a few in memory, however many there are
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _in_batches(prepare: Callable[[Sequence[In]], Out], items: Sequence[In]) -> Iterator[Out]:
    """Yield what ``prepare`` makes of each ``BATCH`` of items, in order."""
    starts = range(0, len(items), BATCH)
    return in_threads(prepare, [items[start : start + BATCH] for start in starts])


def _concatenated(batches: Sequence[Vectors], item: tuple[int, ...]) -> Vectors:
    """Return batches as one array; none make an empty one of items of shape ``item``."""
    return np.concatenate(batches) if batches else np.zeros((0, *item), np.float32)


def _stacked(front: ImageFront, pictures: Sequence[Picture]) -> Tensor:
    return torch.stack([front(picture) for picture in pictures])


def _array(tensor: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.float().cpu().numpy()
    return found
