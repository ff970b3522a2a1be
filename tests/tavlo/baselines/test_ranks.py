"""Two processes with half of each batch do what one does with all of it, whatever the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from tavlo.training.checkpoint import load_checkpoint  # noqa: E402
from tavlo.training.data import ClipDataset, train_batches  # noqa: E402
from tavlo.training.distributed import Rank  # noqa: E402
from tavlo.training.recipe import make_recipe  # noqa: E402
from tavlo.training.train import LAST  # noqa: E402
from tests.tavlo import small  # noqa: E402
from tests.tavlo.baselines.networks import narrow  # noqa: E402
from tests.tavlo.baselines.rank import NAMES  # noqa: E402
from tests.tavlo.two_ranks import run_two  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks leave behind."""
    folder = tmp_path_factory.mktemp("ranks")
    small.clips(folder)
    run_two("tests.tavlo.baselines.rank", folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_the_whole_batch(folder: Path, name: str) -> None:
    recipe = make_recipe(name, narrow(name))
    torch.manual_seed(0)
    model = recipe.make_network().eval()
    dataset = ClipDataset(small.clips(folder), recipe, 1.0, 0)
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
    state = load_checkpoint(folder / "run" / LAST)
    assert state.step == 2
    fresh = make_recipe("slavc", narrow("slavc"))
    torch.manual_seed(small.config().seed)
    start = fresh.make_network().state_dict()
    for key in ("img_proj1.weight", "aud_proj2.weight"):
        slow, fast = state.model[f"momentum_{key}"], state.model[key]
        assert 0 < (slow - start[key]).norm() < 0.01 * (fast - start[key]).norm()
