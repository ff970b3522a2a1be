"""The attention of TAVLO within a frame and along time, as numbers and as a picture."""

from __future__ import annotations

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

from pipeline.files import replacing
from tavlo.evaluation.evaluation_set import EvaluationSet
from tavlo.evaluation.image_models import ImagePredictor
from tavlo.evaluation.open_predictor import ClipPredictor
from tavlo.evaluation.predictions import GRID_HW, Notes
from tavlo.network.model import AstBlock, Tavlo, similarity
from tavlo.training.tavlo_recipe import TavloRecipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    """Weights of frame t's sound on each frame's, ``(l, t, t)``; none where frames do not attend to
    one another."""
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
        if block.temporal_attention == "none":
            continue
        tokens, mask = seen[block.temporal]
        chosen = [0, 1 + best]
        over.append(block.temporal.weights(tokens[chosen], None if mask is None else mask[chosen]))
    none = heat.new_zeros(0, 2, len(heat), len(heat))
    stacked = torch.stack(over) if over else none  # (l, 2, t, t)
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
    recipe, model = predictor.recipe, predictor.model.cpu()
    if not isinstance(recipe, TavloRecipe) or not isinstance(model, Tavlo):
        return []
    frames = data.frames_of(clip_id)
    ((_, tensors),) = predictor.read(data, [clip_id], Notes(len(frames)))
    batch = {name: value[None] for name, value in recipe.sample(tensors, None).items()}
    found = attention(model, batch)
    pictures = [
        Pictured(
            frame.frame_index,
            data.picture(frame),
            frame.truth(GRID_HW) if frame.instances else None,
        )
        for frame in frames
    ]
    with replacing(target) as path:
        figure(found, pictures, recipe.settings.every, clip_id).savefig(path, format="png", dpi=100)
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
    within = enumerate(found.within_frame if found.within_frame is not None else (), start=1)
    columns = [("heatmap (eq. 16)", found.heat)]
    columns += [(f"block {number}: the sound looks at", maps) for number, maps in within]
    over_time = []
    pairs = zip(found.sound_over_time, found.location_over_time, strict=True)
    for number, (sound, location) in enumerate(pairs, start=1):
        over_time.append((f"block {number}: the sound over time", sound))
        over_time.append((f"block {number}: its best location over time", location))
    width, rows = max(1 + len(columns), len(over_time)), len(pictures) + 1
    sheet = Figure(figsize=(3.2 * width, 2.3 * rows + 0.9), layout="constrained")
    sheet.suptitle(title)
    grid = sheet.add_gridspec(rows, width, height_ratios=[*[1.0] * len(pictures), 1.4])
    for row, shown in enumerate(pictures):
        _panel(sheet.add_subplot(grid[row, 0]), shown, f"frame {shown.frame_index}")
        for column, (what, maps) in enumerate(columns, start=1):
            axes = sheet.add_subplot(grid[row, column])
            # One scale of colour per column, so that frames can be compared.
            _panel(axes, shown, "" if row else what, maps[index[row]], maps[index])
    for column, (name, weights) in enumerate(over_time):
        axes = sheet.add_subplot(grid[rows - 1, column])
        axes.imshow(weights, cmap="viridis", vmin=0)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("attended frame", fontsize=8)
        axes.set_ylabel("frame", fontsize=8)
        axes.set_xticks(index, marks, fontsize=8, rotation=90)
        axes.set_yticks(index, marks, fontsize=8)
    return sheet


def _panel(
    axes: Axes, shown: Pictured, said: str, heat: Maps | None = None, scale: Maps | None = None
) -> None:
    """Draw a frame with its truth outlined, and a map over it in the colours of ``scale``."""
    size = shown.image.shape[1::-1]
    axes.imshow(shown.image if heat is None else shown.image.mean(-1), cmap="gray")
    if heat is not None and scale is not None:
        large = cv2.resize(heat, size, interpolation=cv2.INTER_NEAREST)
        axes.imshow(large, cmap="turbo", alpha=0.6, vmin=scale.min(), vmax=scale.max())
        axes.set_xlabel(f"{heat.min():.3f} to {heat.max():.3f}", fontsize=8)
    if shown.truth is not None:
        outline = cv2.resize(shown.truth.astype(np.float32), size)
        axes.contour(outline, [0.5], colors="lime", linewidths=1.5)
    axes.set_title(said, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _numbers(values: Tensor) -> Maps:
    return np.asarray(values.float().cpu().numpy(), np.float32)
