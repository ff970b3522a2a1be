"""One of two processes of ``test_ranks``: each recipe's gradients, and a training of SLAVC."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tavlo.training.cached_clips import fill_cache
from tavlo.training.data import ClipDataset, train_batches
from tavlo.training.distributed import distributed, gather, wrap_ddp
from tavlo.training.recipe import make_recipe
from tavlo.training.train import train
from tavlo.training.training_clips import read_clips
from tests.tavlo import small
from tests.tavlo.baselines.networks import NETWORKS, narrow

NAMES = tuple(name for name in NETWORKS if name != "lvs")
"""LVS has no recipe."""


def main(folder: Path) -> None:
    """Leave ``<recipe>.pt`` and the training in ``folder``."""
    torch.set_num_threads(1)
    config = small.config(batch=4, epochs=2)
    listed = folder / "videos" / "train.csv"
    clips, _ = fill_cache(read_clips(listed), folder / "cache", config.rules, 1)
    with distributed("cpu") as rank:
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
        slavc = make_recipe("slavc", narrow("slavc"))
        train(slavc, config, small.data(clips, held=4), folder / "run", rank=rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
