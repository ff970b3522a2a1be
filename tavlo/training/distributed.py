"""A process per GPU, started by torchrun; their batches are contrasted as one.

Negatives come from all ranks. Each rank gathers everyone's outputs, puts its own, which carry
gradients, in their place, and computes the loss of the whole batch. Its gradient is then exact for
its own clips and leaves the others' out; the sum over ranks is the whole batch's gradient. DDP
averages instead, so the loss is scaled by the number of ranks before ``backward``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from einops import repeat
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.devices import choose_device
from pipeline.errors import AvatarBuildError, UsageError

Found = TypeVar("Found")

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Rank:
    """A process among those that train together; alone by default."""

    index: int = 0
    """The number of this process, from 0."""
    world_size: int = 1
    """The number of processes."""
    device: torch.device = _CPU
    local_index: int = 0
    """The number of this process among those of its node, from 0."""
    local_size: int = 1
    """The number of processes of its node."""

    def part_of(self, batch: Sequence[int]) -> Sequence[int]:
        """Return this rank's part of a batch; the ranks' parts one after another are the batch."""
        each = len(batch) // self.world_size
        return batch[self.index * each : (self.index + 1) * each]


@contextmanager
def distributed(device: str, patience: timedelta = timedelta(hours=2)) -> Iterator[Rank]:
    """Join the processes torchrun started, and leave them at the end; alone without torchrun.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; under torchrun each rank takes its own
            GPU, and ``cuda:N`` is refused.
        patience: how long ranks wait for one another before they end with an error.

    Yields:
        This process.

    Raises:
        UsageError: there is no such device, or processes started again could not find one another.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    place = choose_device(device, local_rank if world_size > 1 else None)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world_size == 1:
        yield Rank(device=place)
        return
    _check_restarts()
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=patience)
    try:
        yield Rank(dist.get_rank(), dist.get_world_size(), place, local_rank, local_size)
    finally:
        dist.destroy_process_group()


def _check_restarts() -> None:
    """Refuse restarts in which processes would look for those of before a death.

    By default torchrun's agent holds one store for all its restarts. The addresses that processes
    left in it stay there when they die, the next ones connect to whichever they read first, the old
    or the new, and may wait for one another until the timeout, hours by default (seen with torch
    2.15; pytorch issue 135712). With the variable each start has a store of its own.
    """
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UsageError(
            f"With --max-restarts {restarts}, processes that torchrun starts again could wait for"
            " those that died. Start it as TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun"
            " --rdzv-backend c10d ... (on one node: --standalone), so that each start has a store"
            " of its own."
        )


def wrap_ddp(model: nn.Module, rank: Rank) -> nn.Module:
    """Return the model as ranks train it: the same parameters in a wrapper, or the model alone.

    BatchNorm counts the whole batch on GPUs (``convert_sync_batchnorm`` beforehand). torch has
    none of that for CPUs: there each rank counts its own clips, and rank 0's averages are kept.
    """
    if rank.world_size == 1:
        return model
    return DistributedDataParallel(model, [rank.device] if rank.device.type == "cuda" else None)


def gather(outputs: dict[str, Tensor], rank: Rank) -> dict[str, Tensor]:
    """Return every rank's outputs, one after another along the batch axis.

    Where second axes differ between ranks, as the longest clip does, shorter ones are filled up
    with zeros. Gradients reach this rank's own outputs alone.
    """
    if rank.world_size == 1:
        return outputs
    return {name: _gathered(value, rank) for name, value in outputs.items()}


def _gathered(own: Tensor, rank: Rank) -> Tensor:
    if own.ndim > 1:
        longest = torch.tensor(own.shape[1], device=own.device)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        if missing := int(longest) - own.shape[1]:
            filling = own.new_zeros(own.shape[0], missing, *own.shape[2:])
            own = torch.cat([own, filling], 1)
    everyone = repeat(torch.zeros_like(own), "... -> world ...", world=rank.world_size)
    parts = list(everyone.contiguous())
    dist.all_gather(parts, own.detach().contiguous())
    parts[rank.index] = own
    return torch.cat(parts)


def sum_over_ranks(value: float, rank: Rank) -> float:
    """Return the sum of every rank's value."""
    if rank.world_size == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=rank.device)
    dist.all_reduce(total)
    return float(total)


def merge_over_ranks(found: dict[str, str], rank: Rank) -> dict[str, str]:
    """Return what all ranks have found, in one dict."""
    if rank.world_size == 1:
        return found
    everyone: list[Any] = [None] * rank.world_size
    dist.all_gather_object(everyone, found)
    return {name: text for one in everyone for name, text in one.items()}


def from_first(find: Callable[[], Found], rank: Rank) -> Found:
    """Return what the first rank finds, on all of them; an error of its is raised on all.

    So only its node needs the folder that it looks into.
    """
    if rank.world_size == 1:
        return find()
    said: list[Any] = [None]
    if rank.index == 0:
        try:
            said = [find()]
        except AvatarBuildError as error:
            said = [error]
    dist.broadcast_object_list(said)
    if isinstance(said[0], AvatarBuildError):
        raise said[0]
    found: Found = said[0]
    return found
