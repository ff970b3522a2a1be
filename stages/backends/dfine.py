"""D-FINE of Objects365's or COCO's classes, through transformers.

Peng et al., "D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement",
2024. Code and weights are Apache-2.0. Only files of the registered folder are read, and only
safetensors. Its queries are one box each, but two may find one thing; the published post-processing
leaves them, ours suppresses within a class as for every detector.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import ProposeConfig
from pipeline.errors import UsageError
from pipeline.extras import need_packages
from pipeline.models import require
from pipeline.workspace.storage import Storage
from stages.backends.detectors import (
    TransformersDetector,
    best_boxes,
    box_precision,
    check_size,
    load_folder,
    to_corners,
)
from stages.backends.device import inference, worker_device
from stages.backends.interfaces import Detection, FrameInput, Vocabulary
from stages.taxonomy import check_classes, seen_classes

if TYPE_CHECKING:
    import torch

_NONE = "None"
"""The class of those of Objects365 that stands for nothing; its numbers begin with 1."""

_LARGEST_PX = 2048
"""Side of the largest input taken; the published ones are 640 wide and high."""


class DFineDetector(TransformersDetector):
    """Find objects of Objects365's 365 classes or COCO's 80."""

    has_weights = True
    nothing = "no_target_box"

    def __init__(self, config: ProposeConfig) -> None:
        self.name = config.detector
        self.vocabulary: Vocabulary = vocabulary_of(self.name)
        self._config = config

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digest of the weights, whose files are looked at without loading them.

        Raises:
            UsageError: they are not here, not what was registered, or not such a network.
        """
        need_packages("torch", "torchvision", "transformers")
        files = require(self.name)
        check_folder(files.path, self.name)
        return {"weights": files.sha256}

    def open(self, storage: Storage) -> None:
        """Load the registered weights.

        Raises:
            UsageError: they are not here, not what was registered, or not such a network.
        """
        self._device = worker_device(self._config.device)
        folder = require(self.name).path
        self._first = check_folder(folder, self.name)
        network, self._look = load_folder("AutoModelForObjectDetection", folder)
        self._network = network.to(self._device)

    def _run(self, batch: Sequence[tuple[FrameInput, torch.Tensor]]) -> list[list[Detection]]:
        import torch

        images = torch.stack([pixels for _, pixels in batch]).to(self._device)
        with inference(self._device, box_precision(self._config, self._device)):
            answer = self._network(pixel_values=images)
        scores = answer.logits.float().sigmoid()[..., self._first :]  # (batch, queries, classes)
        boxes = answer.pred_boxes.float()
        return [
            self._boxes(item, boxes[place], scores[place]) for place, (item, _) in enumerate(batch)
        ]

    def _boxes(
        self, item: FrameInput, boxes: torch.Tensor, scores: torch.Tensor
    ) -> list[Detection]:
        corners = to_corners(boxes, item.frame.width, item.frame.height)
        names = seen_classes(self.vocabulary)
        return [
            Detection([x0, y0, x1 - x0, y1 - y0], names[label], score)
            for (x0, y0, x1, y1), label, score in best_boxes(corners, scores, self._config)
        ]


def vocabulary_of(name: str) -> Vocabulary:
    """Return the vocabulary of a detector by its name.

    >>> vocabulary_of("dfine-small-obj365"), vocabulary_of("dfine-large-obj2coco")
    ('objects365', 'coco')
    """
    return "objects365" if name.endswith("-obj365") else "coco"


def check_folder(folder: Path, name: str) -> int:
    """Hold a folder's settings and the head of its weights against what a detector should be.

    Args:
        folder: with ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``.
        name: of the detector.

    Returns:
        The place of the vocabulary's first class in the network's outputs: 1 where the class of
        nothing comes before it.

    Raises:
        UsageError: naming the file and what is wrong in it.
    """
    way_out = f"Get the authors' files: 'avatar-build models fetch {name}'."
    settings, look = (_read(folder / file, way_out) for file in _SETTINGS)
    kind = settings.get("model_type")
    if kind != "d_fine":
        raise UsageError(f"{folder}/config.json: model_type is {kind!r}, not 'd_fine'. {way_out}")
    said = settings.get("id2label")
    try:
        names = {int(place): str(label) for place, label in dict(said or {}).items()}
        sides = [int(side) for side in dict(look["size"]).values()]
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(
            f"{folder}: its settings hold no names of classes or no size of the input ({error})."
            f" {way_out}"
        ) from error
    first = int(names.get(0) == _NONE)
    if first:
        names = {place - 1: label for place, label in names.items() if place}
    check_classes(names, vocabulary_of(name), folder / "config.json")
    if not sides or not all(32 <= side <= _LARGEST_PX for side in sides):
        raise UsageError(
            f"{folder}/preprocessor_config.json: size is {sides}, not 32 to {_LARGEST_PX} pixels."
            f" {way_out}"
        )
    weights = folder / "model.safetensors"
    _check_head(weights, len(names) + first, way_out)
    check_size(weights, name)
    return first


_SETTINGS = ("config.json", "preprocessor_config.json")


def _read(file: Path, way_out: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: cannot be read as JSON ({error}). {way_out}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file}: not a JSON object. {way_out}")
    return found


def _check_head(weights: Path, classes: int, way_out: str) -> None:
    """Read the names and shapes of the tensors, and compare those that give the classes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as tensors:
            shapes = {
                key: tensors.get_slice(key).get_shape()
                for key in tensors.keys()  # noqa: SIM118  no mapping
                if "class_embed" in key and key.endswith(".weight") and "denoising" not in key
            }
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{weights}: no safetensors file ({error}). {way_out}") from error
    if not shapes or any(shape[0] != classes for shape in shapes.values()):
        found = ", ".join(f"{key} {shape}" for key, shape in sorted(shapes.items())[:2])
        raise UsageError(
            f"{weights}: {found or 'no tensor class_embed'}; its config.json names {classes}"
            f" classes. {way_out}"
        )
