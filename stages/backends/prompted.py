"""The way SAM and its successors run: frames prepared ahead, embedded in batches, then prompted.

Each frame is embedded once, however many boxes it has. The model offers three masks per box: one
*agrees* when its own bounding box overlaps the prompt by ``segment.min_box_iou``; of those that
agree the one of highest predicted IoU is taken, and if none does, the one that overlaps best.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SegmentConfig
from pipeline.extras import need_packages
from pipeline.models import require
from pipeline.workspace.storage import Storage
from stages.backends.device import ahead, halving, inference, worker_device
from stages.backends.interfaces import Hint, Image, Prompt, Segmented

if TYPE_CHECKING:
    import torch

_STABILITY_OFFSET = 1.0
"""Logits above and below the threshold between which a mask should not change (SAM's own)."""


@dataclass(frozen=True)
class Prepared:
    """A frame as the model wants it."""

    pixels: torch.Tensor
    """``(3, height, width)``, on the CPU."""
    size: tuple[int, int]
    """Height and width of the frame."""
    boxes: NDArray[np.float32]
    """``(n, 4)``: x0, y0, x1, y1 in pixels of the frame."""
    points: NDArray[np.float32] | None = None
    """``(k, 2)``: x, y of what a person said of the one box; none when nobody did."""
    inside: NDArray[np.int64] | None = None
    """``(k,)``: 1 where a point is on the thing, 0 where it is not."""


@dataclass(frozen=True)
class Embedded:
    """A frame a person works at."""

    embedding: Any
    size: tuple[int, int]
    """Height and width."""


class PromptedSegmenter(ABC):
    """A model with an image encoder and a decoder prompted with boxes."""

    has_weights = True
    packages: ClassVar[tuple[str, ...]]
    """Packages that it imports besides torch."""

    def __init__(self, config: SegmentConfig) -> None:
        self.name: str = config.segmenter
        self.digest = ""
        self._config = config

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digest of the weights."""
        need_packages("torch", *self.packages)
        return {"weights": require(self.name).sha256}

    def open(self, storage: Storage) -> None:
        """Load the registered weights.

        Raises:
            UsageError: they are not here, not what was registered, or not of this model.
        """
        self._device = worker_device(self._config.device)
        file = require(self.name)
        self.digest = file.sha256
        self.load(file.path, self._device)

    @abstractmethod
    def load(self, path: Path, device: torch.device) -> None:
        """Build the model from its file or folder."""

    @property
    @abstractmethod
    def input_pixels(self) -> int:
        """Pixels the encoder sees of a frame."""

    @abstractmethod
    def pixels(self, image: Image) -> torch.Tensor:
        """Make ``(3, height, width)`` of a frame, on the CPU; called by another thread."""

    @abstractmethod
    def encode(self, pixels: torch.Tensor) -> Sequence[Any]:
        """Compute the embedding of each frame of a batch."""

    @abstractmethod
    def decode(self, embedding: Any, frame: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits ``(n, 3, height, width)`` in the frame's size, predicted IoUs ``(n, 3)``.

        With points there is nothing ambiguous: one mask in place of three.
        """

    def segment(self, prompts: Iterable[Prompt]) -> Iterator[list[Segmented]]:
        """Yield the masks of each frame's boxes."""
        frames = ahead(prompts, self._prepared, depth=2 * self._batch())
        while batch := list(islice(frames, self._batch())):
            yield from halving(batch, self._run)

    def embed(self, image: Image) -> Embedded:
        """Compute what is worth keeping of a frame while somebody works at it."""
        with inference(self._device, self._config.precision):
            (embedding,) = self.encode(self.pixels(image)[None].to(self._device))
        height, width = image.shape[:2]
        return Embedded(embedding, (height, width))

    def refine(self, embedding: Embedded, hint: Hint) -> Segmented:
        """Segment the thing a person means; without points, as ``segment`` does for the box."""
        import torch

        points = inside = None
        if hint.points:
            points = np.array([point[:2] for point in hint.points], dtype=np.float32)
            inside = np.array([point[2] for point in hint.points], dtype=np.int64)
        boxes = _corners([hint.box])
        frame = Prepared(torch.empty(0), embedding.size, boxes, points, inside)
        with inference(self._device, "float32"):
            (answer,) = self._answers(embedding.embedding, frame)
        return answer

    def _batch(self) -> int:
        # One at a time costs a CPU nothing, and answers that do not depend on their neighbours.
        if self._device.type == "cpu":
            return 1
        return max(1, int(self._config.batch_mpx * 1e6) // self.input_pixels)

    def _prepared(self, prompt: Prompt) -> Prepared:
        height, width = prompt.image.shape[:2]
        return Prepared(self.pixels(prompt.image), (height, width), _corners(prompt.boxes))

    def _run(self, batch: Sequence[Prepared]) -> list[list[Segmented]]:
        import torch

        with inference(self._device, self._config.precision):
            stacked = torch.stack([frame.pixels for frame in batch]).to(self._device)
            embeddings = self.encode(stacked)
        # The decoder is cheap, and ranking its guesses needs more than bfloat16's three digits.
        with inference(self._device, "float32"):
            return [
                self._answers(embedding, frame)
                for embedding, frame in zip(embeddings, batch, strict=True)
            ]

    def _answers(self, embedding: Any, frame: Prepared) -> list[Segmented]:
        logits, ious = self.decode(embedding, frame)
        above = (logits > _STABILITY_OFFSET).sum((-2, -1))
        below = (logits > -_STABILITY_OFFSET).sum((-2, -1))
        stability = (above / below.clamp(min=1)).cpu().numpy()
        finite = logits.isfinite().all(-1).all(-1).cpu().numpy()
        guesses = np.where(finite, ious.float().cpu().numpy(), np.nan)
        masks = (logits > 0).cpu().numpy()
        answers = []
        for number, box in enumerate(frame.boxes):
            chosen = choose_mask(masks[number], guesses[number], box, self._config.min_box_iou)
            answers.append(
                Segmented(
                    masks[number, chosen],
                    float(guesses[number, chosen]),
                    float(stability[number, chosen]),
                )
            )
        return answers


def _corners(boxes: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    """Return boxes ``[x, y, w, h]`` as x0, y0, x1, y1."""
    xywh = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def choose_mask(
    masks: NDArray[np.bool_],
    predicted_ious: NDArray[np.floating[Any]],
    box: NDArray[np.floating[Any]],
    min_box_iou: float,
) -> int:
    """Choose one of the masks offered for a box.

    A mask whose predicted IoU is no number is taken before any other: it shows that the model
    failed, and the stage says so.

    Args:
        masks: ``(offers, height, width)``.
        predicted_ious: ``(offers,)``.
        box: x0, y0, x1, y1 in pixels.
        min_box_iou: how much a mask's own box must overlap it.
    """
    if np.isnan(predicted_ious).any():
        return int(np.isnan(predicted_ious).argmax())
    overlaps = np.array([_box_iou(mask, box) for mask in masks])
    agreeing = overlaps >= min_box_iou
    if not agreeing.any():
        return int(overlaps.argmax())
    return int(np.where(agreeing, predicted_ious, -np.inf).argmax())


def _box_iou(mask: NDArray[np.bool_], box: NDArray[np.floating[Any]]) -> float:
    """Return the IoU of a mask's bounding box with a box."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not columns.size:
        return 0.0
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    width = max(0.0, min(x1, box[2]) - max(x0, box[0]))
    height = max(0.0, min(y1, box[3]) - max(y0, box[1]))
    both = width * height
    area = float((x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1])) - both
    return float(both / area) if area > 0 else 0.0
