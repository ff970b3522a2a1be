"""SLAVC (Mo and Morgado, NeurIPS 2022, arXiv 2209.09634; "MoVSL" in its older files).

Two heads: one says where a sound could be in this picture, the other to which of its tokens it
belongs rather than to the others; targets come from a slowly following copy of the network.

The authors update that copy inside every forward pass, of evaluation too unless told otherwise.
Here a forward pass changes nothing, and training follows up after each step.
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
MOMENTUM = 0.999
"""The fraction of itself that the copy keeps at each step."""
IMAGE_DROPOUT = 0.9
"""The fraction of the picture's features left out before the heads, in training."""

_PARTS = ("imgnet", "img_proj1", "img_proj2", "audnet", "aud_proj1", "aud_proj2")
_COPY = "momentum_"


class Slavc(DualEncoder):
    """Two trunks, two heads each, and a copy of it all.

    Args:
        width: of the trunks.
        image_dropout: fraction of the picture's features left out in training.
    """

    temperature = TEMPERATURE

    def __init__(self, width: int = 64, image_dropout: float = IMAGE_DROPOUT) -> None:
        super().__init__()
        self.image_dropout = image_dropout
        for prefix in ("", _COPY):
            self.add_module(f"{prefix}imgnet", Trunk(3, width))
            self.add_module(f"{prefix}img_proj1", nn.Conv2d(8 * width, 512, 1))
            self.add_module(f"{prefix}img_proj2", nn.Conv2d(8 * width, 512, 1))
            self.add_module(f"{prefix}audnet", Trunk(1, width))
            self.add_module(f"{prefix}aud_proj1", nn.Linear(8 * width, 512))
            self.add_module(f"{prefix}aud_proj2", nn.Linear(8 * width, 512))
        init_as_ezvsl(self)
        self.reset_momentum_encoder()

    def encode_picture(self, image: Tensor, prefix: str = "") -> Tensor:
        """See ``DualEncoder``; heads of localisation and correspondence.

        Args:
            image: ``(b, 3, y, x)``.
            prefix: of the parts to see with: none, or the copy's.
        """
        features = self.get_submodule(f"{prefix}imgnet")(image)
        features = F.dropout(features, self.image_dropout, self.training)
        heads = [self.get_submodule(f"{prefix}img_proj{head}")(features) for head in (1, 2)]
        return unit(torch.stack(heads, 1), 2)

    def encode_sound(self, spectrogram: Tensor, prefix: str = "") -> Tensor:
        """See ``DualEncoder``; ``prefix`` as for ``encode_picture``."""
        features = max_pool(self.get_submodule(f"{prefix}audnet")(spectrogram))
        heads = [self.get_submodule(f"{prefix}aud_proj{head}")(features) for head in (1, 2)]
        return unit(torch.stack(heads, 1), 2)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``tokens``, ``sounds``, and as ``..._target`` the copy's, of a training batch."""
        image, spectrogram = batch["image"], batch["spectrogram"]
        with torch.no_grad():
            tokens, sounds = (
                self.encode_picture(image, _COPY),
                self.encode_sound(spectrogram, _COPY),
            )
        return super().forward(batch) | {"tokens_target": tokens, "sounds_target": sounds}

    def reset_momentum_encoder(self) -> None:
        """Make the copy equal; it learns by following alone."""
        for part in _PARTS:
            copied = self.get_submodule(_COPY + part)
            copied.load_state_dict(self.get_submodule(part).state_dict())
            copied.requires_grad_(False)

    @torch.no_grad()
    def update_momentum_encoder(self, momentum: float) -> None:
        """Move the copy's parameters a little towards the network's."""
        for part in _PARTS:
            copied = self.get_submodule(_COPY + part).parameters()
            for slow, fast in zip(copied, self.get_submodule(part).parameters(), strict=True):
                slow.lerp_(fast, 1 - momentum)


def slavc_loss(
    tokens: Tensor, sounds: Tensor, tokens_target: Tensor, sounds_target: Tensor
) -> Tensor:
    """Contrast both ways, each against the copy's side.

    Args:
        tokens: ``(i, 2, c, h, w)``, length one along c.
        sounds: ``(j, 2, c)``, likewise.
        tokens_target: the copy's.
        sounds_target: the copy's.
    """
    to_sounds = _scores(torch.einsum("ikchw,jkc->kijhw", tokens, sounds_target))
    to_places = _scores(torch.einsum("ikchw,jkc->kijhw", tokens_target, sounds))
    own = torch.arange(len(tokens), device=tokens.device)
    return F.cross_entropy(to_places, own) + F.cross_entropy(to_sounds, own)


def _scores(cosines: Tensor) -> Tensor:
    """Return the logarithm of the chance that query i means target j, ``(i, j)``.

    At each token: which target it is (the first head), times which token of that target (second).
    """
    logits = rearrange(cosines / TEMPERATURE, "k i j h w -> k i j (h w)")
    return (logits[0].log_softmax(1) + logits[1].log_softmax(2)).logsumexp(-1)


SLAVC = Published(
    name="slavc",
    wrapper="model",
    network=Slavc,
    image_front=squeeze_front,
    sound_front=EZVSL_SOUND,
    posts={
        "": PostProcessing("bicubic", True, "fixed", "absolute", ">=", limit=1 / TEMPERATURE),
        "relative": PostProcessing("bicubic", True, "fixed", "rank", ">=", limit=1 / TEMPERATURE),
    },
    prior=Prior(0.1, scale=2.5),
)
