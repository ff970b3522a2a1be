"""The memory a step of training holds at once, counted on a few short blank clips.

What autograd saves for the gradients is counted storage by storage, part by part; it grows with
clips and frames along a line, and a contrastive loss with the square of the clips. To that come
weights, gradients, the optimiser's two averages, and the clips themselves. What is not counted:
passing results (a gradient on its way, a convolution's workspace), so that a step takes somewhat
more than is said, and what does not fit by it does not fit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pipeline.media.clip_cache import RATE_HZ, SIZE_PX, ClipTensors
from tavlo.network.model import STEM_CHUNK, Tavlo
from tavlo.training.data import Batch, collate
from tavlo.training.recipe import Recipe
from tavlo.training.training_config import TrainConfig

_FRAMES = (6, 12)
"""Lengths of the clips that are counted."""
_OTHERS = "the rest of the network"


@dataclass(frozen=True)
class Held:
    """Bytes that a step holds at once, by part."""

    parts: dict[str, int]
    """The bytes of each part, by what it is."""

    @property
    def total(self) -> int:
        """Return the sum."""
        return sum(self.parts.values())

    def sentence(self) -> str:
        """Say it to people."""
        parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self.parts.items())
        return f"memory of a step, at least, GB: {parts}; together {self.total / 1e9:.1f}."


@dataclass(frozen=True)
class _Count:
    """Bytes of one forward: saved by each part, of each part's input, of the outputs and inputs."""

    saved: dict[str, int]
    fed: dict[str, int]
    outputs: int
    inputs: int


class MemoryModel:
    """A model of what a step holds, for any number of clips and frames.

    Args:
        recipe: the model.
        config: the loop's settings.
        device: where it runs; the precision follows from it.
        run: computes the outputs of a batch, as training does.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: TrainConfig,
        device: torch.device,
        run: Callable[[nn.Module, Batch], dict[str, Tensor]],
    ) -> None:
        self._recipe, self._config = recipe, config
        model = recipe.make_network().to(device).train()
        if isinstance(model, Tavlo):
            model.recompute = False  # what is recomputed is told apart by its part below
        self._parameters = sum(value.nbytes for value in model.parameters())
        self._counts = [
            _count(model, self._batch(clips, frames), lambda batch: run(model, batch))
            for clips, frames in ((1, _FRAMES[0]), (1, _FRAMES[1]), (2, _FRAMES[0]))
        ]
        self._losses = {
            (clips, frames): _count_loss(recipe, run(model, self._batch(1, frames)), clips)
            for frames in _FRAMES
            for clips in (2, 3, 4)
        }

    def _batch(self, clips: int, frames: int) -> Batch:
        clip = ClipTensors(
            np.zeros((frames, SIZE_PX, SIZE_PX, 3), np.uint8),
            np.zeros(round(self._config.clip_s * RATE_HZ), np.float32),
        )
        return collate([("blank", self._recipe.sample(clip, None)) for _ in range(clips)])

    def _line(self, counted: list[int], clips: int, frames: int) -> int:
        """Return what is counted for other numbers: a constant, and more by clip and by frame."""
        one, longer, two = counted
        slope = (longer - one) / (_FRAMES[1] - _FRAMES[0])
        each = two - one - slope * _FRAMES[0]
        return max(0, round(2 * one - two + clips * (each + slope * frames)))

    def _loss(self, clips: int, frames: int) -> int:
        short, long = (
            float(
                np.polyval(np.polyfit((2, 3, 4), [self._losses[n, t] for n in (2, 3, 4)], 2), clips)
            )
            for t in _FRAMES
        )
        slope = (long - short) / (_FRAMES[1] - _FRAMES[0])
        return max(0, round(short + slope * (frames - _FRAMES[0])))

    def held(self, config: TrainConfig, *, recompute: bool, ranks: int = 1) -> Held:
        """Return what a step holds on one rank.

        Args:
            config: batch, sub-batch and frames.
            recompute: whether the network recomputes its parts.
            ranks: processes that share the batch.
        """
        frames, own = config.max_frames, config.batch // ranks
        clips = min(config.sub_batch or own, own)
        names = list(self._counts[0].saved)
        saved = {
            name: self._line([count.saved[name] for count in self._counts], clips, frames)
            for name in names
        }
        if recompute:
            saved = self._recomputed(saved, clips, frames)

        def outputs(clips: int) -> int:
            return self._line([count.outputs for count in self._counts], clips, frames)

        # Of sub-batches the outputs of all are held with their gradients; of ranks, of all ranks.
        kept = 2 * outputs(own) + outputs(clips) if clips < own else outputs(own)
        return Held(
            {
                "weights, gradients, optimiser": 4 * self._parameters,
                "clips": self._line([count.inputs for count in self._counts], own, frames),
                **_together(saved),
                "outputs": kept + (outputs(config.batch) if ranks > 1 else 0),
                "loss": self._loss(config.batch, frames),
            }
        )

    def _recomputed(self, saved: dict[str, int], clips: int, frames: int) -> dict[str, int]:
        """Return what is left when parts are recomputed: their inputs, and one part at a time."""
        parts = [name for name in saved if name != _OTHERS]
        if not parts:
            return saved
        at_once = {name: saved[name] for name in parts}
        if clips * frames > STEM_CHUNK:
            at_once[parts[0]] = at_once[parts[0]] * STEM_CHUNK // (clips * frames)
        largest = max(parts, key=lambda name: at_once[name])
        fed = sum(
            self._line([count.fed[name] for count in self._counts], clips, frames) for name in parts
        )
        return {
            "inputs of recomputed parts": fed,
            f"{largest} while it is recomputed": at_once[largest],
            _OTHERS: saved[_OTHERS],
        }

    def fitting(self, config: TrainConfig, limit: int, *, recompute: bool, ranks: int) -> str:
        """Name settings with which a step fits; empty where none is known.

        What changes nothing but time comes first, then smaller parts, then smaller batches.
        """
        own = config.batch // ranks
        on = recompute or self._recipe.name == "tavlo"
        sizes = [0, *(size for size in (16, 8, 4, 2, 1) if size < (config.sub_batch or own))]
        batches = [config.batch >> n for n in range(1, 6) if config.batch >> n >= max(2, ranks)]
        choices = [(size, config.batch) for size in sizes]
        choices += [(sizes[-1], batch) for batch in batches if batch % ranks == 0]
        for size, batch in choices:
            changed = config.model_copy(
                update={"sub_batch": size or config.sub_batch, "batch": batch}
            )
            # A tenth is left for passing results.
            if self.held(changed, recompute=on, ranks=ranks).total <= 0.9 * limit:
                said = ["tavlo.recompute=true"] if on and not recompute else []
                said += [f"train.sub_batch={size}"] if size else []
                said += [f"train.batch={batch}"] if batch != config.batch else []
                return " ".join(f"--set {one}" for one in said)
        return ""


def device_memory(device: torch.device) -> int:
    """Return the bytes of a device's memory; of a CPU, the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """Name what is recomputed as a whole, in the order it is computed."""
    if not isinstance(model, Tavlo):
        return {}
    stem, *stages = model.visual_encoder.stages
    parts = {"the encoder's stem": stem}
    parts |= {f"the encoder's stage {number}": one for number, one in enumerate(stages, 1)}
    return parts | {f"block {number}": one for number, one in enumerate(model.blocks, 1)}


def _together(saved: dict[str, int]) -> dict[str, int]:
    """Put the encoder's parts together, and the blocks, for people."""
    found: dict[str, int] = {}
    for name, size in saved.items():
        short = "blocks" if name.startswith("block ") and name[6:].isdigit() else name
        short = "encoder" if re.fullmatch(r"the encoder's (stem|stage \d+)", name) else short
        found[short] = found.get(short, 0) + size
    return found


def _count(model: nn.Module, batch: Batch, run: Callable[[Batch], dict[str, Tensor]]) -> _Count:
    """Count what one forward saves, by part."""
    parts = _parts(model)
    saved = dict.fromkeys([*parts, _OTHERS], 0)
    fed = dict.fromkeys(parts, 0)
    known = {_place(value) for value in [*model.parameters(), *model.buffers()]}
    current = [_OTHERS]

    def save(value: Tensor) -> Tensor:
        if _place(value) not in known:
            known.add(_place(value))
            saved[current[0]] += value.untyped_storage().nbytes()
        return value

    with ExitStack() as hooks:
        for name, part in parts.items():

            def enter(_part: nn.Module, args: Any, name: str = name) -> None:
                current[0] = name
                fed[name] = args[0].nbytes

            def leave(*_: Any) -> None:
                current[0] = _OTHERS

            hooks.callback(part.register_forward_pre_hook(enter).remove)
            hooks.callback(part.register_forward_hook(leave).remove)
        hooks.enter_context(saved_tensors_hooks(save, lambda value: value))
        outputs = run(batch)
    held = {_place(value): value.untyped_storage().nbytes() for value in outputs.values()}
    new = sum(size for place, size in held.items() if place not in known)
    return _Count(saved, fed, new, sum(value.nbytes for value in batch.inputs.values()))


def _count_loss(recipe: Recipe, outputs: dict[str, Tensor], clips: int) -> int:
    """Count what the loss of ``clips`` clips saves, given the outputs of one."""
    many = {
        name: value.detach().repeat(clips, *[1] * (value.ndim - 1))
        for name, value in outputs.items()
    }
    for value in many.values():
        value.requires_grad_(value.is_floating_point())
    known = {_place(value) for value in many.values()}
    total = 0

    def save(value: Tensor) -> Tensor:
        nonlocal total
        if _place(value) not in known:
            known.add(_place(value))
            total += value.untyped_storage().nbytes()
        return value

    with saved_tensors_hooks(save, lambda value: value):
        loss = recipe.loss(many)  # its graph keeps what is saved, and so its places
    del loss
    return total


def _place(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()
