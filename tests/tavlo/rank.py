"""One of two processes of ``test_ranks``: the gradients of one step, then a short training.

The other models' recipes follow in the same two, as starting them takes longer than what they do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tavlo.training.cached_clips import fill_cache
from tavlo.training.data import ClipDataset, train_batches
from tavlo.training.distributed import distributed, gather, wrap_ddp
from tavlo.training.train import train
from tavlo.training.training_clips import read_clips
from tests.tavlo import small
from tests.tavlo.baselines import rank as baselines
from tests.tavlo.small import WithoutBatchNorm


def main(folder: Path) -> None:
    """Leave ``gradients.pt`` and the training's log in ``folder``, and what the others leave."""
    torch.set_num_threads(1)
    recipe = WithoutBatchNorm(small.TAVLO)
    config = small.config(batch=4, epochs=2)
    listed = folder / "videos" / "train.csv"
    clips, _ = fill_cache(read_clips(listed), folder / "cache", config.rules, 1)
    with distributed("cpu") as rank:
        torch.manual_seed(0)
        model = recipe.make_network().train()
        dataset = ClipDataset(clips, recipe, 1.0, 0)
        batch = next(train_batches(dataset, 4, 0, range(1), rank, 0))
        net = wrap_ddp(model, rank)  # its hooks live as long as it does
        outputs = gather(net(batch.inputs), rank)
        loss = recipe.loss(outputs)
        (loss * rank.world_size).backward()  # type: ignore[no-untyped-call]
        if rank.index == 0:
            gradients = {name: value.grad for name, value in model.named_parameters()}
            torch.save({"loss": loss.detach(), "gradients": gradients}, folder / "gradients.pt")
        train(recipe, config, small.data(clips, held=4), folder / "run", rank=rank)
        baselines.leave(folder, clips, rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
