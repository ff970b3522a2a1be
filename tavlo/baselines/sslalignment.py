"""Sound source localization is all about cross-modal alignment (Senocak et al., ICCV 2023).

The network is that of LVS. Its authors published it for inference alone, and no licence; the
training here is written from the paper's equations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tavlo.baselines.encoders import max_pool, unit
from tavlo.baselines.frontends import SSLALIGNMENT_SOUND, tensor_front
from tavlo.baselines.interface import PostProcessing, Prior
from tavlo.baselines.localiser import Published
from tavlo.baselines.lvs import Lvs


class Aligned(Lvs):
    """LVS with a projection per side, into a space where whole pictures meet whole sounds (eq. 2).

    The released files hold no such layers, or not under names that are known.

    Args:
        width: of the trunks.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__(width)
        self.project_picture = nn.Linear(8 * width, 8 * width)
        self.project_sound = nn.Linear(8 * width, 8 * width)

    def picture_vectors(self, image: Tensor) -> Tensor:
        """Project the pictures' mean tokens: ``(b, d)``, length one."""
        return self._project_picture(self.imgnet(image))

    def sound_vectors(self, spectrogram: Tensor) -> Tensor:
        """Project the sounds: ``(b, d)``, length one."""
        return self._project_sound(max_pool(self.audnet(spectrogram)))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return both sides of all views of a training batch, each ``(b, v, ...)``.

        Of ``image`` ``(b, v, 3, y, x)`` the ``tokens`` for the localisation and ``picture_vectors``
        for the alignment, of ``spectrogram`` ``(b, v, 1, f, s)`` ``sounds`` and ``sound_vectors``.
        """
        views = batch["image"].shape[1]
        features = self.imgnet(batch["image"].flatten(0, 1))
        heard = max_pool(self.audnet(batch["spectrogram"].flatten(0, 1)))
        found = {
            "tokens": unit(features, 1),
            "picture_vectors": self._project_picture(features),
            "sounds": unit(heard, 1),
            "sound_vectors": self._project_sound(heard),
        }
        pattern = "(b v) ... -> b v ..."
        return {name: rearrange(value, pattern, v=views) for name, value in found.items()}

    def _project_picture(self, features: Tensor) -> Tensor:
        return unit(self.project_picture(features.mean((-2, -1))), 1)

    def _project_sound(self, heard: Tensor) -> Tensor:
        return unit(self.project_sound(heard), 1)


def localisation_scores(tokens: Tensor, sounds: Tensor) -> Tensor:
    """Compute the mean cosine of a picture's tokens with a sound (eq. 1, no mask): ``(i, j)``.

    Args:
        tokens: ``(i, c, h, w)``, length one along c.
        sounds: ``(j, c)``, likewise.
    """
    # The mean of the products is the product of the mean.
    return tokens.mean((-2, -1)) @ sounds.T


def alignment_loss(
    tokens: Tensor,
    picture_vectors: Tensor,
    sounds: Tensor,
    sound_vectors: Tensor,
    temperature: float,
) -> Tensor:
    """Sum both contrasts over all pairs of views, and average over the batch (eq. 3).

    A picture is contrasted with the sounds of the same view of all clips; the paper's equation has
    this direction alone. Its sign there is a likelihood's; a loss has the other.

    Args:
        tokens: ``(b, v, c, h, w)``, length one along c.
        picture_vectors: ``(b, v, d)``, length one.
        sounds: ``(b, v, c)``, length one.
        sound_vectors: ``(b, v, d)``, length one.
        temperature: the paper's tau, whose value it does not give.
    """
    own = torch.arange(len(tokens), device=tokens.device)
    total = tokens.new_zeros(())
    for seen in range(tokens.shape[1]):
        for heard in range(sounds.shape[1]):
            for scores in (
                localisation_scores(tokens[:, seen], sounds[:, heard]),
                picture_vectors[:, seen] @ sound_vectors[:, heard].T,
            ):
                total = total + F.cross_entropy(scores / temperature, own)
    return total


SSLALIGNMENT = Published(
    name="sslalignment",
    wrapper="model_state_dict",
    network=Aligned,
    bare=Lvs,
    image_front=tensor_front,
    sound_front=SSLALIGNMENT_SOUND,
    posts={
        "": PostProcessing("bilinear", True, "inverted min-max", "rank", ">"),
        "vggss": PostProcessing("opencv-bilinear", False, "inverted min-max", "rank", ">"),
    },
    prior=Prior(0.6),
)
