"""Recipes: all the training loop needs to know of a model, and every model it can train.

A recipe owns a model's inputs, its loss and its heatmaps; the loop in ``tavlo.training.train`` owns
the rest: data, steps, ranks, checkpoints. A sample's first axis may be of another length in each
clip (frames, spectrogram steps): ``tavlo.training.data.collate`` fills it up with zeros, so a
recipe with such tensors sends along which entries exist.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.models import resnet18

from pipeline.config import Section
from pipeline.errors import ConfigError, UsageError
from pipeline.flow import imported
from pipeline.media.clip_cache import ClipTensors
from pipeline.models import check_state_dict, load_state_dict, require
from pipeline.models.register import read_register

Settings = TypeVar("Settings", bound=Section)


@dataclass(frozen=True)
class Preset:
    """Settings of a recipe that belong together, and what is known of them."""

    settings: Mapping[str, Any]
    """The settings that make it, those that equal the defaults among them."""
    known: str
    """A sentence for people: what it is, where it was seen to localise, where not."""


class Recipe(Protocol):
    """A model, as training and evaluation see it. Inherit from it to get the defaults."""

    name: str
    """The key in ``RECIPES``."""
    notes: Sequence[str] = ()
    """Sentences on its settings that a training says at its start."""
    presets: ClassVar[Mapping[str, Preset]] = {}
    """Named settings; the first is what the recipe is by default."""
    preset: str = ""
    """The preset it was made with, and what was set over it; empty where nobody said."""
    training: ClassVar[Mapping[str, Any]] = {}
    """The loop's settings its authors used, where they are not the defaults."""
    kind: ClassVar[type[Section]]
    """The class of its settings."""
    settings: Section

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Check settings that differ from the defaults.

        Raises:
            ConfigError: one is unknown or out of range.
        """
        self.settings = checked(self.kind, config, self.name)

    def config(self) -> dict[str, Any]:
        """Return all settings, for JSON; ``make_recipe(name, config)`` gives the same recipe."""
        return self.settings.model_dump(mode="json")

    def make_network(self) -> nn.Module:
        """Make a new network, its random weights from torch's seed.

        Its ``forward`` takes the batch, a dict of tensors by the names ``sample`` gave them, and
        returns a dict of tensors whose first axis is the batch, gathered from all ranks before
        ``loss``.
        """
        ...

    def check_start(self) -> None:
        """Insist that the weights a new training starts from are at hand; by default it needs none.

        Raises:
            UsageError: they are not; says how to fetch them and how to do without.
        """
        return

    def initialise(self, model: nn.Module) -> dict[str, str]:
        """Put registered weights into a new model.

        Returns:
            What was put where, for the log and the checkpoint: part to weights, or "from scratch".
        """
        return {"all": "from scratch"}

    def sample(self, clip: ClipTensors, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Make one clip's inputs; called in a data worker.

        Args:
            clip: its frames and sound.
            rng: this clip's in this epoch; None for no augmentation.

        Returns:
            Tensors without batch axis, the same names for every clip.

        Raises:
            AvatarBuildError: the clip is none this model can take; says why.
        """
        ...

    def companions(
        self, clip_id: str, trained_on: Container[str], rng: np.random.Generator
    ) -> Sequence[str]:
        """Name other clips that a training sample of this one is made with; by default none.

        Args:
            clip_id: of the clip.
            trained_on: ids of all clips that are trained on.
            rng: this clip's in this epoch.
        """
        return ()

    def sample_among(
        self, clip: ClipTensors, companions: Sequence[ClipTensors], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Make the inputs as ``sample`` does in training, with the clips ``companions`` named."""
        return self.sample(clip, rng)

    def loss(self, outputs: dict[str, Tensor]) -> Tensor:
        """Compute the loss of the whole batch, a scalar; a function of ``outputs`` alone."""
        ...

    def after_step(self, model: nn.Module) -> None:
        """Follow a step of the optimiser, e.g. with a momentum encoder."""
        return

    def frames_to_judge(self, num_frames: int) -> Sequence[int]:
        """Return the frames of a clip by which a validation judges the maps; by default all."""
        return range(num_frames)

    def heatmaps(
        self, model: nn.Module, clip: ClipTensors, frame_index: Sequence[int]
    ) -> NDArray[np.float32]:
        """Compute how much each cell of some frames sounds, ``(n, y, x)``, of any scale.

        Args:
            model: of ``make_network``, in evaluation mode, on any device.
            clip: its frames and sound.
            frame_index: counted from the clip's first frame.

        A model of one picture and one sound has none: it is also in ``baselines.interface.MODELS``
        and is asked as those are.
        """
        raise NotImplementedError


RECIPES: dict[str, str] = {
    "tavlo": "tavlo.training.tavlo_recipe:TavloRecipe",
    "ezvsl": "tavlo.baselines.recipes:EzVslRecipe",
    "slavc": "tavlo.baselines.recipes:SlavcRecipe",
    "ssltie": "tavlo.baselines.recipes:SslTieRecipe",
    "sslalignment": "tavlo.baselines.recipes:AlignmentRecipe",
}
"""Name to ``module:factory``; the factory takes the recipe's settings, a mapping that may be empty.
Nothing is imported before it is asked for."""


def make_recipe(name: str, config: Mapping[str, Any] | None = None) -> Recipe:
    """Make the recipe of a name.

    Args:
        name: in ``RECIPES``.
        config: settings that differ from the defaults.

    Raises:
        UsageError: there is none, or a setting is unknown or out of range.
    """
    if name not in RECIPES:
        raise UsageError(f"--recipe {name!r}: there is {', '.join(sorted(RECIPES))}.")
    recipe: Recipe = imported(RECIPES[name])(config or {})
    return recipe


def checked(kind: type[Settings], values: Mapping[str, Any], table: str) -> Settings:
    """Check a table of settings.

    Raises:
        ConfigError: naming the place and the value that is wrong first.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join((table, *map(str, first["loc"])))
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            raise ConfigError(f"{place}: no such setting.") from error
        said = first["msg"].removeprefix("Value error, ")
        got = f" (got {first['input']!r})" if isinstance(first["input"], (str, int, float)) else ""
        raise ConfigError(f"{place}: {said[:1].lower()}{said[1:]}{got}.") from error


_COUNTER = "num_batches_tracked"
"""A counter of BatchNorm; older files have none, and with a fixed momentum nothing reads it."""


def check_imagenet(recipe: str, fits: str) -> None:
    """Insist that ImageNet's ResNet-18 is registered and fits.

    Args:
        recipe: whose setting ``imagenet`` asks for it.
        fits: why the model cannot take it; empty where it can.

    Raises:
        UsageError: it is not, or the model is no ResNet-18. The works that are followed start from
            these weights, and from scratch is another experiment: who wants it says so.
    """
    without = f"train from scratch with --set {recipe}.imagenet=false"
    if fits:
        raise UsageError(f"{recipe}.imagenet: {fits}, which ImageNet's weights are for; {without}.")
    if read_register("resnet18") is None:
        raise UsageError(
            f"{recipe}.imagenet: the weights are not here: 'avatar-build models fetch resnet18', or"
            f" {without}."
        )


def start_from_imagenet(
    part: str, put: Callable[[dict[str, Tensor]], Any], *, wanted: bool
) -> dict[str, str]:
    """Put ResNet-18's ImageNet weights into a part of a model.

    Args:
        part: what it is called.
        put: given the weights by torchvision's names.
        wanted: whether they are asked for; ``check_imagenet`` has passed then.

    Returns:
        What ``Recipe.initialise`` does.

    Raises:
        UsageError: they are registered and not what they were, or no ResNet-18's.
    """
    label = "from scratch"
    if wanted:
        file = require("resnet18")
        found = load_state_dict(file.path)
        shapes = {name: tuple(value.shape) for name, value in resnet18().state_dict().items()}
        check_state_dict(_without(shapes), _without(found), str(file.path))
        put(found)
        label = f"ImageNet, SHA-256 {file.sha256}"
    return {part: label, "rest": "from scratch"}


def _without(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if not name.endswith(_COUNTER)}
