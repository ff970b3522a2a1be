"""Two processes with half of each batch do what one does with all of it, whatever the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.errors import UsageError
from tavlo.training.cached_clips import CachedClip
from tavlo.training.checkpoint import load_checkpoint
from tavlo.training.data import ClipDataset, train_batches
from tavlo.training.distributed import Rank, distributed
from tavlo.training.recipe import make_recipe
from tavlo.training.train import LAST, train
from tavlo.training.training_log import LOG, read_log
from tests.tavlo import small
from tests.tavlo.baselines.networks import narrow
from tests.tavlo.baselines.rank import NAMES
from tests.tavlo.small import WithoutBatchNorm
from tests.tavlo.two_ranks import run_two


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks leave behind."""
    folder = tmp_path_factory.mktemp("ranks")
    small.clips(folder)
    run_two("tests.tavlo.rank", folder)
    return folder


def clips(folder: Path) -> list[CachedClip]:
    return small.clips(folder)


def test_loss_and_gradients_are_those_of_the_whole_batch(folder: Path) -> None:
    recipe = WithoutBatchNorm(small.TAVLO)
    torch.manual_seed(0)
    model = recipe.make_network().train()
    dataset = ClipDataset(clips(folder), recipe, 1.0, 0)
    batch = next(train_batches(dataset, 4, 0, range(1), Rank(), 0))
    lengths = batch.inputs["frame_mask"].sum(1).tolist()
    assert max(lengths[:2]) != max(lengths[2:]), "the ranks must have filled up to other lengths"
    loss = recipe.loss(model(batch.inputs))
    loss.backward()  # type: ignore[no-untyped-call]
    found = torch.load(folder / "gradients.pt", weights_only=True)
    assert found["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    for name, value in model.named_parameters():
        assert value.grad is not None
        scale = value.grad.abs().max()
        difference = (found["gradients"][name] - value.grad).abs().max()
        assert difference <= 1e-4 * scale + 1e-7, name


def test_a_training_over_two_ranks_takes_the_same_steps(
    folder: Path, tmp_path: Path, curve: None
) -> None:
    recipe, config = WithoutBatchNorm(small.TAVLO), small.config(batch=4, epochs=2)
    train(recipe, config, small.data(clips(folder), held=4), tmp_path)
    for one, other in zip(read_log(tmp_path / LOG), read_log(folder / "run" / LOG), strict=True):
        assert one["step"] == other["step"]
        for name in ("loss", "gradient_norm", "validation_loss"):
            values = [row[name] for row in (one, other) if name in row]
            assert len(values) in (0, 2)
            assert values[:1] == pytest.approx(values[1:], rel=1e-3), (name, one["step"])
    files = sorted(path.name for path in (folder / "run").iterdir())
    assert files == sorted(path.name for path in tmp_path.iterdir()), "one rank alone writes"


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_of_each_recipe_are_those_of_the_whole_batch(
    folder: Path, name: str
) -> None:
    recipe = make_recipe(name, narrow(name))
    torch.manual_seed(0)
    model = recipe.make_network().eval()
    dataset = ClipDataset(clips(folder), recipe, 1.0, 0)
    batch = next(train_batches(dataset, 4, 0, range(1), Rank(), 0))
    loss = recipe.loss(model(batch.inputs))
    loss.backward()  # type: ignore[no-untyped-call]
    found = torch.load(folder / f"{name}.pt", weights_only=True)
    assert found["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for key, value in model.named_parameters():
        if value.grad is None:
            assert found["gradients"][key] is None
            continue
        scale = value.grad.abs().max()
        difference = (found["gradients"][key] - value.grad).abs().max()
        assert difference <= 1e-3 * scale + 1e-6, key


def test_slavcs_copy_follows_over_ranks_too(folder: Path) -> None:
    state = load_checkpoint(folder / "slavc" / LAST)
    assert state.step == 2
    fresh = make_recipe("slavc", narrow("slavc"))
    torch.manual_seed(small.config().seed)
    start = fresh.make_network().state_dict()
    for key in ("img_proj1.weight", "aud_proj2.weight"):
        slow, fast = state.model[f"momentum_{key}"], state.model[key]
        assert 0 < (slow - start[key]).norm() < 0.01 * (fast - start[key]).norm()


def test_only_restarts_with_a_shared_store_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who restarts nothing, or gives each start its store, is not asked for anything."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(UsageError, match="--max-restarts 3"), distributed("cpu"):
        pass
    for name, value in (("TORCHELASTIC_USE_AGENT_STORE", "False"), ("WORLD_SIZE", "1")):
        with monkeypatch.context() as one:
            one.setenv(name, value)
            one.setattr("torch.distributed.init_process_group", lambda *_, **__: None)
            one.setattr("torch.distributed.destroy_process_group", lambda: None)
            one.setattr("torch.distributed.get_rank", lambda: 0)
            one.setattr("torch.distributed.get_world_size", lambda: 2)
            with distributed("cpu") as rank:
                assert rank.index == 0
