"""EZ-VSL (Mo and Morgado, ECCV 2022, arXiv 2203.09324).

A picture's answer to a sound is that of its best place; all other pictures of the batch are
negatives, and all other sounds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tavlo.baselines.encoders import Trunk, TwoSided, loudest, start_as_ezvsl, unit
from tavlo.baselines.frontends import EZVSL_SOUND, squeeze_front
from tavlo.baselines.interface import PostProcessing, Prior
from tavlo.baselines.localiser import Published

TEMPERATURE = 0.03


class EzVsl(TwoSided):
    """Two trunks and a linear projection of each; one head.

    Args:
        width: of the trunks.
    """

    temperature = TEMPERATURE

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.imgnet = Trunk(3, width)
        self.img_proj = nn.Conv2d(8 * width, 512, 1)
        self.audnet = Trunk(1, width)
        self.aud_proj = nn.Linear(8 * width, 512)
        start_as_ezvsl(self)

    def see(self, image: Tensor) -> Tensor:
        """See ``TwoSided``; one head, 7 x 7 places of a picture of 224 x 224."""
        places = unit(self.img_proj(self.imgnet(image)), 1)
        return rearrange(places, "b c h w -> b 1 c h w")

    def hear(self, spectrogram: Tensor) -> Tensor:
        """See ``TwoSided``."""
        sounds = unit(self.aud_proj(loudest(self.audnet(spectrogram))), 1)
        return rearrange(sounds, "b c -> b 1 c")

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """``places`` ``(b, 1, c, h, w)`` and ``sounds`` ``(b, 1, c)`` of a training batch."""
        return {"places": self.see(batch["image"]), "sounds": self.hear(batch["spectrogram"])}


def ezvsl_logits(places: Tensor, sounds: Tensor) -> Tensor:
    """Each place's cosine with each sound, over the temperature.

    Args:
        places: ``(i, c, h, w)``, length one along c.
        sounds: ``(j, c)``, likewise.

    Returns:
        ``(i, j, h, w)``.
    """
    return torch.einsum("ichw,jc->ijhw", places, sounds) / TEMPERATURE


def ezvsl_loss(places: Tensor, sounds: Tensor) -> Tensor:
    """Contrast best places both ways; the two directions' losses are summed."""
    scores = ezvsl_logits(places, sounds).amax((-2, -1))  # (i, j)
    own = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)


EZVSL = Published(
    name="ezvsl",
    wrapper="model",
    network=lambda _names: EzVsl(),
    image_front=squeeze_front,
    sound_front=EZVSL_SOUND,
    posts={
        "": PostProcessing("bilinear", True, "min-max", "rank", ">="),
        # What training selects by is not what the test script does.
        "validation": PostProcessing("bicubic", False, "min-max", "rank", ">="),
    },
    prior=Prior(0.6),
)
