"""The control of ``benchmarks.tavlo_synthetic``: what TAVLO is without time.

As EZ-VSL does, it holds one embedding of the whole clip's sound against each place of single
frames: the best place of the own picture against the best places of the others'. Encoders, inputs
and augmentation are TAVLO's own; a small network per modality stands where TAVLO has its blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.media.clip_cache import ClipTensors
from tavlo.network.loss import Negatives, contrastive_loss
from tavlo.network.model import AudioEncoder, TavloSizes, VisualEncoder, similarity
from tavlo.training.recipe import Recipe
from tavlo.training.tavlo_recipe import TavloConfig, TavloRecipe, with_new_names

NAME = "frame-wise"
_SCALE = 1 / 64
"""Of a picture's bytes, after 128 is taken off: about one deviation."""


class FrameWiseConfig(Section):
    """Its settings."""

    shared: TavloConfig = TavloConfig()
    """Encoders, inputs and augmentation."""
    negatives: Negatives = "max"
    """EZ-VSL's."""
    temperature: float = Field(default=0.07, gt=0)
    """EZ-VSL's is 0.03; a softer one learns sooner in few steps."""
    space_positions: bool = False
    """Add Pos_s to the places, as TAVLO does."""
    sound: Literal["clip", "frame"] = "clip"
    """clip: one embedding, the mean over the clip's sound. frame: that of the frame's own interval,
    so that a change of the source may be heard."""
    frames: int = Field(default=8, ge=1)
    """Single frames of a clip that are seen in a step."""


class FrameWiseRecipe(Recipe):
    """The control, as the one loop trains it."""

    name = NAME
    kind = FrameWiseConfig
    settings: FrameWiseConfig

    def __init__(self, config: Mapping[str, Any]) -> None:
        shared, self.notes = with_new_names(config.get("shared", {}))
        super().__init__({**config, "shared": shared})
        self._inputs = TavloRecipe(self.settings.shared.model_dump(mode="json"))

    def make_network(self) -> nn.Module:
        settings = self.settings
        return FrameWise(
            settings.shared.sizes,
            space_positions=settings.space_positions,
            per_frame=settings.sound == "frame",
        )

    def sample(self, clip: ClipTensors, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Some single frames ``(t, y, x, 3)``, their numbers and the whole clip's spectrogram."""
        whole = self._inputs.sample(clip, rng)
        count, frames = self.settings.frames, whole["frames"]
        if rng is None:
            chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
        else:
            chosen = rng.choice(len(frames), count, replace=len(frames) < count)
        index = torch.from_numpy(chosen).long()
        return {"frames": frames[index], "index": index, "spectrogram": whole["spectrogram"]}

    def loss(self, outputs: dict[str, Tensor]) -> Tensor:
        sound, places = outputs["sound"].float(), outputs["places"].float()
        settings = self.settings
        return contrastive_loss(sound, places, None, settings.negatives, settings.temperature)

    def heatmaps(
        self, model: nn.Module, clip: ClipTensors, frame_index: Sequence[int]
    ) -> NDArray[np.float32]:
        whole = self._inputs.sample(clip, None)
        batch = {
            "frames": whole["frames"][list(frame_index)][None],
            "index": torch.tensor(list(frame_index))[None],
            "spectrogram": whole["spectrogram"][None],
        }
        with torch.no_grad():
            outputs = model(batch)
        maps = similarity(outputs["sound"].float(), outputs["places"].float())[0]
        return np.asarray(maps.numpy(), np.float32)


class FrameWise(nn.Module):
    """Two encoders, each followed by a small network.

    Args:
        sizes: of the encoders.
        space_positions: add Pos_s to the places.
        per_frame: hear each frame's own interval rather than the clip's mean.
    """

    def __init__(
        self, sizes: TavloSizes, *, space_positions: bool = False, per_frame: bool = False
    ) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.see, self.hear = VisualEncoder(sizes), AudioEncoder(sizes)
        channels, size = sizes.feature_size, sizes.token_size

        def head() -> nn.Module:
            hidden = nn.Linear(channels, 2 * size)
            return nn.Sequential(
                nn.LayerNorm(channels), hidden, nn.GELU(), nn.Linear(2 * size, size)
            )

        self.to_sound, self.to_place = head(), head()
        position = nn.Parameter(torch.zeros(sizes.grid, sizes.grid, channels))
        self.register_parameter("space_position", position if space_positions else None)
        if space_positions:
            nn.init.trunc_normal_(position, std=0.02)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sound at each frame ``(b, t, d)`` and the places ``(b, t, h, w, d)``."""
        frames = batch["frames"]
        pictures = rearrange(frames, "b t y x rgb -> (b t) rgb y x")
        seen = self.see((pictures.float() - 128) * _SCALE)
        seen = rearrange(seen, "(b t) c h w -> b t h w c", b=len(frames))
        if self.space_position is not None:
            seen = seen + self.space_position
        heard = self.hear(rearrange(batch["spectrogram"], "b s f -> b f s"))
        if self.per_frame:
            clips = torch.arange(len(frames), device=heard.device)
            sound = self.to_sound(heard[rearrange(clips, "b -> b 1"), batch["index"]])
        else:
            sound = repeat(self.to_sound(heard.mean(1)), "b d -> b t d", t=frames.shape[1])
        return {"sound": sound, "places": self.to_place(seen)}
