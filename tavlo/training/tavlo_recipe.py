"""TAVLO's recipe: what the paper fixes (section 4), and what it leaves open with our reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import cv2
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torchvision.models import resnet18

from pipeline.config import Section
from pipeline.errors import AvatarBuildError, ConfigError
from pipeline.media.clip_cache import SIZE_PX, ClipTensors
from tavlo.network.loss import Negatives, contrastive_loss
from tavlo.network.model import Tavlo, TavloSizes, similarity
from tavlo.network.spectrogram import SpectrogramConfig, log_mel
from tavlo.training.recipe import Preset, Recipe, check_imagenet, start_from_imagenet

_RENAMED = {
    "meeting": ("spatial_attention", {"apart": "within-modality", "alone": "none"}),
    "start": ("residual_init", {"identity": "zero"}),
}
"""Settings of the sizes by their older names: the new name, and the values that changed."""


PRESETS = {
    "paper": Preset(
        {
            "negatives": "mean",
            "temperature": 1.0,
            "sizes": {"spatial_attention": "joint", "residual_init": "random"},
        },
        "the printed objective (joint attention, mean negatives, no temperature). On drawn clips of"
        " 3 s it did not localise in any of seven trainings: CIoU 3.8 to 8.2, about what a random"
        " tenth of the pixels gets, and deaf. At the paper's size it was not tried.",
    ),
    "late-fusion": Preset(
        {
            "negatives": "max",
            "temperature": 0.07,
            "sizes": {"spatial_attention": "none", "residual_init": "zero"},
        },
        "ours, not the paper's: no spatial attention, max negatives, temperature 0.07, residuals"
        " that begin at zero. It localised on drawn clips of 3 s in all of eight trainings of 6"
        " epochs or more: CIoU 25.8 to 27.6 after 6 (three; a frame-wise control 22.1 to 27.4),"
        " 29.5 to 31.6 after 20 (four) and 33.8 after 40 (one). It did not on things of unseen"
        " looks; on real clips it was not tried.",
    ),
}
"""TAVLO as printed, which is what no preset is, and the one that localised; from
``docs/tavlo-in-the-small.md``."""


class TavloConfig(Section):
    """Every setting of TAVLO that is not the loop's."""

    sizes: TavloSizes = TavloSizes()
    """The sizes of the network."""
    spectrogram: SpectrogramConfig = SpectrogramConfig()
    """The input of the audio encoder."""
    negatives: Negatives = "mean"
    """The answer of another clip's picture for all its cells; max and min are the ablation."""
    temperature: float = Field(default=1.0, gt=0)
    """The loss divides by it; 1 is the paper's, whose equation has none."""
    imagenet: bool = True
    """Start the visual encoder from ImageNet's ResNet-18; a training without its weights is refused
    unless this is false."""
    recompute: bool = False
    """Compute the activations of each encoder stage and block a second time instead of keeping
    them: less memory. BatchNorm counts the whole batch, once, as without it."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """batch: the encoder normalises by the batch's statistics. frozen: by the averages it began
    with, ImageNet's, which stay; then no part of a batch depends on the others, and
    ``train.sub_batch`` changes nothing but memory."""
    picture_px: int = Field(default=SIZE_PX, ge=32, le=SIZE_PX)
    """Width and height of a frame: ``sizes.grid`` cells of 32 pixels, fewer with fewer stages.
    Less than 224 is for machines without a GPU."""
    every: int = Field(default=1, ge=1)
    """Use every n-th frame with the sound of n frames; 1 is the paper's. More wants as many more
    ``steps_per_frame``, or sounds fall between the spectrogram's windows."""
    smallest_crop: float = Field(default=0.6, gt=0, le=1)
    """Augmentation: side of the crop, drawn between this and 1 of the picture's and stretched to
    it. All frames of a clip share one crop, or still things would seem to move. A smaller one often
    leaves a sound without its source."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Augmentation: fraction of clips mirrored, whole. The sound is mono: no side is told."""
    gain_db: float = Field(default=6.0, ge=0)
    """Augmentation: the sound is made louder or softer by up to this; loudness at the microphone
    says little of what sounds."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        # The stem and each stage after the first halve the picture.
        cell_px = 4 << (len(self.sizes.stage_blocks) - 1)
        if self.picture_px != cell_px * self.sizes.grid:
            raise ValueError(
                f"picture_px is {self.picture_px}, and {self.sizes.grid} cells of {cell_px}"
                f" pixels are {cell_px * self.sizes.grid}"
            )
        shape = (self.spectrogram.num_bins, self.spectrogram.steps_per_frame)
        if shape != (self.sizes.num_bins, self.sizes.steps_per_frame):
            raise ValueError("num_bins and steps_per_frame of sizes and spectrogram must agree")
        return self


class TavloRecipe(Recipe):
    """TAVLO, as the one loop trains it.

    Args:
        config: settings of ``TavloConfig`` that differ from its defaults.

    Raises:
        ConfigError: one is unknown or out of range.
    """

    name = "tavlo"
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    kind = TavloConfig
    settings: TavloConfig

    def __init__(self, config: Mapping[str, Any]) -> None:
        config, self.notes = with_new_names(config)
        super().__init__(config)

    def make_network(self) -> nn.Module:
        """Make a new network."""
        frozen = self.settings.batch_norm == "frozen"
        return Tavlo(self.settings.sizes, recompute=self.settings.recompute, frozen=frozen)

    def check_start(self) -> None:
        """Insist on ImageNet's weights, and on an encoder that can take them."""
        sizes, whole = self.settings.sizes, TavloSizes()
        if self.settings.imagenet:
            is_resnet18 = (sizes.width, sizes.stage_blocks) == (whole.width, whole.stage_blocks)
            check_imagenet(self.name, "" if is_resnet18 else "these sizes make no ResNet-18")

    def initialise(self, model: nn.Module) -> dict[str, str]:
        """Put ImageNet's weights into the visual encoder, unless the settings say from scratch."""
        assert isinstance(model, Tavlo)
        self.check_start()
        encoder = model.visual_encoder

        def put(weights: dict[str, Tensor]) -> None:
            net = resnet18()
            net.load_state_dict(weights)
            stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
            stages = nn.Sequential(stem, net.layer1, net.layer2, net.layer3, net.layer4)
            encoder.stages.load_state_dict(stages.state_dict())

        return start_from_imagenet("visual encoder", put, wanted=self.settings.imagenet)

    def sample(self, clip: ClipTensors, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Make frames ``(t, y, x, 3)`` uint8, spectrogram ``(k t, f)``, frame_mask ``(t,)``."""
        settings = self.settings
        frames, sound = clip.frames[:: settings.every], clip.waveform
        num_frames = len(frames)
        if num_frames > settings.sizes.max_frames:
            raise AvatarBuildError(
                f"{num_frames} frames; the network's positions end at {settings.sizes.max_frames}."
            )
        crop = _Crop(0.0, 0.0, 1.0, mirrored=False)
        if rng is not None:
            side = rng.uniform(settings.smallest_crop, 1)
            left, top = rng.uniform(0, 1 - side, 2)
            crop = _Crop(left, top, side, mirrored=bool(rng.random() < settings.flip))
            sound = sound * np.float32(10 ** (rng.uniform(-1, 1) * settings.gain_db / 20))
        # With every > 1 the last frame may stand for fewer than the others; silence fills it up.
        samples = len(sound) * num_frames * settings.every // len(clip.frames)
        sound = np.pad(sound, (0, samples - len(sound)))
        spectrogram = log_mel(torch.from_numpy(sound)[None], num_frames, settings.spectrogram)[0]
        return {
            "frames": torch.from_numpy(crop.of(frames, settings.picture_px)),
            "spectrogram": rearrange(spectrogram, "f s -> s f").contiguous(),
            "frame_mask": torch.ones(num_frames, dtype=torch.bool),
        }

    def loss(self, outputs: dict[str, Tensor]) -> Tensor:
        """Compute equations 12 to 15."""
        return contrastive_loss(
            outputs["audio_tokens"].float(),
            outputs["visual_tokens"].float(),
            outputs["frame_mask"],
            self.settings.negatives,
            self.settings.temperature,
        )

    def heatmaps(
        self, model: nn.Module, clip: ClipTensors, frame_index: Sequence[int]
    ) -> NDArray[np.float32]:
        """Compute equation 16: cosines in [-1, 1] on the feature grid."""
        device = next(model.parameters()).device
        batch = {name: value[None].to(device) for name, value in self.sample(clip, None).items()}
        with torch.no_grad():
            outputs = model(batch)
        maps = similarity(outputs["audio_tokens"], outputs["visual_tokens"])[0]
        chosen = torch.tensor([index // self.settings.every for index in frame_index])
        found: NDArray[np.float32] = maps[chosen.to(device)].cpu().numpy()
        return found


def with_new_names(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Rename older settings of the sizes, and say so, once for each."""
    sizes, notes = config.get("sizes"), []
    if not isinstance(sizes, Mapping):
        return dict(config), []
    sizes = dict(sizes)
    for old, (new, values) in _RENAMED.items():
        if old in sizes:
            if new in sizes:
                raise ConfigError(f"tavlo.sizes.{old}: the older name of {new}, which is set too.")
            given = sizes.pop(old)
            sizes[new] = values.get(given, given) if isinstance(given, str) else given
            notes.append(f"tavlo.sizes.{old}={given} is now called {new}={sizes[new]}.")
    return {**config, "sizes": sizes}, notes


@dataclass(frozen=True)
class _Crop:
    """One square of a clip's pictures, in fractions of their side, and whether it is mirrored."""

    left: float
    top: float
    side: float
    mirrored: bool

    def of(self, frames: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
        """Cut frames ``(t, y, x, 3)`` into ``(t, size_px, size_px, 3)``."""
        whole = frames.shape[1]
        side = max(1, round(self.side * whole))
        top, left = (min(round(at * whole), whole - side) for at in (self.top, self.left))
        part = frames[:, top : top + side, left : left + side]
        if side == size_px:
            return np.ascontiguousarray(part[:, :, ::-1] if self.mirrored else part)
        # Averaging when it shrinks: linear would skip pixels.
        how = cv2.INTER_AREA if side > size_px else cv2.INTER_LINEAR
        small = np.empty((len(frames), size_px, size_px, 3), np.uint8)
        for frame, target in zip(part, small, strict=True):
            cv2.resize(frame, (size_px, size_px), dst=target, interpolation=how)
            if self.mirrored:
                cv2.flip(target, 1, dst=target)
        return small
