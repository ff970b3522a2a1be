"""A training says whether its model hears: in the log, in the curve, in a line when it is deaf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import ConfigError, UsageError
from pipeline.media.clip_cache import ClipTensors
from tavlo.baselines.encoders import DualEncoder
from tavlo.metrics.sound_sensitivity import MEAN_MAP, SENSITIVITY
from tavlo.training.cached_clips import CachedClip
from tavlo.training.checkpoint import load_checkpoint
from tavlo.training.label_free import DEAF, LabelFree, goes_deaf
from tavlo.training.recipe import RECIPES, make_recipe
from tavlo.training.tavlo_recipe import TavloRecipe
from tavlo.training.train import BEST, train
from tavlo.training.training_log import LOG, TrainingLog, curve_figure, read_log
from tests.tavlo import small
from tests.tavlo.baselines.networks import narrow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[CachedClip]:
    return small.clips(tmp_path_factory.mktemp("clips"))


class Deaf(TavloRecipe):
    """Looks at the pictures alone."""

    def heatmaps(
        self, model: nn.Module, clip: ClipTensors, frame_index: Sequence[int]
    ) -> NDArray[np.float32]:
        seen: NDArray[np.float32] = clip.frames[list(frame_index), ::32, ::32].astype(np.float32)
        return seen[..., 0]


class Fixed(TavloRecipe):
    """Says always the same."""

    def heatmaps(
        self, model: nn.Module, clip: ClipTensors, frame_index: Sequence[int]
    ) -> NDArray[np.float32]:
        return np.repeat(np.arange(4, dtype=np.float32).reshape(1, 2, 2), len(frame_index), 0)


class Hears(TavloRecipe):
    """Lights the place that stands for the moment at which its sound begins."""

    def heatmaps(
        self, model: nn.Module, clip: ClipTensors, frame_index: Sequence[int]
    ) -> NDArray[np.float32]:
        loud = np.abs(clip.waveform) > np.abs(clip.waveform).max() / 2
        begins = 64 * int(loud.argmax()) // len(loud)
        maps = np.zeros((len(frame_index), 64), np.float32)
        maps[:, begins] = 1
        return maps.reshape(-1, 8, 8)


@pytest.mark.parametrize(
    ("kind", "sensitivity", "alike"),
    [(Deaf, 0.0, None), (Fixed, 0.0, 1.0), (Hears, 64 / 63, None)],
)
def test_a_deaf_model_has_none_and_one_that_hears_much(
    clips: list[CachedClip],
    kind: type[TavloRecipe],
    sensitivity: float,
    alike: float | None,
) -> None:
    # The first burst of each of these clips is at another time.
    recipe = kind(small.TAVLO)
    found = LabelFree(recipe, clips[:4], small.config()).numbers(recipe.make_network().eval(), CPU)
    if sensitivity:
        assert found[SENSITIVITY] == pytest.approx(sensitivity)
    else:
        assert found[SENSITIVITY] == 0.0
    if alike is not None:
        assert found[MEAN_MAP] == pytest.approx(alike)


def test_one_clip_alone_has_no_other_sound(clips: list[CachedClip]) -> None:
    recipe = small.recipe()
    for some in ([], clips[:1]):
        assert LabelFree(recipe, some, small.config()).numbers(recipe.make_network(), CPU) == {}


def test_the_numbers_follow_from_the_seed_and_not_from_the_order(clips: list[CachedClip]) -> None:
    recipe = small.recipe()
    torch.manual_seed(0)
    model = recipe.make_network().eval()
    config = small.config(sensitivity_clips=5)
    found = LabelFree(recipe, clips, config).numbers(model, CPU)
    assert LabelFree(recipe, clips[::-1], config).numbers(model, CPU) == found
    other = LabelFree(recipe, clips, small.config(sensitivity_clips=5, seed=1)).numbers(model, CPU)
    assert other != found


def test_every_validation_logs_them_and_the_curve_shows_them(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    done = train(small.recipe(), small.config(), small.data(clips), tmp_path)
    rows = [row for row in read_log(tmp_path / LOG) if "validation_loss" in row]
    assert len(rows) == 3
    for row in rows:
        assert 0 <= row[SENSITIVITY] <= 2
        assert -1 <= row[MEAN_MAP] <= 1
    # They are those of the weights that were kept.
    recipe, model = load_checkpoint(tmp_path / BEST).open(tmp_path / BEST)
    again = LabelFree(recipe, small.data(clips).validation, small.config()).numbers(model, CPU)
    assert done.best is not None
    assert {name: done.best[name] for name in again} == again
    axes = curve_figure(read_log(tmp_path / LOG)).axes
    assert [one.get_ylabel() for one in axes] == ["loss", "without labels"]
    shown = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes[1].lines}
    assert shown["sound sensitivity"] == [row[SENSITIVITY] for row in rows]
    assert shown["correlation with mean map"] == [row[MEAN_MAP] for row in rows]
    # A log of before there were any has the one part.
    older = [{k: v for k, v in row.items() if k not in (SENSITIVITY, MEAN_MAP)} for row in rows]
    assert len(curve_figure(older).axes) == 1


def test_they_change_nothing_of_the_training(clips: list[CachedClip], tmp_path: Path) -> None:
    one, other = (
        train(kind(small.TAVLO), small.config(), small.data(clips), tmp_path / kind.__name__)
        for kind in (TavloRecipe, Hears)
    )
    assert small.equal(one.model, other.model)
    assert small.equal(one.optimizer, other.optimizer)


def rows(*sensitivities: float, steps: int = 100, first: int = 10) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"event": "start", "step": 0, "steps": steps}]
    return found + [
        {"step": first + 10 * number, "validation_loss": 1.0, SENSITIVITY: value, MEAN_MAP: 0.9}
        for number, value in enumerate(sensitivities)
    ]


def test_two_deaf_validations_after_a_tenth_of_the_steps_are_deaf() -> None:
    low, high = DEAF / 2, DEAF * 2
    assert goes_deaf(rows(low, low))
    assert goes_deaf(rows(high, low, low))
    assert not goes_deaf(rows(low))
    assert not goes_deaf(rows(low, DEAF))
    assert not goes_deaf(rows(low, low, high))
    assert not goes_deaf(rows(low, high, low))
    # At the very start a network does not hear yet.
    assert not goes_deaf(rows(low, low, steps=110))
    assert not goes_deaf(rows(low, low, first=1, steps=1000))
    # It is said once.
    assert not goes_deaf([*rows(low, low), {"event": "deaf", "step": 20}, *rows(low)[1:]])


def test_a_training_that_goes_deaf_says_so_in_one_line_and_once(
    clips: list[CachedClip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, config = small.data(clips), small.config(epochs=5)
    with_line = TrainingLog(tmp_path, shown=True)
    train(Deaf(small.TAVLO), config, data, tmp_path, log=with_line)
    said = [line for line in capsys.readouterr().err.splitlines() if "is deaf" in line]
    assert len(said) == 1
    # A tenth of 15 steps is past at the first validation, after 3.
    assert said[0].startswith("step 6: the model is deaf")
    events = [row for row in read_log(tmp_path / LOG) if row.get("event") == "deaf"]
    assert events == [{"event": "deaf", "step": 6, SENSITIVITY: 0.0}]
    train(
        Hears(small.TAVLO),
        config,
        data,
        tmp_path / "b",
        log=TrainingLog(tmp_path / "b", shown=True),
    )
    assert "is deaf" not in capsys.readouterr().err


class Listens(TavloRecipe):
    """Hears less from validation to validation; after the first it hears most."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.asked = 0

    def heatmaps(
        self, model: nn.Module, clip: ClipTensors, frame_index: Sequence[int]
    ) -> NDArray[np.float32]:
        validation, self.asked = self.asked // 4, self.asked + 1
        heard = np.random.default_rng(int(1e6 * np.abs(clip.waveform).sum())).normal(size=(1, 4, 4))
        seen = np.random.default_rng(0).normal(size=(1, 4, 4))
        maps = seen + heard * (1, 3, 0.5)[validation]
        return np.repeat(maps, len(frame_index), 0).astype(np.float32)


def test_the_best_may_be_the_one_that_hears_most(clips: list[CachedClip], tmp_path: Path) -> None:
    config = small.config(best="sensitivity")
    done = train(Listens(small.TAVLO), config, small.data(clips), tmp_path)
    found = [row for row in read_log(tmp_path / LOG) if "validation_loss" in row]
    best = max(found, key=lambda row: row[SENSITIVITY])
    assert done.best is not None
    assert done.best["step"] == best["step"] == 6 == load_checkpoint(tmp_path / BEST).step
    assert [row["best"] for row in found] == [True, True, False]
    # By the loss it is the last.
    assert min(found, key=lambda row: row["validation_loss"])["step"] == 9


def test_what_cannot_be_chosen_by_is_refused(clips: list[CachedClip], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train: best is sensitivity, and validation 0"):
        small.config(best="sensitivity", validation=0.0)
    config = small.config(best="sensitivity")
    with pytest.raises(UsageError, match="two clips of validation"):
        train(small.recipe(), config, small.data(clips, held=1), tmp_path)
    with pytest.raises(ConfigError, match=r"train\.best: "):
        small.config(best="ciou")


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"tavlo", "frame-wise"}))
def test_every_compared_model_is_asked_too(
    name: str, clips: list[CachedClip], tmp_path: Path
) -> None:
    recipe = make_recipe(name, narrow(name))
    torch.manual_seed(0)
    model = recipe.make_network().eval()
    found = LabelFree(recipe, clips[:3], small.config()).numbers(model, CPU)
    assert 0 < found[SENSITIVITY] <= 2
    assert -1 <= found[MEAN_MAP] <= 1
    # As evaluation asks: the map of the middle frame and the whole sound.
    clip = small.blank(9)
    (kept,) = recipe.frames_to_judge(9)
    inputs = {key: value[None] for key, value in recipe.sample(clip, None).items()}
    if name in ("ezvsl", "slavc"):  # the others train on other views
        assert isinstance(model, DualEncoder)
        with torch.no_grad():
            wanted = model.maps(inputs["image"], inputs["spectrogram"])
        assert np.allclose(recipe.heatmaps(model, clip, [kept])[0], wanted[0].numpy(), atol=1e-6)
