"""A checkpoint's heatmaps of a release's labelled frames, as files any evaluation reads."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.devices import choose_device
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.files import sha256_of
from pipeline.versions import code_revision
from tavlo.evaluation.evaluation_set import EvaluationSet, LabelledFrame
from tavlo.evaluation.predictions import Predictions
from tavlo.training.checkpoint import Checkpoint, load_checkpoint
from tavlo.training.data import read_clip
from tavlo.training.recipe import Recipe
from tavlo.training.training_clips import FEED_VERSION, fill_cache, read_clips, seen_videos
from tavlo.training.training_config import TrainConfig, train_config

Show = Callable[[int, str], None]


@dataclass(frozen=True)
class Trained:
    """A checkpoint that may be scored on a release."""

    checkpoint: Path
    state: Checkpoint = field(repr=False)
    recipe: Recipe
    model: nn.Module = field(repr=False)
    device: torch.device
    videos_seen: int
    """Videos of the release that it was trained on."""
    doubt: str
    """A sentence on names that do not tell whether it was; empty when all do."""

    @property
    def config(self) -> TrainConfig:
        """The loop's settings it was trained with."""
        return train_config(self.state.train_config)

    @property
    def bf16(self) -> bool:
        """Whether it computes in bfloat16 on this device."""
        wanted = self.config.precision
        return wanted == "bf16" or (wanted == "auto" and self.device.type == "cuda")

    def about(self) -> dict[str, Any]:
        """What it is and all that decides its heatmaps, for ``model.json``."""
        return {
            "name": self.state.recipe,
            "step": self.state.step,
            "checkpoint_sha256": sha256_of(self.checkpoint),
            "weights_from": self.state.weights_from,
            "data_digest": self.state.data["digest"],
            "revision": self.state.revision,
            "predicted_by": code_revision(),
            "precision": "bf16" if self.bf16 else "float32",
            "small_copies": FEED_VERSION,
            "videos_seen_in_training": self.videos_seen,
        }


def open_trained(
    checkpoint: Path, data: EvaluationSet, *, device: str = "auto", allow_overlap: bool = False
) -> Trained:
    """Read a checkpoint of ``train-tavlo``; nothing is written.

    Args:
        checkpoint: of ``train-tavlo``.
        data: the labelled frames it shall be scored on.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        allow_overlap: score videos the model was trained on.

    Raises:
        UsageError: no checkpoint, no such device, or the model has seen the release's videos.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("scoring runs in one process: start it without torchrun.")
    place = choose_device(device)
    state = load_checkpoint(checkpoint)
    recipe, model = state.open(checkpoint)
    found = seen_videos(state.data["videos"] + state.data["validation_videos"], data.folder)
    both = sorted({one.video_id for one in found.same})
    if both and not allow_overlap:
        raise UsageError(
            f"{checkpoint} was trained on {len(both)} of this release's videos"
            f" ({', '.join(both[:5])}{', ...' if len(both) > 5 else ''}); its score would say"
            " nothing of others. --allow-overlap scores it all the same."
        )
    return Trained(checkpoint, state, recipe, model, place, len(both), found.doubt())


def predict(
    trained: Trained,
    data: EvaluationSet,
    target: Path,
    cache: Path,
    *,
    every_frame_of: Collection[str] = (),
    show: Show = lambda _done, _note: None,
) -> tuple[Predictions, dict[str, str]]:
    """Write the heatmaps of every labelled frame; each is computed anew from the clip as it is.

    Args:
        trained: the model.
        data: the labelled frames, whose folder holds their clips.
        target: a folder for ``<clip_id>.npz``; heatmaps of an earlier run are removed from it.
        cache: a folder for feed files.
        every_frame_of: clips whose other frames get a heatmap too, for a film.
        show: told of clips done, and a note.

    Returns:
        The heatmaps, and why clips have none, by id.

    Raises:
        UsageError: no clips, or the folder holds heatmaps that no checkpoint's run wrote.
        AvatarBuildError: a clip lacks a labelled frame.
    """
    about = trained.about()
    found = Predictions.begin(target, about)
    frames: dict[str, list[LabelledFrame]] = defaultdict(list)
    for frame in data.frames:
        frames[frame.clip_id].append(frame)
    clips = [clip for clip in read_clips(data.folder) if clip.clip_id in frames]
    config = trained.config
    show(0, "making small copies")
    ready, failed = fill_cache(clips, cache, config.rules, len(os.sched_getaffinity(0)))
    lacking = {frame.frame_id: why for clip, why in failed.items() for frame in frames[clip]}
    found.describe(about | {"failed": lacking})
    model = trained.model.to(trained.device)
    for done, clip in enumerate(ready, start=1):
        tensors = read_clip(clip.path, config.clip_s, clip.sha256)
        index = sorted({frame.frame_index for frame in frames[clip.clip_id]})
        if index[-1] >= len(tensors.frames):
            raise AvatarBuildError(
                f"{clip.clip_id}: frame {index[-1]} is labelled, and the clip has"
                f" {len(tensors.frames)} frames. Verify the release: 'avatar-build export"
                f" --verify {data.folder}'."
            )
        if clip.clip_id in every_frame_of:
            index = list(range(len(tensors.frames)))
        with torch.autocast(trained.device.type, torch.bfloat16, enabled=trained.bf16):
            found.save(clip.clip_id, index, trained.recipe.heatmaps(model, tensors, index))
        show(done, "")
    return found, failed
