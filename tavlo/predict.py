"""A checkpoint's heatmaps of a release's labelled frames, as files any evaluation reads."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

import torch

from pipeline.errors import AvatarBuildError, UsageError
from tavlo.checkpoint import load_checkpoint
from tavlo.clips import fill_cache, held_out_videos, read_clips, youtube_id
from tavlo.data import read_clip
from tavlo.predictions import Predictions
from tavlo.ranks import ranks
from tavlo.release import EvaluationSet
from tavlo.training_config import train_config

Show = Callable[[int, str], None]


def predict(
    checkpoint: Path,
    data: EvaluationSet,
    target: Path,
    cache: Path,
    *,
    device: str = "auto",
    allow_overlap: bool = False,
    every_frame_of: Collection[str] = (),
    show: Show = lambda _done, _note: None,
) -> dict[str, str]:
    """Write the heatmaps of every labelled frame.

    Args:
        checkpoint: of ``train-tavlo``.
        data: the labelled frames, whose folder holds their clips.
        target: a folder for ``<clip_id>.npz``; made when missing.
        cache: a folder for feed files.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        allow_overlap: score videos the model was trained on.
        every_frame_of: clips whose other frames get a heatmap too, for a film.
        show: told of clips done, and a note.

    Returns:
        Why clips have no heatmaps, by id.

    Raises:
        UsageError: no checkpoint, no clips, or the model has seen the release's videos.
    """
    state = load_checkpoint(checkpoint)
    recipe, model = state.open(checkpoint)
    release = data.folder
    seen = set(map(youtube_id, [*state.data["videos"], *state.data["validation_videos"]]))
    both = sorted(seen & held_out_videos(release))
    if both and not allow_overlap:
        raise UsageError(
            f"{checkpoint} was trained on {len(both)} of this release's videos"
            f" ({', '.join(both[:5])}{', ...' if len(both) > 5 else ''}); its score would say"
            " nothing of others. --allow-overlap scores it all the same."
        )
    frames: dict[str, list[int]] = defaultdict(list)
    for frame in data.frames:
        frames[frame.clip_id].append(frame.frame_index)
    config = train_config(state.train_config)
    clips = [clip for clip in read_clips(release) if clip.clip_id in frames]
    show(0, "making small copies")
    ready, failed = fill_cache(clips, cache, config.rules, len(os.sched_getaffinity(0)))
    target.mkdir(parents=True, exist_ok=True)
    found = Predictions(target)
    found.describe(
        {
            "name": state.recipe,
            "step": state.step,
            "weights_from": state.weights_from,
            "data_digest": state.data["digest"],
            "revision": state.revision,
            "videos_seen_in_training": len(both),
        }
    )
    with ranks(device) as (_, place):
        model.to(place)
        bf16 = config.precision == "bf16" or (config.precision == "auto" and place.type == "cuda")
        for done, clip in enumerate(ready, start=1):
            tensors = read_clip(clip.path, config.clip_s)
            index = sorted(set(frames[clip.clip_id]))
            if index[-1] >= len(tensors.frames):
                raise AvatarBuildError(
                    f"{clip.clip_id}: frame {index[-1]} is labelled, and the clip has"
                    f" {len(tensors.frames)} frames. Verify the release: 'avatar-build export"
                    f" --verify {release}'."
                )
            if clip.clip_id in every_frame_of:
                index = list(range(len(tensors.frames)))
            with torch.autocast(place.type, torch.bfloat16, enabled=bf16):
                found.save(clip.clip_id, index, recipe.heatmaps(model, tensors, index))
            show(done, "")
    return failed
