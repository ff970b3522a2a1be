"""TAVLO's training objective (AVATAR paper, section 4.3); axes as in ``tavlo.network.model``.

Within a batch, frame t of clip i is held against frame t of every clip j. i names clips as sounds,
j names clips as pictures.

Two answers that localise nothing satisfy this objective. With mean negatives, one vector for every
sound and a fixed cell that equals it while all others oppose it: own response 1, negatives near
-1. With max negatives that fails, but where audio and visual tokens attend to one another before
they are compared, each can carry what tells its clip from others.
``benchmarks/tavlo_synthetic.py`` finds both; ``TavloSizes.spatial_attention`` shuts the second
out.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Negatives = Literal["mean", "max", "min"]


def responses(audio: Tensor, visual: Tensor, negatives: Negatives = "mean") -> Tensor:
    """Compute how much each sound agrees with each clip's picture, per frame (eq. 12 and 13).

    Args:
        audio: tokens, ``(i, t, d)``.
        visual: tokens, ``(j, t, h, w, d)``.
        negatives: how a picture of another clip answers for all its cells. The paper's is the
            mean; the others are its ablation. Its own picture always answers with its best cell.

    Returns:
        ``(t, i, j)``; the diagonal holds p, the rest n.
    """
    cells = rearrange(visual, "j t h w d -> j t (h w) d")
    cosines = torch.einsum("itd,jtpd->tijp", F.normalize(audio, dim=-1), F.normalize(cells, dim=-1))
    best = cosines.amax(-1)
    others = {"mean": cosines.mean(-1), "max": best, "min": cosines.amin(-1)}[negatives]
    own = torch.eye(*best.shape[1:], dtype=torch.bool, device=best.device)
    return torch.where(own, best, others)


def contrastive_loss(
    audio: Tensor,
    visual: Tensor,
    frame_mask: Tensor | None = None,
    negatives: Negatives = "mean",
    temperature: float = 1.0,
) -> Tensor:
    """Contrast each clip's own picture with the other clips' of the batch (eq. 14 and 15).

    Args:
        audio: tokens, ``(b, t, d)``.
        visual: tokens, ``(b, t, h, w, d)``.
        frame_mask: True where a frame exists, ``(b, t)``; others take no part, as sounds or
            pictures.
        negatives: see ``responses``.
        temperature: 1 is the paper's; the equation has none.

    Returns:
        The mean over existing frames of both directions' losses, summed.
    """
    scores = responses(audio, visual, negatives) / temperature  # (t, i, j)
    if frame_mask is None:
        frame_mask = torch.ones(audio.shape[:2], dtype=torch.bool, device=audio.device)
    exists = rearrange(frame_mask, "b t -> t b")
    to_pictures = scores.masked_fill(~exists[:, None, :], -torch.inf).log_softmax(2)
    to_sounds = scores.masked_fill(~exists[:, :, None], -torch.inf).log_softmax(1)
    own = torch.diagonal(to_pictures, dim1=1, dim2=2) + torch.diagonal(to_sounds, dim1=1, dim2=2)
    return -own[exists].mean()
