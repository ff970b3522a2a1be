"""CAV-MAE checkpoints in the authors' layout, with weights made by a rule instead of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stages.backends.cav_mae.cav_mae_model import CavMae, Sizes


def weight(seed: int, k: int, shape: Sequence[int], *, layernorm: bool) -> torch.Tensor:
    """The ``k``-th tensor of the parity fixtures' rule."""
    x = np.random.default_rng([seed, k]).standard_normal(shape)
    return torch.from_numpy((1 + 0.1 * x if layernorm else 0.02 * x).astype(np.float32))


def layout(num_classes: int = 527) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a checkpoint by its name in the file."""
    with torch.device("meta"):
        model = CavMae(Sizes(num_classes))
    return {f"module.{name}": tuple(t.shape) for name, t in model.state_dict().items()}


def write_checkpoint(path: Path, seed: int = 0) -> None:
    """Write a file as the authors' training does: 478 tensors, 660 MB."""
    torch.save(
        {
            name: weight(seed, k, shape, layernorm=len(shape) == 1 and name.endswith("weight"))
            for k, (name, shape) in enumerate(layout().items())
        },
        path,
    )


def write_level_checkpoint(path: Path, level: float, num_classes: int = 527) -> Path:
    """A valid file of a few kilobytes: each tensor is one number, repeated by its strides."""
    one = torch.full((1,), level)
    torch.save({name: one.expand(shape) for name, shape in layout(num_classes).items()}, path)
    return path
