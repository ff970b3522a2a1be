"""What fits the encoder into memory and indices changes nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tavlo.network import model as network
from tavlo.network.chunks import MOST_ELEMENTS, stem_in_chunks
from tavlo.network.model import AttentionLayer, Tavlo, TavloSizes
from tests.tavlo import small

SIZES: dict[str, Any] = dict(small.SIZES)


pytestmark = pytest.mark.usefixtures("one_thread")


def tavlo(**how: bool) -> Tavlo:
    torch.manual_seed(0)
    return Tavlo(TavloSizes(**SIZES), **how).train()


def step(model: Tavlo) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients and buffers of one step."""
    outputs = model(small.batch([12, 10, 12]))
    loss = small.recipe().loss(outputs)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: value.grad for name, value in model.named_parameters()}
    assert all(value is not None for value in gradients.values())
    return loss, gradients, dict(model.named_buffers())  # type: ignore[return-value]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_stem_in_chunks_and_stages_recomputed_give_loss_gradients_and_averages(
    frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = step(tavlo(frozen=frozen))
    monkeypatch.setattr(network, "STEM_CHUNK", 5)  # 34 frames: the last chunk is shorter
    chunked = step(tavlo(frozen=frozen, recompute=True))
    assert chunked[0].item() == pytest.approx(whole[0].item(), rel=1e-6)
    small.close(whole[1], chunked[1])
    small.close(whole[2], chunked[2])
    moved = not torch.equal(whole[2]["visual_encoder.stages.0.1.running_mean"], torch.zeros(4))
    assert moved is not frozen


def test_a_stem_past_32_bits_is_cut_though_nothing_is_recomputed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = step(tavlo())
    cut: list[int] = []

    def noting(stem: nn.Sequential, frames: Tensor, size: int) -> Tensor:
        cut.append(size)
        return stem_in_chunks(stem, frames, size)

    # A frame of 64 pixels is 4 x 32 x 32 values behind the first convolution.
    monkeypatch.setattr(network, "MOST_ELEMENTS", 7 * 4 * 32 * 32)
    monkeypatch.setattr(network, "stem_in_chunks", noting)
    small.close(whole[1], step(tavlo())[1])
    assert cut == [7]
    # The real bound: 64 channels of 112 x 112 pixels.
    monkeypatch.undo()
    assert MOST_ELEMENTS // (64 * 112 * 112) == 2674


def test_a_stem_in_chunks_evaluates_as_the_whole() -> None:
    stem = tavlo().visual_encoder.stages[0].eval()
    assert isinstance(stem, nn.Sequential)
    frames = torch.randn(11, 3, 64, 64)
    assert torch.equal(stem_in_chunks(stem, frames, 4), stem(frames))


@pytest.mark.parametrize("count", [3, 70_000])
def test_a_sequence_of_one_token_is_not_attended_to_and_gives_the_same(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = AttentionLayer(TavloSizes(**SIZES))
    tokens = torch.randn(count, 1, layer.to_out.in_features)
    # The second definition: the same token twice over, so that attention mixes equals.
    expected = layer(tokens.repeat(1, 2, 1), None)[:, :1] if count < 100 else None

    def refuse(*_: object, **__: object) -> Tensor:
        raise AssertionError("attention was called")

    attention = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", refuse)
    found = layer(tokens, None)
    assert found.shape == tokens.shape
    if expected is not None:
        assert torch.allclose(found, expected, atol=1e-6)
        # And bit for bit what attention over one token answers.
        query, key, value = layer._heads(layer.norm_attention(tokens))
        assert torch.equal(attention(query, key, value), value)
