"""Read the authors' checkpoints: tensors alone, every one that the model has, by name.

A released file wraps its tensors in a dictionary beside the optimiser and the best scores, and
DataParallel may have put ``module.`` before every name. The best scores are numpy numbers, which
torch reads as such without running code of the file; anything else that needs pickle is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models import check_state_dict
from pipeline.models.tensors import read_checkpoint

log = logging.getLogger("avatar_build.baselines")

_COUNTER = "num_batches_tracked"
"""A counter of BatchNorm; files of old torch have none, and with a fixed momentum nothing reads
it."""


def load_into(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put a checkpoint's tensors into a network, strictly; what is left over is named in the log.

    Args:
        network: whose names and shapes there must be; BatchNorm's counters may be missing.
        tensors: by name.
        path: where they come from.

    Raises:
        UsageError: naming the first tensor that is missing, of another shape, or no number.
    """
    expected = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if name in tensors or not name.endswith(_COUNTER)
    }
    if extra := [name for name in tensors if name not in expected]:
        log.warning("%s: %d tensors ignored: %s", path, len(extra), ", ".join(extra))
    kept = {name: tensors[name] for name in expected if name in tensors}
    check_state_dict(expected, kept, str(path))
    for name, value in kept.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UsageError(f"{path}: tensor {name} holds NaN or infinity.")
    network.load_state_dict(kept, strict=False)


def read_released(path: Path, wrapper: str) -> dict[str, Tensor]:
    """Read a file's tensors by their names without ``module.``.

    Raises:
        UsageError: it cannot be read, or nothing lies under ``wrapper``.
    """
    found = read_checkpoint(
        path,
        "If it needs pickle and you trust its source, save torch.load(..., weights_only=False)"
        f"[{wrapper!r}] alone and give that file.",
    )
    if not isinstance(found, Mapping):
        raise UsageError(f"{path}: holds a {type(found).__name__}, not named tensors.")
    if wrapper in found:
        found = found[wrapper]
    elif not all(isinstance(value, Tensor) for value in found.values()) or not found:
        keys = ", ".join(str(key) for key in list(found)[:8]) or "nothing"
        raise UsageError(
            f"{path}: no {wrapper!r} in it, where this model's tensors lie; it holds {keys}."
        )
    if not isinstance(found, Mapping):
        raise UsageError(f"{path}: {wrapper!r} is a {type(found).__name__}, not named tensors.")
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise UsageError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor.")
    return {str(name).removeprefix("module."): value for name, value in found.items()}
