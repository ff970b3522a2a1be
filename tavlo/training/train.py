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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.versions import code_revision
from tavlo.training.checkpoint import Checkpoint, load_checkpoint
from tavlo.training.data import ClipDataset, Share, even_batches, step_numbers, train_batches
from tavlo.training.distributed import joined, spread, summed
from tavlo.training.recipe import Recipe
from tavlo.training.training_clips import CachedClip, data_digest, silence
from tavlo.training.training_config import TrainConfig, train_config
from tavlo.training.training_log import TrainingLog

LAST, BEST = "last.pt", "best.pt"


@dataclass(frozen=True)
class TrainingData:
    """What is trained on."""

    training: list[CachedClip]
    validation: list[CachedClip]
    """Of other videos."""
    failed: dict[str, str]
    """Clips left out, with why."""
    notes: list[str] = field(default_factory=list)
    """What else to know of the clips."""

    def record(self) -> dict[str, Any]:
        """For the checkpoint."""
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


def num_steps(config: TrainConfig, num_clips: int) -> tuple[int, int]:
    """Steps of an epoch and of the whole training.

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
    share: Share | None = None,
    device: torch.device | None = None,
    workers: int = 0,
    log: TrainingLog | None = None,
) -> Checkpoint:
    """Train, or go on where ``out`` says training was.

    Args:
        recipe: the model.
        config: settings.
        data: clips whose feed files are there.
        out: the folder of ``last.pt``, ``best.pt`` and the log.
        share: this rank's; alone by default.
        device: where; the CPU by default.
        workers: processes that read clips.
        log: told of all that happens; by default one in ``out``.

    Returns:
        The last checkpoint.

    Raises:
        UsageError: ``out`` holds a training with other settings or clips.
        AvatarBuildError: the loss is no longer a number; names the batch's clips.
    """
    share, device = share or Share(), device or torch.device("cpu")
    per_epoch, total = num_steps(config, len(data.training))
    if config.batch % share.world:
        raise UsageError(f"train.batch {config.batch} is no multiple of {share.world} processes.")

    # The model, its optimiser, and the checkpoint they go on from.
    torch.manual_seed(config.seed)
    model = recipe.make_model()
    state = resumable(out, recipe, config, data)
    weights_from = state.weights_from if state else recipe.initialise(model)
    if state:
        model.load_state_dict(state.model)
    model.to(device)
    if share.world > 1 and device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    optimizer = _optimizer(model, config)
    if state and state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    net = spread(model, share, device)
    run: Any = torch.compile(net) if config.compile else net
    first, best = (state.step, state.best) if state else (0, None)
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    half = torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    # The clips, in the order they are needed.
    rules = config.rules
    training = ClipDataset(data.training, recipe, rules.length_s, config.seed)
    validation = ClipDataset(data.validation, recipe, rules.length_s, None)
    rounds = range(first * config.accumulate, total * config.accumulate)
    batches = train_batches(training, config.batch, config.seed, rounds, share, workers)

    record, revision = data.record(), code_revision()

    def checkpoint(step: int, *, whole: bool = True) -> Checkpoint:
        return Checkpoint(
            recipe=recipe.name,
            recipe_config=recipe.config(),
            train_config=config.model_dump(mode="json"),
            weights_from=weights_from,
            data=record,
            step=step,
            best=best,
            model=model.state_dict(),
            optimizer=optimizer.state_dict() if whole else None,
            revision=revision,
        )

    with _told(log, out, share) as log:
        if log:
            log.start(first, total, checkpoint(first, whole=False))
        for step in range(first, total):
            started = time.monotonic()
            torch.manual_seed(_step_seed(config.seed, step, share.rank))
            for group in optimizer.param_groups:
                group["lr"] = rate(config, step, total)

            model.train()
            loss_sum = 0.0
            for number in range(config.accumulate):
                batch = next(batches)
                inputs = {
                    name: value.to(device, non_blocking=True)
                    for name, value in batch.inputs.items()
                }
                with _syncs(net, number == config.accumulate - 1):
                    with half:
                        outputs = run(inputs)
                    loss: Any = recipe.loss(joined(outputs, share))
                    _check_finite(loss, "loss", step * config.accumulate + number, data, config)
                    # DDP averages over ranks what must be summed: see tavlo.training.distributed.
                    (loss * share.world / config.accumulate).backward()
                loss_sum += loss.item()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm or math.inf)
            _check_finite(norm, "gradient", step * config.accumulate, data, config)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            recipe.after_step(model)

            done = step + 1
            if log:
                seconds = time.monotonic() - started
                clips_per_s = config.batch * config.accumulate / seconds
                row = {
                    "step": done,
                    "epoch": round(done / per_epoch, 4),
                    "loss": loss_sum / config.accumulate,
                    "gradient_norm": norm.item(),
                    "learning_rate": rate(config, step, total),
                    "clips_per_s": round(clips_per_s, 3),
                }
                log.step(row)
            if done % per_epoch == 0 and data.validation:
                value = validate(model, recipe, validation, config, share, device, half, workers)
                if best is None or value < best["loss"]:
                    best = {"step": float(done), "loss": value}
                    if log:
                        checkpoint(done, whole=False).save(out / BEST)
                if log:
                    log.validated(
                        {"step": done, "validation_loss": value, "best": best["step"] == done}
                    )
            if log and (done % config.checkpoint_every == 0 or done % per_epoch == 0):
                checkpoint(done).save(out / LAST)
        if log:
            if not data.validation:
                checkpoint(total, whole=False).save(out / BEST)
            log.end()
    return checkpoint(total)


@torch.no_grad()
def validate(
    model: nn.Module,
    recipe: Recipe,
    data: ClipDataset,
    config: TrainConfig,
    share: Share,
    device: torch.device,
    half: Any,
    workers: int,
) -> float:
    """The mean loss over all clips, without augmentation."""
    model.eval()
    loss_sum = 0.0
    for batch in even_batches(data, config.batch, share, workers):
        inputs = {name: value.to(device, non_blocking=True) for name, value in batch.inputs.items()}
        with half:
            outputs = model(inputs)
        loss_sum += recipe.loss(outputs).item() * len(batch.clip_ids)
    value = summed(loss_sum, share, device) / len(data)
    if not math.isfinite(value):
        raise AvatarBuildError(f"the validation loss is {value}; the last checkpoint is good.")
    return value


def rate(config: TrainConfig, step: int, total: int) -> float:
    """The learning rate of a step: a line up, then half a cosine down, or none.

    >>> settings = TrainConfig(warmup=0.1, learning_rate=1.0)
    >>> [round(rate(settings, step, 100), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    rising = round(config.warmup * total)
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    if config.schedule == "constant":
        return config.learning_rate
    share = (step - rising) / (total - rising)
    return config.learning_rate * (1 + math.cos(math.pi * share)) / 2


def resumable(
    out: Path, recipe: Recipe, config: TrainConfig, data: TrainingData | None
) -> Checkpoint | None:
    """The checkpoint ``out`` would be gone on from; none when it has none.

    Args:
        out: a training's folder.
        recipe: asked for.
        config: asked for.
        data: asked for; none leaves it unchecked.

    Raises:
        UsageError: it was made with other settings, or from other clips.
    """
    path = out / LAST
    if not path.exists():
        return None
    state = load_checkpoint(path)
    was = {"recipe": state.recipe, **_dotted("train", train_config(state.train_config).deciding())}
    asked = {"recipe": recipe.name, **_dotted("train", config.deciding())}
    was |= _dotted(state.recipe, state.recipe_config)
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


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    trained = [value for value in model.parameters() if value.requires_grad]
    if config.optimizer == "adam":
        return torch.optim.Adam(trained, config.learning_rate, weight_decay=config.weight_decay)
    groups = [
        {"params": [v for v in trained if v.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [v for v in trained if v.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _step_seed(seed: int, step: int, rank: int) -> int:
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


@contextmanager
def _told(log: TrainingLog | None, out: Path, share: Share) -> Iterator[TrainingLog | None]:
    """The log, on the one rank that writes files."""
    if share.rank:
        yield None
        return
    out.mkdir(parents=True, exist_ok=True)
    with log or TrainingLog(out) as own:
        yield own


@contextmanager
def _syncs(net: nn.Module, last: bool) -> Iterator[None]:
    """Ranks share gradients once per step, with its last batch."""
    waits: Callable[[], Any] = nullcontext if last else getattr(net, "no_sync", nullcontext)
    with waits():
        yield


def _check_finite(
    value: Tensor, what: str, number: int, data: TrainingData, config: TrainConfig
) -> None:
    """Stop at the first value that is no number, naming the clips of the whole batch."""
    if not torch.isfinite(value):
        _, places = step_numbers(len(data.training), config.batch, config.seed, number)
        names = ", ".join(data.training[place].clip_id for place in places)
        raise AvatarBuildError(
            f"step {number // config.accumulate + 1}: the {what} is {value.item()}. Its clips:"
            f" {names}. The last checkpoint is good; a lower train.learning_rate may help."
        )
