"""The memory that is said is what a step saves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pipeline.errors import UsageError
from tavlo.training import setup
from tavlo.training.data import Batch, collate
from tavlo.training.memory import Held, MemoryModel
from tavlo.training.recipe import Recipe, make_recipe
from tavlo.training.setup import Request, plan
from tavlo.training.train import run_network
from tavlo.training.training_config import TrainConfig
from tests.tavlo import small

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def model_of(recipe: Recipe, config: TrainConfig) -> MemoryModel:
    def run(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return run_network(network, batch, config, CPU)

    return MemoryModel(recipe, config, CPU, run)


def saved_by_a_step(recipe: Recipe, config: TrainConfig, clips: int, frames: int) -> int:
    """The second definition: every storage that autograd saves in a whole step, once."""
    batch = collate([("x", recipe.sample(small.blank(frames, n), None)) for n in range(clips)])
    model = recipe.make_network().train()
    skip = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    storages: dict[int, Tensor] = {}

    def save(value: Tensor) -> Tensor:
        storages.setdefault(value.untyped_storage().data_ptr(), value)
        return value

    with saved_tensors_hooks(save, lambda value: value):
        outputs = run_network(model, batch, config, CPU)
        loss = recipe.loss(outputs)
    assert loss.requires_grad
    kept = {place: one for place, one in storages.items() if place not in skip}
    for value in outputs.values():
        kept.setdefault(value.untyped_storage().data_ptr(), value)
    return sum(one.untyped_storage().nbytes() for one in kept.values())


def activations(held: Held) -> int:
    return held.total - held.parts["weights, gradients, optimiser"] - held.parts["clips"]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("attention", ["joint", "none"])
def test_it_is_within_a_fifth_of_what_a_whole_step_saves(precision: str, attention: str) -> None:
    sizes = small.SIZES | {"spatial_attention": attention, "max_frames": 40}
    recipe = small.recipe(sizes=sizes)
    config = small.config(batch=6, max_frames=40, precision=precision)
    said = activations(model_of(recipe, config).held(config, recompute=False))
    assert said == pytest.approx(saved_by_a_step(recipe, config, 6, 40), rel=0.2)


def test_it_holds_for_the_network_of_full_size() -> None:
    recipe, config = make_recipe("tavlo"), small.config(batch=2, max_frames=12)
    said = activations(model_of(recipe, config).held(config, recompute=False))
    assert said == pytest.approx(saved_by_a_step(recipe, config, 2, 12), rel=0.2)


def test_a_model_of_pictures_is_counted_too() -> None:
    recipe, config = make_recipe("ezvsl", {}), small.config(batch=5)
    said = activations(model_of(recipe, config).held(config, recompute=False))
    assert said == pytest.approx(saved_by_a_step(recipe, config, 5, 12), rel=0.2)


def test_recomputing_and_parts_hold_less_and_ranks_share() -> None:
    recipe, config = small.recipe(), small.config(batch=8)
    model = model_of(recipe, config)
    whole = model.held(config, recompute=False).total
    again = model.held(config, recompute=True).total
    parts = config.model_copy(update={"sub_batch": 1})
    assert again < whole
    assert model.held(parts, recompute=False).total < whole
    assert model.held(parts, recompute=True).total < again
    assert model.held(config, recompute=False, ranks=4).total < whole


def test_what_cannot_fit_is_refused_with_settings_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = small.draw_videos(tmp_path / "videos")
    config = small.config(batch=6, validation=0.0)
    request = Request(small.recipe(), config, listed, tmp_path / "none", device="cpu")
    found = plan(request)
    together = sum(found.memory.values())
    assert "memory of a step, at least" in " ".join(found.sentences())
    # What recomputing spares is the encoder's and blocks' larger part.
    monkeypatch.setattr(setup, "device_memory", lambda _device: round(0.8 * together))
    with pytest.raises(UsageError, match=r"With --set (.*) it fits\.") as error:
        plan(request)
    assert "\n" not in str(error.value)
    settings = str(error.value).split("With ")[1].split(" it fits")[0].split()[1::2]
    changes = dict(one.split("=") for one in settings)
    recompute = changes.pop("tavlo.recompute", "false") == "true"
    fitting = small.config(
        **config.model_dump() | {key.removeprefix("train."): int(v) for key, v in changes.items()}
    )
    plan(Request(small.recipe(recompute=recompute), fitting, listed, tmp_path / "n", device="cpu"))
    monkeypatch.setattr(setup, "device_memory", lambda _device: 1000)
    with pytest.raises(UsageError, match="No setting of ours makes it fit"):
        plan(request)
