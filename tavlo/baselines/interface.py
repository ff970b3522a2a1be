"""Image models as an evaluation knows them, and every one there is.

A model is asked with pictures and sounds and answers with one heatmap a pair, on the grid its
authors scored it on. What was done to its small map on the way, and what is to be done after, is
one object that belongs with the results: changing the interpolation alone moves published numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.flow import imported
from pipeline.models import require
from pipeline.models.catalogue import MODELS as REGISTERED
from tavlo.metrics.localisation import Comparison, Pixels, Real, min_max, predict, rank_threshold

GRID = 224
"""Rows and columns of a heatmap."""

Picture = NDArray[np.uint8]
"""RGB, ``(y, x, 3)``, of any size."""
Sound = NDArray[np.float32]
"""Mono in [-1, 1] at the model's rate, ``(samples,)``, of any length but none."""
Upsampling = Literal["bilinear", "bicubic", "opencv-bilinear"]
"""``opencv-bilinear`` aligns pixel centres, as torch's does without ``align_corners``."""


@dataclass(frozen=True)
class Prior:
    """A way to mix in the object prior, which hears nothing; it is upsampled as the map is."""

    weight: float
    """The prior's fraction of the mix; the model keeps the rest."""
    scale: float | None = None
    """The number the prior is divided by; None means min-max."""


@dataclass(frozen=True)
class PostProcessing:
    """All that happens to a model's map on its way to a prediction. Saved with the results."""

    upsampling: Upsampling
    align_corners: bool
    normalisation: Literal["min-max", "inverted min-max", "fixed"]
    """The scaling of one heatmap. Inverted: 1 - min-max(-map), which rounds otherwise. Fixed: from
    [-limit, limit] to [0, 1], the same for all frames."""
    threshold: Literal["rank", "absolute"]
    """``rank``: the value below which ``level`` of the normalised heatmap's pixels lie.
    ``absolute``: ``level`` itself."""
    comparison: Comparison
    """The comparison with the threshold: do pixels that equal it count?"""
    top_counts: bool = False
    """True where pixels at 1 count whatever the threshold. SSL-TIE and LVS write their prediction
    into the normalised heatmap, where those stay ones; it decides flat and quantised maps."""
    level: float = 0.5
    limit: float = 1.0
    """Largest magnitude of the map; for ``fixed``."""
    prior: Prior | None = None
    """Set when the heatmaps hold the object prior; they are then normalised already."""

    def upsample(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring maps ``(n, h, w)`` to ``(n, GRID, GRID)``."""
        size, mode = (GRID, GRID), self.upsampling
        if mode == "opencv-bilinear":
            large = [cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in maps]
            return np.asarray(large, np.float32).reshape(len(maps), *size)
        given = torch.from_numpy(np.ascontiguousarray(maps))[:, None]
        upsampled = F.interpolate(given, size, mode=mode, align_corners=self.align_corners)
        return np.asarray(upsampled[:, 0].numpy(), np.float32)

    def normalise(self, heatmap: Real) -> Real:
        """Scale one heatmap ``(y, x)`` as its authors compare it; mixed ones are so already."""
        if self.prior is not None:
            return heatmap
        return self._normalise(heatmap)

    def _normalise(self, heatmap: Real) -> Real:
        if self.normalisation == "min-max":
            return min_max(heatmap)
        if self.normalisation == "inverted min-max":
            # 1 - x, in this order of operations: ties at the threshold depend on it.
            return 1 - min_max(-heatmap)
        fixed: Real = (heatmap + self.limit) / (2 * self.limit)
        return fixed

    def threshold_of(self, score: Real, truth: NDArray[Any] | None = None) -> float:
        """Return the threshold of one normalised heatmap.

        Args:
            score: ``(y, x)``.
            truth: predict as many pixels as it has, half of all when it is empty: the adaptive rule
                of SSLalignment. It looks at the answer; report it under its name.
        """
        if truth is not None:
            found = int(np.count_nonzero(truth)) or truth.size // 2
            # At this rank: as many pixels as the truth has lie at it or above.
            return float(np.sort(score, axis=None)[score.size - found])
        if self.threshold == "absolute":
            return self.level
        return rank_threshold(score, self.level)

    def predict(self, heatmap: Real, truth: NDArray[Any] | None = None) -> Pixels:
        """Return the pixels that count as sounding; ``truth`` as for ``threshold_of``."""
        score = self.normalise(heatmap)
        predicted = predict(score, self.threshold_of(score, truth), self.comparison)
        return predicted | (score >= 1) if self.top_counts else predicted

    def confidence(self, heatmap: Real) -> float:
        """Say how sure a heatmap is that something sounds: the mean of its top quarter (SLAVC)."""
        score = np.sort(self.normalise(heatmap), axis=None)
        return float(score[-(score.size // 4) :].mean(dtype=np.float64))

    def mix(self, heatmap: Real, prior: NDArray[np.float32]) -> Real:
        """Mix one heatmap ``(y, x)`` with the prior's small map ``(h, w)``, normalised."""
        if self.prior is None:
            raise ValueError("no prior is set")
        weight = self.prior.weight
        large = self.upsample(prior[None])[0]
        if self.prior.scale is None:
            return min_max((1 - weight) * min_max(heatmap) + weight * min_max(large))
        mixed: Real = (1 - weight) * self._normalise(heatmap) + weight * (large / self.prior.scale)
        return mixed


class ImageModel(Protocol):
    """A model that says where in a picture a sound comes from."""

    name: str
    """The model's name in ``MODELS``."""
    sample_rate_hz: int
    """The rate of the sounds it takes."""
    window_s: float
    """Seconds of sound it hears; it cuts them out of longer ones and repeats shorter ones."""
    channels: Literal["first", "mean"] = "first"
    """The channel its authors' loader takes of several; the first where it takes one alone."""
    post: PostProcessing

    def heatmaps(self, pictures: Sequence[Picture], sounds: Sequence[Sound]) -> NDArray[np.float32]:
        """Say where each sound comes from in its picture, ``(n, GRID, GRID)``.

        The model's map on its own scale, upsampled by ``post``; with a prior, the mixed score.
        """
        ...

    def embeddings(
        self, pictures: Sequence[Picture], sounds: Sequence[Sound]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return vectors for retrieval, length one: of the pictures and of the sounds, ``(n, d)``.

        Either list may be empty.

        Raises:
            UsageError: the model hears nothing.
        """
        ...


MODELS: dict[str, str] = {
    "ezvsl": "tavlo.baselines.ezvsl:EZVSL",
    "slavc": "tavlo.baselines.slavc:SLAVC",
    "ssltie": "tavlo.baselines.ssltie:SSLTIE",
    "lvs": "tavlo.baselines.lvs:LVS",
    "sslalignment": "tavlo.baselines.sslalignment:SSLALIGNMENT",
    "object-prior": "tavlo.baselines.localiser:ObjectPrior",
}
"""Name to where its opener is; nothing is imported before it is asked for."""


def checkpoint_path(text: str) -> Path:
    """Return a checkpoint's file, given as a path or as the name ``models add`` registered.

    Raises:
        UsageError: it is neither, or not what was registered.
    """
    if text in REGISTERED and not Path(text).exists():
        return require(text).path
    if not Path(text).is_file():
        raise UsageError(
            f"No checkpoint at {text}, and no such name in 'avatar-build models list'. Train first:"
            " 'avatar-build train-tavlo'."
        )
    return Path(text)


def open_model(
    name: str,
    checkpoint: Path,
    *,
    prior: Path | None = None,
    variant: str = "",
    device: str = "cpu",
) -> ImageModel:
    """Open a model with its authors' weights, or with ours.

    Args:
        name: in ``MODELS``.
        checkpoint: as its authors released it, or as ``train-tavlo`` wrote it.
        prior: torchvision's ResNet-18 of ImageNet, to mix the object prior in as the authors do.
        variant: of the post-processing, where the authors have several; empty is the one their
            test scripts use.
        device: ``cpu`` or ``cuda:N``.

    Raises:
        UsageError: no such model or variant, a checkpoint of another, or no prior goes with it.
    """
    if name not in MODELS:
        raise UsageError(f"model {name!r}: there is {', '.join(sorted(MODELS))}.")
    opened: ImageModel = imported(MODELS[name]).open(checkpoint, prior, variant, device)
    return opened
