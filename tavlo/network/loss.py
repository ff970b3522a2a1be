"""TAVLO's training objective (AVATAR paper, section 4.3); axes as in ``tavlo.network.model``.

Within a batch, frame t of clip i is held against frame t of every clip j. i names clips as sounds,
j names clips as pictures.

Two answers that localise nothing satisfy this objective. With mean negatives, one vector for every
sound and a fixed place that equals it while all others oppose it: own response 1, negatives near
-1. With max negatives that fails, but where sound and places attend to one another before they are
compared, each can carry what tells its clip from others. ``benchmarks/tavlo_synthetic.py`` finds
both; ``TavloSizes.meeting`` shuts the second out.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Negatives = Literal["mean", "max", "min"]


def responses(sound: Tensor, places: Tensor, negatives: Negatives = "mean") -> Tensor:
    """How much each sound agrees with each clip's picture, per frame (eq. 12 and 13).

    Args:
        sound: ``(i, t, d)``.
        places: ``(j, t, h, w, d)``.
        negatives: how a picture of another clip answers for all its places. The paper's is the
            mean; the others are its ablation. Its own picture always answers with its best place.

    Returns:
        ``(t, i, j)``; the diagonal holds p, the rest n.
    """
    places = rearrange(places, "j t h w d -> j t (h w) d")
    cosines = torch.einsum(
        "itd,jtpd->tijp", F.normalize(sound, dim=-1), F.normalize(places, dim=-1)
    )
    best = cosines.amax(-1)
    others = {"mean": cosines.mean(-1), "max": best, "min": cosines.amin(-1)}[negatives]
    own = torch.eye(*best.shape[1:], dtype=torch.bool, device=best.device)
    return torch.where(own, best, others)


def contrastive_loss(
    sound: Tensor,
    places: Tensor,
    present: Tensor | None = None,
    negatives: Negatives = "mean",
    temperature: float = 1.0,
) -> Tensor:
    """Contrast each clip's own picture with the other clips' of the batch (eq. 14 and 15).

    Args:
        sound: ``(b, t, d)``.
        places: ``(b, t, h, w, d)``.
        present: True where a frame exists, ``(b, t)``; others take no part, as sounds or pictures.
        negatives: see ``responses``.
        temperature: 1 is the paper's; the equation has none.

    Returns:
        The mean over existing frames of both directions' losses, summed.
    """
    scores = responses(sound, places, negatives) / temperature  # (t, i, j)
    if present is None:
        present = torch.ones(sound.shape[:2], dtype=torch.bool, device=sound.device)
    exists = rearrange(present, "b t -> t b")
    absent = -torch.inf
    to_pictures = scores.masked_fill(~exists[:, None, :], absent).log_softmax(2)
    to_sounds = scores.masked_fill(~exists[:, :, None], absent).log_softmax(1)
    own = torch.diagonal(to_pictures, dim1=1, dim2=2) + torch.diagonal(to_sounds, dim1=1, dim2=2)
    return -own[exists].mean()
