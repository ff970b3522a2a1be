"""The CAV-MAE network, in the layout of the authors' fine-tuned checkpoints (arXiv 2210.07839).

Axes, in every docstring, einops pattern and trailing comment of this package:
b clips, c colours, f mel bins, s spectrogram frames, h w grid of patches, p side of a patch,
n tokens, d width, m heads, e width of a head, k classes.

Odd about it: every block owns three pairs of LayerNorms, and which pair is used depends on where
the block stands and what it is given; all LayerNorms have eps 1e-5, unlike most vision
transformers; audio tokens are frequency-major; the output is logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models import check_state_dict, load_state_dict

Mode = Literal["audioonly", "videoonly", "multimodal", "missingaudioonly", "missingvideoonly"]
"""The modalities that are given. ``missing...``: one of them, to a model tuned on both."""

Pair = Literal["", "_a", "_v"]
"""The name of one of a block's LayerNorm pairs: the plain one, the audio one, the video one."""


@dataclass(frozen=True)
class Sizes:
    """The sizes the authors trained; only the number of classes differs between checkpoints."""

    num_classes: int = 527
    mel_bins: int = 128
    spectrogram_frames: int = 1024
    image_side: int = 224
    patch_side: int = 16
    width: int = 768
    heads: int = 12
    mlp_width: int = 3072
    depth: int = 11
    """Blocks of each modality; one shared block follows."""

    @property
    def audio_tokens(self) -> int:
        """512: a grid of 8 rows of frequency and 64 columns of time."""
        return self.mel_bins * self.spectrogram_frames // self.patch_side**2

    @property
    def image_tokens(self) -> int:
        """196: a grid of 14 x 14."""
        return (self.image_side // self.patch_side) ** 2


class Attention(nn.Module):
    """Self-attention over all tokens, scale ``e ** -0.5``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix ``(b, n, d)`` along n; the same shape."""
        q, k, v = rearrange(
            self.qkv(tokens), "b n (three m e) -> three b m n e", three=3, m=self.heads
        )
        mixed = F.scaled_dot_product_attention(q, k, v)  # (b, m, n, e)
        projected: Tensor = self.proj(rearrange(mixed, "b m n e -> b n (m e)"))
        return projected


class Mlp(nn.Module):
    """Two layers with the exact (erf) GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map each token of ``(b, n, d)`` by itself; the same shape."""
        mapped: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return mapped


class Block(nn.Module):
    """A pre-norm transformer block with three pairs of LayerNorms."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        # In the order of the checkpoints.
        self.norm1, self.norm1_a, self.norm1_v = (nn.LayerNorm(width) for _ in range(3))
        self.attn = Attention(width, sizes.heads)
        self.norm2, self.norm2_a, self.norm2_v = (nn.LayerNorm(width) for _ in range(3))
        self.mlp = Mlp(width, sizes.mlp_width)

    def forward(self, tokens: Tensor, pair: Pair = "") -> Tensor:
        """Transform ``(b, n, d)`` with one pair of LayerNorms; the same shape."""
        tokens = tokens + self.attn(self.get_submodule(f"norm1{pair}")(tokens))
        mapped: Tensor = self.mlp(self.get_submodule(f"norm2{pair}")(tokens))
        return tokens + mapped


class PatchEmbed(nn.Module):
    """Cut a picture into patches, one token each, row by row."""

    def __init__(self, channels: int, sizes: Sizes) -> None:
        super().__init__()
        side = sizes.patch_side
        self.proj = nn.Conv2d(channels, sizes.width, kernel_size=side, stride=side)

    def forward(self, picture: Tensor) -> Tensor:
        """Map ``(b, c, h * p, w * p)`` to tokens ``(b, h * w, d)``."""
        patches: Tensor = self.proj(picture)  # (b, d, h, w)
        return rearrange(patches, "b d h w -> b (h w) d")


class CavMae(nn.Module):
    """The fine-tuning network.

    Its parameters have the names, shapes and order of the authors' ``state_dict``, less the
    ``module.`` that DataParallel puts before them.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.width
        self.modality_a = nn.Parameter(torch.zeros(1, 1, width))
        self.modality_v = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed_a = nn.Parameter(torch.zeros(1, sizes.audio_tokens, width))
        self.pos_embed_v = nn.Parameter(torch.zeros(1, sizes.image_tokens, width))
        self.patch_embed_a = PatchEmbed(1, sizes)
        self.patch_embed_v = PatchEmbed(3, sizes)
        self.blocks_a = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.blocks_v = nn.ModuleList(Block(sizes) for _ in range(sizes.depth))
        self.blocks_u = nn.ModuleList([Block(sizes)])
        self.norm_a = nn.LayerNorm(width)
        self.norm_v = nn.LayerNorm(width)
        self.norm = nn.LayerNorm(width)
        self.mlp_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sizes.num_classes))

    def forward(self, audio: Tensor | None, image: Tensor | None, mode: Mode) -> Tensor:
        """Score the classes.

        Args:
            audio: normalised log mel filter banks, ``(b, s, f)``; none where the mode needs none.
            image: normalised pictures, ``(b, c, h * p, w * p)``; none likewise. In ``multimodal``
                there may be r of them to each sound, one sound's after the other's.
            mode: which modalities are given, and what the checkpoint was tuned on.

        Returns:
            Logits, ``(b, k)``; ``(b * r, k)`` with r pictures to a sound.
        """
        logits: Tensor = self.mlp_head(self.features(audio, image, mode))
        return logits

    def features(self, audio: Tensor | None, image: Tensor | None, mode: Mode) -> Tensor:
        """Compute what the head sees, ``(b, d)``; the arguments are ``forward``'s."""
        if mode == "multimodal":
            sound, sight = self.audio_tokens(audio), self.image_tokens(image)
            sound = repeat(sound, "b n d -> (b r) n d", r=len(sight) // len(sound))
            joint = torch.cat([sound, sight], dim=1)  # (b, n, d)
            return self._pooled(joint, "", self.norm)
        if mode in ("audioonly", "missingaudioonly"):
            tokens = self.audio_tokens(audio)
            own = self._pooled(tokens, "_a", self.norm_a)
        else:
            tokens = self.image_tokens(image)
            own = self._pooled(tokens, "_v", self.norm_v)
        if not mode.startswith("missing"):
            return own
        return (self._pooled(tokens, "", self.norm) + own) / 2

    def audio_tokens(self, audio: Tensor | None) -> Tensor:
        """Filter banks ``(b, s, f)`` after the audio blocks, ``(b, n, d)``; low bins first."""
        if audio is None:
            raise ValueError("this mode needs sound")
        tokens: Tensor = self.patch_embed_a(rearrange(audio, "b s f -> b 1 f s"))
        tokens = tokens + self.pos_embed_a + self.modality_a  # (b, n, d)
        for block in self.blocks_a:
            tokens = block(tokens)  # the plain pair, even here
        return tokens

    def image_tokens(self, image: Tensor | None) -> Tensor:
        """Encode pictures ``(b, c, h * p, w * p)`` by the video blocks, ``(b, n, d)``."""
        if image is None:
            raise ValueError("this mode needs pictures")
        tokens: Tensor = self.patch_embed_v(image) + self.pos_embed_v + self.modality_v  # (b, n, d)
        for block in self.blocks_v:
            tokens = block(tokens)
        return tokens

    def _pooled(self, tokens: Tensor, pair: Pair, norm: nn.Module) -> Tensor:
        """Apply the shared block and a norm, and average the tokens ``(b, n, d)``: ``(b, d)``."""
        for block in self.blocks_u:
            tokens = block(tokens, pair)
        mean: Tensor = norm(tokens).mean(dim=1)
        return mean


def load_cav_mae(path: Path) -> CavMae:
    """Read one of the authors' fine-tuned checkpoints, on the CPU, ready to infer.

    The number of classes is the checkpoint's: 527 of AudioSet or 309 of VGGSound.

    Raises:
        UsageError: unreadable, or of another layout, naming the first wrong tensor.
    """
    tensors = {
        name.removeprefix("module."): tensor for name, tensor in load_state_dict(path).items()
    }
    last = "mlp_head.1.weight"
    if last not in tensors and any(name.startswith("decoder") for name in tensors):
        raise UsageError(
            f"{path}: a checkpoint of CAV-MAE's pretraining: it has a decoder and no classes (no"
            f" tensor {last}). Take a fine-tuned one, such as as_46.6.pth."
        )
    head = tensors.get(last)
    sizes = Sizes() if head is None or head.ndim == 0 else Sizes(num_classes=head.shape[0])
    with torch.device("meta"):
        model = CavMae(sizes)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_state_dict(expected, tensors, str(path))
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    model.load_state_dict(floats, assign=True)
    return model.eval().requires_grad_(False)
