"""Read the authors' checkpoints: tensors alone, every one that the model has, by name.

A released file wraps its tensors in a dictionary beside the optimiser and the best scores, and
DataParallel may have put ``module.`` before every name. The best scores are numpy numbers, which
torch reads as such without running code of the file; anything else that needs pickle is refused.
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models import check_state_dict
from pipeline.models.tensors import numpy_numbers

log = logging.getLogger("avatar_build.baselines")


def load_into(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    unused: tuple[str, ...] = (),
    counters: bool = True,
) -> None:
    """Put a checkpoint's tensors into a network, strictly; what is left over is named in the log.

    Args:
        network: whose names and shapes there must be.
        tensors: by name.
        path: where they come from.
        unused: how names begin that are known to be of no use; all others are worth a warning.
        counters: whether BatchNorm's counters must be there; files of old torch have none, and
            nothing reads them.

    Raises:
        UsageError: naming the first tensor that is missing, of another shape, or no number.
    """
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if not counters:
        expected = {n: s for n, s in expected.items() if not n.endswith("num_batches_tracked")}
    extra = [name for name in tensors if name not in expected]
    if extra:
        known = all(name.startswith(unused) for name in extra)
        log.log(
            logging.INFO if known else logging.WARNING,
            "%s: %d tensors ignored: %s",
            path,
            len(extra),
            ", ".join(extra),
        )
    kept = {name: tensors[name] for name in expected if name in tensors}
    check_state_dict(expected, kept, str(path))
    for name, value in kept.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UsageError(f"{path}: tensor {name} holds NaN or infinity.")
    network.load_state_dict(kept, strict=counters)


def read_released(path: Path, wrapper: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file's tensors by their names without ``module.``, and what lies beside them.

    Raises:
        UsageError: it cannot be read, or nothing lies under ``wrapper``.
    """
    found = _load(path, wrapper)
    beside: dict[str, Any] = {}
    if "recipe_config" in found:
        wrapper = "model"  # a checkpoint of ours
    if wrapper in found:
        beside = {name: value for name, value in found.items() if name != wrapper}
        found = found[wrapper]
    elif not all(isinstance(value, Tensor) for value in found.values()) or not found:
        keys = ", ".join(str(key) for key in list(found)[:8]) or "nothing"
        raise UsageError(
            f"{path}: no {wrapper!r} in it, where this model's tensors lie; it holds {keys}."
        )
    if not isinstance(found, Mapping):
        raise UsageError(f"{path}: {wrapper!r} is a {type(found).__name__}, not named tensors.")
    tensors = {}
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise UsageError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor.")
        tensors[str(name).removeprefix("module.")] = value
    return tensors, beside


def trained_here(path: Path) -> bool:
    """Say whether ``train-tavlo`` wrote a file; one that cannot be read it did not."""
    try:
        return "recipe_config" in _load(path, "")
    except UsageError:
        return False  # what opens it says why


def _load(path: Path, wrapper: str) -> Mapping[str, Any]:
    try:
        with torch.serialization.safe_globals(numpy_numbers()):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needs = re.search(r"(?:GLOBAL|global|class) ([\w.]+\.\w+)", str(error))
        if needs is None:
            raise UsageError(f"{path}: not a file that torch wrote.") from error
        raise UsageError(
            f"{path}: holds a {needs[1]}, which only pickle can read, and a pickle may run code."
            f" If you trust its source, save torch.load(..., weights_only=False)[{wrapper!r}] alone"
            " and give that file."
        ) from error
    except Exception as error:  # what torch makes of other bytes can be anything
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{path}: not a readable checkpoint ({said}).") from error
    if not isinstance(found, Mapping):
        raise UsageError(f"{path}: holds a {type(found).__name__}, not named tensors.")
    return found
