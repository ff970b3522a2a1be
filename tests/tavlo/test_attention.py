"""Attention is shown as the network computes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tavlo.evaluation.attention import Attention, Pictured, attention, figure
from tavlo.network.model import AttentionLayer, Tavlo, TavloSizes, similarity
from tavlo.training.recipe import make_recipe
from tavlo.training.training_log import curve_figure
from tests.tavlo import small


@torch.no_grad()
def test_the_weights_shown_are_those_that_mix_the_values() -> None:
    torch.manual_seed(0)
    sizes = TavloSizes(**{**small.SIZES, "num_heads": 1, "stage_blocks": (1, 1)})  # type: ignore[arg-type]
    layer = AttentionLayer(sizes).double().eval()
    tokens = torch.randn(3, 5, sizes.token_size, dtype=torch.float64)
    mask = torch.ones(3, 1, 1, 5, dtype=torch.bool)
    mask[1, ..., 3:] = False
    weights = layer.weights(tokens, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 5, dtype=torch.float64))
    assert not weights[1, :, 3:].any()
    normed = layer.norm_attention(tokens)
    value = layer.to_qkv(normed).chunk(3, -1)[2]
    mixed = tokens + layer.to_out(weights @ value)
    torch.testing.assert_close(layer(tokens, mask), mixed + layer.ffn(layer.norm_ffn(mixed)))


@torch.no_grad()
@pytest.mark.parametrize("spatial", ["joint", "within-modality", "none"])
def test_looking_changes_nothing_and_leaves_nothing_behind(spatial: str) -> None:
    torch.manual_seed(0)
    recipe = make_recipe(
        "tavlo", small.TAVLO | {"sizes": small.SIZES | {"spatial_attention": spatial}}
    )
    model = recipe.make_network().eval()
    assert isinstance(model, Tavlo)
    batch = {name: value[None] for name, value in recipe.sample(small.blank(10), None).items()}
    before = model(batch)
    found = attention(model, batch)
    heat = similarity(before["audio_tokens"], before["visual_tokens"])[0]
    np.testing.assert_array_equal(found.heat, heat.numpy())
    assert found.sound_over_time.shape == found.location_over_time.shape == (1, 10, 10)
    np.testing.assert_allclose(found.location_over_time.sum(-1), 1, atol=1e-5)
    if spatial == "joint":
        assert found.within_frame is not None
        assert found.within_frame.shape == (1, 10, 2, 2)
        assert (found.within_frame.sum((2, 3)) < 1).all(), "the sound attends to itself too"
    else:
        assert found.within_frame is None
    torch.testing.assert_close(model(batch)["audio_tokens"], before["audio_tokens"])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_axes_say_the_frames_they_show() -> None:
    rng = np.random.default_rng(0)
    over, image = rng.random((1, 20, 20)).astype(np.float32), np.zeros((36, 64, 3), np.uint8)
    found = Attention(
        heat=rng.random((20, 2, 2)).astype(np.float32),
        within_frame=None,
        sound_over_time=over,
        location_over_time=over,
    )
    for every in (1, 3):
        shown = [Pictured(index, image, None) for index in (2 * every, 15 * every + every // 2)]
        *_, below = figure(found, shown, every, "a clip").axes
        for axis in (below.xaxis, below.yaxis):
            assert axis.get_ticklocs().tolist() == [2, 15]
            marks = [label.get_text() for label in axis.get_ticklabels()]
            assert marks == [str(one.frame_index) for one in shown]


def test_a_learning_curve_is_marked_at_whole_steps() -> None:
    for steps in (1, 2, 3, 5, 40, 1000):
        rows = [{"step": step, "loss": 1 / step} for step in range(1, steps + 1)]
        (axes,) = curve_figure(rows).axes
        marks = axes.get_xticks()
        assert (marks == marks.round()).all(), steps
