"""Checkpoints: weights, and all that tells what they are, in one file of tensors and plain values.

They are read like any weights: no code of a file is run. A file is written beside and renamed, so
that its name always stands for a whole one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.files import replacing
from pipeline.models import check_state_dict
from pipeline.models.tensors import read_checkpoint
from pipeline.versions import code_revision, tool_versions
from tavlo.training.recipe import Recipe, make_recipe

_FORMAT = 2
"""2: the TAVLO network is the model itself, and its encoders have the usual names."""
_RENAMED_IN_2 = {"net.see.": "visual_encoder.", "net.hear.": "audio_encoder.", "net.": ""}
"""Prefixes of TAVLO's weights in format 1; the longer ones come first."""


@dataclass(frozen=True)
class Checkpoint:
    """A model and where it comes from."""

    recipe: str
    """The recipe's name."""
    recipe_config: dict[str, Any]
    train_config: dict[str, Any]
    """All settings of the loop; those that decide results are compared on resuming."""
    weights_from: dict[str, str]
    """Part of the model to the weights it started from."""
    data: dict[str, Any]
    """Digest, clips and videos, those held back for validation, and which were left out."""
    step: int
    """The number of steps done."""
    best: dict[str, float] | None
    """``step`` and ``loss`` of the best validation so far, and its label-free numbers."""
    model: dict[str, Tensor] = field(repr=False)
    optimizer: dict[str, Any] | None = field(default=None, repr=False)
    """The optimiser's state; None in a checkpoint that is not to be resumed from."""
    revision: str = field(default_factory=code_revision)
    """The revision of the code."""
    versions: dict[str, str] = field(default_factory=tool_versions)
    preset: str = ""
    """The preset it was trained with, and what was set over it; older files do not say."""

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        with replacing(path) as beside:
            torch.save({"format": _FORMAT} | values, beside)

    def open(self, where: Path) -> tuple[Recipe, nn.Module]:
        """Make the recipe and its model with these weights, in evaluation mode.

        Raises:
            UsageError: they are not of this recipe's model.
        """
        recipe = make_recipe(self.recipe, self.recipe_config)
        model = recipe.make_network()
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        check_state_dict(shapes, self.model, str(where))
        model.load_state_dict(self.model)
        return recipe, model.eval()


def trained_here(path: Path) -> bool:
    """Say whether ``train-tavlo`` wrote a file; one that cannot be read it did not."""
    try:
        return "recipe_config" in read_checkpoint(path)
    except (UsageError, TypeError):
        return False  # what opens it says why


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint on the CPU.

    Raises:
        UsageError: there is none, or it is none of ours.
    """
    found = read_checkpoint(path, "'avatar-build train-tavlo' writes them.")
    version = found.pop("format", None) if isinstance(found, dict) else None
    if version not in (1, _FORMAT):
        raise UsageError(f"{path}: not a checkpoint of 'train-tavlo', or of another version.")
    try:
        state = Checkpoint(**found)
        return _from_format_1(state) if version == 1 else state
    except (TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a checkpoint of 'train-tavlo' ({error}).") from error


def _from_format_1(state: Checkpoint) -> Checkpoint:
    """Rename the weights; the optimiser knows them by their order, and that has not changed."""
    if state.recipe != "tavlo":
        return state

    def renamed(name: str) -> str:
        old = next((old for old in _RENAMED_IN_2 if name.startswith(old)), "")
        return _RENAMED_IN_2.get(old, "") + name.removeprefix(old)

    return replace(state, model={renamed(name): value for name, value in state.model.items()})
