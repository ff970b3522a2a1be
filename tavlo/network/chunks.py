"""Chunks and recomputing keep the encoder within a GPU's memory and its indices.

BatchNorm counts a whole batch. A part of the network that is recomputed for its gradient sees the
same batch, and must not count it a second time; a layer that is computed in chunks counts all of
them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

MOST_ELEMENTS = 2**31 - 1
"""The largest tensor whose elements 32 bits count, as many GPU kernels do."""


@contextmanager
def uncounted(part: nn.Module) -> Iterator[None]:
    """Have BatchNorm leave its running averages alone, normalising by the batch as before."""
    norms = [one for one in part.modules() if isinstance(one, _BatchNorm) and one.training]
    before = [(one.momentum, one.num_batches_tracked) for one in norms]
    for norm in norms:
        # Averages of which none of the batch becomes a part, and a counter that is thrown away.
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted


def recomputed(part: nn.Module, inputs: Tensor) -> Tensor:
    """Compute a part of a network and keep its inputs alone; it is computed anew for gradients."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), uncounted(part)

    found: Tensor = checkpoint(part, inputs, use_reentrant=False, context_fn=contexts)
    return found


def stem_in_chunks(stem: nn.Sequential, frames: Tensor, size: int) -> Tensor:
    """Compute convolution, BatchNorm, ReLU and pooling by ``size`` frames at a time.

    In training BatchNorm counts all frames, of all ranks where it is synchronised: the convolution
    is computed once to count and once to normalise, and gradients go through the counts. Each chunk
    is computed anew for its gradient, so that nothing is kept but the frames.

    Args:
        stem: of ``VisualEncoder``.
        frames: ``(n, 3, y, x)``.
        size: frames of a chunk.

    Returns:
        What ``stem(frames)`` is, within rounding.
    """
    convolve, norm, *rest = stem
    assert isinstance(norm, _BatchNorm)
    chunks = frames.split(size)  # type: ignore[no-untyped-call]
    if not norm.training:
        return torch.cat([checkpoint(stem, one, use_reentrant=False) for one in chunks])

    def moments(chunk: Tensor) -> Tensor:
        # The sums of float32 values are taken in float64: the mean's square is subtracted below.
        wide: Tensor = convolve(chunk).float()
        variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        count = wide[:, 0].numel()
        mean = mean.double()
        ones = torch.ones_like(mean)
        return torch.stack([ones, mean, variance.double() + mean.square()]) * count

    each = [checkpoint(moments, one, use_reentrant=False) for one in chunks]
    sums: Tensor = torch.stack(each).sum(0)
    if isinstance(norm, nn.SyncBatchNorm) and dist.is_initialized():
        sums = all_reduce(sums)  # type: ignore[no-untyped-call]
    count, mean, square = sums[0], sums[1] / sums[0], sums[2] / sums[0]
    variance = square - mean.square()
    _average(norm, mean, variance * count / (count - 1))
    scale = norm.weight * torch.rsqrt(variance + norm.eps).float()
    shift = norm.bias - mean.float() * scale

    def normalised(chunk: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        found: Tensor = convolve(chunk)
        dtype = found.dtype
        found = (found.float() * scale[:, None, None] + shift[:, None, None]).to(dtype)
        for layer in rest:
            found = layer(found)
        return found

    return torch.cat(
        [checkpoint(normalised, one, scale, shift, use_reentrant=False) for one in chunks]
    )


@torch.no_grad()
def _average(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Add a batch to BatchNorm's running averages, as torch does."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
    norm.running_var.lerp_(variance.to(norm.running_var), norm.momentum)
