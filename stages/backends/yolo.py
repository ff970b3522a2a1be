"""YOLOv8 trained on Open Images V7, through ultralytics: the paper's detector.

ultralytics and its weights are AGPL-3.0, and this module alone imports it. It is let do nothing but
unpickle the network: no settings file, no download, no telemetry. Around the network stands our own
code, because ultralytics' suppression gives up after a time limit, and its answer would then depend
on how busy the machine is.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import ProposeConfig
from pipeline.errors import UsageError
from pipeline.extras import need_packages
from pipeline.models import require
from pipeline.workspace.storage import Storage
from stages.backends.detectors import best_boxes, box_precision, frames_at_once, in_batches
from stages.backends.device import ahead, halving, inference, worker_device
from stages.backends.interfaces import Detection, FrameInput, Image, Vocabulary
from stages.taxonomy import check_classes, seen_classes

if TYPE_CHECKING:
    import torch

_STRIDE = 32
"""The network halves an image five times."""

_GREY = 114
"""The grey that the margins are filled with, as in training."""

_NO_CHECKPOINT = (
    TypeError,
    AttributeError,
    ModuleNotFoundError,
    RuntimeError,
    OSError,
    ValueError,
    KeyError,
    EOFError,
    pickle.UnpicklingError,
)
"""The exceptions of ultralytics about files that are not its own."""

_QUIET = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
}


class YoloDetector:
    """Find objects of Open Images' 601 classes."""

    has_weights = True
    nothing = "no_target_box"
    vocabulary: Vocabulary = "openimages"

    def __init__(self, config: ProposeConfig) -> None:
        self.name = config.detector
        self._config = config

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digest of the weights."""
        need_packages("torch", "ultralytics")
        return {"weights": require(self.name).sha256}

    def open(self, storage: Storage) -> None:
        """Load the registered weights.

        Raises:
            UsageError: they are not here, not what was registered, or not such a network.
        """
        import torch

        self._device = worker_device(self._config.device)
        network = load_network(require(self.name).path)
        self._network = network.to(self._device).to(memory_format=torch.channels_last)

    def detect(self, inputs: Iterable[FrameInput]) -> Iterator[list[Detection]]:
        """Yield the boxes of each frame; a box of two likely classes is two boxes."""
        longest_px = self._config.image_px

        def prepare(batch: Sequence[FrameInput]) -> list[_Prepared]:
            return [_Prepared(item.image, longest_px) for item in batch]

        most = frames_at_once(self._config, self._device, longest_px)
        for batch in ahead(in_batches(inputs, most), prepare):
            yield from halving(batch, self._run)

    def _run(self, batch: Sequence[_Prepared]) -> list[list[Detection]]:
        import torch

        images = torch.from_numpy(np.stack([one.pixels for one in batch])).to(self._device)
        with inference(self._device, box_precision(self._config, self._device)):
            raw = self._network(images.permute(0, 3, 1, 2).float() / 255)
        answers = (raw[0] if isinstance(raw, tuple) else raw).float()
        return [self._boxes(one, answer) for one, answer in zip(batch, answers, strict=True)]

    def _boxes(self, one: _Prepared, answer: torch.Tensor) -> list[Detection]:
        """Return an image's boxes of ``(4 + classes, places)``, centres and sides first."""
        import torch

        centres, halves = answer[:2], answer[2:4] / 2
        xyxy = torch.cat((centres - halves, centres + halves)).T
        best = best_boxes(xyxy, answer[4:].T, self._config)
        return [
            Detection(one.in_frame(box), seen_classes(self.vocabulary)[label], score)
            for box, label, score in best
        ]


class _Prepared:
    """An image as the network wants it, and the way back.

    Args:
        image: RGB.
        longest_px: its longest side for the network.
    """

    def __init__(self, image: Image, longest_px: int) -> None:
        import cv2

        height, width = image.shape[:2]
        self._scale = longest_px / max(height, width)
        size = (max(1, round(width * self._scale)), max(1, round(height * self._scale)))
        resized = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        right, below = -size[0] % _STRIDE, -size[1] % _STRIDE
        self._left, self._top = right // 2, below // 2
        self.pixels: NDArray[np.uint8] = cv2.copyMakeBorder(
            resized,
            self._top,
            below - self._top,
            self._left,
            right - self._left,
            cv2.BORDER_CONSTANT,
            value=(_GREY, _GREY, _GREY),
        ).astype(np.uint8, copy=False)

    def in_frame(self, xyxy: Sequence[float]) -> list[float]:
        """Return a box of the network's image as ``[x, y, w, h]`` in the frame."""
        x0, y0, x1, y1 = xyxy
        x, y = x0 - self._left, y0 - self._top
        return [side / self._scale for side in (x, y, x1 - x0, y1 - y0)]


def load_network(path: Path) -> torch.nn.Module:
    """Load a detector of Open Images' classes from an ultralytics file, in float32.

    The file is unpickled with a list of allowed classes, which also keeps a file that was
    registered by mistake from running code.

    Raises:
        UsageError: no such file of ultralytics, another task, or other classes.
    """
    import torch

    with quiet_import():
        from ultralytics.nn.tasks import DetectionModel, torch_safe_load

    try:
        load: Any = torch_safe_load
        checkpoint, _ = load(str(path.absolute()), safe_only=True)
        found = checkpoint.get("ema") or checkpoint.get("model")
    except _NO_CHECKPOINT as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{path}: not a checkpoint ultralytics can read: {said}") from error
    if not isinstance(found, DetectionModel):
        raise UsageError(f"{path}: holds a {type(found).__name__}, not a YOLO detector.")
    network: Any = found
    check_classes(network.names, "openimages", path)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UsageError(f"{path}: tensor {name} holds numbers that are not finite.")
    for module in network.modules():
        if isinstance(module, torch.nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None  # pickled before torch 1.11
    fused: torch.nn.Module = network.float().fuse(verbose=False).eval()
    return fused


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import ultralytics without a settings file in the user's home and without the network.

    It writes its settings when it is imported and reads where to from the environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        ours = {**_QUIET, "YOLO_CONFIG_DIR": folder}
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
