"""The GPUs of this machine that workers share, found without CUDA.

The process that starts workers opens no device and imports no torch: it asks what CUDA itself
obeys, ``CUDA_VISIBLE_DEVICES``, and where that is not set the driver's own ``nvidia-smi -L``.
"""

from __future__ import annotations

import os
import re
import subprocess
from itertools import pairwise

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that says which GPUs a process may see, in which order."""

_TIMEOUT_S = 30.0
"""A driver that nothing keeps loaded wakes every GPU first, some seconds for eight of them."""


def visible_gpus() -> list[str]:
    """Return every GPU a new process would see, by a name that ``CUDA_VISIBLE_DEVICES`` takes.

    None where nothing says so: no driver, a driver that does not answer, or all are hidden.
    """
    named = os.environ.get(VISIBLE)
    return listed_gpus(_nvidia_smi()) if named is None else named_gpus(named)


def named_gpus(value: str) -> list[str]:
    """Return the GPUs of a value of ``CUDA_VISIBLE_DEVICES``: indices or UUIDs, as they stand.

    As CUDA reads it, the first name that can be no GPU ends the list.

    >>> named_gpus("2,GPU-8932f937,MIG-GPU-8932f937/1/0")
    ['2', 'GPU-8932f937', 'MIG-GPU-8932f937/1/0']
    >>> named_gpus("0,2,-1,1"), named_gpus(""), named_gpus("NoDevFiles")
    (['0', '2'], [], [])
    """
    found: dict[str, None] = {}
    for name in map(str.strip, value.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-\S+", name):
            break
        found[name] = None
    return list(found)


def listed_gpus(text: str) -> list[str]:
    """Return the UUIDs ``nvidia-smi -L`` prints; for a GPU in MIG mode those of its instances.

    UUIDs, because nvidia-smi counts GPUs by their place on the bus and CUDA the fastest first.

    >>> listed_gpus('''GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6)
    ...   MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef)
    ...   MIG 3g.20gb     Device  1: (UUID: MIG-cba663e8)
    ... GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-94a5d44c)''')
    ['MIG-c6d4f1ef', 'MIG-cba663e8', 'GPU-94a5d44c']
    """
    found = re.findall(r"\(UUID: ((?:GPU|MIG)-[^)\s]+)\)", text)
    return [
        uuid
        for uuid, after in pairwise([*found, ""])
        if not (uuid.startswith("GPU-") and after.startswith("MIG-"))
    ]


def _nvidia_smi() -> str:
    try:
        shown = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout if shown.returncode == 0 else ""
