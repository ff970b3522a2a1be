"""The loop: what it ends with does not depend on how often it was stopped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import AvatarBuildError, UsageError
from tavlo.metrics.sound_sensitivity import MEAN_MAP, SENSITIVITY
from tavlo.network.model import Tavlo
from tavlo.training.cached_clips import CachedClip
from tavlo.training.checkpoint import Checkpoint, load_checkpoint
from tavlo.training.distributed import Rank
from tavlo.training.model_card import CARD
from tavlo.training.setup import Request, plan
from tavlo.training.tavlo_recipe import TavloRecipe
from tavlo.training.train import BEST, LAST, make_optimizer, num_steps, train
from tavlo.training.training_config import read_settings
from tavlo.training.training_log import CURVE, LOG, read_log
from tests.tavlo import small
from tests.tavlo.small import equal


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[CachedClip]:
    return small.clips(tmp_path_factory.mktemp("clips"))


pytestmark = pytest.mark.usefixtures("one_thread")


LOGGED = ("loss", "validation_loss", SENSITIVITY, MEAN_MAP)


class Stopped(Exception):
    """In place of a kill."""


class StopsAfter(TavloRecipe):
    """Dies after a number of steps, as a machine may."""

    def __init__(self, config: dict[str, Any], after: int = -1) -> None:
        super().__init__(config)
        self.left = after

    def after_step(self, model: nn.Module) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped


class Stops(StopsAfter):
    """Dies likewise; a dropout makes torch's generator matter."""

    def make_network(self) -> nn.Module:
        model = super().make_network()
        assert isinstance(model, Tavlo)
        model.blocks.append(small.DropTokens())
        return model


class Poisoned(TavloRecipe):
    """Its loss is no number in a certain step."""

    def __init__(self, config: dict[str, Any], step: int) -> None:
        super().__init__(config)
        self.left = step

    def loss(self, outputs: dict[str, Tensor]) -> Tensor:
        self.left -= 1
        return super().loss(outputs) * (math.nan if self.left == 0 else 1.0)


def test_stopped_at_any_step_and_gone_on_with_it_ends_the_same(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    data, config = small.data(clips), small.config(accumulate=1)
    whole = train(Stops(small.TAVLO), config, data, tmp_path / "whole")
    # Before the first checkpoint, between two, at one, and at an epoch's end.
    for stops in ([1], [2, 1, 4], [6]):
        out = tmp_path / "-".join(map(str, stops))
        for after in stops:
            with pytest.raises(Stopped):
                train(Stops(small.TAVLO, after), config, data, out)
        gone_on = train(Stops(small.TAVLO), config, data, out)
        assert equal(gone_on.model, whole.model), stops
        assert equal(gone_on.optimizer, whole.optimizer), stops
        assert gone_on.best == whole.best
        best = [load_checkpoint(folder / BEST).model for folder in (out, tmp_path / "whole")]
        assert equal(*best)
        rows = [
            [(row["step"], *(row.get(name) for name in LOGGED)) for row in read_log(log)]
            for log in (out / LOG, tmp_path / "whole" / LOG)
        ]
        assert [row for row in rows[0] if any(row[1:])] == [row for row in rows[1] if any(row[1:])]


def test_a_training_that_is_done_is_left_as_it_is(clips: list[CachedClip], tmp_path: Path) -> None:
    data = small.data(clips)
    done = train(small.recipe(), small.config(epochs=1), data, tmp_path)
    before = (tmp_path / LAST).read_bytes()
    again = train(small.recipe(), small.config(epochs=1), data, tmp_path)
    assert equal(again.model, done.model)
    assert (tmp_path / LAST).read_bytes() == before


def test_it_learns(clips: list[CachedClip], tmp_path: Path) -> None:
    config = small.config(epochs=20, validation=0.0, learning_rate=3e-3, batch=4)
    recipe = small.recipe(smallest_crop=1.0, flip=0.0, gain_db=0.0)
    train(recipe, config, small.data(clips, held=0), tmp_path)
    losses = [row["loss"] for row in read_log(tmp_path / LOG) if "loss" in row]
    assert len(losses) == 40
    chance = 2 * math.log(4)
    assert losses[0] == pytest.approx(chance, rel=0.2)
    assert losses[-1] < 0.75 * chance
    # Without validation the last is the best.
    assert equal(load_checkpoint(tmp_path / BEST).model, load_checkpoint(tmp_path / LAST).model)


def test_recomputing_activations_changes_nothing_but_memory(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    config = small.config(epochs=1)
    kept, again = (
        train(small.recipe(recompute=on), config, small.data(clips), tmp_path / str(on))
        for on in (False, True)
    )
    assert equal(kept.model, again.model)


class Watched(TavloRecipe):
    """Notes in which precision the network computed."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.seen: set[tuple[bool, bool]] = set()

    def make_network(self) -> nn.Module:
        model = super().make_network()
        model.register_forward_hook(self._watch)
        return model

    def _watch(self, model: nn.Module, *_: object) -> None:
        self.seen.add((model.training, torch.is_autocast_enabled("cpu")))


@pytest.mark.parametrize(("precision", "bf16"), [("bf16", True), ("float32", False)])
def test_training_validation_and_dry_run_compute_in_one_precision(
    precision: str, bf16: bool, clips: list[CachedClip], tmp_path: Path
) -> None:
    config = small.config(epochs=1, precision=precision)
    trained, planned = Watched(small.TAVLO), Watched(small.TAVLO)
    train(trained, config, small.data(clips), tmp_path / "run")
    assert trained.seen == {(True, bf16), (False, bf16)}
    listed = small.draw_videos(tmp_path / "videos")
    plan(Request(planned, config, listed, tmp_path / "none", device="cpu"))
    assert planned.seen == {(True, bf16)}


def test_two_batches_in_a_step_are_the_mean_of_two(clips: list[CachedClip], tmp_path: Path) -> None:
    # Without BatchNorm's counting a step over two batches sees the gradients one would see alone.
    config = small.config(epochs=1, accumulate=3, validation=0.0)
    train(small.recipe(), config, small.data(clips, held=2), tmp_path / "three")
    (row,) = [row for row in read_log(tmp_path / "three" / LOG) if "loss" in row]
    still = small.config(epochs=1, validation=0.0, learning_rate=1e-30, weight_decay=0.0)
    train(small.recipe(), still, small.data(clips, held=2), tmp_path / "one")
    alone = [row["loss"] for row in read_log(tmp_path / "one" / LOG) if "loss" in row]
    assert row["loss"] == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_the_checkpoint_tells_what_it_is_and_runs_no_code(
    clips: list[CachedClip], tmp_path: Path, curve: None
) -> None:
    data = small.data(clips)
    data.failed["lost_00000000"] = "missing_file: gone"
    train(small.recipe(), small.config(epochs=1), data, tmp_path)
    raw = torch.load(tmp_path / BEST, weights_only=True)
    assert raw["recipe"] == "tavlo"
    assert raw["recipe_config"] == small.recipe().config()
    assert raw["train_config"] == small.config(epochs=1).model_dump(mode="json")
    assert raw["weights_from"]["visual encoder"] == "from scratch"
    assert raw["preset"] == ""
    assert raw["data"]["clips"] == 6
    assert raw["data"]["videos"] == list(small.NAMES[:6])
    assert raw["data"]["validation_videos"] == list(small.NAMES[6:])
    assert raw["data"]["failed"] == {"lost_00000000": "missing_file: gone"}
    assert len(raw["data"]["digest"]) == 64
    assert raw["revision"]
    assert raw["versions"]["torch"]
    assert raw["optimizer"] is None
    recipe, model = load_checkpoint(tmp_path / BEST).open(tmp_path / BEST)
    assert recipe.config() == small.recipe().config()
    assert not model.training
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, CURVE, LAST, LOG, CARD]
    assert (tmp_path / CURVE).read_bytes().startswith(b"\x89PNG")


def test_the_best_checkpoint_is_the_validations(clips: list[CachedClip], tmp_path: Path) -> None:
    # A rate that ruins the network: the first epoch is better than the last.
    config = small.config(epochs=4, learning_rate=0.5, warmup=0.0, clip_norm=0.0)
    done = train(small.recipe(), config, small.data(clips), tmp_path)
    found = {row["step"]: row for row in read_log(tmp_path / LOG) if "validation_loss" in row}
    assert list(found) == [3, 6, 9, 12]
    best = min(found.values(), key=lambda row: row["validation_loss"])
    assert done.best is not None
    assert (done.best["step"], done.best["loss"]) == (best["step"], best["validation_loss"])
    assert load_checkpoint(tmp_path / BEST).step == best["step"]


def test_a_loss_that_is_no_number_names_the_clips_of_its_batch(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    data = small.data(clips)
    with pytest.raises(AvatarBuildError, match=r"step 2: the loss is nan\. Its clips: ") as error:
        train(Poisoned(small.TAVLO, 2), small.config(), data, tmp_path)
    named = str(error.value).split("Its clips: ")[1].split(". ")[0].split(", ")
    assert len(named) == 2
    assert set(named) <= {clip.clip_id for clip in data.training}
    assert "\n" not in str(error.value)
    # The batch is the one the same training sees in that step.
    watched: list[list[str]] = []
    from tavlo.training.data import ClipDataset, train_batches

    dataset = ClipDataset(data.training, small.recipe(), 1.0, 0)
    for batch in train_batches(dataset, 2, small.config().seed, range(3), Rank(), 0):
        watched.append(batch.clip_ids)
    assert sorted(named) == sorted(watched[1])


@pytest.mark.parametrize(
    ("recipe_changes", "changes", "held", "message"),
    [
        ({}, {"learning_rate": 2e-3}, 2, r"train\.learning_rate = 0\.001, and 0\.002"),
        ({"negatives": "max"}, {}, 2, r"tavlo\.negatives = 'mean', and 'max'"),
        ({"sizes": small.SIZES | {"num_blocks": 2}}, {}, 2, r"tavlo\.sizes\.num_blocks = 1, and 2"),
        ({}, {}, 3, r"clips \(digest\) = "),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    clips: list[CachedClip],
    tmp_path: Path,
    recipe_changes: dict[str, Any],
    changes: dict[str, Any],
    held: int,
    message: str,
) -> None:
    train(small.recipe(), small.config(epochs=1), small.data(clips), tmp_path)
    with pytest.raises(UsageError, match=message) as error:
        train(
            small.recipe(**recipe_changes),
            small.config(epochs=1, **changes),
            small.data(clips, held),
            tmp_path,
        )
    assert "Name another --out" in str(error.value)


def test_how_fast_and_how_often_saved_is_no_other_training(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    train(small.recipe(), small.config(epochs=1), small.data(clips), tmp_path)
    other = small.config(epochs=1, checkpoint_every=7, workers=3)
    train(small.recipe(), other, small.data(clips), tmp_path)


def test_a_checkpoint_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No such file .*train-tavlo"):
        load_checkpoint(tmp_path / "none.pt")
    for data in (b"", b"PK\x03\x04 no zip", b"text"):
        (tmp_path / "bad.pt").write_bytes(data)
        with pytest.raises(UsageError, match="not a readable checkpoint") as error:
            load_checkpoint(tmp_path / "bad.pt")
        assert "\n" not in str(error.value)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match="not a checkpoint of"):
        load_checkpoint(tmp_path / "other.pt")


def as_in_format_1(path: Path) -> None:
    """Write a checkpoint as it was when a wrapper held the network and settings had other names."""
    raw = torch.load(path, weights_only=True)
    older = {"visual_encoder.": "see.", "audio_encoder.": "hear."}
    weights = {}
    for name, value in raw["model"].items():
        for new, old in older.items():
            name = name.replace(new, old) if name.startswith(new) else name
        weights[f"net.{name}"] = value
    sizes = raw["recipe_config"]["sizes"]
    sizes["meeting"] = {"within-modality": "apart"}[sizes.pop("spatial_attention")]
    sizes["start"] = {"zero": "identity"}[sizes.pop("residual_init")]
    torch.save(raw | {"format": 1, "model": weights}, path)


def test_a_checkpoint_of_format_1_gives_the_same_heatmaps_and_is_gone_on_with(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    changes = {"spatial_attention": "within-modality", "residual_init": "zero"}
    settings = small.TAVLO | {"sizes": small.SIZES | changes}
    data, config = small.data(clips), small.config()
    whole = train(TavloRecipe(settings), config, data, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(StopsAfter(settings, 4), config, data, tmp_path)

    def heatmaps() -> Any:
        recipe, model = load_checkpoint(tmp_path / LAST).open(tmp_path / LAST)
        assert recipe.config() == TavloRecipe(settings).config()
        return recipe.heatmaps(model, small.blank(10), range(10))

    before = heatmaps()
    as_in_format_1(tmp_path / LAST)
    assert (heatmaps() == before).all()
    gone_on = train(TavloRecipe(settings), config, data, tmp_path)
    assert equal(gone_on.model, whole.model)
    assert equal(gone_on.optimizer, whole.optimizer)


def test_weights_of_another_network_are_named(clips: list[CachedClip], tmp_path: Path) -> None:
    done = train(small.recipe(), small.config(epochs=1), small.data(clips), tmp_path)
    values = vars(done) | {"recipe_config": small.recipe(sizes=small.SIZES | {"width": 8}).config()}
    with pytest.raises(UsageError, match=r"x\.pt: tensor .* this model's is"):
        Checkpoint(**values).open(Path("x.pt"))


def decayed(**changes: Any) -> set[str]:
    """The parameters that AdamW draws to zero, by name."""
    config = small.config(weight_decay=0.01, **changes)
    model = small.recipe().make_network()
    groups = make_optimizer(model, config).param_groups
    names = {id(value): name for name, value in model.named_parameters()}
    found = [
        (names[id(value)], group["weight_decay"]) for group in groups for value in group["params"]
    ]
    assert sorted(name for name, _ in found) == sorted(names.values())
    return {name for name, decay in found if decay}


def test_decay_is_on_the_weights_of_layers_and_on_nothing_else() -> None:
    layers = ("to_qkv", "to_out", "ffn.0", "ffn.2")
    attention = {
        f"blocks.0.{which}.{layer}.weight" for which in ("spatial", "temporal") for layer in layers
    }
    found = decayed()
    kernels = {name for name in found if name.startswith("visual_encoder.")}
    assert found - kernels == attention | {"audio_encoder.convolve.weight"}
    # A stem, 8 residual blocks of two kernels, three projections; BatchNorm is left free.
    assert len(kernels) == 1 + 8 * 2 + 3
    assert decayed(decay_positions=True) - found == {"space_position", "time_position"}


def test_a_training_from_before_goes_on_with_decay_on_positions(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    data = small.data(clips)
    train(small.recipe(), small.config(epochs=1, decay_positions=True), data, tmp_path)
    raw = torch.load(tmp_path / LAST, weights_only=True)
    for name in ("decay_positions", "best", "sensitivity_clips"):
        del raw["train_config"][name]
    torch.save(raw, tmp_path / LAST)
    with pytest.raises(UsageError, match=r"train\.decay_positions = True, and False is asked for"):
        train(small.recipe(), small.config(epochs=1), data, tmp_path)
    train(small.recipe(), small.config(epochs=1, decay_positions=True), data, tmp_path)


def test_too_few_clips_for_a_batch_say_so() -> None:
    with pytest.raises(UsageError, match="5 clips to train on make no step of 1 x 8"):
        num_steps(small.config(batch=8), 5)


def test_settings_come_from_a_file_and_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[train]\nbatch = 4\nepochs = 7\n[tavlo]\nnegatives = 'min'\n")
    config, recipe = read_settings("tavlo", file, ["train.batch=8", "tavlo.sizes.num_blocks=3"])
    assert (config.batch, config.epochs) == (8, 7)
    assert recipe.config()["negatives"] == "min"
    assert recipe.config()["sizes"]["num_blocks"] == 3
    for setting in ("train.bach=1", "tavlo.sizes.x=1", "other.x=1", "batch=1"):
        with pytest.raises(UsageError):
            read_settings("tavlo", None, [setting])
    with pytest.raises(UsageError, match="--recipe 'tavla': there is"):
        read_settings("tavla")


@pytest.mark.gpu
def test_a_gpu_trains_in_bf16_and_goes_on(clips: list[CachedClip], tmp_path: Path) -> None:
    device = torch.device("cuda:0")
    data, config = small.data(clips), small.config()
    with pytest.raises(Stopped):
        train(Stops(small.TAVLO, 4), config, data, tmp_path, rank=Rank(device=device))
    done = train(Stops(small.TAVLO), config, data, tmp_path, rank=Rank(device=device), workers=2)
    assert done.step == 9
    assert all(torch.isfinite(value).all() for value in done.model.values())
