"""A tiny TAVLO and clips of one second to train it on: a step takes a tenth of a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.media.clip_cache import RATE_HZ, SIZE_PX, ClipTensors
from tavlo.baselines.interface import GRID, ImageModel, Picture, PostProcessing, Sound
from tavlo.training.cached_clips import CachedClip, fill_cache
from tavlo.training.recipe import Recipe, make_recipe
from tavlo.training.tavlo_recipe import TavloRecipe
from tavlo.training.train import TrainingData
from tavlo.training.training_clips import read_clips
from tavlo.training.training_config import TrainConfig, train_config
from tests.video_factory import bursts, make_video, scene

NAMES = tuple(f"vid{number:08d}" for number in range(8))
"""Eleven characters, as YouTube's ids."""

SIZES = {
    "num_bins": 16,
    "steps_per_frame": 2,
    "position_size": 8,
    "num_blocks": 1,
    "num_heads": 4,
    "max_frames": 12,
    "grid": 2,
    "width": 4,
}
SPECTROGRAM = {"num_bins": 16, "steps_per_frame": 2, "fft_size": 1024}
TAVLO: dict[str, Any] = {
    "sizes": SIZES,
    "spectrogram": SPECTROGRAM,
    "picture_px": 64,
    "imagenet": False,
}
TRAIN: dict[str, Any] = {
    "epochs": 3,
    "batch": 2,
    "learning_rate": 1e-3,
    "validation": 0.25,
    "clip_s": 1.0,
    "min_frames": 8,
    "max_frames": 12,
    "checkpoint_every": 2,
    "workers": 0,
}


def recipe(**changes: Any) -> Recipe:
    """The tiny TAVLO."""
    return make_recipe("tavlo", TAVLO | changes)


class DropTokens(nn.Module):
    """A dropout among the blocks makes torch's generator matter."""

    def forward(self, tokens: Tensor, frame_mask: Tensor | None) -> Tensor:
        return nn.functional.dropout(tokens, 0.2, self.training)


def config(**changes: Any) -> TrainConfig:
    """Of a training that takes seconds."""
    return train_config(TRAIN | changes)


def settings() -> list[str]:
    """The same, as one types them."""
    words = []
    for table, values in (("train", TRAIN), ("tavlo", TAVLO)):
        for name, value in values.items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            for key, one in inner:
                dotted = ".".join(part for part in (table, name, key) if part)
                typed = str(one).lower() if isinstance(one, bool) else one
                words += ["--set", f"{dotted}={typed}"]
    return words


def draw_videos(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """Videos of one second, at 10 and 12 frames/s in turn, and the list that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        rate = (10, 12)[number % 2]
        sound = bursts(1.0, [0.2 + 0.08 * number, 0.9])
        path = folder / f"{name}.mp4"
        make_video(path, frames=rate, fps=rate, draw=scene(seed=number), sound=sound)
    listed = folder / "train.csv"
    listed.write_text("".join(f"{name}.mp4,0\n" for name in names))
    return listed


def clips(folder: Path, names: Sequence[str] = NAMES) -> list[CachedClip]:
    """Drawn clips in a cache."""
    listed = draw_videos(folder / "videos", names)
    ready, failed = fill_cache(read_clips(listed), folder / "cache", config().rules, 1)
    assert not failed
    return ready


def data(ready: Sequence[CachedClip], held: int = 2) -> TrainingData:
    """The last ``held`` clips validate."""
    return TrainingData(list(ready[: len(ready) - held]), list(ready[len(ready) - held :]), {})


def blank(num_frames: int, seed: int = 0) -> ClipTensors:
    """Noise in the shape of a clip of one second."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (num_frames, SIZE_PX, SIZE_PX, 3), np.uint8)
    return ClipTensors(frames, rng.normal(0, 0.1, RATE_HZ).astype(np.float32))


def batch(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Noise in place of clips of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    shape = (len(lengths), longest, 64, 64, 3)
    steps = longest * SIZES["steps_per_frame"]
    return {
        "frames": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        "spectrogram": torch.randn(len(lengths), steps, SIZES["num_bins"], generator=generator),
        "frame_mask": torch.arange(longest) < torch.tensor(lengths)[:, None],
    }


def close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value.double(), other[name].double(), rtol=1e-4, atol=1e-6), name


class WithoutBatchNorm(TavloRecipe):
    """Each picture is normalised alone: torch has no BatchNorm that counts over ranks on a CPU."""

    def make_network(self) -> nn.Module:
        model = super().make_network()
        for part in list(model.modules()):
            for name, inner in part.named_children():
                if isinstance(inner, nn.BatchNorm2d):
                    setattr(part, name, nn.GroupNorm(1, inner.num_features))
        return model


def equal(one: Any, other: Any) -> bool:
    """Bit for bit, however deep."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


RATE = 16_000


class Ear(ImageModel):
    """Answers with what it was asked: the heatmap's left half is the sound's length in seconds, its
    right half where in it the loudest sample lies, its top row the picture's brightness."""

    name = "ear"
    sample_rate_hz = RATE
    window_s = 1.5
    post = PostProcessing("bilinear", True, "min-max", "rank", ">=")

    def heatmaps(self, pictures: Sequence[Picture], sounds: Sequence[Sound]) -> NDArray[np.float32]:
        found = np.zeros((len(pictures), GRID, GRID), np.float32)
        for map_, picture, sound in zip(found, pictures, sounds, strict=True):
            map_[1:, : GRID // 2] = len(sound) / RATE
            map_[1:, GRID // 2 :] = np.abs(sound).argmax() / RATE
            map_[0] = picture.mean()
        return found

    def embeddings(
        self, pictures: Sequence[Picture], sounds: Sequence[Sound]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        raise NotImplementedError
