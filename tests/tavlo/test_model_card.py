"""A training leaves a card beside its checkpoints that says what it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from tavlo.metrics.sound_sensitivity import SENSITIVITY
from tavlo.training.cached_clips import CachedClip
from tavlo.training.model_card import CARD, card
from tavlo.training.tavlo_recipe import TavloRecipe
from tavlo.training.train import train
from tavlo.training.training_log import LOG, read_log
from tests.tavlo import small


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[CachedClip]:
    return small.clips(tmp_path_factory.mktemp("clips"))


class Reads(TavloRecipe):
    """Keeps the card as it is in the middle of the training."""

    folder: Path
    seen: str = ""

    def after_step(self, model: nn.Module) -> None:
        self.seen = (self.folder / CARD).read_text(encoding="utf-8")


def test_a_card_is_written_whole_and_again_at_the_end(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    recipe = Reads(small.TAVLO)
    recipe.folder, recipe.preset = tmp_path, "late-fusion, but tavlo.negatives=mean (not max)"
    data = small.data(clips)
    data.held_out.append("releases/1.0")
    data.notes.append("Clips of 1 s with 8 to 12 frames.")
    done = train(recipe, small.config(seed=3), data, tmp_path)
    assert "0 of 9 steps so far" in recipe.seen
    assert "None was made yet" in recipe.seen
    text = (tmp_path / CARD).read_text(encoding="utf-8")
    rows = read_log(tmp_path / LOG)
    last = [row for row in rows if SENSITIVITY in row][-1]
    assert done.best is not None
    for wanted in (
        "all 9 steps",
        "Preset: late-fusion, but tavlo.negatives=mean (not max).",
        "Seed 3:",
        done.data["digest"],
        done.data["validation_digest"],
        "6 clips of 6 videos",
        "- Clips of 1 s with 8 to 12 frames.",
        "visual encoder: from scratch",
        "Held apart from: releases/1.0.",
        "Code: Apache-2.0",
        "none but random ones",
        f"{last[SENSITIVITY]:.4f}",
        f"{done.best['loss']:.4f}",
        '"temperature": 1.0',
        '"learning_rate": 0.001',
    ):
        assert wanted in text, wanted
    # A training that is done leaves the same card.
    train(recipe, small.config(seed=3), data, tmp_path)
    assert (tmp_path / CARD).read_text(encoding="utf-8") == text


def test_a_card_says_what_is_bad_too(clips: list[CachedClip], tmp_path: Path) -> None:
    done = train(small.recipe(), small.config(epochs=1), small.data(clips), tmp_path)
    rows = [*read_log(tmp_path / LOG), {"event": "deaf", "step": 7, SENSITIVITY: 0.0}]
    imagenet = replace(done, weights_from={"visual encoder": "ImageNet, SHA-256 00"})
    text = card(imagenet, 9, rows, [])
    assert "**It went deaf**: since step 7" in text
    assert "no evaluation set was named" in text
    assert "Preset: not stated." in text
    assert "BSD-3-Clause" in text
