"""The one place that reads the name of a device, for models of every kind.

torch is imported when a device is chosen, not when its name is read.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    import torch


def parse_device(text: str) -> str:
    """Return a device's name as ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: it is none of them.

    >>> parse_device("CUDA:01"), parse_device("auto")
    ('cuda:1', 'auto')
    """
    named = text.strip().lower()
    if named in ("auto", "cpu", "cuda"):
        return named
    if match := re.fullmatch(r"cuda:(\d{1,3})", named):
        return f"cuda:{int(match[1])}"
    other = " Apple's GPUs (mps) are not supported." if named.partition(":")[0] == "mps" else ""
    raise UsageError(f"device {text[:40]!r}: it must be auto, cpu, cuda or cuda:N.{other}")


def choose_device(text: str, local_rank: int | None = None) -> torch.device:
    """Return the device of a name, after looking whether it is there.

    Args:
        text: ``auto`` is the first GPU where there is one, else the CPU.
        local_rank: this process's number among those torchrun started on this machine; each takes
            the GPU of its number, for ``auto`` and ``cuda``. None where there is one process.

    Raises:
        UsageError: it is no device, or is not in this machine, or ranks would share one GPU.
    """
    named = parse_device(text)
    import torch

    if named == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if named == "auto" and not count:
        return torch.device("cpu")
    if named.startswith("cuda:") and local_rank is not None:
        raise UsageError(
            f"device {named!r}: torchrun gives each process a GPU of its own. Leave --device out,"
            " or start one process without torchrun."
        )
    index = int(named.partition(":")[2] or local_rank or 0)
    if not count:
        raise UsageError(f"device {named!r}: {_why_no_gpu()} Choose auto or cpu.")
    if index >= count:
        said = f"device {named!r}: this torch sees {count} GPU{'s' if count > 1 else ''}"
        if local_rank is None:
            raise UsageError(f"{said}; choose one of cuda:0 to cuda:{count - 1}, auto or cpu.")
        raise UsageError(f"{said}, one for each process: torchrun --nproc-per-node {count}.")
    return torch.device("cuda", index)


def _why_no_gpu() -> str:
    import torch

    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA."
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = f", CUDA_VISIBLE_DEVICES={visible!r}" if visible is not None else ""
    return f"this torch sees no GPU (built for CUDA {torch.version.cuda}{hidden})."
