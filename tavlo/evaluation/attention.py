"""The attention of TAVLO within a frame and along time, as numbers and as a picture."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import AvatarBuildError
from pipeline.files import replacing
from tavlo.evaluation.clip_models import ClipPredictor
from tavlo.evaluation.evaluation_set import EvaluationSet
from tavlo.evaluation.image_models import ImagePredictor
from tavlo.evaluation.predictions import GRID_HW
from tavlo.evaluation.release_media import frames_of, picture
from tavlo.network.model import AstBlock, Tavlo, similarity
from tavlo.training.cached_clips import fill_cache
from tavlo.training.data import read_clip
from tavlo.training.tavlo_recipe import TavloRecipe
from tavlo.training.training_clips import read_clips

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """The attention of one clip's tokens in each block, means over heads; l counts the blocks."""

    heat: Maps
    """Cosines of each frame's sound with its visual tokens (eq. 16), ``(t, h, w)``."""
    within_frame: Maps | None
    """Weights of each frame's sound on its visual tokens, ``(l, t, h, w)``. The rest of a frame's
    sum of 1 goes to the sound itself. None where the two do not attend to one another."""
    sound_over_time: Maps
    """Weights of frame t's sound on each frame's, ``(l, t, t)``."""
    location_over_time: Maps
    """Weights of frame t on each frame at the location that agrees best with the sound over the
    clip, ``(l, t, t)``."""


@torch.no_grad()
def attention(model: Tavlo, batch: dict[str, Tensor]) -> Attention:
    """Run one clip and look at every block.

    Args:
        model: in evaluation mode.
        batch: of ``TavloRecipe.sample``, with a batch axis of one clip in front.
    """
    seen: dict[nn.Module, tuple[Tensor, Tensor | None]] = {}

    def keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[layer] = inputs

    blocks = [block for block in model.blocks if isinstance(block, AstBlock)]
    hooks = [
        layer.register_forward_pre_hook(keep)
        for block in blocks
        for layer in (block.spatial, block.temporal)
    ]
    try:
        outputs = model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    heat = similarity(outputs["audio_tokens"], outputs["visual_tokens"])[0]  # (t, h, w)
    height, width = heat.shape[1:]
    best = int(heat.mean(0).argmax())
    joint = model.sizes.spatial_attention == "joint"
    within, over = [], []
    for block in blocks:
        if joint:
            looks = block.spatial.weights(*seen[block.spatial])[:, 0, 1:]
            within.append(rearrange(looks, "t (h w) -> t h w", h=height, w=width))
        tokens, mask = seen[block.temporal]
        chosen = [0, 1 + best]
        over.append(block.temporal.weights(tokens[chosen], None if mask is None else mask[chosen]))
    stacked = torch.stack(over)  # (l, 2, t, t)
    return Attention(
        heat=_numbers(heat),
        within_frame=_numbers(torch.stack(within)) if within else None,
        sound_over_time=_numbers(stacked[:, 0]),
        location_over_time=_numbers(stacked[:, 1]),
    )


def write_attention(
    predictor: ClipPredictor | ImagePredictor, data: EvaluationSet, clip_id: str, target: Path
) -> list[Path]:
    """Draw where TAVLO looks in one clip of a release.

    A row for each labelled frame: the picture with its truth in green, the heatmap, and where its
    sound attends in each block; below, attention along time.

    Args:
        predictor: the model.
        data: the release.
        clip_id: one of its clips.
        target: a PNG file; replaced.

    Returns:
        The file; nothing when the model is another than TAVLO.

    Raises:
        AvatarBuildError: the release has no such clip, or it cannot be read.
    """
    if not isinstance(predictor, ClipPredictor):
        return []
    recipe, model, config = predictor.recipe, predictor.model.cpu(), predictor.config
    if not isinstance(recipe, TavloRecipe) or not isinstance(model, Tavlo):
        return []
    frames = frames_of(data, clip_id)
    wanted = [clip for clip in read_clips(data.folder) if clip.clip_id == clip_id]
    with tempfile.TemporaryDirectory(prefix="attention-") as scratch:
        ready, failed = fill_cache(wanted, Path(scratch), config.rules, 1)
        if failed:
            raise AvatarBuildError(f"{clip_id}: {failed[clip_id]}")
        tensors = read_clip(ready[0].path, config.clip_s, ready[0].sha256)
    batch = {name: value[None] for name, value in recipe.sample(tensors, None).items()}
    found = attention(model, batch)
    every = recipe.settings.every
    pictures = []
    for frame in frames:
        image = picture(data, frame)
        truth = frame.truth(GRID_HW) if frame.instances else None
        pictures.append(Pictured(frame.frame_index, image, truth))
    with replacing(target) as path:
        figure(found, pictures, every, clip_id).savefig(path, format="png", dpi=100)
    return [target]


@dataclass(frozen=True)
class Pictured:
    """A labelled frame as it is drawn."""

    frame_index: int
    """Counted from the clip's first frame."""
    image: NDArray[np.uint8]
    truth: NDArray[Any] | None


def figure(found: Attention, pictures: Sequence[Pictured], every: int, title: str) -> Figure:
    """Draw a row for each labelled frame, and attention along time below.

    Args:
        found: of the clip's every ``every``-th frame.
        pictures: the labelled frames.
        every: as in ``TavloConfig``; axes are marked with the clip's own frame numbers.
        title: of the sheet.
    """
    # Without pyplot: it would choose a display, and keep every figure.
    from matplotlib.figure import Figure

    index = [shown.frame_index // every for shown in pictures]
    marks = [str(shown.frame_index) for shown in pictures]
    blocks = len(found.sound_over_time)
    columns: list[tuple[str, Maps]] = [("heatmap (eq. 16)", found.heat)]
    if found.within_frame is not None:
        columns += [
            (f"block {number}: the sound looks at", maps)
            for number, maps in enumerate(found.within_frame, start=1)
        ]
    over_time = [
        (f"block {number}: {what} over time", maps[number - 1])
        for number in range(1, blocks + 1)
        for what, maps in (
            ("the sound", found.sound_over_time),
            ("its best location", found.location_over_time),
        )
    ]
    width = max(1 + len(columns), len(over_time))
    rows = len(pictures) + 1
    sheet = Figure(figsize=(3.2 * width, 2.3 * rows + 0.9), layout="constrained")
    sheet.suptitle(title)
    grid = sheet.add_gridspec(rows, width, height_ratios=[*[1.0] * len(pictures), 1.4])
    ranges = [(float(maps[index].min()), float(maps[index].max())) for _, maps in columns]
    for row, shown in enumerate(pictures):
        image, truth = shown.image, shown.truth
        shape = image.shape[:2]
        outline = None
        if truth is not None:
            outline = cv2.resize(truth.astype(np.float32), shape[::-1])
        panels = [(f"frame {shown.frame_index}", None, (0.0, 1.0))] + [
            (what if row == 0 else "", maps[index[row]], limits)
            for (what, maps), limits in zip(columns, ranges, strict=True)
        ]
        for column, (said, heat, (low, high)) in enumerate(panels):
            axes = sheet.add_subplot(grid[row, column])
            axes.imshow(image if heat is None else image.mean(-1), cmap="gray")
            if heat is not None:
                large = cv2.resize(heat, shape[::-1], interpolation=cv2.INTER_NEAREST)
                axes.imshow(large, cmap="turbo", alpha=0.6, vmin=low, vmax=high)
                axes.set_xlabel(f"{heat.min():.3f} to {heat.max():.3f}", fontsize=8)
            if outline is not None:
                axes.contour(outline, [0.5], colors="lime", linewidths=1.5)
            axes.set_title(said, fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
    for column, (name, weights) in enumerate(over_time):
        axes = sheet.add_subplot(grid[rows - 1, column])
        axes.imshow(weights, cmap="viridis", vmin=0)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("attended frame", fontsize=8)
        axes.set_ylabel("frame", fontsize=8)
        axes.set_xticks(index, marks, fontsize=8, rotation=90)
        axes.set_yticks(index, marks, fontsize=8)
    return sheet


def _numbers(values: Tensor) -> Maps:
    return np.asarray(values.float().cpu().numpy(), np.float32)
