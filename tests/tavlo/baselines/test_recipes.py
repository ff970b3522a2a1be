"""The recipes: what a sample is, what the losses are, and what the loop makes of them."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from pipeline.errors import AvatarBuildError, ConfigError, UsageError  # noqa: E402
from pipeline.media.clip_cache import RATE_HZ, ClipTensors  # noqa: E402
from pipeline.models.register import add  # noqa: E402
from tavlo.baselines.encoders import Trunk  # noqa: E402
from tavlo.baselines.interface import open_model  # noqa: E402
from tavlo.baselines.neighbours import find_neighbours  # noqa: E402
from tavlo.baselines.recipes import SslTieRecipe, middle_frame  # noqa: E402
from tavlo.baselines.slavc import Slavc  # noqa: E402
from tavlo.baselines.sslalignment import alignment_loss, localisation_scores  # noqa: E402
from tavlo.baselines.ssltie import equivariance, ssltie_loss, warped  # noqa: E402
from tavlo.training.cached_clips import CachedClip  # noqa: E402
from tavlo.training.checkpoint import load_checkpoint  # noqa: E402
from tavlo.training.data import ClipDataset, collate  # noqa: E402
from tavlo.training.recipe import Recipe, make_recipe  # noqa: E402
from tavlo.training.train import BEST, LAST, train  # noqa: E402
from tavlo.training.training_config import read_settings  # noqa: E402
from tests.tavlo import small  # noqa: E402
from tests.tavlo.baselines.networks import narrow  # noqa: E402

NAMES = ("ezvsl", "slavc", "ssltie", "sslalignment")


def recipe(name: str, **settings: Any) -> Recipe:
    return make_recipe(name, narrow(name) | settings)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: Any) -> list[CachedClip]:
    return small.clips(tmp_path_factory.mktemp("clips"))


def unit(*shape: int, seed: int = 0, axis: int = 1) -> Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    found: Tensor = F.normalize(made, dim=axis)
    return found


# Samples


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_follows_from_the_dice_alone(name: str) -> None:
    model, clip = recipe(name), small.blank(5)
    first, again, other = (model.sample(clip, np.random.default_rng(seed)) for seed in (1, 1, 2))
    plain, same = model.sample(clip, None), model.sample(clip, None)
    for key, value in first.items():
        assert torch.equal(value, again[key])
        assert torch.equal(plain[key], same[key])
    assert not torch.equal(first["image"], other["image"])


def test_without_augmentation_a_sample_is_the_middle_frame_as_in_evaluation() -> None:
    clip = small.blank(5)
    assert middle_frame(clip) is not clip.frames[0]
    np.testing.assert_array_equal(middle_frame(clip), clip.frames[2])
    for name in ("ezvsl", "slavc"):
        model: Any = recipe(name)
        front = model.published.image_front
        assert torch.equal(model.sample(clip, None)["image"], front(clip.frames[2]))


def test_ssltie_hears_three_seconds_repeated_to_ten_and_sees_its_picture_twice() -> None:
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, 10 * RATE_HZ).astype(np.float32)
    clip = ClipTensors(small.blank(3).frames, wave)
    model = recipe("ssltie")
    assert isinstance(model, SslTieRecipe)
    plain = model.sample(clip, None)
    wanted = model.published.sound_front.spectrograms([wave[56_000:104_000]])[0]
    torch.testing.assert_close(plain["spectrogram"], wanted)
    # Bilinear sampling of the same grid: the same up to rounding.
    torch.testing.assert_close(plain["view"], plain["image"], rtol=0, atol=1e-3)
    drawn = model.sample(clip, np.random.default_rng(3))
    view = warped(drawn["image"][None], drawn["warp"][None])[0]
    assert torch.equal(drawn["view"], view)


def test_the_views_of_alignment_are_original_augmented_and_those_of_companions() -> None:
    model = recipe("sslalignment")
    one, alike, sounding = (small.blank(3, seed) for seed in range(3))
    rng = np.random.default_rng(0)
    views = model.sample_among(one, (alike, sounding), rng)
    plain = [model.sample(clip, None) for clip in (one, alike, sounding)]
    assert views["image"].shape[0] == views["spectrogram"].shape[0] == 3
    assert torch.equal(views["image"][0], plain[0]["image"][0])
    assert torch.equal(views["image"][2], plain[1]["image"][0])
    assert torch.equal(views["spectrogram"][0], plain[0]["spectrogram"][0])
    assert torch.equal(views["spectrogram"][2], plain[2]["spectrogram"][0])
    assert not torch.equal(views["image"][1], views["image"][0])
    assert not torch.equal(views["spectrogram"][1], views["spectrogram"][0])
    assert len(model.sample(one, rng)["image"]) == 2


def test_the_loop_gives_alignment_the_neighbours_its_table_names(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    names = [clip.clip_id for clip in clips]
    rng = np.random.default_rng(0)
    table = find_neighbours(names, rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), 1)
    table.save(tmp_path / "table.npz")
    model = recipe("sslalignment", neighbours=str(tmp_path / "table.npz"))
    data = ClipDataset(clips, model, 1.0, seed=0)
    plain = ClipDataset(clips, model, 1.0, seed=None)
    for number in range(3):
        name, views = data[number, 0]
        assert isinstance(views, dict)
        assert name == names[number]
        for kind, numbers in (("image", table.pictures), ("spectrogram", table.sounds)):
            _, other = plain[int(numbers[number][0]), 0]
            assert isinstance(other, dict)
            assert torch.equal(views[kind][2], other[kind][0])
    _, few = ClipDataset(clips[:1], model, 1.0, seed=0)[0, 0]
    assert isinstance(few, AvatarBuildError)
    assert "none of the 1 clips it looks like is trained on" in str(few)


def test_a_table_that_changed_after_training_began_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    vectors = np.eye(3)
    find_neighbours(["a", "b", "c"], vectors, vectors, 1).save(path)
    model = recipe("sslalignment", neighbours=str(path))
    find_neighbours(["a", "b", "d"], vectors, vectors, 1).save(path)
    again = make_recipe("sslalignment", model.config())
    with pytest.raises(UsageError, match=r"SHA-256 .*; training began with"):
        again.companions("a", {"a", "b"}, np.random.default_rng(0))
    with pytest.raises(UsageError, match="no table of neighbours"):
        recipe("sslalignment", neighbours=str(tmp_path / "none.npz"))


# Losses


def slow_infonce(scores: Tensor) -> float:
    total = 0.0
    for i, row in enumerate(scores.tolist()):
        total -= row[i] - math.log(sum(math.exp(value) for value in row))
    return total / len(scores)


def test_equation_3_is_the_sum_of_both_contrasts_over_all_pairs_of_views() -> None:
    tokens, pictures = unit(4, 3, 5, 2, 2, axis=2), unit(4, 3, 6, seed=1, axis=2)
    sounds, sound_vectors = unit(4, 3, 5, seed=2, axis=2), unit(4, 3, 6, seed=3, axis=2)
    wanted = 0.0
    for v in range(3):
        for a in range(3):
            location, alignment = torch.zeros(4, 4), torch.zeros(4, 4)
            for i in range(4):
                for j in range(4):
                    cosines = [
                        (tokens[i, v, :, y, x] @ sounds[j, a]).item()
                        for y in range(2)
                        for x in range(2)
                    ]
                    location[i, j] = sum(cosines) / 4 / 0.5
                    alignment[i, j] = pictures[i, v] @ sound_vectors[j, a] / 0.5
            wanted += slow_infonce(location) + slow_infonce(alignment)
    found = alignment_loss(tokens, pictures, sounds, sound_vectors, temperature=0.5)
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_equation_1_is_the_mean_of_the_map() -> None:
    tokens, sounds = unit(3, 5, 4, 4), unit(3, 5, seed=1)
    maps = torch.einsum("ichw,jc->ijhw", tokens, sounds)
    torch.testing.assert_close(localisation_scores(tokens, sounds), maps.mean((2, 3)))


def identity(count: int) -> Tensor:
    warp: Tensor = torch.eye(2, 3).expand(count, 2, 3)
    return warp


def test_ssltie_adds_what_is_not_equivariant_to_the_mean_of_both_contrasts() -> None:
    tokens, sounds = unit(3, 5, 4, 4), unit(3, 5, seed=1)
    same = ssltie_loss(tokens, tokens, sounds, identity(3))
    view = unit(3, 5, 4, 4, seed=2)
    only_view = ssltie_loss(view, view, sounds, identity(3))
    both = ssltie_loss(tokens, view, sounds, identity(3))
    apart = equivariance(
        torch.einsum("bchw,bc->bhw", tokens, sounds),
        torch.einsum("bchw,bc->bhw", view, sounds),
        identity(3),
    )
    assert apart > 0
    torch.testing.assert_close(both, (same + only_view) / 2 + apart)


def test_a_map_that_turns_with_its_picture_costs_nothing() -> None:
    maps = torch.rand(2, 6, 6)
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3)
    assert equivariance(maps, maps.flip(-1), mirror).item() == pytest.approx(0, abs=1e-12)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0]]).expand(2, 2, 3)
    turned = equivariance(maps, maps.rot90(-1, (1, 2)), quarter)
    other = equivariance(maps, maps.rot90(1, (1, 2)), quarter)
    assert min(turned.item(), other.item()) == pytest.approx(0, abs=1e-10)
    assert equivariance(maps, maps, mirror) > 0.01


# In the loop


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_training_goes_on_to_the_same_weights(
    name: str, clips: list[CachedClip], tmp_path: Path
) -> None:
    data = small.data(clips)
    config = small.config(epochs=2, **OPTIMISER.get(name, {}))
    (tmp_path / "parts").mkdir()
    model: Any = recipe(name)
    follow, steps = model.after_step, itertools.count(1)

    def keep(net: Any) -> None:
        follow(net)
        if next(steps) == 4:  # what a kill would leave here: the checkpoint of step 3
            shutil.copy(tmp_path / "whole" / LAST, tmp_path / "parts" / LAST)

    model.after_step = keep
    whole = train(model, config, data, tmp_path / "whole")
    assert load_checkpoint(tmp_path / "parts" / LAST).step == 3
    parts = train(recipe(name), config, data, tmp_path / "parts")
    assert parts.step == whole.step == 6
    for key, value in whole.model.items():
        assert torch.equal(parts.model[key], value), key
    assert whole.best == parts.best


OPTIMISER: dict[str, dict[str, Any]] = {
    "ssltie": {"optimizer": "adam", "weight_decay": 1e-4},
    "slavc": {"schedule": "constant", "warmup": 0.0, "clip_norm": 0.0},
}


@pytest.mark.parametrize("name", NAMES)
def test_what_was_trained_opens_like_the_authors_checkpoint(
    name: str, clips: list[CachedClip], tmp_path: Path
) -> None:
    train(recipe(name), small.config(epochs=1), small.data(clips), tmp_path)
    opened = open_model(name, tmp_path / BEST)
    clip = small.blank(4)
    assert opened.heatmaps(list(clip.frames), [clip.waveform] * 4).shape == (4, 224, 224)
    other = "slavc" if name == "ezvsl" else "ezvsl"
    with pytest.raises(UsageError, match=f"trained as '{name}', and '{other}' is asked for"):
        open_model(other, tmp_path / BEST)


def test_slavcs_copy_follows_by_a_share_of_the_way_and_learns_nothing_itself() -> None:
    torch.manual_seed(0)
    model = recipe("slavc", momentum=0.75)
    net = model.make_network()
    assert isinstance(net, Slavc)
    pairs = [
        (fast, net.get_parameter(f"momentum_{name}"))
        for name, fast in net.named_parameters()
        if not name.startswith("momentum_")
    ]
    assert len(pairs) == 128
    for fast, slow in pairs:
        assert torch.equal(fast, slow)
        assert fast.requires_grad
        assert not slow.requires_grad
        with torch.no_grad():
            fast.add_(1)
    model.after_step(net)
    for fast, slow in pairs:
        torch.testing.assert_close(fast - slow, torch.full_like(fast, 0.75))


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_that_is_to_learn_gets_a_gradient(name: str) -> None:
    model = recipe(name)
    torch.manual_seed(0)
    net = model.make_network().train()
    rng = np.random.default_rng(0)
    samples = [(str(n), model.sample(small.blank(2, n), rng)) for n in range(3)]
    model.loss(net(collate(samples).inputs)).backward()  # type: ignore[no-untyped-call]
    for key, value in net.named_parameters():
        assert (value.grad is not None) == value.requires_grad, key


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_reaches_the_features_and_not_the_cosines(name: str) -> None:
    model = recipe(name)
    torch.manual_seed(0)
    net = model.make_network().eval()
    samples = [(str(n), model.sample(small.blank(2, n), None)) for n in range(4)]
    inputs = collate(samples).inputs
    with torch.no_grad():
        exact = net(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(inputs)
        assert {value.dtype for value in half.values()} == {torch.float32}
        assert any(not torch.equal(half[key], exact[key]) for key in exact)
        assert model.loss(half).item() == pytest.approx(model.loss(exact).item(), rel=0.05)


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "optimizer", "decay"),
    [
        ("ezvsl", 128, 20, "adamw", 0.0),
        ("slavc", 128, 20, "adamw", 0.0),
        ("ssltie", 32, 100, "adam", 1e-4),
        ("sslalignment", 128, 20, "adamw", 0.0),
    ],
)
def test_the_loops_settings_are_the_authors_unless_others_are_asked_for(
    name: str, batch: int, epochs: int, optimizer: str, decay: float
) -> None:
    config, model = read_settings(name)
    assert (config.batch, config.epochs, config.optimizer) == (batch, epochs, optimizer)
    assert (config.learning_rate, config.weight_decay) == (1e-4, decay)
    assert (config.schedule, config.warmup, config.clip_norm) == ("constant", 0, 0)
    assert make_recipe(name, model.config()).config() == model.config()
    asked, _ = read_settings(name, settings=["train.batch=8"])
    assert asked.batch == 8
    with pytest.raises(ConfigError, match=rf"{name}\.wide: no such setting"):
        read_settings(name, settings=[f"{name}.wide=8"])


def test_the_picture_starts_from_imagenet_or_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = Trunk().state_dict() | {
        "fc.weight": torch.ones(1000, 512),
        "fc.bias": torch.ones(1000),
    }
    torch.save(weights, tmp_path / "resnet18.pth")
    for name in ("ezvsl", "slavc"):
        model = make_recipe(name)
        net = model.make_network()
        with pytest.raises(UsageError, match=rf"resnet18', or .* --set {name}\.imagenet=false\.$"):
            model.initialise(net)
        with pytest.raises(UsageError, match=rf"width 8 is no .* --set {name}\.imagenet=false\.$"):
            make_recipe(name, {"width": 8}).check_start()
        add("resnet18", tmp_path / "resnet18.pth", own=True)
        assert model.initialise(net)["picture's trunk"].startswith("ImageNet, SHA-256")
        copies = ["imgnet"] if name == "ezvsl" else ["imgnet", "momentum_imgnet"]
        for part in copies:
            for key, value in net.get_submodule(part).state_dict().items():
                assert torch.equal(value, weights[key])
        for register in (tmp_path / "models").glob("*.json"):
            register.unlink()
