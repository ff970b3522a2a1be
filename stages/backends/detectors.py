"""Parts that detectors with a network share: checks and loading, batches, the best of an answer."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import ProposeConfig
from pipeline.errors import InputError, UsageError
from pipeline.models.register import find_model
from stages.backends.device import Precision, ahead, halving
from stages.backends.interfaces import Detection, FrameInput

if TYPE_CHECKING:
    import torch

CANDIDATES = 10_000
"""Pairs of box and class that are compared with one another, best first."""


def check_size(file: Path, name: str) -> None:
    """Hold the size of a detector's weights against the documented one.

    Variants of one architecture differ in it by 1.7 times at least, and may differ in nothing else
    that shows without loading them.

    Raises:
        UsageError: it is off by more than a quarter.
    """
    model, megabytes = find_model(name), file.stat().st_size / 1e6
    if not 0.8 < megabytes / model.about_mb < 1.25:
        raise UsageError(
            f"{file}: {megabytes:.1f} MB, so it is another model: {name} has about"
            f" {model.about_mb} MB. Get the authors' file: 'avatar-build models fetch {name}'."
        )


def load_folder(kind: str, folder: Path, **settings: Any) -> tuple[Any, Any]:
    """Load a network for evaluation, on the CPU, and its image processor from a local folder.

    Args:
        kind: transformers' automatic class that makes the network.
        folder: as published; nothing else is read and nothing fetched.
        settings: more for the network.

    Raises:
        UsageError: a part is missing or foreign, naming the first wrong tensor.
    """
    _check_names_no_other(folder / "config.json")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
    import transformers
    from safetensors import SafetensorError

    hub: Any = transformers
    hub.utils.logging.set_verbosity_error()
    hub.utils.logging.disable_progress_bar()
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        network, loaded = getattr(hub, kind).from_pretrained(
            folder,
            use_safetensors=True,
            output_loading_info=True,
            dtype="float32",
            **local,
            **settings,
        )
        look = hub.AutoImageProcessor.from_pretrained(folder, **local)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{folder}: not a detector transformers can read: {said}") from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if loaded[what]:
            first = min(str(name) for name in loaded[what])
            raise UsageError(f"{folder}: {what.replace('_keys', '')} tensor {first}.")
    return network.eval(), look


def _check_names_no_other(config: Path) -> None:
    """Refuse settings that name a network elsewhere, which would be fetched.

    Raises:
        UsageError: they do, or are no JSON object.
    """
    try:
        waiting = [json.loads(config.read_text(encoding="utf-8"))]
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{config}: not the settings of a network: {error}.") from error
    while waiting:
        values = waiting.pop()
        if isinstance(values, list):
            waiting += values
        if not isinstance(values, dict):
            continue
        waiting += values.values()
        kind = str(values.get("model_type", ""))
        if kind.startswith("timm") or values.get("use_timm_backbone") or values.get("backbone"):
            named = values.get("backbone") or values.get("architecture") or kind
            raise UsageError(
                f"{config}: names {str(named)[:80]!r}, a network outside of its folder."
            )


class TransformersDetector(ABC):
    """A detector whose network and image processor transformers loads from a folder."""

    _config: ProposeConfig
    _device: torch.device
    _look: Any
    """The image processor."""

    def detect(self, inputs: Iterable[FrameInput]) -> Iterator[list[Detection]]:
        """Yield the boxes of each frame; a place that fits two classes gives two boxes."""

        def prepare(batch: Sequence[FrameInput]) -> list[tuple[FrameInput, Any]]:
            looked = self._look(images=[item.image for item in batch], return_tensors="pt")
            return list(zip(batch, looked["pixel_values"], strict=True))

        longest_px = max(dict(self._look.size).values())
        most = frames_at_once(self._config, self._device, longest_px)
        for batch in ahead(in_batches(inputs, most), prepare):
            yield from halving(batch, self._run)

    @abstractmethod
    def _run(self, batch: Sequence[tuple[FrameInput, torch.Tensor]]) -> list[list[Detection]]:
        """Return the boxes of each frame of a batch, given with its pixels."""


def to_corners(boxes: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Return boxes of centre and sides, as fractions of the frame, as corners in its pixels.

    Args:
        boxes: ``(n, 4)``.
        width: of the frame, pixels.
        height: likewise.
    """
    import torch

    size = torch.tensor([width, height], device=boxes.device)
    centres, halves = boxes[:, :2] * size, boxes[:, 2:] * size / 2
    return torch.cat((centres - halves, centres + halves), 1)


def in_batches(inputs: Iterable[FrameInput], most: int) -> Iterator[list[FrameInput]]:
    """Yield neighbours of one size together, ``most`` at once (at least one)."""
    batch: list[FrameInput] = []
    for item in inputs:
        if batch and (len(batch) >= most or item.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def frames_at_once(config: ProposeConfig, device: torch.device, longest_px: int) -> int:
    """Return the number of frames that a network is given together.

    One on a CPU: more would not be faster, and answers must not depend on a frame's neighbours.
    """
    if device.type == "cpu":
        return 1
    return max(1, int(config.batch_mpx * 1e6) // longest_px**2)


def box_precision(config: ProposeConfig, device: torch.device) -> Precision:
    """Return the number format; auto is float16 on a GPU: bfloat16 moves boxes by pixels."""
    if config.precision == "auto" and device.type == "cuda":
        return "float16"
    return config.precision


def best_boxes(
    boxes_xyxy: torch.Tensor, scores: torch.Tensor, config: ProposeConfig
) -> list[tuple[list[float], int, float]]:
    """Return boxes with class and score, best first; one place may give several classes.

    Args:
        boxes_xyxy: corners, ``(n, 4)``.
        scores: of each box for each class, in [0, 1], ``(n, classes)``.
        config: its ``raw_*`` settings are the bounds.

    Raises:
        InputError: ``not_a_number``: the network answered nonsense.
    """
    import torch
    from torchvision.ops import batched_nms

    boxes, scores = boxes_xyxy.float(), scores.float()
    if not (torch.isfinite(boxes).all() and torch.isfinite(scores).all()):
        raise InputError("not_a_number", "the detector's answer is not finite")
    place, label = torch.nonzero(scores >= config.raw_score, as_tuple=True)
    score = scores[place, label]
    order = torch.argsort(score, descending=True, stable=True)[:CANDIDATES]
    place, label, score = place[order], label[order], score[order]
    kept = batched_nms(boxes[place], score, label, config.raw_iou)[: config.raw_boxes]
    best = (boxes[place[kept]].tolist(), label[kept].tolist(), score[kept].tolist())
    return list(zip(*best, strict=True))
