"""A batch in parts has the loss and the gradients of the whole."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tavlo.network.model import Tavlo
from tavlo.training.data import Batch
from tavlo.training.recipe import Recipe
from tavlo.training.sub_batches import backward_in_parts, parts_of
from tavlo.training.tavlo_recipe import TavloRecipe
from tavlo.training.train import train
from tavlo.training.training_log import LOG, read_log
from tests.tavlo import small

pytestmark = pytest.mark.usefixtures("one_thread")


class Drops(TavloRecipe):
    """A dropout makes torch's generator matter."""

    def make_network(self) -> nn.Module:
        model = super().make_network()
        assert isinstance(model, Tavlo)
        model.blocks.append(small.DropTokens())
        return model


def gradients(recipe: Recipe, size: int) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients and averages of a step over five clips of two lengths."""
    torch.manual_seed(0)
    model = recipe.make_network().train()
    parts = parts_of(Batch(list("abcde"), small.batch([12, 10, 12, 11, 10])), size)

    def loss_backward(outputs: dict[str, Tensor]) -> float:
        loss = recipe.loss(outputs)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def compute(part: Batch) -> dict[str, Tensor]:
        found: dict[str, Tensor] = model(part.inputs)
        return found

    torch.manual_seed(1)
    loss = (
        backward_in_parts(parts, compute, loss_backward, model, nullcontext, is_last=True)
        if len(parts) > 1
        else loss_backward(compute(parts[0]))
    )
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert len(found) == len(list(model.parameters()))
    return loss, found, dict(model.named_buffers())


@pytest.mark.parametrize("negatives", ["mean", "max"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_frozen_batchnorm_gives_the_joint_loss_and_gradients(size: int, negatives: str) -> None:
    recipe = small.recipe(batch_norm="frozen", negatives=negatives)
    whole, parts = gradients(recipe, 0), gradients(recipe, size)
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    small.close(whole[1], parts[1])
    assert small.equal(whole[2], parts[2])


def test_batchnorm_that_counts_sees_each_part_once() -> None:
    one, _, buffers = gradients(small.recipe(), 0)
    other, _, counted = gradients(small.recipe(), 2)
    name = "visual_encoder.stages.0.1.num_batches_tracked"
    assert (int(buffers[name]), int(counted[name])) == (1, 3)
    assert one != other, "statistics of parts are others, as the setting says"


def test_a_part_drops_out_the_same_when_it_is_computed_again() -> None:
    # Parts draw one after another, so the whole batch is no comparison. A second definition: the
    # same parts in one graph.
    recipe = Drops(small.TAVLO | {"batch_norm": "frozen"})
    loss, found, _ = gradients(recipe, 2)
    torch.manual_seed(0)
    model = recipe.make_network().train()
    torch.manual_seed(1)
    parts = parts_of(Batch(list("abcde"), small.batch([12, 10, 12, 11, 10])), 2)
    outputs = [model(part.inputs) for part in parts]
    whole = recipe.loss({name: torch.cat([one[name] for one in outputs]) for name in outputs[0]})
    whole.backward()  # type: ignore[no-untyped-call]
    assert loss == pytest.approx(whole.item(), rel=1e-6)
    small.close(found, {name: value.grad for name, value in model.named_parameters()})  # type: ignore[misc]


def test_a_training_in_parts_takes_the_same_steps(tmp_path: Path) -> None:
    clips = small.clips(tmp_path)
    recipe = small.recipe(batch_norm="frozen")
    logs = []
    for size in (0, 1, 3):
        config = small.config(batch=4, epochs=2, sub_batch=size)
        train(recipe, config, small.data(clips, held=4), tmp_path / str(size))
        logs.append(read_log(tmp_path / str(size) / LOG))
    names = ("loss", "gradient_norm", "validation_loss")

    def numbers(log: list[dict[str, Any]]) -> list[float]:
        return [row[name] for row in log for name in names if name in row]

    assert len(numbers(logs[0])) == 2 * 2 + 2
    for log in logs[1:]:
        assert numbers(log) == pytest.approx(numbers(logs[0]), rel=1e-3)
