"""ResNet-18's ImageNet weights, where they are registered (``models fetch resnet18``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchvision.models import resnet18

from pipeline.models import check_state_dict, load_state_dict, require
from pipeline.models.register import read_register

NAME = "resnet18"
_COUNTER = "num_batches_tracked"
"""A counter of BatchNorm; older files have none, and with a fixed momentum nothing reads it."""


def start_from_imagenet(
    part: str, put: Callable[[dict[str, Tensor]], Any], *, wanted: bool
) -> dict[str, str]:
    """Put the registered weights into a part of a model; leave it as it is without any.

    Args:
        part: what it is called.
        put: given the weights by torchvision's names.
        wanted: whether the part can take them and shall.

    Returns:
        What ``Recipe.initialise`` does.

    Raises:
        UsageError: they are registered and not what they were, or no ResNet-18's.
    """
    label = "from scratch"
    if wanted and read_register(NAME) is None:
        label = f"from scratch ('avatar-build models fetch {NAME}' for ImageNet's)"
    elif wanted:
        file = require(NAME)
        found = load_state_dict(file.path)
        shapes = {name: tuple(value.shape) for name, value in resnet18().state_dict().items()}
        check_state_dict(_without(shapes), _without(found), str(file.path))
        put(found)
        label = f"ImageNet, SHA-256 {file.sha256}"
    return {part: label, "rest": "from scratch"}


def _without(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if not name.endswith(_COUNTER)}
