"""LVS: Localizing Visual Sounds the Hard Way (Chen et al., CVPR 2021, arXiv 2104.02691).

A picture's tokens are sounding, silent or unsure, by two soft thresholds on their cosine with the
sound; the silent tokens of a picture are its own hard negatives. SSL-TIE and SSLalignment build on
this network and SSL-TIE on its loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from tavlo.baselines.encoders import DualEncoder, FineTrunk, max_pool, unit
from tavlo.baselines.frontends import LVS_SOUND, crop_front
from tavlo.baselines.interface import PostProcessing
from tavlo.baselines.localiser import Published

SOUNDING, SILENT = 0.65, 0.4
"""Cosines above and below which a token counts as sounding and as silent."""
SOFTNESS = 0.03
"""The width of the two thresholds' sigmoids."""
TEMPERATURE = 0.07
"""The contrast's logits are cosines divided by it."""
_NEVER = -99.0
"""Put on a sound's own picture among the easy negatives."""


class Lvs(DualEncoder):
    """Two trunks with maps of 14 x 14; one head, no projection, cosines as they are.

    Args:
        width: of the trunks.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.imgnet = FineTrunk(sound=False, width=width)
        self.audnet = FineTrunk(sound=True, width=width)

    def encode_picture(self, image: Tensor) -> Tensor:
        """See ``DualEncoder``."""
        return rearrange(unit(self.imgnet(image), 1), "b c h w -> b 1 c h w")

    def encode_sound(self, spectrogram: Tensor) -> Tensor:
        """See ``DualEncoder``."""
        return rearrange(unit(max_pool(self.audnet(spectrogram)), 1), "b c -> b 1 c")


class TriMap(NamedTuple):
    """The cosines and logits that the contrast of LVS looks at."""

    maps: Tensor
    """Cosines with the own sound, ``(b, h, w)``."""
    logits: Tensor
    """Own sounding tokens, other sounds, own silent tokens: ``(b, 1 + b + 1)``."""
    sounding: Tensor
    """Weights of the own picture's sounding tokens, in [0, 1], ``(b, h, w)``."""
    silent: Tensor
    """Weights of its silent tokens, in [0, 1], ``(b, h, w)``."""
    best: Tensor
    """Cosine of the best token with every sound, ``(i, j)``."""


def tri_map(tokens: Tensor, sounds: Tensor) -> TriMap:
    """Compare visual tokens with sounds.

    Args:
        tokens: ``(i, c, h, w)``, length one along c.
        sounds: ``(j, c)``, likewise, as many.
    """
    every = torch.einsum("ichw,jc->ijhw", tokens, sounds)
    own = torch.einsum("ichw,ic->ihw", tokens, sounds)
    sounding = torch.sigmoid((own - SOUNDING) / SOFTNESS)
    silent = 1 - torch.sigmoid((own - SILENT) / SOFTNESS)
    easy = _weighted_mean(every, torch.sigmoid((every - SOUNDING) / SOFTNESS))
    diagonal = torch.eye(len(easy), device=easy.device, dtype=torch.bool)
    easy = torch.where(diagonal, _NEVER * easy, easy)
    positive, hard = _weighted_mean(own, sounding), _weighted_mean(own, silent)
    logits = torch.cat([positive[:, None], easy, hard[:, None]], 1) / TEMPERATURE
    return TriMap(own, logits, sounding, silent, every.amax((-2, -1)))


def lvs_loss(tokens: Tensor, sounds: Tensor) -> Tensor:
    """Contrast a picture's sounding tokens with other sounds and its own silent tokens."""
    logits = tri_map(tokens, sounds).logits
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def _weighted_mean(cosines: Tensor, weights: Tensor) -> Tensor:
    return (cosines * weights).sum((-2, -1)) / weights.sum((-2, -1))


LVS_POST = PostProcessing(
    "opencv-bilinear", False, "inverted min-max", "rank", ">", top_counts=True
)

LVS = Published(
    name="lvs",
    wrapper="model_state_dict",
    network=Lvs,
    image_front=crop_front,
    sound_front=LVS_SOUND,
    posts={"": LVS_POST},
)
