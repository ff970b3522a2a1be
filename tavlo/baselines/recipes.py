"""The recipes of the models to compare with, for the same loop as TAVLO.

EZ-VSL and SLAVC as published; SSL-TIE's contrast and equivariance; cross-modal alignment from its
paper's equations, as its authors published no training. Ours, against all of them: negatives come
from all ranks, the best checkpoint is chosen on a validation split, seeds are applied.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import UsageError
from pipeline.media.clip_cache import ClipTensors
from tavlo.baselines.augment import drawn_warp, masked, shifted, shifted_crop, strong
from tavlo.baselines.encoders import DualEncoder, without_classifier
from tavlo.baselines.ezvsl import EZVSL, ezvsl_loss
from tavlo.baselines.frontends import RATE_HZ, decibels, mel_powers, window_around
from tavlo.baselines.interface import Picture
from tavlo.baselines.localiser import Published
from tavlo.baselines.neighbours import Neighbours, file_digest, read_neighbours
from tavlo.baselines.slavc import IMAGE_DROPOUT, MOMENTUM, SLAVC, Slavc, slavc_loss
from tavlo.baselines.sslalignment import SSLALIGNMENT, alignment_loss
from tavlo.baselines.ssltie import SSLTIE, ssltie_loss, warped
from tavlo.training.recipe import Preset, Recipe, check_imagenet, start_from_imagenet

_ANY_FRAME_RATE = {"min_frames": 1, "max_frames": 10_000}
"""Clips of any frame rate: one frame of each is used."""
_AS_EZVSL = _ANY_FRAME_RATE | {
    "batch": 128,
    "epochs": 20,
    "learning_rate": 1e-4,
    "schedule": "constant",
    "warmup": 0.0,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
}
# SSL-TIE: decay within Adam's gradient, on all parameters.
_AS_SSLTIE = _AS_EZVSL | {"batch": 32, "epochs": 100, "optimizer": "adam", "weight_decay": 1e-4}


_SEEN = (
    "Trained here it localised on drawn pictures (tests/tavlo/baselines/test_learning.py); on real"
    " ones it was not trained here."
)
_AS_PUBLISHED = {
    "paper": Preset(
        {},
        f"its authors' settings. {_SEEN}",
    )
}


_AS_IN_EQUATIONS = {
    "paper": Preset({}, f"its paper's equations in EZ-VSL's loop, as none is published. {_SEEN}")
}


class NetSettings(Section):
    """Every setting of a model that is not the loop's."""

    width: int = Field(default=64, ge=1)
    """Channels of the trunks' first stage. 64 is ResNet-18's; less is for want of a GPU."""


class ImageNetSettings(NetSettings):
    """The settings of EZ-VSL."""

    imagenet: bool = True
    """Start the picture's trunk from ImageNet's ResNet-18, as its authors do; a training without
    its weights is refused unless this is false."""


class SlavcSettings(ImageNetSettings):
    """The settings of SLAVC."""

    image_dropout: float = Field(default=IMAGE_DROPOUT, ge=0, lt=1)
    """The fraction of the picture's features left out."""
    momentum: float = Field(default=MOMENTUM, ge=0, lt=1)
    """The fraction of itself that the slow copy keeps at each step."""


class AlignmentSettings(NetSettings):
    """The settings of cross-modal alignment."""

    temperature: float = Field(default=0.07, gt=0)
    """tau. The paper gives no value; this is the one of LVS, whose network it is."""
    shift_s: float = Field(default=1.0, ge=0)
    """Augmented sounds begin up to this much earlier or later; the paper says "a slight shift"."""
    neighbours: str = ""
    """A file of ``tavlo.baselines.neighbours``. Empty leaves the conceptual positives out: 2 x 2
    pairs instead of 3 x 3."""
    neighbours_sha256: str = ""
    """The digest of ``neighbours``; noted when training starts."""


class PairRecipe(Recipe):
    """The common part of the recipes: the middle frame of a clip and its sound."""

    presets: ClassVar[Mapping[str, Preset]] = _AS_PUBLISHED
    published: ClassVar[Published]
    settings: NetSettings

    def make_network(self) -> nn.Module:
        """Make a new network."""
        return self.published.network(self.settings.width)

    def sample(self, clip: ClipTensors, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Make ``image`` ``(3, y, x)`` and ``spectrogram`` ``(1, f, s)``, as EZ-VSL does."""
        picture = middle_frame(clip)
        if rng is not None:
            picture = shifted_crop(picture, rng)
        spectrogram = self.published.sound_front.spectrograms([clip.waveform])[0]
        return {"image": self.published.image_front(picture), "spectrogram": spectrogram}

    def frames_to_judge(self, num_frames: int) -> Sequence[int]:
        """Return the frame it trains on: each other one would cost a network of its own."""
        return [num_frames // 2]

    def heatmaps(
        self, model: nn.Module, clip: ClipTensors, frame_index: Sequence[int]
    ) -> NDArray[np.float32]:
        """Compute the model's maps of some frames, each with the whole clip's sound."""
        assert isinstance(model, DualEncoder)
        device = next(model.parameters()).device
        pictures = [self.published.image_front(clip.frames[index]) for index in frame_index]
        spectrogram = self.published.sound_front.spectrograms([clip.waveform])
        with torch.no_grad():
            sounds = spectrogram.to(device).expand(len(pictures), -1, -1, -1)
            maps = model.maps(torch.stack(pictures).to(device), sounds)
        found: NDArray[np.float32] = maps.float().cpu().numpy()
        return found


class EzVslRecipe(PairRecipe):
    """EZ-VSL as published; on 10,000 clips its authors take 100 epochs."""

    name = "ezvsl"
    published = EZVSL
    training = _AS_EZVSL
    kind = ImageNetSettings
    settings: ImageNetSettings

    def check_start(self) -> None:
        """Insist on ImageNet's weights, and on a trunk that can take them."""
        if self.settings.imagenet:
            fits = (
                "" if self.settings.width == 64 else f"width {self.settings.width} is no ResNet-18"
            )
            check_imagenet(self.name, fits)

    def initialise(self, model: nn.Module) -> dict[str, str]:
        """Put ImageNet's weights into the picture's trunk, unless the settings say from scratch."""
        self.check_start()
        trunk = model.get_submodule("imgnet")

        def put(weights: dict[str, Tensor]) -> None:
            trunk.load_state_dict(without_classifier(weights))

        return start_from_imagenet("picture's trunk", put, wanted=self.settings.imagenet)

    def loss(self, outputs: dict[str, Tensor]) -> Tensor:
        """See ``ezvsl_loss``."""
        return ezvsl_loss(outputs["tokens"][:, 0].float(), outputs["sounds"][:, 0].float())


class SlavcRecipe(EzVslRecipe):
    """SLAVC as published: samples and start are EZ-VSL's."""

    name = "slavc"
    published = SLAVC
    kind = SlavcSettings
    settings: SlavcSettings

    def make_network(self) -> nn.Module:
        """Make a new network."""
        return Slavc(self.settings.width, self.settings.image_dropout)

    def initialise(self, model: nn.Module) -> dict[str, str]:
        """Start as EZ-VSL does, and the copy with it."""
        assert isinstance(model, Slavc)
        started = super().initialise(model)
        model.reset_momentum_encoder()
        return started

    def loss(self, outputs: dict[str, Tensor]) -> Tensor:
        """See ``slavc_loss``."""
        return slavc_loss(**{name: value.float() for name, value in outputs.items()})

    def after_step(self, model: nn.Module) -> None:
        """Let the copy follow."""
        assert isinstance(model, Slavc)
        model.update_momentum_encoder(self.settings.momentum)


class SslTieRecipe(PairRecipe):
    """SSL-TIE's contrast and equivariance; not its variant that mixes sounds found by retrieval."""

    name = "ssltie"
    published = SSLTIE
    training = _AS_SSLTIE
    kind = NetSettings

    def sample(self, clip: ClipTensors, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Make ``image``, its warped ``view`` ``(3, y, x)``, the ``warp``, and ``spectrogram``.

        The authors train on 3 s of sound, repeated to 10 s.
        """
        picture, warp = middle_frame(clip), np.eye(2, 3, dtype=np.float32)
        front = self.published.sound_front
        heard = window_around(clip.waveform, len(clip.waveform) / RATE_HZ / 2, 3.0)
        power = mel_powers(front.waveforms([heard]))[0]
        if rng is not None:
            picture, warp, power = strong(picture, rng), drawn_warp(rng), masked(power, rng)
        image, given = self.published.image_front(picture), torch.from_numpy(warp)
        return {
            "image": image,
            "view": warped(image[None], given[None])[0],
            "warp": given,
            "spectrogram": decibels(power),
        }

    def loss(self, outputs: dict[str, Tensor]) -> Tensor:
        """See ``ssltie_loss``."""
        names = ("tokens", "view_tokens", "sounds")
        tokens, view, sounds = (outputs[name][:, 0].float() for name in names)
        return ssltie_loss(tokens, view, sounds, outputs["warp"])


class AlignmentRecipe(PairRecipe):
    """Cross-modal alignment: 3 x 3 pairs of an original, an augmented and a similar clip.

    Its optimiser is not published; EZ-VSL's trains the same kind of encoder on the same list.
    """

    name = "sslalignment"
    presets = _AS_IN_EQUATIONS
    published = SSLALIGNMENT
    training = _AS_EZVSL
    kind = AlignmentSettings
    settings: AlignmentSettings

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self._table: Neighbours | None = None
        if self.settings.neighbours and not self.settings.neighbours_sha256:
            digest = file_digest(Path(self.settings.neighbours))
            self.settings = self.settings.model_copy(update={"neighbours_sha256": digest})

    def companions(
        self, clip_id: str, available: Container[str], rng: np.random.Generator
    ) -> Sequence[str]:
        """Draw a clip that looks like this one and one that sounds like it, of those trained on."""
        if not self.settings.neighbours:
            return ()
        if self._table is None:
            path = Path(self.settings.neighbours)
            if (found := file_digest(path)) != self.settings.neighbours_sha256:
                raise UsageError(
                    f"{path}: SHA-256 {found}; training began with"
                    f" {self.settings.neighbours_sha256}."
                )
            self._table = read_neighbours(path)
        return self._table.draw(clip_id, available, rng)

    def sample(self, clip: ClipTensors, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """Make ``image`` ``(v, 3, y, x)`` and ``spectrogram`` ``(v, 1, f, s)``: v views of each.

        The original; in training also an augmented one, and those of companions.
        """
        return self.sample_among(clip, (), rng)

    def sample_among(
        self, clip: ClipTensors, companions: Sequence[ClipTensors], rng: np.random.Generator | None
    ) -> dict[str, Tensor]:
        """See ``sample``."""
        pictures, sounds = [middle_frame(clip)], [clip.waveform]
        if rng is not None:
            pictures.append(strong(pictures[0], rng))
            sounds.append(shifted(sounds[0], rng, round(self.settings.shift_s * RATE_HZ)))
        if companions:
            alike, sounding = companions
            pictures.append(middle_frame(alike))
            sounds.append(sounding.waveform)
        return {
            "image": torch.stack([self.published.image_front(picture) for picture in pictures]),
            "spectrogram": self.published.sound_front.spectrograms(sounds),
        }

    def loss(self, outputs: dict[str, Tensor]) -> Tensor:
        """Compute equation 3; see ``alignment_loss``."""
        tokens, pictures, sounds, sound_vectors = (
            outputs[name].float()
            for name in ("tokens", "picture_vectors", "sounds", "sound_vectors")
        )
        return alignment_loss(tokens, pictures, sounds, sound_vectors, self.settings.temperature)


def middle_frame(clip: ClipTensors) -> Picture:
    """Return the frame that all these models train on: of VGG-Sound, at 25 frames/s, frame 125."""
    frame: Picture = clip.frames[len(clip.frames) // 2]
    return frame
