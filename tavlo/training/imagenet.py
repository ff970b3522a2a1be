"""ResNet-18's ImageNet weights, where they are registered (``models fetch resnet18``)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.models import resnet18

from pipeline.models import check_state_dict, load_state_dict, require
from pipeline.models.register import read_register

NAME = "resnet18"
SCRATCH = f"from scratch ('avatar-build models fetch {NAME}' for ImageNet's)"
_COUNTER = "num_batches_tracked"
"""A counter of BatchNorm; older files have none, and with a fixed momentum nothing reads it."""


def imagenet_resnet18() -> tuple[dict[str, Tensor], str] | None:
    """Read the registered weights, by torchvision's names, and what to call them; None without any.

    Raises:
        UsageError: they are registered and not what they were, or no ResNet-18's.
    """
    if read_register(NAME) is None:
        return None
    file = require(NAME)
    found = load_state_dict(file.path)
    shapes = {name: tuple(value.shape) for name, value in resnet18().state_dict().items()}
    check_state_dict(_without(shapes), _without(found), str(file.path))
    return found, f"ImageNet, SHA-256 {file.sha256}"


def _without(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if not name.endswith(_COUNTER)}
