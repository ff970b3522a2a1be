"""EZ-VSL (Mo and Morgado, ECCV 2022, arXiv 2203.09324).

A picture's answer to a sound is that of its best token; all other pictures of the batch are
negatives, and all other sounds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tavlo.baselines.encoders import DualEncoder, Trunk, init_as_ezvsl, max_pool, unit
from tavlo.baselines.frontends import EZVSL_SOUND, squeeze_front
from tavlo.baselines.interface import PostProcessing, Prior
from tavlo.baselines.localiser import Published

TEMPERATURE = 0.03


class EzVsl(DualEncoder):
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
        init_as_ezvsl(self)

    def encode_picture(self, image: Tensor) -> Tensor:
        """See ``DualEncoder``; one head, 7 x 7 tokens of a picture of 224 x 224."""
        tokens = unit(self.img_proj(self.imgnet(image)), 1)
        return rearrange(tokens, "b c h w -> b 1 c h w")

    def encode_sound(self, spectrogram: Tensor) -> Tensor:
        """See ``DualEncoder``."""
        sounds = unit(self.aud_proj(max_pool(self.audnet(spectrogram))), 1)
        return rearrange(sounds, "b c -> b 1 c")


def ezvsl_logits(tokens: Tensor, sounds: Tensor) -> Tensor:
    """Compute each token's cosine with each sound, over the temperature.

    Args:
        tokens: ``(i, c, h, w)``, length one along c.
        sounds: ``(j, c)``, likewise.

    Returns:
        ``(i, j, h, w)``.
    """
    return torch.einsum("ichw,jc->ijhw", tokens, sounds) / TEMPERATURE


def ezvsl_loss(tokens: Tensor, sounds: Tensor) -> Tensor:
    """Contrast best tokens both ways; the two directions' losses are summed."""
    scores = ezvsl_logits(tokens, sounds).amax((-2, -1))  # (i, j)
    own = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)


EZVSL = Published(
    name="ezvsl",
    wrapper="model",
    network=EzVsl,
    image_front=squeeze_front,
    sound_front=EZVSL_SOUND,
    posts={
        "": PostProcessing("bilinear", True, "min-max", "rank", ">="),
        # What training selects by is not what the test script does.
        "validation": PostProcessing("bicubic", False, "min-max", "rank", ">="),
    },
    prior=Prior(0.6),
)
