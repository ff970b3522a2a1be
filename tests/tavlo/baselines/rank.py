"""One of two processes of ``test_ranks``: gradients of each recipe, and a training of SLAVC."""

from __future__ import annotations

from pathlib import Path

import torch

from tavlo.training.cached_clips import CachedClip
from tavlo.training.data import ClipDataset, train_batches
from tavlo.training.distributed import Rank, gather, wrap_ddp
from tavlo.training.recipe import make_recipe
from tavlo.training.train import train
from tests.tavlo import small
from tests.tavlo.baselines.networks import NETWORKS, narrow

NAMES = tuple(name for name in NETWORKS if name != "lvs")
"""LVS has no recipe."""


def leave(folder: Path, clips: list[CachedClip], rank: Rank) -> None:
    """Leave ``<recipe>.pt`` and the training in ``folder``."""
    for name in NAMES:
        recipe = make_recipe(name, narrow(name))
        torch.manual_seed(0)
        # In evaluation mode BatchNorm looks at no batch: torch's looks at a rank's own on CPUs.
        model = recipe.make_network().eval()
        dataset = ClipDataset(clips, recipe, 1.0, 0)
        batch = next(train_batches(dataset, 4, 0, range(1), rank, 0))
        net = wrap_ddp(model, rank)
        loss = recipe.loss(gather(net(batch.inputs), rank))
        (loss * rank.world_size).backward()  # type: ignore[no-untyped-call]
        if rank.index == 0:
            gradients = {key: value.grad for key, value in model.named_parameters()}
            torch.save({"loss": loss.detach(), "gradients": gradients}, folder / f"{name}.pt")
    slavc, config = make_recipe("slavc", narrow("slavc")), small.config(batch=4, epochs=2)
    train(slavc, config, small.data(clips, held=4), folder / "slavc", rank=rank)
