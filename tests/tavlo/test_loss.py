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
    dice = torch.Generator().manual_seed(0)
    sound = torch.randn(clips, frames, 5, generator=dice, dtype=torch.float64)
    places = torch.randn(clips, frames, 2, 3, 5, generator=dice, dtype=torch.float64)
    return sound, places


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def slow_loss(
    sound: Tensor,
    places: Tensor,
    exists: list[list[bool]],
    negatives: Negatives,
    temperature: float,
) -> float:
    """Eq. 12 to 15, place by place."""
    picks: dict[str, Callable[[list[float]], float]] = {"mean": fmean, "max": max, "min": min}
    pick = picks[negatives]

    def answer(i: int, j: int, t: int) -> float:
        all_places = [cosine(sound[i, t], v) for v in places[j, t].reshape(-1, places.shape[-1])]
        return (max(all_places) if i == j else pick(all_places)) / temperature

    terms = []
    for i in range(len(sound)):
        for t in range(sound.shape[1]):
            if not exists[i][t]:
                continue
            others = [j for j in range(len(sound)) if j != i and exists[j][t]]
            own = math.exp(answer(i, i, t))
            to_pictures = own + sum(math.exp(answer(i, j, t)) for j in others)
            to_sounds = own + sum(math.exp(answer(j, i, t)) for j in others)
            terms.append(-math.log(own / to_pictures) - math.log(own / to_sounds))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_it_equals_the_slow_definition(negatives: Negatives, temperature: float) -> None:
    sound, places = batch()
    everywhere = [[True] * 2] * 3
    fast = contrastive_loss(sound, places, None, negatives, temperature)
    assert float(fast) == pytest.approx(
        slow_loss(sound, places, everywhere, negatives, temperature)
    )


def test_frames_that_do_not_exist_take_no_part_and_give_no_gradient() -> None:
    sound, places = batch(frames=3)
    exists = [[True, True, False], [True, False, False], [True, True, False]]
    sound.requires_grad_()
    loss = contrastive_loss(sound, places, torch.tensor(exists))
    slow = slow_loss(sound.detach(), places, exists, "mean", 1.0)
    assert float(loss.detach()) == pytest.approx(slow)
    torch.autograd.backward(loss)
    assert sound.grad is not None
    assert not sound.grad.isnan().any()
    assert not sound.grad[1, 1].any()
    assert not sound.grad[:, 2].any()


def test_gradients_agree_with_finite_differences() -> None:
    sound, places = batch(clips=2)
    sound.requires_grad_()
    places.requires_grad_()
    assert torch.autograd.gradcheck(contrastive_loss, (sound, places))


def test_the_own_picture_answers_with_its_best_place_whatever_the_others_do() -> None:
    sound, places = batch()
    own = [torch.diagonal(responses(sound, places, kind), dim1=1, dim2=2) for kind in NEGATIVES]
    torch.testing.assert_close(own[0], own[1])
    torch.testing.assert_close(own[0], own[2])


def test_a_clip_alone_has_nothing_to_learn_from() -> None:
    sound, places = batch(clips=1)
    assert float(contrastive_loss(sound, places)) == pytest.approx(0.0)


def deaf(clips: int, places: int) -> tuple[Tensor, Tensor]:
    """Every sound is the same vector; in every picture the first place is it, the others not."""
    sound = torch.zeros(clips, 1, 4, dtype=torch.float64)
    sound[..., 0] = 1
    pictures = -sound[:, :, None, None].repeat(1, 1, 1, places, 1)
    pictures[:, :, :, 0] *= -1
    return sound, pictures


def test_mean_negatives_are_all_but_content_with_a_map_that_hears_nothing() -> None:
    clips, places = 32, 49
    lowest = 2 * math.log(1 + (clips - 1) * math.exp(-2))  # own 1, others -1 everywhere
    nothing_learnt = 2 * math.log(clips)
    found = float(contrastive_loss(*deaf(clips, places)))
    assert found == pytest.approx(2 * math.log(1 + (clips - 1) * math.exp(-2 + 2 / places)))
    assert (found - lowest) / (nothing_learnt - lowest) < 0.025
    soft = float(contrastive_loss(*deaf(clips, places), temperature=0.07))
    assert soft < 1e-9


def test_max_negatives_are_not() -> None:
    found = float(contrastive_loss(*deaf(32, 49), negatives="max"))
    assert found == pytest.approx(2 * math.log(32))
