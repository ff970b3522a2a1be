"""The one loop's settings, each with our reason: the paper names none of them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from pipeline.config import Section, parse_setting
from pipeline.errors import ConfigError, UsageError
from pipeline.flow import imported
from tavlo.training.recipe import RECIPES, Preset, Recipe, checked, make_recipe
from tavlo.training.training_clips import ClipRules


class TrainConfig(Section):
    """The settings of the loop, for any recipe."""

    unhashed: ClassVar[frozenset[str]] = frozenset(
        {"workers", "checkpoint_every", "compile", "timeout_min", "ahead_gb"}
    )

    seed: int = Field(default=0, ge=0)
    """The seed of weights, order, split and augmentation."""
    epochs: int = Field(default=20, ge=1)
    """Passes over all clips. EZ-VSL makes 100 over its 10,000 pictures; a clip here gives 300
    moments to contrast instead of one, and each costs a ResNet of compute."""
    batch: int = Field(default=32, ge=2)
    """Clips contrasted with one another: over all ranks, whose number must divide it. Each of 300
    frames is then told from 31 others: 20 times as many pairs a step as EZ-VSL's 128 pictures."""
    accumulate: int = Field(default=1, ge=1)
    """Batches per step. They share a step, not negatives: it steadies, it does not sharpen."""
    sub_batch: int = Field(default=0, ge=0)
    """Clips of a rank that the network computes at once, 0 for all: less memory for one more
    forward. Negatives, loss and gradients stay those of the whole batch, but for BatchNorm, which
    normalises each part by its own statistics and averages over one after another."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak. 1e-4 is what EZ-VSL, SLAVC and SSL-TIE train the same encoders with."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """adam adds the decay to the gradient of all parameters; without decay they are the same."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's, on the weights of linear layers and convolutions alone: norms and biases are left
    free, and so are positions."""
    decay_positions: bool = False
    """AdamW's decay on learned positions too, as in trainings before there was this setting. It
    draws what tells places and times apart to zero, and nothing else needs it there."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """The course of the rate after warming up; constant is what the older models have."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Fraction of the steps in which the rate rises from 0: attention starts from random weights.
    It falls along half a cosine to 0 afterwards."""
    clip_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm, 0 for not: early steps of attention now and then
    leap."""
    validation: float = Field(default=0.05, ge=0, lt=1)
    """Fraction of the clips, by video, held back to choose the best checkpoint. The test set is
    never looked at. 0: the last one is the best."""
    best: Literal["loss", "sensitivity"] = "loss"
    """The choice of ``best.pt``: the lowest validation loss, or the highest sound sensitivity. The
    contrastive loss alone may fall while a model goes deaf; a sensitive one hears, which is not yet
    to be right."""
    sensitivity_clips: int = Field(default=32, ge=2)
    """Validation clips whose sounds are exchanged at each validation, which costs two forwards of
    each. 32 leave the mean a deviation of about 0.05 where clips differ by 0.3."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """auto: bf16 on a GPU, float32 on a CPU. The loss is always float32."""
    clip_s: float = Field(default=10.0, gt=0)
    """Length of a clip, seconds: the benchmark's."""
    min_frames: int = Field(default=200, ge=1)
    """Fewest frames of a clip (paper: 200)."""
    max_frames: int = Field(default=300, ge=1)
    """Most frames of a clip (paper: 300)."""
    compile: bool = False
    """torch.compile the network; the first steps then take minutes."""
    workers: int = Field(default=-1, ge=-1)
    """Processes that read clips, per rank; -1 takes the rank's part of the cores, 0 none. The
    batches do not depend on it."""
    ahead_gb: float = Field(default=4.0, gt=0)
    """Gigabytes of clips that a rank's workers hold ready in shared memory, together, but no more
    than two batches; to these come two batches put together. A clip of 300 frames has 0.045."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between checkpoints: what a kill costs at most. Each epoch ends with one too."""
    timeout_min: float = Field(default=120, gt=0)
    """Minutes that ranks wait for one another before they end with an error. Each fills its part of
    the cache before the first step, and one may have the slower disk; with a full cache 10 are
    plenty, and a node that vanished is noticed so much sooner."""

    def uses_bf16(self, device: torch.device) -> bool:
        """Say whether a network computes in bfloat16 on a device."""
        return self.precision == "bf16" or (self.precision == "auto" and device.type == "cuda")

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of every forward: training, validation, dry run and evaluation."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.uses_bf16(device))

    @model_validator(mode="after")
    def _can_be_chosen(self) -> Self:
        if self.best == "sensitivity" and not self.validation:
            raise ValueError("best is sensitivity, and validation 0 leaves no clips to hear it on")
        return self

    @property
    def rules(self) -> ClipRules:
        """The rules a clip must keep."""
        return ClipRules(self.clip_s, self.min_frames, self.max_frames)


def read_settings(
    name: str,
    file: Path | None = None,
    settings: Iterable[str] = (),
    stated: Mapping[str, Any] | None = None,
    preset: str = "",
) -> tuple[TrainConfig, Recipe]:
    """Read settings; later ones win: defaults, recipe's, data's, preset's, the file's, those typed.

    Args:
        name: of the recipe.
        file: TOML with the tables ``[train]`` and one of the recipe's name.
        settings: ``train.key=value`` or ``RECIPE.key=value``, values in TOML; bare words are
            strings.
        stated: what the data says of its clips (``tavlo.training.training_clips.stated_rules``).
        preset: of the recipe's ``presets``; empty is its first, which is what its defaults are. The
            recipe's notes say which it is, and what was set over it.

    Raises:
        ConfigError: naming the place and the value.
        UsageError: there is no such recipe, preset or file.
    """
    # What the file says, then what was typed over it.
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--config {file}: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{file}: not valid TOML: {error}.") from error
    for table, chosen in values.items():
        if not isinstance(chosen, dict):
            raise ConfigError(f"{file}: {table} is no table of settings: write [train] above it.")
    for setting in settings:
        (*tables, last), value = parse_setting(setting, "train.key=value")
        place = values
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {setting!r}: {table} is no table of settings.")
        place[last] = value
    if name in RECIPES and (unknown := sorted(values.keys() - {"train", name})):
        raise ConfigError(f"{unknown[0]}: no such table of settings; there is train and {name}.")
    presets: Mapping[str, Preset] = imported(RECIPES[name]).presets if name in RECIPES else {}
    if preset and name in RECIPES and preset not in presets:
        known = ", ".join(presets) or "none"
        raise UsageError(f"--preset {preset!r}: of {name} there is {known}.")
    named = presets[preset].settings if preset in presets else {}
    recipe = make_recipe(name, _over(named, values.get(name, {})))
    if presets:
        _say_preset(recipe, presets, preset)
    return train_config({**recipe.training, **(stated or {}), **values.get("train", {})}), recipe


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay tables of settings over others."""
    found = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], Mapping) and isinstance(above[name], Mapping):
            found[name] = _over(below[name], above[name])
    return found


def _say_preset(recipe: Recipe, presets: Mapping[str, Preset], asked: str) -> None:
    """Note which preset a recipe is, what is known of it, and what was set over it."""
    name = asked or next(iter(presets))
    preset, settings = presets[name], recipe.config()
    pairs = [
        (f"{recipe.name}.{place}", value, _at(settings, place))
        for place, value in _leaves(preset.settings)
    ]
    changed = ", ".join(f"{place}={now} (not {was})" for place, was, now in pairs if now != was)
    said = [
        f"preset {name}: {preset.known}" if asked else f"no --preset, so {name}: {preset.known}"
    ]
    if changed:
        said.append(f"set over the preset {name}, of which the above is then not known: {changed}.")
    recipe.notes = [*recipe.notes, *said]
    recipe.preset = f"{name}, but {changed}" if changed else name


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _at(settings: Mapping[str, Any], place: str) -> Any:
    for name in place.split("."):
        settings = settings[name]
    return settings


def recorded_config(values: Mapping[str, Any]) -> TrainConfig:
    """Return the settings a checkpoint was made with; older ones do not state all of them."""
    return train_config({"decay_positions": True, **values})


def train_config(values: Mapping[str, Any]) -> TrainConfig:
    """Check settings.

    Raises:
        ConfigError: naming the place and the value.
    """
    return checked(TrainConfig, values, "train")
