"""The one training loop, for TAVLO and every other recipe.

Killed at any step and started again, it ends with the same weights: nothing random has a state.
Batches and augmentation follow from the seed and the step (``tavlo.training.data``), and torch's
own generator is set anew for each step. What has a state, weights and optimiser, is in the
checkpoint.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.versions import code_revision
from tavlo.metrics.sound_sensitivity import SENSITIVITY
from tavlo.training.cached_clips import CachedClip, silence
from tavlo.training.checkpoint import Checkpoint, load_checkpoint
from tavlo.training.data import (
    Batch,
    ClipDataset,
    batch_indices,
    train_batches,
    validation_batches,
)
from tavlo.training.distributed import Rank, from_first, gather, sum_over_ranks, wrap_ddp
from tavlo.training.label_free import LabelFree
from tavlo.training.model_card import write_card
from tavlo.training.recipe import Recipe, make_recipe
from tavlo.training.sub_batches import backward_in_parts, joined, parts_of
from tavlo.training.training_config import TrainConfig, recorded_config
from tavlo.training.training_log import TrainingLog

LAST, BEST = "last.pt", "best.pt"


@dataclass(frozen=True)
class TrainingData:
    """The clips of a training, and which were left out."""

    training: list[CachedClip]
    validation: list[CachedClip]
    """Clips of other videos, to choose the best checkpoint."""
    failed: dict[str, str]
    """Clips left out, and why."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what else to know of the clips."""
    held_out: list[str] = field(default_factory=list)
    """The evaluation sets none of the videos is from."""

    def record(self) -> dict[str, Any]:
        """Return what the checkpoint keeps of it."""
        return {
            "digest": data_digest(self.training),
            "clips": len(self.training),
            "videos": sorted({clip.video_id for clip in self.training}),
            "validation_digest": data_digest(self.validation),
            "validation_videos": sorted({clip.video_id for clip in self.validation}),
            "failed": self.failed,
            "silent": silence([*self.training, *self.validation])[0],
            "notes": self.notes,
        }


def data_digest(clips: Collection[CachedClip]) -> str:
    """Return the SHA-256 of which clips, made from what."""
    lines = sorted(f"{clip.clip_id} {clip.key}\n" for clip in clips)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def num_steps(config: TrainConfig, num_clips: int) -> tuple[int, int]:
    """Count the steps of an epoch and of the whole training.

    Raises:
        UsageError: there are too few clips for a step.
    """
    epoch = num_clips // config.batch // config.accumulate
    if not epoch:
        raise UsageError(
            f"{num_clips} clips to train on make no step of {config.accumulate} x {config.batch};"
            f" name more, or --set train.batch={max(2, num_clips)}."
        )
    return epoch, epoch * config.epochs


def train(
    recipe: Recipe,
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    *,
    rank: Rank | None = None,
    workers: int = 0,
    log: TrainingLog | None = None,
) -> Checkpoint:
    """Train, or go on where ``out`` says training was.

    Args:
        recipe: the model.
        config: settings.
        data: clips that are in the cache.
        out: the folder of ``last.pt``, ``best.pt`` and the log.
        rank: this process; alone on the CPU by default.
        workers: processes that read clips.
        log: told of all that happens; by default one in ``out``.

    Returns:
        The last checkpoint.

    Raises:
        UsageError: ``out`` holds a training with other settings or clips.
        AvatarBuildError: the loss is no longer a number; names the batch's clips.
    """
    rank = rank or Rank()
    steps_per_epoch, total = num_steps(config, len(data.training))
    if config.batch % rank.world_size:
        raise UsageError(f"train.batch {config.batch} is no multiple of {rank.world_size} ranks.")
    if config.best == "sensitivity" and len(data.validation) < 2:
        raise UsageError(
            "train.best=sensitivity needs two clips of validation, whose sounds are exchanged, and"
            f" there is {len(data.validation)}. Raise train.validation, or name more clips."
        )

    state = from_first(lambda: resumable(out, recipe, config, data), rank)
    training = _Training(recipe, config, data, rank, total, state)
    batches = training.train_batches(workers)

    # One rank writes files.
    first: AbstractContextManager[TrainingLog | None] = log or TrainingLog(out)
    with nullcontext() if rank.index else first as log:
        if log:
            log.start(training.step, total, training.checkpoint(whole=False))
            write_card(out, training.checkpoint(whole=False), total, data.held_out)
        while training.step < total:
            started = time.monotonic()
            row = training.take_step(batches)
            seconds = time.monotonic() - started
            epoch_ends = training.step % steps_per_epoch == 0
            if log:
                row["epoch"] = round(training.step / steps_per_epoch, 4)
                row["clips_per_s"] = round(config.batch * config.accumulate / seconds, 3)
                log.step(row)

            # All ranks validate; the best so far is kept apart from the last.
            if epoch_ends and data.validation:
                loss = training.validate(workers)
                # One rank asks about few clips sooner than many agree on their sums.
                numbers = training.label_free.numbers(training.model, rank.device) if log else {}
                is_best = training.is_best(loss, numbers)
                if is_best:
                    training.best = {"step": float(training.step), "loss": loss, **numbers}
                if log and is_best:
                    training.checkpoint(whole=False).save(out / BEST)
                if log:
                    row = {"step": training.step, "validation_loss": loss, "best": is_best}
                    log.validated(row | numbers)

            # Saved after the validation: a training that is resumed does not validate again.
            if log and (epoch_ends or training.step % config.checkpoint_every == 0):
                training.checkpoint().save(out / LAST)
        if log:
            if not data.validation:
                training.checkpoint(whole=False).save(out / BEST)
            log.end()
            write_card(out, training.checkpoint(whole=False), total, data.held_out)
    return training.checkpoint()


class _Training:
    """The model and its optimiser on the way from one step to the next.

    Args:
        recipe: the model.
        config: settings.
        data: clips that are in the cache.
        rank: this process.
        total: the number of steps.
        state: the checkpoint to go on from; None begins anew.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: TrainConfig,
        data: TrainingData,
        rank: Rank,
        total: int,
        state: Checkpoint | None,
    ) -> None:
        self.recipe, self.config, self.data = recipe, config, data
        self.rank, self.total = rank, total
        self.step = state.step if state else 0
        """The number of steps done."""
        self.best = state.best if state else None
        self.label_free = LabelFree(recipe, data.validation, config)
        self._record, self._revision = data.record(), code_revision()

        torch.manual_seed(config.seed)
        model = recipe.make_network()
        self._weights_from = state.weights_from if state else recipe.initialise(model)
        if state:
            model.load_state_dict(state.model)
        model.to(rank.device)
        if rank.world_size > 1 and rank.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        self.model = model
        self.optimizer = make_optimizer(model, config)
        if state and state.optimizer is not None:
            self.optimizer.load_state_dict(state.optimizer)
        # Three views of the same parameters: validation and checkpoints use the model itself.
        self._ddp = wrap_ddp(model, rank)
        self._compiled: Any = torch.compile(self._ddp) if config.compile else self._ddp

    def train_batches(self, workers: int) -> Iterator[Batch]:
        """Yield this rank's part of every batch that is left."""
        config = self.config
        clips = ClipDataset(self.data.training, self.recipe, config.clip_s, config.seed)
        ahead = round(config.ahead_gb * 1e9)
        numbers = range(self.step * config.accumulate, self.total * config.accumulate)
        return train_batches(clips, config.batch, config.seed, numbers, self.rank, workers, ahead)

    def take_step(self, batches: Iterator[Batch]) -> dict[str, Any]:
        """Take one step over the next ``accumulate`` batches; return its row of the log."""
        config = self.config
        first_batch = self.step * config.accumulate
        rate = learning_rate(config, self.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout follows from the step alone, so that a resumed training drops out the same.
        digest = hashlib.sha256(f"{config.seed} {self.step} {self.rank.index}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8]) >> 1)

        self.model.train()
        loss_sum = 0.0
        for number in range(config.accumulate):
            # DDP shares gradients once per step, with its last batch.
            is_last = number == config.accumulate - 1
            loss_sum += self._backward(next(batches), first_batch + number, is_last=is_last)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm or math.inf)
        self._check_finite(norm, "gradient", first_batch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.recipe.after_step(self.model)
        self.step += 1
        return {
            "step": self.step,
            "loss": loss_sum / config.accumulate,
            "gradient_norm": norm.item(),
            "learning_rate": rate,
        }

    def _backward(self, batch: Batch, number: int, *, is_last: bool) -> float:
        """Add a batch's gradients to the model's, and return its loss."""
        config, rank = self.config, self.rank
        no_sync: Any = getattr(self._ddp, "no_sync", nullcontext)

        def compute(part: Batch) -> dict[str, Tensor]:
            return run_network(self._compiled, part, config, rank.device)

        def loss_backward(outputs: dict[str, Tensor]) -> float:
            loss: Any = self.recipe.loss(gather(outputs, rank))
            self._check_finite(loss, "loss", number)
            # DDP averages over ranks what must be summed: see tavlo.training.distributed.
            (loss * rank.world_size / config.accumulate).backward()
            return float(loss.item())

        parts = parts_of(batch, config.sub_batch)
        if len(parts) > 1:
            return backward_in_parts(
                parts, compute, loss_backward, self.model, no_sync, is_last=is_last
            )
        with nullcontext() if is_last else no_sync():
            return loss_backward(compute(batch))

    @torch.no_grad()
    def validate(self, workers: int) -> float:
        """Compute the mean loss over all validation clips, without augmentation."""
        config = self.config
        clips = ClipDataset(self.data.validation, self.recipe, config.clip_s, None)
        self.model.eval()
        loss_sum = 0.0
        ahead = round(config.ahead_gb * 1e9)
        for batch in validation_batches(clips, config.batch, self.rank, workers, ahead):
            parts = parts_of(batch, config.sub_batch)
            outputs = joined(
                [run_network(self.model, part, config, self.rank.device) for part in parts]
            )
            loss_sum += self.recipe.loss(outputs).item() * len(batch.clip_ids)
        loss = sum_over_ranks(loss_sum, self.rank) / len(clips)
        if not math.isfinite(loss):
            raise AvatarBuildError(f"the validation loss is {loss}; the last checkpoint is good.")
        return loss

    def is_best(self, loss: float, numbers: dict[str, float]) -> bool:
        """Say whether a validation is better than the best before, by what ``train.best`` names."""
        if self.config.best == "loss":
            return self.best is None or loss < self.best["loss"]
        if SENSITIVITY not in numbers:
            return False  # a rank that writes no files
        return self.best is None or numbers[SENSITIVITY] > self.best[SENSITIVITY]

    def checkpoint(self, *, whole: bool = True) -> Checkpoint:
        """Return a checkpoint of this step; whole, with what it takes to resume."""
        return Checkpoint(
            recipe=self.recipe.name,
            recipe_config=self.recipe.config(),
            train_config=self.config.model_dump(mode="json"),
            weights_from=self._weights_from,
            data=self._record,
            step=self.step,
            best=self.best,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict() if whole else None,
            revision=self._revision,
            preset=self.recipe.preset,
        )

    def _check_finite(self, value: Tensor, what: str, number: int) -> None:
        """Stop at the first value that is no number, naming the clips of the whole batch."""
        if torch.isfinite(value):
            return
        clips, config = self.data.training, self.config
        _, indices = batch_indices(len(clips), config.batch, config.seed, number)
        names = ", ".join(clips[index].clip_id for index in indices)
        raise AvatarBuildError(
            f"step {self.step + 1}: the {what} is {value.item()}. Its clips: {names}. The last"
            " checkpoint is good; a lower train.learning_rate may help."
        )


def run_network(
    network: Any, batch: Batch, config: TrainConfig, device: torch.device
) -> dict[str, Tensor]:
    """Compute the outputs of a batch on the device, in the precision of the settings."""
    inputs = {name: value.to(device, non_blocking=True) for name, value in batch.inputs.items()}
    with config.autocast(device):
        outputs: dict[str, Tensor] = network(inputs)
    return outputs


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Compute the learning rate of a step: a line up, then half a cosine down, or none.

    >>> settings = TrainConfig(warmup=0.1, learning_rate=1.0)
    >>> [round(learning_rate(settings, step, 100), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    rising = round(config.warmup * total)
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - rising) / (total - rising)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def resumable(
    out: Path, recipe: Recipe, config: TrainConfig, data: TrainingData | None
) -> Checkpoint | None:
    """Read the checkpoint that a training in ``out`` goes on from; None when it has none.

    Args:
        out: a training's folder.
        recipe: asked for.
        config: asked for.
        data: asked for; None leaves it unchecked.

    Raises:
        UsageError: it was made with other settings, or from other clips.
    """
    path = out / LAST
    if not path.exists():
        return None
    state = load_checkpoint(path)
    was = {
        "recipe": state.recipe,
        **_dotted("train", recorded_config(state.train_config).deciding()),
    }
    asked = {"recipe": recipe.name, **_dotted("train", config.deciding())}
    if state.recipe == recipe.name:
        # Made anew, older names of settings become the new ones.
        was |= _dotted(state.recipe, make_recipe(state.recipe, state.recipe_config).config())
    asked |= _dotted(recipe.name, recipe.config())
    if data is not None:
        record = data.record()
        for name in ("digest", "validation_digest"):
            was[f"clips ({name})"] = state.data[name]
            asked[f"clips ({name})"] = record[name]
    for name in [*asked, *was]:
        if was.get(name) != asked.get(name):
            raise UsageError(
                f"{path} was trained with {name} = {was.get(name)!r}, and"
                f" {asked.get(name)!r} is asked for. Name another --out, or ask for the same."
            )
    return state


def _dotted(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = _dotted(f"{prefix}.{name}", value) if isinstance(value, dict) else None
        found |= inner if inner is not None else {f"{prefix}.{name}": value}
    return found


_DECAYED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights AdamW draws to zero."""


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimiser; with AdamW two groups of parameters, decayed and free."""
    trained = [value for value in model.parameters() if value.requires_grad]
    if config.optimizer == "adam":
        return torch.optim.Adam(trained, config.learning_rate, weight_decay=config.weight_decay)
    # What more than one axis tells: kernels, matrices, and positions, which are no layer's weight.
    decayed = {id(value) for value in trained if value.ndim > 1}
    if not config.decay_positions:
        layers = (part for part in model.modules() if isinstance(part, _DECAYED))
        decayed &= {id(layer.weight) for layer in layers}
    groups = [
        {"params": [v for v in trained if id(v) in decayed], "weight_decay": config.weight_decay},
        {"params": [v for v in trained if id(v) not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)
