"""The loss equals its equations written out in plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

import pytest
import torch
from torch import Tensor

from tavlo.network.loss import Negatives, contrastive_loss, responses

NEGATIVES: list[Negatives] = ["mean", "max", "min"]


def batch(clips: int = 3, frames: int = 2) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    audio = torch.randn(clips, frames, 5, generator=rng, dtype=torch.float64)
    visual = torch.randn(clips, frames, 2, 3, 5, generator=rng, dtype=torch.float64)
    return audio, visual


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def slow_loss(
    audio: Tensor,
    visual: Tensor,
    exists: list[list[bool]],
    negatives: Negatives,
    temperature: float,
) -> float:
    """Eq. 12 to 15, cell by cell."""
    picks: dict[str, Callable[[list[float]], float]] = {"mean": fmean, "max": max, "min": min}
    pick = picks[negatives]

    def answer(i: int, j: int, t: int) -> float:
        all_cells = [cosine(audio[i, t], v) for v in visual[j, t].reshape(-1, visual.shape[-1])]
        return (max(all_cells) if i == j else pick(all_cells)) / temperature

    terms = []
    for i in range(len(audio)):
        for t in range(audio.shape[1]):
            if not exists[i][t]:
                continue
            others = [j for j in range(len(audio)) if j != i and exists[j][t]]
            own = math.exp(answer(i, i, t))
            to_pictures = own + sum(math.exp(answer(i, j, t)) for j in others)
            to_sounds = own + sum(math.exp(answer(j, i, t)) for j in others)
            terms.append(-math.log(own / to_pictures) - math.log(own / to_sounds))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_it_equals_the_slow_definition(negatives: Negatives, temperature: float) -> None:
    audio, visual = batch()
    everywhere = [[True] * 2] * 3
    fast = contrastive_loss(audio, visual, None, negatives, temperature)
    assert float(fast) == pytest.approx(
        slow_loss(audio, visual, everywhere, negatives, temperature)
    )


def test_frames_that_do_not_exist_take_no_part_and_give_no_gradient() -> None:
    audio, visual = batch(frames=3)
    exists = [[True, True, False], [True, False, False], [True, True, False]]
    audio.requires_grad_()
    loss = contrastive_loss(audio, visual, torch.tensor(exists))
    slow = slow_loss(audio.detach(), visual, exists, "mean", 1.0)
    assert float(loss.detach()) == pytest.approx(slow)
    torch.autograd.backward(loss)
    assert audio.grad is not None
    assert not audio.grad.isnan().any()
    assert not audio.grad[1, 1].any()
    assert not audio.grad[:, 2].any()


def test_gradients_agree_with_finite_differences() -> None:
    audio, visual = batch(clips=2)
    audio.requires_grad_()
    visual.requires_grad_()
    assert torch.autograd.gradcheck(contrastive_loss, (audio, visual))


def test_the_own_picture_answers_with_its_best_place_whatever_the_others_do() -> None:
    audio, visual = batch()
    own = [torch.diagonal(responses(audio, visual, kind), dim1=1, dim2=2) for kind in NEGATIVES]
    torch.testing.assert_close(own[0], own[1])
    torch.testing.assert_close(own[0], own[2])


def test_a_clip_alone_has_nothing_to_learn_from() -> None:
    audio, visual = batch(clips=1)
    assert float(contrastive_loss(audio, visual)) == pytest.approx(0.0)


def deaf(clips: int, cells: int) -> tuple[Tensor, Tensor]:
    """Every sound is the same vector; in every picture the first cell is it, the others not."""
    audio = torch.zeros(clips, 1, 4, dtype=torch.float64)
    audio[..., 0] = 1
    pictures = -audio[:, :, None, None].repeat(1, 1, 1, cells, 1)
    pictures[:, :, :, 0] *= -1
    return audio, pictures


def test_mean_negatives_are_all_but_content_with_a_map_that_hears_nothing() -> None:
    clips, cells = 32, 49
    lowest = 2 * math.log(1 + (clips - 1) * math.exp(-2))  # own 1, others -1 everywhere
    nothing_learnt = 2 * math.log(clips)
    found = float(contrastive_loss(*deaf(clips, cells)))
    assert found == pytest.approx(2 * math.log(1 + (clips - 1) * math.exp(-2 + 2 / cells)))
    assert (found - lowest) / (nothing_learnt - lowest) < 0.025
    soft = float(contrastive_loss(*deaf(clips, cells), temperature=0.07))
    assert soft < 1e-9


def test_max_negatives_are_not() -> None:
    found = float(contrastive_loss(*deaf(32, 49), negatives="max"))
    assert found == pytest.approx(2 * math.log(32))
