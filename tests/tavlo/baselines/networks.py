"""Narrow networks with random weights, and pictures and sounds to ask them about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tavlo.baselines.encoders import DualEncoder
from tavlo.baselines.ezvsl import EZVSL, EzVsl
from tavlo.baselines.localiser import Localiser, Published
from tavlo.baselines.lvs import LVS, Lvs
from tavlo.baselines.slavc import SLAVC, Slavc
from tavlo.baselines.sslalignment import SSLALIGNMENT, Aligned
from tavlo.baselines.ssltie import SSLTIE, SslTie

NETWORKS: dict[str, tuple[Published, Callable[[int], DualEncoder]]] = {
    "ezvsl": (EZVSL, EzVsl),
    "slavc": (SLAVC, Slavc),
    "ssltie": (SSLTIE, SslTie),
    "lvs": (LVS, Lvs),
    "sslalignment": (SSLALIGNMENT, Aligned),
}


def narrow(name: str) -> dict[str, Any]:
    """A recipe's settings for a network of width 4, which no weights of ImageNet fit."""
    return {"width": 4} | ({"imagenet": False} if name in ("ezvsl", "slavc") else {})


def network(name: str, width: int = 4, seed: int = 0) -> DualEncoder:
    """With batch statistics that are not those of fresh weights."""
    torch.manual_seed(seed)
    made = NETWORKS[name][1](width)
    for part in made.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return made.eval()


def localiser(name: str) -> Localiser:
    """A narrow network behind its published front ends."""
    about = NETWORKS[name][0]
    return Localiser(about, network(name), about.posts[""])


def pictures(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Noise of several sizes."""
    rng = np.random.default_rng(seed)
    sizes = [(180, 320), (240, 320), (224, 224), (90, 60)]
    return [rng.integers(0, 256, (*sizes[i % 4], 3), np.uint8) for i in range(count)]


def sounds(count: int, seed: int = 0) -> list[NDArray[Any]]:
    """Noise of several lengths, 0.5 to 12 s."""
    rng = np.random.default_rng(seed)
    seconds = (10.0, 0.5, 3.0, 12.0)
    return [
        rng.normal(0, 0.1, round(16_000 * seconds[i % 4])).astype(np.float32) for i in range(count)
    ]
