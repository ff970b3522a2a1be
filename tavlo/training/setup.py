"""The way from what a user names to a trained model: clips, cache, split, and the loop."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import UsageError
from pipeline.media.clip_cache import RATE_HZ, SIZE_PX, ClipTensors
from pipeline.progress import counting
from tavlo.training.cached_clips import (
    CachedClip,
    cached,
    check_failed,
    fill_cache,
    find_cached,
    silence,
)
from tavlo.training.checkpoint import Checkpoint
from tavlo.training.data import collate
from tavlo.training.distributed import Rank, distributed, merge_over_ranks
from tavlo.training.memory import Held, MemoryModel, device_memory
from tavlo.training.model_card import CARD
from tavlo.training.recipe import Recipe
from tavlo.training.train import BEST, LAST, TrainingData, num_steps, resumable, run_network, train
from tavlo.training.training_clips import ClipRules, ClipSource, read_clips, refuse_overlap
from tavlo.training.training_config import TrainConfig
from tavlo.training.training_log import CURVE, LOG, TrainingLog

_CACHED_BYTES, _CACHED_CPU_S = 1.02e6, 0.62
"""The cost of a clip of 10 s in the cache; measured in ``benchmarks/results/clip_cache.json``."""


@dataclass(frozen=True)
class Request:
    """A training that is asked for."""

    recipe: Recipe
    config: TrainConfig
    source: Path | str
    """A release, also the address of one on an object store, or a list."""
    out: Path
    template: str = ""
    """The path of a video of a list's ids."""
    held_out: Sequence[Path] = ()
    """Releases or lists no video may be from."""
    cache: Path | None = None
    """The folder of the clip cache; ``out/clips`` by default."""
    device: str = "auto"
    max_failed: int = 0
    """Clips that may be left out because they cannot be read."""
    tensorboard: bool = False
    shown: bool = True

    @property
    def cache_folder(self) -> Path:
        """Return the folder of the clip cache."""
        return self.cache or self.out / "clips"

    def clips(self) -> tuple[list[ClipSource], list[str]]:
        """Read the clips, none of them held out; and sentences on what to know of them.

        Raises:
            UsageError: there are none, or some are held out.
        """
        clips = read_clips(self.source, self.template)
        rules = self.config.rules
        notes = [*self.recipe.notes, *([] if rules == ClipRules() else [rules.sentence()])]
        notes += [text for held_out in self.held_out for text in refuse_overlap(clips, held_out)]
        return clips, notes


@dataclass(frozen=True)
class Plan:
    """The clips, steps, bytes and time of a training, before it is run."""

    clips: int
    training: int
    validation: int
    held_out: list[str]
    steps: int
    first_step: int
    """The number of steps already done."""
    device: str
    cache_missing: int
    """The number of clips that are not in the cache yet."""
    cache_bytes: int
    """The size of these, about."""
    cache_s: float
    """The seconds to make them, about."""
    train_s: float
    """The seconds of the steps left, about; reading aside."""
    memory: dict[str, int] = field(default_factory=dict)
    """The bytes a step holds at once on one rank, at least, by part."""
    device_memory: int = 0
    """The bytes the device has."""
    failed: dict[str, str] = field(default_factory=dict)
    """Clips whose file is not there."""
    silent: list[str] = field(default_factory=list)
    """Silent clips among those in the cache; of the others it is not known yet."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what else to know of the clips."""

    def sentences(self) -> list[str]:
        """Say it to people."""
        checked = "held against no evaluation release: name it with --held-out"
        if self.held_out:
            checked = f"none of a video in {', '.join(self.held_out)}"
        left = self.steps - self.first_step
        said = [
            f"{self.clips} clips: {self.training} to train on, {self.validation} to choose the"
            f" best; {checked}.",
            f"{self.cache_missing} clips to put into the cache: {self.cache_bytes / 1e9:.2f} GB,"
            f" about {_duration(self.cache_s)}; whether they are silent is known then."
            if self.cache_missing
            else "all clips are in the cache.",
            f"{self.steps} steps, {left} of them left: about {_duration(self.train_s)} on"
            f" {self.device}.",
            f"{Held(self.memory).sentence()} The device has {self.device_memory / 1e9:.1f} GB.",
        ]
        said += self.notes
        said += [f"{name}: {why}" for name, why in sorted(self.failed.items())[:5]]
        return said


def plan(request: Request) -> Plan:
    """Say what ``run`` would do, and write nothing.

    The time of a step is measured on blank clips of this size, on the device, and its memory
    counted.

    Raises:
        UsageError: what is asked for does not fit together, or not into the device's memory.
    """
    config = request.config
    state = resumable(request.out, request.recipe, config, None)
    if state is None:
        request.recipe.check_start()
    clips, notes = request.clips()
    pairs, failed = find_cached(clips, request.cache_folder, config.rules)
    found = [copy for _, copy in pairs]
    training, validation = split(found, config.validation, config.seed)
    _, total = num_steps(config, len(training))
    silent, said = silence(found)
    notes += said
    missing = sum(not clip.path.exists() for clip in found)
    scale = config.clip_s / 10.0
    first = state.step if state else 0
    with distributed(request.device) as rank:
        held, limit, notes = _memory(request, rank, notes)
        step_s = (
            _clip_seconds(request.recipe, config, rank.device) * config.batch * config.accumulate
        )
        return Plan(
            clips=len(clips),
            training=len(training),
            validation=len(validation),
            held_out=[str(path) for path in request.held_out],
            steps=total,
            first_step=first,
            device=str(rank.device),
            cache_missing=missing,
            cache_bytes=round(missing * _CACHED_BYTES * scale),
            cache_s=missing * _CACHED_CPU_S * scale / _cores(),
            train_s=(total - first) * step_s / rank.world_size,
            memory=held.parts,
            device_memory=limit,
            failed=failed,
            silent=silent,
            notes=notes,
        )


def _memory(request: Request, rank: Rank, notes: list[str]) -> tuple[Held, int, list[str]]:
    """Count what a step holds at once, and what the device has; says it where that is less.

    Raises:
        UsageError: it cannot fit; names settings with which it does. Where no device was named and
            there is no GPU, the training may be meant for another machine, and a note says so.
    """
    recipe, config, device = request.recipe, request.config, rank.device
    model = MemoryModel(
        recipe, config, device, lambda network, batch: run_network(network, batch, config, device)
    )
    recompute = bool(getattr(recipe.settings, "recompute", False))
    held = model.held(config, recompute=recompute, ranks=rank.world_size)
    limit = device_memory(device)
    if held.total <= limit:
        return held, limit, notes
    fits = model.fitting(config, limit, recompute=recompute, ranks=rank.world_size)
    way = f"With {fits} it fits." if fits else "No setting of ours makes it fit."
    if device.type == "cpu" and request.device == "auto":
        return held, limit, [*notes, f"That does not fit into this machine. {way}"]
    raise UsageError(f"{held.sentence()} {device} has {limit / 1e9:.1f} GB. {way}")


def run(request: Request) -> Checkpoint:
    """Train, or go on.

    Raises:
        UsageError: what is asked for does not fit together.
        AvatarBuildError: too many clips cannot be read, or the loss is no longer a number.
    """
    config = request.config
    if resumable(request.out, request.recipe, config, None) is None:
        request.recipe.check_start()
    clips, notes = request.clips()
    with distributed(request.device, timedelta(minutes=config.timeout_min)) as rank:
        data = _prepare(request, clips, notes, rank)
        workers = config.workers
        if workers < 0:
            # Beside a network on the CPU, reading is nothing.
            workers = _cores() if rank.device.type == "cuda" else 0
        log = TrainingLog(request.out, shown=request.shown, tensorboard=request.tensorboard)
        return train(request.recipe, config, data, request.out, rank=rank, workers=workers, log=log)


def closing(request: Request, done: Checkpoint) -> str:
    """Return the last words of a training, for people."""
    chosen = "no validation, so the last is the best"
    if done.best:
        chosen = f"best at step {done.best['step']:.0f}: validation {done.best['loss']:.4f}"
    return (
        f"{done.step} steps on {done.data['clips']} clips"
        f" ({len(done.data['failed'])} left out); {chosen}.\n"
        f"{request.out / BEST}; beside it {LAST}, {LOG}, {CURVE}, {CARD}.\n"
        f"Next: avatar-build evaluate --release DIR --checkpoint {request.out / BEST}"
    )


def _prepare(
    request: Request, clips: Sequence[ClipSource], notes: list[str], rank: Rank
) -> TrainingData:
    """Fill the cache, each rank its part, and split what is there.

    Nodes that share the folder find all of it made then; one with a folder of its own makes the
    rest, each of its ranks a part.
    """
    config, folder = request.config, request.cache_folder
    failed: dict[str, str] = {}
    shares = [(rank.index, rank.world_size)]
    if rank.local_size < rank.world_size:
        shares.append((rank.local_index, rank.local_size))
    for index, size in shares:
        own = [clip for clip in clips if clip.clip_id not in failed][index::size]
        with counting("clips", len(own), shown=request.shown and rank.index == 0) as count:
            _, found = fill_cache(own, folder, config.rules, _cores(), count)
        failed |= merge_over_ranks(found, rank)
        check_failed(failed, request.max_failed)
    ready = [cached(clip, folder, config.rules) for clip in clips if clip.clip_id not in failed]
    training, validation = split(ready, config.validation, config.seed)
    if config.validation and not (training and validation):
        raise UsageError(
            f"{len(ready)} clips of {len({clip.video_id for clip in ready})} videos leave none to"
            " train on beside the validation, as clips that may be of one video by their names are"
            " not parted; name more, or --set train.validation=0."
        )
    notes = [*notes, *silence(ready)[1]]
    if rank.world_size > 1 and rank.device.type == "cpu":
        notes.append(
            "BatchNorm counts each process's own clips, as torch synchronises it on GPUs alone; the"
            " first process's averages are kept."
        )
    held_out = [str(path) for path in request.held_out]
    return TrainingData(training, validation, dict(sorted(failed.items())), notes, held_out)


def split(
    clips: Sequence[CachedClip], fraction: float, seed: int
) -> tuple[list[CachedClip], list[CachedClip]]:
    """Split into training and validation clips; what may be of one video is on the same side.

    Videos are drawn until at least ``fraction`` of the clips, and two, are held back: one clip
    alone has nothing to be told from. A fraction of 0 holds none back. Files such as
    ``take_00002.mp4`` and ``take_00007.mp4`` may be parts of one video, and stay together. What is
    more than half of the clips is trained on, so that files that are merely numbered do not all
    become validation.
    """
    wanted = max(fraction * len(clips), 2) if fraction else 0
    video_of = _videos_of(clips)
    videos = sorted(set(video_of.values()))
    # In the order of a digest of their own, so that a longer list moves few of them across.
    videos.sort(key=lambda video: hashlib.sha256(f"{seed} {video}".encode()).digest())
    counts = Counter(video_of.values())
    held: set[str] = set()
    for video in videos:
        if sum(counts[name] for name in held) >= wanted:
            break
        if counts[video] <= max(wanted, len(clips) / 2):
            held.add(video)
    return (
        [clip for clip in clips if video_of[clip.clip_id] not in held],
        [clip for clip in clips if video_of[clip.clip_id] in held],
    )


def _videos_of(clips: Sequence[CachedClip]) -> dict[str, str]:
    """Name all clips that share a reading of their video's name alike, by clip id."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            name = above[name]
        return name

    for clip in clips:
        for name in clip.readings:
            one, other = sorted((top(clip.video_id), top(name)))
            above[other] = one  # the first in the alphabet, whatever the order of the clips
    return {clip.clip_id: top(clip.video_id) for clip in clips}


def _cores() -> int:
    """Return how many of the machine's cores this rank has."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _clip_seconds(recipe: Recipe, config: TrainConfig, device: torch.device) -> float:
    """Measure a step of one blank clip, seconds: two short ones, and a line through them."""
    model = recipe.make_network().to(device).train()
    whole = config.max_frames
    parts = (2, 1) if device.type == "cuda" else (16, 8)
    lengths = [max(1, whole // part) for part in parts]
    took = []
    for length in [lengths[0], *lengths]:  # the first one warms up
        clip = ClipTensors(
            np.zeros((length, SIZE_PX, SIZE_PX, 3), np.uint8),
            np.zeros(round(config.clip_s * RATE_HZ), np.float32),
        )
        batch = collate([("blank", recipe.sample(clip, None))])
        started = time.perf_counter()
        loss: Any = recipe.loss(run_network(model, batch, config, device))
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    slope = max(0.0, took[2] - took[1]) / max(1, lengths[1] - lengths[0])
    return took[2] + slope * (whole - lengths[1])


def _duration(seconds: float) -> str:
    """Say a duration for people; two digits are more than an estimate is worth.

    >>> _duration(42), _duration(600), _duration(90_000)
    ('42 s', '10 min', '25 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
