"""The TAVLO network (AVATAR paper, section 4).

Axes, in every docstring, einops pattern and trailing comment of this package:
b clips, t frames, c feature channels D_f, e position channels D_t, d token size D = D_f + D_t,
h w feature grid, n tokens of a frame = 1 + h w (the sound first), f spectrogram bins,
s spectrogram steps = k t, k steps of one frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock

from tavlo.network.chunks import MOST_ELEMENTS, recomputed, stem_in_chunks

Order = Literal["spatial-temporal", "temporal-spatial"]
SpatialAttention = Literal["joint", "within-modality", "none"]
TemporalAttention = Literal["full", "none"]
ResidualInit = Literal["random", "zero"]

STEM_CHUNK = 256
"""Frames of a chunk where the encoder's stem is cut: 0.8 GB of it at a time in bf16."""
_VECTOR = 16
"""Floats in the widest vector register of a CPU, AVX-512."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""The statistics of ImageNet's pictures, RGB in [0, 1]."""


@dataclass(frozen=True)
class TavloSizes:
    """The sizes weights depend on. The paper fixes D_f (ResNet-18) and the kernel, we the rest.

    Two blocks and 8 heads of 72 keep the network near its ResNet's cost: at T = 300 and 7x7 the
    attention then takes less than the convolutions.
    """

    num_bins: int = 128
    """f: rows of the spectrogram, H_a."""
    steps_per_frame: int = 4
    """k: spectrogram steps of one frame, K_w."""
    position_size: int = 64
    """e: channels of the temporal position, D_t."""
    num_blocks: int = 2
    """L: AST blocks."""
    num_heads: int = 8
    """Attention heads; must divide D_f + D_t."""
    hidden_ratio: float = 4.0
    """Width of the feed-forward network over D."""
    max_frames: int = 300
    """Longest clip; shorter ones use the first positions."""
    grid: int = 7
    """h = w: the grid of a 224 pixel frame."""
    order: Order = "spatial-temporal"
    """The attention that comes first; the other order is the paper's ablation."""
    spatial_attention: SpatialAttention = "joint"
    """joint: a frame's audio and visual tokens attend to one another (paper). The others are ours.
    within-modality: audio and visual tokens attend to their own kind alone and meet in the
    similarity only, so that neither can copy from the other what tells its clip from others,
    instead of finding what sounds. none: each attends to itself only, so that a visual token knows
    its own past and future, and nothing of other cells that it could answer for."""
    temporal_attention: TemporalAttention = "full"
    """full: a token attends to its own place in all frames (paper). none is a control, ours: it
    attends to itself alone, through the same weights, so that no frame knows of another."""
    space_positions: bool = True
    """Add Pos_s, eq. 4 (paper); without it, a control of ours, a place is told by its features."""
    residual_init: ResidualInit = "random"
    """zero is ours: the last layers of the blocks' branches begin at zero, so that a token passes
    unchanged until attention learns better."""
    width: int = 64
    """Channels of the first stage; each later one has twice as many. ResNet-18's."""
    stage_blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of each stage, ResNet-18's. Each stage after the first halves the grid, so
    that three of them see 112 pixels as four see 224: for small pictures. A stage of 0 blocks
    halves it with a 1x1 convolution and sees no wider."""

    @property
    def feature_size(self) -> int:
        """c: channels of the last stage, D_f; 512 for ResNet-18."""
        return self.width << (len(self.stage_blocks) - 1)

    @property
    def token_size(self) -> int:
        """d: D = D_f + D_t."""
        return self.feature_size + self.position_size

    def __post_init__(self) -> None:
        if self.token_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide D = {self.token_size}")


class Tavlo(nn.Module):
    """The network: frames and a spectrogram to one token per sound and cell of a frame's grid.

    Args:
        sizes: of the network.
        recompute: trade compute for memory in encoder and blocks (gradient checkpointing).
        frozen: BatchNorm normalises by its running averages in training too, and keeps them.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    space_position: nn.Parameter | None

    def __init__(
        self, sizes: TavloSizes | None = None, *, recompute: bool = False, frozen: bool = False
    ) -> None:
        super().__init__()
        sizes = sizes or TavloSizes()
        self.sizes, self.recompute, self.frozen = sizes, recompute, frozen
        self.visual_encoder = VisualEncoder(sizes)
        self.audio_encoder = AudioEncoder(sizes)
        shape = (sizes.grid, sizes.grid, sizes.feature_size)
        position = nn.Parameter(torch.zeros(shape)) if sizes.space_positions else None
        self.register_parameter("space_position", position)
        self.time_position = nn.Parameter(
            sinusoidal_positions(sizes.max_frames, sizes.position_size)
        )
        self.blocks = nn.ModuleList(AstBlock(sizes) for _ in range(sizes.num_blocks))
        if self.space_position is not None:
            nn.init.trunc_normal_(self.space_position, std=0.02)
        for name, values in (("pixel_mean", IMAGENET_MEAN), ("pixel_std", IMAGENET_STD)):
            scaled = rearrange(255 * torch.tensor(values), "rgb -> rgb 1 1")
            self.register_buffer(name, scaled, persistent=False)

    def train(self, mode: bool = True) -> Tavlo:
        """Set training or evaluation; frozen BatchNorm is never in training."""
        super().train(mode)
        for part in self.modules():
            if self.frozen and isinstance(part, _BatchNorm):
                part.train(False)
        return self

    # The compiler cannot follow how many frames exist; it takes the three parts called here.
    @torch.compiler.disable(recursive=False)  # type: ignore[no-untyped-call, untyped-decorator]
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Encode clips.

        Args:
            batch: ``frames``: RGB, uint8, ``(b, t, 32 h, 32 w, 3)``. ``spectrogram``: log
                magnitudes, ``(b, k t, f)``. ``frame_mask``: True where a frame exists, ``(b, t)``;
                others are never attended to, and their outputs mean nothing.

        Returns:
            ``audio_tokens`` ``(b, t, d)``, ``visual_tokens`` ``(b, t, h, w, d)``, ``frame_mask``.
        """
        frame_mask = batch["frame_mask"]
        # Filling is no frame: BatchNorm must not count it, and nobody needs it computed.
        frames = rearrange(batch["frames"][frame_mask], "n y x rgb -> n rgb y x")
        # Decided by what all ranks know, as BatchNorm may count together.
        most = frame_mask.shape[0] * self.sizes.max_frames
        recompute = self.recompute and self.training
        features = self.visual_encoder(self._scaled(frames), recompute=recompute, most=most)
        features = rearrange(features, "n c h w -> n h w c")
        visual = features.new_zeros(*frame_mask.shape, *features.shape[1:])
        visual[frame_mask] = features  # eq. 1
        audio = self.audio_encoder(rearrange(batch["spectrogram"], "b s f -> b f s"))  # eq. 3
        # Attention without a mask is the faster one.
        audio, visual = self.attend(audio, visual, None if frame_mask.all() else frame_mask)
        return {"audio_tokens": audio, "visual_tokens": visual, "frame_mask": frame_mask}

    def _scaled(self, frames: Tensor) -> Tensor:
        """Scale pixels as ImageNet's were, in the precision the encoder computes in."""
        scaled = (frames - self.pixel_mean) / self.pixel_std
        device = frames.device.type
        if torch.is_autocast_enabled(device):
            # The first convolution would do so, and the wide ones would be held until its end.
            scaled = scaled.to(torch.get_autocast_dtype(device))
        return scaled

    def attend(
        self, audio: Tensor, visual: Tensor, frame_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add positions to encoded clips and run the blocks.

        Args:
            audio: features of the audio encoder, ``(b, t, c)``.
            visual: features of the visual encoder, ``(b, t, h, w, c)``.
            frame_mask: True where a frame exists, ``(b, t)``; None means everywhere.

        Returns:
            Audio tokens ``(b, t, d)`` and visual tokens ``(b, t, h, w, d)``.
        """
        batch, num_frames, height, width, _ = visual.shape
        if num_frames > self.sizes.max_frames:
            raise ValueError(f"{num_frames} frames, the positions end at {self.sizes.max_frames}")
        # By a frame's number, whatever the clip's frame rate: frame t is contrasted with frame t of
        # every clip, and so Pos_t is the same in all of them. By seconds it would differ with the
        # rate, in the sound as in the picture: a fingerprint that tells clips apart for nothing.
        in_time = repeat(self.time_position[:num_frames], "t e -> b t e", b=batch)
        in_cells = repeat(in_time, "b t e -> b t h w e", h=height, w=width)
        if self.space_position is not None:
            visual = visual + self.space_position
        visual = torch.cat([visual, in_cells], -1)  # eq. 4
        audio = torch.cat([audio, in_time], -1)  # eq. 5
        flat = rearrange(visual, "b t h w d -> b t (h w) d")
        tokens = torch.cat([rearrange(audio, "b t d -> b t 1 d"), flat], 2)  # eq. 6
        for block in self.blocks:
            if self.recompute and self.training:
                tokens = checkpoint(block, tokens, frame_mask, use_reentrant=False)
            else:
                tokens = block(tokens, frame_mask)
        visual = rearrange(tokens[:, :, 1:], "b t (h w) d -> b t h w d", h=height)
        return tokens[:, :, 0], visual


def sinusoidal_positions(num_frames: int, size: int) -> Tensor:
    """Return what Pos_t is before it learns: sines and cosines, from 4 frames to two clips long.

    The paper does not say. Small random ones are drowned by the features at first, and attention
    can hardly tell frames by them.

    Returns:
        In [-1, 1], ``(t, e)``.
    """
    lengths = 4 * (num_frames / 2) ** torch.linspace(0, 1, (size + 1) // 2)
    angles = 2 * math.pi * torch.arange(num_frames)[:, None] / lengths
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :size]


class VisualEncoder(nn.Module):
    """ResNet-18 without pooling and classifier (eq. 1); from scratch until weights are loaded."""

    def __init__(self, sizes: TavloSizes) -> None:
        super().__init__()
        width = sizes.width
        stem = nn.Sequential(
            nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        stages, channels = [stem], width
        for number, num_blocks in enumerate(sizes.stage_blocks):
            stages.append(_stage(channels, width << number, num_blocks, 1 if number == 0 else 2))
            channels = width << number
        self.stages = nn.Sequential(*stages)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        # Pictures lie with their colours innermost; so do the kernels then, and no step turns them.
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor, *, recompute: bool = False, most: int = 0) -> Tensor:
        """Turn pictures into features.

        Args:
            frames: ``(n, 3, y, x)``.
            recompute: keep the inputs of the stages alone, and compute them anew for gradients.
            most: the frames there might be; the stem is cut where their values pass 32 bits.

        Returns:
            ``(n, c, h, w)``, whatever is recomputed; with a cut stem within rounding.
        """
        stem, *stages = self.stages
        assert isinstance(stem, nn.Sequential)
        channels = stem[0].out_channels
        assert isinstance(channels, int)
        limit = MOST_ELEMENTS // (channels * -(-frames.shape[2] // 2) * -(-frames.shape[3] // 2))
        if most > limit or (recompute and most > STEM_CHUNK):
            features = stem_in_chunks(stem, frames, min(limit, STEM_CHUNK))
        else:
            features = recomputed(stem, frames) if recompute else stem(frames)
        for stage in stages:
            features = recomputed(stage, features) if recompute else stage(features)
        return features


class _Projection(nn.Conv2d):
    """A 1x1 convolution that takes the places of its stride first, where it is narrow.

    On CPUs oneDNN's gradient of a 1x1 convolution with a stride writes past its workspace where
    pictures lie with their colours innermost and have fewer channels than a vector register has
    floats: 8 with AVX2, 16 with AVX-512. What follows is a crash, or other gradients at each
    start (oneDNN issue 6035; torch 2.15). Without a stride it does not.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.in_channels >= _VECTOR:
            return super().forward(input)
        down, across = self.stride
        return nn.functional.conv2d(input[:, :, ::down, ::across], self.weight, self.bias)


def _stage(channels: int, width: int, num_blocks: int, stride: int) -> nn.Sequential:
    """Return residual blocks, of which the first changes size and width; or a projection alone."""
    project = nn.Sequential(
        _Projection(channels, width, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm2d(width),
    )
    if not num_blocks:
        return nn.Sequential(project, nn.ReLU(inplace=True))
    same = stride == 1 and channels == width
    first = BasicBlock(channels, width, stride, None if same else project)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(1, num_blocks)))


class AudioEncoder(nn.Module):
    """A convolution whose kernel is a frame's whole block of the spectrogram (eq. 2 and 3)."""

    def __init__(self, sizes: TavloSizes) -> None:
        super().__init__()
        kernel = (sizes.num_bins, sizes.steps_per_frame)
        self.convolve = nn.Conv2d(1, sizes.feature_size, kernel, stride=kernel)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Turn spectrograms ``(b, f, k t)`` into features ``(b, t, c)``."""
        steps = self.convolve.kernel_size[1]
        if spectrogram.shape[-1] % steps:
            raise ValueError(f"{spectrogram.shape[-1]} steps are no multiple of {steps} per frame")
        features: Tensor = self.convolve(rearrange(spectrogram, "b f s -> b 1 f s"))
        return rearrange(features, "b c 1 t -> b t c")


class AstBlock(nn.Module):
    """Audio-Spatial-Temporal attention (eq. 7 and 8): within each frame, then along time."""

    def __init__(self, sizes: TavloSizes) -> None:
        super().__init__()
        self.order, self.spatial_attention = sizes.order, sizes.spatial_attention
        self.temporal_attention = sizes.temporal_attention
        self.spatial = AttentionLayer(sizes)
        self.temporal = AttentionLayer(sizes)

    def forward(self, tokens: Tensor, frame_mask: Tensor | None) -> Tensor:
        """Attend within frames and along time, in the order of the sizes; ``(b, t, n, d)``."""
        if self.order == "spatial-temporal":
            return self._along_time(self._within_frames(tokens), frame_mask)
        return self._within_frames(self._along_time(tokens, frame_mask))

    def _within_frames(self, tokens: Tensor) -> Tensor:
        batch = tokens.shape[0]
        frames = rearrange(tokens, "b t n d -> (b t) n d")
        if self.spatial_attention == "none":
            # Sequences of one token: the layer's projections without any mixing.
            single: Tensor = self.spatial(rearrange(frames, "bt n d -> (bt n) 1 d"), None)
            attended = rearrange(single, "(bt n) 1 d -> bt n d", bt=len(frames))
        else:
            joint = self.spatial_attention == "joint"
            parts = [frames] if joint else [frames[:, :1], frames[:, 1:]]
            attended = torch.cat([self.spatial(part, None) for part in parts], 1)
        return rearrange(attended, "(b t) n d -> b t n d", b=batch)

    def _along_time(self, tokens: Tensor, frame_mask: Tensor | None) -> Tensor:
        batch, num_frames, num_tokens, _ = tokens.shape
        if self.temporal_attention == "none":
            single: Tensor = self.temporal(rearrange(tokens, "b t n d -> (b t n) 1 d"), None)
            sizes = {"b": batch, "t": num_frames, "n": num_tokens}
            return rearrange(single, "(b t n) 1 d -> b t n d", **sizes)
        # The transpose of eq. 11: each token's cell becomes a sequence of its own.
        mask = None
        if frame_mask is not None:
            mask = repeat(frame_mask, "b t -> (b n) 1 1 t", n=num_tokens)
        attended: Tensor = self.temporal(rearrange(tokens, "b t n d -> (b n) t d"), mask)
        return rearrange(attended, "(b n) t d -> b t n d", b=batch)


class AttentionLayer(nn.Module):
    """Pre-norm self-attention and feed-forward network, each with its residual (eq. 9 and 10)."""

    def __init__(self, sizes: TavloSizes) -> None:
        super().__init__()
        size, hidden = sizes.token_size, round(sizes.token_size * sizes.hidden_ratio)
        self.num_heads = sizes.num_heads
        self.norm_attention = nn.LayerNorm(size)
        self.to_qkv = nn.Linear(size, 3 * size)
        self.to_out = nn.Linear(size, size)
        self.norm_ffn = nn.LayerNorm(size)
        last = nn.Linear(hidden, size)
        self.ffn = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), last)
        if sizes.residual_init == "zero":
            for layer in (self.to_out, last):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Attend over the second axis.

        Args:
            tokens: ``(sequences, length, d)``.
            mask: True where a token may be attended to, ``(sequences, 1, 1, length)``.
        """
        query, key, value = self._heads(self.norm_attention(tokens))
        if tokens.shape[1] == 1:
            # One token has nothing but itself. There may be as many sequences as cells, and GPU
            # kernels take 65,535.
            mixed = value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        merged = rearrange(mixed, "sequence heads length d -> sequence length (heads d)")
        tokens = tokens + self.to_out(merged)  # eq. 9
        refined: Tensor = tokens + self.ffn(self.norm_ffn(tokens))  # eq. 10
        return refined

    def weights(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return how much each token attends to each other, to be looked at.

        Args:
            tokens: as ``forward`` gets them.
            mask: the same.

        Returns:
            Mean over heads, ``(sequences, length, length)``; each row sums to 1.
        """
        query, key, _ = self._heads(self.norm_attention(tokens))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        mean: Tensor = scores.softmax(-1).mean(1)
        return mean

    def _heads(self, tokens: Tensor) -> Tensor:
        """Return query, key and value, ``(3, sequences, heads, length, d / heads)``."""
        pattern = "sequence length (three heads d) -> three sequence heads length d"
        heads: Tensor = rearrange(self.to_qkv(tokens), pattern, three=3, heads=self.num_heads)
        return heads


def similarity(audio: Tensor, visual: Tensor) -> Tensor:
    """Compute how much each cell of a frame agrees with the frame's sound: the heatmap (eq. 16).

    Args:
        audio: tokens, ``(b, t, d)``.
        visual: tokens, ``(b, t, h, w, d)``.

    Returns:
        Cosines in ``[-1, 1]``, ``(b, t, h, w)``. Not probabilities.
    """
    # Half precision would tie the cosines that a threshold must tell apart.
    wide = torch.promote_types(audio.dtype, torch.float32)
    with torch.autocast(audio.device.type, enabled=False):
        parts = [F.normalize(part.to(wide), dim=-1) for part in (audio, visual)]
        return torch.einsum("btd,bthwd->bthw", *parts)
