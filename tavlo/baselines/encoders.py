"""The two ResNet-18s that every compared model is made of, and a model's two sides.

Axes, in every docstring, einops pattern and trailing comment of this package:
b clips, k heads, c channels, h w grid of the map, y x pixels, f frequency bins, s spectrogram
steps, i clips as pictures, j clips as sounds, d size of a retrieval vector.

Parameters have the names of the authors' checkpoints, also those that nothing uses: a released file
then loads name by name, and what is trained here loads there. Unused ones take no gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1


class Trunk(nn.Module):
    """ResNet-18 up to its last stage, by torchvision's names.

    Args:
        in_channels: of the input.
        width: channels of the first stage; the last has 8 times as many. 64 is ResNet-18's.
        last_stride: of the last stage.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, last_stride: int = 2) -> None:
        super().__init__()
        self.conv1 = _stem(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, last_stride)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Turn ``(b, in, y, x)`` into features after the last ReLU, ``(b, c, h, w)``."""
        return self._stages(self.conv1(image))

    def _stages(self, stem: Tensor) -> Tensor:
        features = F.max_pool2d(F.relu(self.bn1(stem)), 3, stride=2, padding=1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        return features


class FineTrunk(Trunk):
    """The ResNet-18 of LVS: the last stage keeps its stride at 1, so maps are 14 x 14.

    It owns first convolutions for pictures, sounds and optical flow, and a classifier; one of the
    first two is used.

    Args:
        sound: whether it hears or sees.
        width: as ``Trunk``'s.
    """

    def __init__(self, *, sound: bool, width: int = 64) -> None:
        super().__init__(width=width, last_stride=1)
        self.sound = sound
        self.conv1_a = _stem(1, width)
        self.conv1_flow = _stem(6, width)
        self.fc = nn.Linear(8 * width, 1000)
        for unused in (self.conv1 if sound else self.conv1_a, self.conv1_flow, self.fc):
            unused.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Turn ``(b, 3, y, x)`` or ``(b, 1, f, s)`` into ``(b, c, h, w)``, 16 times smaller."""
        return self._stages(self.conv1_a(image) if self.sound else self.conv1(image))


class DualEncoder(nn.Module, ABC):
    """A model that compares visual tokens with a sound, by one cosine per head.

    ``forward`` gives what its loss needs, ``maps`` and the vectors are its answers.
    """

    temperature: float = 1.0
    """Cosines are divided by it."""

    @abstractmethod
    def encode_picture(self, image: Tensor) -> Tensor:
        """Encode pictures ``(b, 3, y, x)`` as visual tokens, ``(b, k, c, h, w)``, length one."""

    @abstractmethod
    def encode_sound(self, spectrogram: Tensor) -> Tensor:
        """Encode sounds ``(b, 1, f, s)`` as vectors ``(b, k, c)``, length one."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Encode a training batch: ``tokens`` ``(b, k, c, h, w)``, ``sounds`` ``(b, k, c)``."""
        tokens = self.encode_picture(batch["image"])
        return {"tokens": tokens, "sounds": self.encode_sound(batch["spectrogram"])}

    def maps(self, image: Tensor, spectrogram: Tensor) -> Tensor:
        """Return the mean of the heads' cosines over the temperature, ``(b, h, w)``."""
        cosines = similarity(self.encode_picture(image), self.encode_sound(spectrogram))
        return cosines / self.temperature

    def picture_vectors(self, image: Tensor) -> Tensor:
        """Return vectors for retrieval, ``(b, d)``, length one: the heads' mean tokens.

        No repository publishes its retrieval. The product of these with a sound's is the mean of
        the model's own map, but for the length of the mean.
        """
        return unit(rearrange(self.encode_picture(image).mean((-2, -1)), "b k c -> b (k c)"), -1)

    def sound_vectors(self, spectrogram: Tensor) -> Tensor:
        """Return vectors for retrieval, ``(b, d)``, length one."""
        return unit(rearrange(self.encode_sound(spectrogram), "b k c -> b (k c)"), -1)


def similarity(tokens: Tensor, sounds: Tensor) -> Tensor:
    """Compute each sound's cosine with the tokens of its own picture, the heads' mean.

    Args:
        tokens: ``(b, k, c, h, w)``.
        sounds: ``(b, k, c)``.

    Returns:
        In ``[-1, 1]``, ``(b, h, w)``.
    """
    return torch.einsum("bkchw,bkc->bhw", tokens, sounds) / sounds.shape[1]


def unit(vectors: Tensor, axis: int) -> Tensor:
    """Scale vectors to length one along an axis.

    In float32 whatever autocast does before: over a temperature of 0.03, a cosine near one as
    bfloat16 has it is an eighth of a logit off.
    """
    return F.normalize(vectors.float(), dim=axis)


def without_classifier(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of torchvision's ResNet-18 that a ``Trunk`` has."""
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}


def max_pool(features: Tensor) -> Tensor:
    """Return each channel's strongest response anywhere: ``(b, c, h, w)`` to ``(b, c)``."""
    return features.amax((-2, -1))


def init_as_ezvsl(module: nn.Module) -> None:
    """Draw the random weights of EZ-VSL and SLAVC, where no ImageNet weights are put."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.01)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
        else:
            continue
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def _stem(in_channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)


def _stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or in_channels != channels:
        shortcut = nn.Sequential(conv1x1(in_channels, channels, stride), nn.BatchNorm2d(channels))
    return nn.Sequential(
        BasicBlock(in_channels, channels, stride, shortcut), BasicBlock(channels, channels)
    )
