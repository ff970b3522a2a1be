"""Real architectures with random weights, in the files their makers publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.models.register import add
from stages.backends.yolo import _quiet_import
from stages.taxonomy import openimages_classes


def write_yolo(path: Path, names: dict[int, str] | None = None, **changes: Any) -> Path:
    """A YOLOv8n of 601 classes as ultralytics saves it, some classes likely anywhere."""
    import torch

    with _quiet_import():
        from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    build: Any = DetectionModel
    network = build("yolov8n.yaml", nc=len(names or openimages_classes()), verbose=False)
    network.names = names or dict(enumerate(openimages_classes()))
    with torch.no_grad():
        for scale in network.model[-1].cv3:
            scale[-1].weight.normal_(0, 0.05)
            scale[-1].bias.normal_(-7, 1.5)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()(torch.rand(2, 3, 320, 320))  # else signals fade on their way
    checkpoint = {
        "epoch": -1,
        "best_fitness": None,
        "model": network.half(),
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": {"task": "detect", "imgsz": 640},
        "date": "2023-11-08T00:00:00",
        "version": "8.0.207",
    }
    torch.save(checkpoint | changes, path)
    return path


def register_yolo(folder: Path) -> Path:
    """Write one and register it as ``yolov8n-oiv7``."""
    path = write_yolo(folder / "yolov8n-oiv7.pt")
    add("yolov8n-oiv7", path)
    return path
