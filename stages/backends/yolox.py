"""YOLOX of COCO's 80 classes, from its authors' ONNX files, through onnxruntime.

onnxruntime, because it takes less than half of OpenCV's time for the same answers: on one thread
6.9 ms of CPU time for nano's network against 16 (OpenCV 5.0) and 60 (4.12), which differ by 2e-4;
0.11 s against 0.25 for dense layers of the size of s. It runs on the CPU.

A file is data: its operators are the runtime's own, and what it takes and gives is looked at
before any worker starts. It names no classes; their number is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import ProposeConfig
from pipeline.errors import InputError, UsageError
from pipeline.extras import need_packages
from pipeline.models import require
from pipeline.workspace.storage import Storage
from stages.backends.detectors import CANDIDATES, check_size
from stages.backends.device import ahead
from stages.backends.interfaces import Detection, FrameInput, Image, Vocabulary
from stages.taxonomy import seen_classes

_STRIDES = (8, 16, 32)
"""Pixels from one place of the answer to the next, on its three grids in the answer's order."""

_GREY = 114
"""The grey that the margin is filled with, as in training."""

_SIDES_PX = {
    "yolox-nano": 416,
    "yolox-tiny": 416,
    "yolox-s": 640,
    "yolox-m": 640,
    "yolox-l": 640,
    "yolox-x": 640,
}
"""Height and width of the input, as the authors exported it."""


class YoloxDetector:
    """Find objects of COCO's 80 classes."""

    has_weights = False  # none that run on the device of the settings
    nothing = "no_target_box"
    vocabulary: Vocabulary = "coco"

    def __init__(self, config: ProposeConfig) -> None:
        self.name = config.detector
        self._config = config

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digest of the weights, which are the variant's by all that can be told.

        Raises:
            UsageError: they are not here, not what was registered, or not such a network.
        """
        need_packages("onnxruntime")
        file = require(self.name)
        load_network(file.path, self.name, to_run=False)
        return {"weights": file.sha256}

    def open(self, storage: Storage) -> None:
        """Load the registered weights."""
        self._network = load_network(require(self.name).path, self.name)

    def detect(self, inputs: Iterable[FrameInput]) -> Iterator[list[Detection]]:
        """Yield the boxes of each frame; a box of two likely classes is two boxes."""
        side = side_px(self.name)
        for pixels, scale in ahead(inputs, lambda item: prepare(item.image, side)):
            (raw,) = self._network.run(None, {self._network.get_inputs()[0].name: pixels})
            yield detections(raw[0], side, scale, self._config)


def side_px(name: str) -> int:
    """Return the height and width of a detector's input.

    >>> side_px("yolox-nano"), side_px("yolox-x")
    (416, 640)
    """
    return _SIDES_PX[name]


def load_network(path: Path, name: str, *, to_run: bool = True) -> Any:
    """Load the network of a variant from its ONNX file, for one thread.

    Args:
        path: the file.
        name: of the detector.
        to_run: prepare it for being run; else only for being looked at.

    Raises:
        UsageError: it is no ONNX file, or not of this variant and these classes.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    way_out = f"Get the authors' file: 'avatar-build models fetch {name}'."
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is fatal; the rest is raised
    if not to_run:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    broken = (raised.Fail, raised.InvalidArgument, raised.InvalidGraph, raised.InvalidProtobuf)
    other = (raised.NotImplemented, raised.RuntimeException, raised.NoSuchFile, raised.EPFail)
    try:
        network = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (*broken, *other) as error:
        said = " ".join(str(error).rpartition("failed:")[2].split())[-200:]
        raise UsageError(f"{path}: no ONNX network that can be read ({said}). {way_out}") from error
    if wrong := _foreign_shape(network, name):
        raise UsageError(f"{path}: {wrong}. {way_out}")
    check_size(path, name)
    return network


def _foreign_shape(network: Any, name: str) -> str:
    """Say what a network takes or gives that the variant does not; empty when there is nothing."""
    side, classes = side_px(name), len(seen_classes("coco"))
    places = sum((side // stride) ** 2 for stride in _STRIDES)
    for what, found, wanted in (
        ("takes", network.get_inputs(), [1, 3, side, side]),
        ("gives", network.get_outputs(), [1, places, 5 + classes]),
    ):
        shapes = [(one.shape, one.type) for one in found]
        if shapes != [(wanted, "tensor(float)")]:
            said = ", ".join(f"{shape} ({kind})" for shape, kind in shapes) or "nothing"
            return f"it {what} {said}; {name} of {classes} classes {what} {wanted} (tensor(float))"
    return ""


def prepare(image: Image, side: int) -> tuple[NDArray[np.float32], float]:
    """Return an image as the network wants it, ``(1, 3, side, side)``, and its scale.

    It is scaled to fit, put into the upper left and surrounded with grey; blue comes first, values
    stay in [0, 255]. From the authors' ``ValTransform``.

    Args:
        image: RGB.
        side: height and width of the network's input, pixels.
    """
    import cv2

    height, width = image.shape[:2]
    scale = min(side / height, side / width)
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    field = np.full((side, side, 3), _GREY, np.uint8)
    field[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    planes = field[:, :, ::-1].transpose(2, 0, 1)[None]
    return np.ascontiguousarray(planes, dtype=np.float32), scale


def detections(
    raw: NDArray[np.float32], side: int, scale: float, config: ProposeConfig
) -> list[Detection]:
    """Return the boxes of an answer, best first.

    Args:
        raw: as the network gives it, ``(places, 5 + classes)``: x, y, log w, log h, objectness and
            the classes' scores, the last two in [0, 1].
        side: height and width of the network's input, pixels.
        scale: of the frame in it.
        config: its ``raw_*`` settings are the bounds.

    Raises:
        InputError: ``not_a_number``: the network answered nonsense.
    """
    import cv2

    with np.errstate(over="ignore"):
        xywh = decoded(raw, side) / scale
    scores = raw[:, 4:5] * raw[:, 5:]
    if not (np.isfinite(xywh).all() and np.isfinite(scores).all()):
        raise InputError("not_a_number", "the detector's answer is not finite")
    place, label = np.nonzero(scores >= config.raw_score)
    order = np.argsort(-scores[place, label], kind="stable")[:CANDIDATES]
    place, label = place[order], label[order]
    boxes, score = xywh[place].tolist(), scores[place, label].tolist()
    kept = cv2.dnn.NMSBoxesBatched(boxes, score, label.tolist(), 0.0, config.raw_iou)
    best = sorted(int(one) for one in kept)[: config.raw_boxes]
    names = seen_classes("coco")
    return [Detection(boxes[one], names[label[one]], score[one]) for one in best]


def decoded(raw: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """Return the boxes of an answer's places as ``[x, y, w, h]`` in pixels of the network's input.

    >>> decoded(np.zeros((21, 85), np.float32), 32)[[0, 5, 20]].tolist()
    [[-4.0, -4.0, 8.0, 8.0], [4.0, 4.0, 8.0, 8.0], [-16.0, -16.0, 32.0, 32.0]]
    """
    centres, sides = [], []
    first = 0
    for stride in _STRIDES:
        cells = side // stride
        rows = raw[first : first + cells * cells].astype(np.float64)
        down, right = np.divmod(np.arange(cells * cells), cells)  # row by row
        centres.append((rows[:, :2] + np.stack([right, down], 1)) * stride)
        sides.append(np.exp(rows[:, 2:4]) * stride)
        first += cells * cells
    middle, size = np.concatenate(centres), np.concatenate(sides)
    xywh: NDArray[np.float64] = np.concatenate([middle - size / 2, size], 1)
    return xywh
