"""The control of the synthetic benchmark hears and places what its settings say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.frame_wise import FrameWise, FrameWiseRecipe
from pipeline.media.clip_cache import ClipTensors
from tavlo.training.tavlo_recipe import TavloRecipe
from tests.tavlo import small


def control(**changes: Any) -> tuple[FrameWiseRecipe, FrameWise]:
    recipe = FrameWiseRecipe({"shared": small.TAVLO, "frames": 3, **changes})
    torch.manual_seed(0)
    network = recipe.make_network().eval()
    assert isinstance(network, FrameWise)
    return recipe, network


def sounds(recipe: FrameWiseRecipe, network: FrameWise, clip: ClipTensors) -> Tensor:
    batch = {name: value[None] for name, value in recipe.sample(clip, None).items()}
    with torch.no_grad():
        found: Tensor = network(batch)["sound"][0]
    return found


def test_it_hears_the_clip_or_each_frames_own_interval() -> None:
    clip = small.blank(10)
    later = clip.waveform.copy()
    later[len(later) * 9 // 10 :] = 0  # the last of ten frames falls silent
    changed = ClipTensors(clip.frames, later)
    # Frames 0, 4 and 9 are judged (np.linspace rounds 4.5 to even).
    recipe, network = control(sound="frame")
    before, after = (sounds(recipe, network, one) for one in (clip, changed))
    assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [True, True, False]
    recipe, network = control()
    before, after = (sounds(recipe, network, one) for one in (clip, changed))
    assert torch.equal(before[0], before[2])
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize("sound", ["clip", "frame"])
def test_a_frames_map_is_the_same_alone_or_among_others(sound: str) -> None:
    recipe, network = control(sound=sound)
    clip = small.blank(10)
    whole = recipe.heatmaps(network, clip, range(10))
    for index in (0, 7):
        assert np.allclose(recipe.heatmaps(network, clip, [index])[0], whole[index], atol=1e-6)
    if sound == "frame":
        # In training the frames are drawn, and each keeps its own sound.
        sample = recipe.sample(clip, np.random.default_rng(1))
        assert sample["index"].tolist() != [0, 4, 9]


@torch.no_grad()
def test_with_pos_s_equal_places_are_told_apart() -> None:
    sizes = TavloRecipe(small.TAVLO).settings.sizes
    shape = (1, 1, 64, 64, 3)
    batch = {
        "frames": torch.full(shape, 128, dtype=torch.uint8),
        "index": torch.zeros(1, 1, dtype=torch.long),
        "spectrogram": torch.zeros(1, 4, sizes.num_bins),
    }
    for positions, told in ((True, True), (False, False)):
        torch.manual_seed(0)
        places = FrameWise(sizes, space_positions=positions).eval()(batch)["places"][0, 0]
        # A grey picture is 0 to the encoder, which has no biases but those of BatchNorm.
        assert torch.allclose(places[0, 0], places[1, 1], atol=1e-6) != told
