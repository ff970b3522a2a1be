"""A batch computed a few clips at a time, with the loss and the gradients of the whole.

The gradient of a contrastive loss with respect to a clip's outputs depends on all clips, and the
gradient with respect to the weights only on those: GradCache (Gao et al., 2021, "Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup"). So all outputs are computed without
keeping anything, the loss gives their gradients, and each part is computed once more and handed
its own. Memory is that of one part and the outputs; the network runs forward twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from tavlo.network.chunks import uncounted
from tavlo.training.data import Batch

Outputs = dict[str, Tensor]


def parts_of(batch: Batch, size: int) -> list[Batch]:
    """Cut a batch into parts of at most ``size`` clips; 0 leaves it whole."""
    count = len(batch.clip_ids)
    size = size or count
    return [
        Batch(
            batch.clip_ids[at : at + size],
            {name: value[at : at + size] for name, value in batch.inputs.items()},
        )
        for at in range(0, count, size)
    ]


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Put the outputs of parts together again."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def backward_in_parts(
    parts: Sequence[Batch],
    compute: Callable[[Batch], Outputs],
    loss_backward: Callable[[Outputs], float],
    model: nn.Module,
    no_sync: Callable[[], AbstractContextManager[None]],
    *,
    is_last: bool,
) -> float:
    """Add the gradients of a whole batch to a model's, computing a part at a time.

    In training BatchNorm normalises each part by its own statistics, and counts each once; where it
    is frozen the gradients are those of the whole batch, within rounding.

    Args:
        parts: of the batch.
        compute: the network.
        loss_backward: computes the loss of all outputs, and their gradients.
        model: whose BatchNorm must not count the parts twice.
        no_sync: the context in which ranks do not share gradients.
        is_last: whether the last part shares them.

    Returns:
        What ``loss_backward`` does.
    """
    drawn, found = [], []
    with torch.no_grad(), no_sync():
        for part in parts:
            drawn.append(_generators())
            found.append(compute(part))
    whole = joined(found)
    for value in whole.values():
        if value.is_floating_point():
            value.requires_grad_()
    loss = loss_backward(whole)

    gradients = {name: value.grad for name, value in whole.items() if value.grad is not None}
    first = 0
    for number, part in enumerate(parts):
        _set_generators(drawn[number])
        shares = is_last and number == len(parts) - 1
        with uncounted(model), nullcontext() if shares else no_sync():
            outputs = compute(part)
            names = [name for name in gradients if outputs[name].requires_grad]
            end = first + len(part.clip_ids)
            torch.autograd.backward(
                [outputs[name] for name in names],
                [gradients[name][first:end] for name in names],
            )
            first = end
    return loss


def _generators() -> list[Tensor]:
    """Return the states of torch's generators, so that a part drops out the same twice."""
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if on_gpu else [])]


def _set_generators(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
