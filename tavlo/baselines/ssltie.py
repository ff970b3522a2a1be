"""SSL-TIE (Liu et al., ACM MM 2022, arXiv 2206.12772).

The network and contrast of LVS on a picture and on a turned, shrunk or mirrored view of it; beside
that, the map of the view must be the view of the map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tavlo.baselines.frontends import SSLTIE_SOUND, crop_front
from tavlo.baselines.localiser import Published
from tavlo.baselines.lvs import LVS_POST, Lvs, lvs_loss


class SslTie(Lvs):
    """LVS, with three layers of another try that the files hold and nothing uses.

    Args:
        width: of the trunks.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__(width)
        self.vision_fc1 = nn.Conv2d(1024, 512, 1)
        self.conv3 = nn.Conv2d(1, 1, 1)
        self.norm3 = nn.BatchNorm2d(1)
        for unused in (self.vision_fc1, self.conv3, self.norm3):
            unused.requires_grad_(False)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Encode a picture, its view and the sound; the ``warp`` between goes along."""
        return super().forward(batch) | {
            "view_tokens": self.encode_picture(batch["view"]),
            "warp": batch["warp"],
        }


def ssltie_loss(tokens: Tensor, view_tokens: Tensor, sounds: Tensor, warp: Tensor) -> Tensor:
    """Add to both views' mean contrast how far the view's map is from the map's view.

    Args:
        tokens: ``(b, c, h, w)``, length one along c.
        view_tokens: of the warped pictures.
        sounds: ``(b, c)``, length one.
        warp: what makes the view of a picture, for ``warped``: ``(b, 2, 3)``.
    """
    contrast = (lvs_loss(tokens, sounds) + lvs_loss(view_tokens, sounds)) / 2
    return contrast + equivariance(_map(tokens, sounds), _map(view_tokens, sounds), warp)


def equivariance(maps: Tensor, view_maps: Tensor, warp: Tensor) -> Tensor:
    """Compute the mean squared difference of the views' maps and the maps' views."""
    return F.mse_loss(view_maps, warped(maps[:, None], warp)[:, 0])


def warped(images: Tensor, warp: Tensor) -> Tensor:
    """Look at images or maps ``(b, c, y, x)`` through affine warps; zero outside.

    Args:
        images: any size.
        warp: from a place of the result to one of the image, both from -1 to 1: ``(b, 2, 3)``.
    """
    grid = F.affine_grid(warp.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _map(tokens: Tensor, sounds: Tensor) -> Tensor:
    return (tokens * sounds[:, :, None, None]).sum(1)


SSLTIE = Published(
    name="ssltie",
    wrapper="state_dict",
    network=SslTie,
    image_front=crop_front,
    sound_front=SSLTIE_SOUND,
    posts={"": LVS_POST},
)
