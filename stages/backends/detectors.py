"""Parts that detectors with a network share: batches of frames, the best of a dense answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from stages.backends.device import Precision
from stages.backends.interfaces import FrameInput

if TYPE_CHECKING:
    import torch

CANDIDATES = 10_000
"""Pairs of box and class that are compared with one another, best first."""


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
