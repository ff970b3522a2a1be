"""The EfficientAT networks, in the layout of the authors' released files (arXiv 2211.04772).

MobileNetV3-Large (arXiv 1905.02244, table 1) over a mel spectrogram, at eight widths. Axes, in
every docstring and trailing comment of this package: b spans, c channels, f mel bins, s spectrogram
frames, k classes.

Odd about it: BatchNorm's eps is 1e-3; squeeze-and-excitation ends in a true sigmoid; no tensor
depends on the length of the sound, which is averaged away at the end; the output is logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.errors import UsageError
from pipeline.models import check_state_dict, load_state_dict

NUM_CLASSES = 527

WIDTHS = {
    "efficientat-mn01-as": 0.1,
    "efficientat-mn02-as": 0.2,
    "efficientat-mn04-as": 0.4,
    "efficientat-mn05-as": 0.5,
    "efficientat-mn10-as": 1.0,
    "efficientat-mn20-as": 2.0,
    "efficientat-mn30-as": 3.0,
    "efficientat-mn40-as": 4.0,
}
"""The factor of all channels, by the name of the weights."""

_STEM, _LAST = 16, 1280
"""Channels of the first convolution and of the classifier's hidden layer, at width 1."""

_BLOCKS = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
)
"""Kernel, expanded and put out channels at width 1, squeeze-and-excitation, activation, stride."""


def channels(count: float) -> int:
    """Round channels to a multiple of 8, never below nine tenths of them.

    >>> channels(25.6), channels(12), channels(1.6)
    (24, 16, 8)
    """
    rounded = max(8, int(count + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count else rounded


def _convolution(
    into: int, out: int, kernel: int, stride: int, groups: int, activation: type[nn.Module] | None
) -> nn.Sequential:
    convolution = nn.Conv2d(into, out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(out, eps=1e-3)]
    return nn.Sequential(*layers, *([activation(inplace=True)] if activation else []))


class ChannelWeights(nn.Module):
    """Squeeze-and-excitation over the channels of the whole spectrogram."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = channels(width / 4)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute a weight in [0, 1] of each channel of ``(b, c, f, s)``: ``(b, c, 1, 1)``."""
        squeezed = F.relu(self.fc1(x.mean(dim=(2, 3))))
        weights: Tensor = self.fc2(squeezed).sigmoid()
        return weights[:, :, None, None]


class Excitation(nn.Module):
    """Scale channels. A list, as the authors could weigh other axes too; all releases have one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([ChannelWeights(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``(b, c, f, s)``; the same shape."""
        (weights,) = self.conc_se_layers
        scaled: Tensor = x * weights(x)
        return scaled


class Block(nn.Module):
    """An inverted residual: expand, filter each channel, weigh channels, project."""

    def __init__(
        self,
        into: int,
        expanded: int,
        out: int,
        kernel: int,
        stride: int,
        excited: bool,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != into:
            layers.append(_convolution(into, expanded, 1, 1, 1, activation))
        layers.append(_convolution(expanded, expanded, kernel, stride, expanded, activation))
        if excited:
            layers.append(Excitation(expanded))
        layers.append(_convolution(expanded, out, 1, 1, 1, None))
        self.block = nn.Sequential(*layers)
        self.adds = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, c, f, s)``; at stride 2 both axes halve."""
        mapped: Tensor = self.block(x)
        return x + mapped if self.adds else mapped


class EfficientAt(nn.Module):
    """The tagging network.

    Its parameters have the names, shapes and order of the authors' ``state_dict``.

    Args:
        width: factor of all channels.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        into = channels(_STEM * width)
        layers: list[nn.Module] = [_convolution(1, into, 3, 2, 1, nn.Hardswish)]
        for kernel, expanded, out, excited, activation, stride in _BLOCKS:
            wide, narrow = channels(expanded * width), channels(out * width)
            layers.append(Block(into, wide, narrow, kernel, stride, excited, activation))
            into = narrow
        layers.append(_convolution(into, 6 * into, 1, 1, 1, nn.Hardswish))
        self.features = nn.Sequential(*layers)
        hidden = channels(_LAST * width)
        # The numbers of the linear layers, 2 and 5, are those of the released files.
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6 * into, hidden),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(hidden, NUM_CLASSES),
        )

    def forward(self, mel: Tensor) -> Tensor:
        """Score the classes.

        Args:
            mel: normalised log mel spectrograms, ``(b, f, s)``, of any length s.

        Returns:
            Logits, ``(b, k)``.
        """
        logits: Tensor = self.classifier(self.features(mel[:, None]))
        return logits


def load_efficientat(path: Path, name: str) -> EfficientAt:
    """Read one of the authors' released files, on the CPU, ready to infer.

    Args:
        path: the file.
        name: of the weights, which gives the width.

    Raises:
        UsageError: unreadable, of another width, or of another layout, naming the first wrong
            tensor.
    """
    tensors = load_state_dict(path)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if other := next((one for one in WIDTHS if one != name and shapes == _shapes(one)), None):
        raise UsageError(f"{path}: holds {other}, not {name}. Add it under its own name.")
    check_state_dict(_shapes(name), tensors, str(path))
    model = EfficientAt(WIDTHS[name])
    floats = {key: t.float() if t.is_floating_point() else t for key, t in tensors.items()}
    model.load_state_dict(floats)
    return model.eval().requires_grad_(False)


def _shapes(name: str) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = EfficientAt(WIDTHS[name])
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def fast(model: EfficientAt) -> EfficientAt:
    """Fold every BatchNorm into its convolution and lay the channels last, in place.

    The same function up to rounding (logits move by 1e-5), in half the time on a CPU.
    """
    for layers in model.modules():
        if not isinstance(layers, nn.Sequential):
            continue
        first, second = layers[0], layers[1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            layers[0], layers[1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return model.to(memory_format=torch.channels_last)
