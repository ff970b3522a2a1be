"""One process per GPU, started by torchrun; their batches are contrasted as one.

Negatives come from all ranks. Each rank gathers everyone's outputs, puts its own, which carry
gradients, in their place, and computes the loss of the joined batch. Its gradient is then exact for
its own clips and leaves the others' out; the sum over ranks is the joined batch's gradient. DDP
averages instead, so the loss is scaled by the number of ranks before ``backward``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from einops import repeat
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.devices import choose_device
from tavlo.training.data import Share

_PATIENCE = timedelta(hours=2)
"""How long ranks wait for one another; they fill the cache in equal shares before the first step,
and one may have the slower disk."""


@contextmanager
def ranks(device: str) -> Iterator[tuple[Share, torch.device]]:
    """This process's place among those torchrun started; alone without it.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; under torchrun each rank takes its own
            GPU, and ``cuda:N`` is refused.

    Raises:
        UsageError: there is no such device.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    place = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")) if world > 1 else None)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world == 1:
        yield Share(), place
        return
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Share(dist.get_rank(), dist.get_world_size()), place
    finally:
        dist.destroy_process_group()


def spread(model: nn.Module, share: Share, device: torch.device) -> nn.Module:
    """The model as this rank trains it; the same parameters in a wrapper, or the model itself.

    BatchNorm counts the joined batch on GPUs (``convert_sync_batchnorm`` beforehand). torch has
    none of that for CPUs: there each rank counts its own clips, and rank 0's averages are kept.
    """
    if share.world == 1:
        return model
    return DistributedDataParallel(model, [device] if device.type == "cuda" else None)


def joined(outputs: dict[str, Tensor], share: Share) -> dict[str, Tensor]:
    """Every rank's outputs one after another along the batch axis.

    Where second axes differ between ranks, as the longest clip does, shorter ones are filled up
    with zeros. Gradients reach this rank's own outputs alone.
    """
    if share.world == 1:
        return outputs
    return {name: _gathered(value, share) for name, value in outputs.items()}


def _gathered(own: Tensor, share: Share) -> Tensor:
    if own.ndim > 1:
        longest = torch.tensor(own.shape[1], device=own.device)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        if missing := int(longest) - own.shape[1]:
            filling = own.new_zeros(own.shape[0], missing, *own.shape[2:])
            own = torch.cat([own, filling], 1)
    parts = list(repeat(torch.zeros_like(own), "... -> world ...", world=share.world).contiguous())
    dist.all_gather(parts, own.detach().contiguous())
    parts[share.rank] = own
    return torch.cat(parts)


def summed(value: float, share: Share, device: torch.device) -> float:
    """The sum over ranks."""
    if share.world == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)


def shared(value: dict[str, str], share: Share) -> dict[str, str]:
    """What all ranks have found, together."""
    if share.world == 1:
        return value
    found: list[Any] = [None] * share.world
    dist.all_gather_object(found, value)
    return {name: text for one in found for name, text in one.items()}
