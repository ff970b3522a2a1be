"""Read checkpoints as tensors and nothing else, and hold them against what a network expects."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UsageError

if TYPE_CHECKING:
    import torch

_NEEDED = re.compile(r"(?:GLOBAL|global|class) ([\w.]+\.\w+)")
"""The names a pickle asks for, in the words of torch's refusal."""


def load_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint by name, on the CPU; no code of the file is run.

    Args:
        path: a ``.safetensors`` file, or one that ``torch.save`` wrote.

    Raises:
        UsageError: unreadable, corrupt, or holding anything but named tensors.
    """
    import torch

    found = read_checkpoint(path)
    if not isinstance(found, Mapping):
        raise UsageError(f"{path}: holds a {type(found).__name__}, not named tensors.")
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise UsageError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor.")
    return dict(found)


def read_checkpoint(
    path: Path, advice: str = "Fetch it again: 'avatar-build models fetch'."
) -> Any:
    """Read tensors, plain values and NumPy's numbers on the CPU; no code of the file is run.

    Args:
        path: a ``.safetensors`` file, or one that ``torch.save`` wrote.
        advice: what to do about one that cannot be read, for the error.

    Raises:
        UsageError: it cannot be read so.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_numbers()):
            # What it cannot read is an error anyway.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch makes of other bytes can be anything
        raise UsageError(
            f"{path}: not a readable checkpoint of tensors ({why_unreadable(error)}). {advice}"
        ) from error


def _numpy_numbers() -> list[Any]:
    """Return NumPy's numbers, which authors' checkpoints hold besides tensors."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    # NumPy 1 wrote the first name.
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    dtypes = np.dtypes
    return [*named, np.dtype, dtypes.Float64DType, dtypes.Float32DType, dtypes.Int64DType]


def why_unreadable(error: Exception) -> str:
    """Say what is wrong with a file torch did not read, without its advice to run the file's code.

    >>> why_unreadable(pickle.UnpicklingError("Unsupported global: GLOBAL os.system was not ..."))
    'it holds a os.system, which only pickle reads, and a pickle may run code'
    """
    if isinstance(error, pickle.UnpicklingError):
        needs = _NEEDED.search(str(error))
        if needs is None:
            return "not a file that torch wrote"
        return f"it holds a {needs[1]}, which only pickle reads, and a pickle may run code"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return found


def check_state_dict(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, torch.Tensor], where: str
) -> None:
    """Insist on every name and shape.

    Args:
        expected: the shape of each tensor, in the network's order.
        found: the checkpoint.
        where: the file, for errors.

    Raises:
        UsageError: naming the first tensor that is missing, of another shape, or too many.
    """
    for name, shape in expected.items():
        if name not in found:
            raise UsageError(f"{where}: tensor {name} is missing: not a checkpoint of this model.")
        has = tuple(found[name].shape)
        if has != tuple(shape):
            raise UsageError(f"{where}: tensor {name} is {has}, this model's is {tuple(shape)}.")
    for name in found:
        if name not in expected:
            raise UsageError(f"{where}: tensor {name} is none of this model's.")
