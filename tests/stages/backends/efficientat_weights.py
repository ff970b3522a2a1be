"""EfficientAT checkpoints in the authors' layout with random weights, and the real ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from stages.backends.efficientat.efficientat_model import WIDTHS, EfficientAt
from tests.conftest import ROOT


def random_tensors(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of a network that tells sounds apart: its statistics are those of noise."""
    torch.manual_seed(seed)
    model = EfficientAt(WIDTHS[name])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 128, 60))
    tensors = dict(model.state_dict())
    tensors["classifier.5.weight"] *= 4
    return tensors


def write_random(path: Path, name: str, seed: int = 0) -> Path:
    """Write a file as the authors release them."""
    torch.save(random_tensors(name, seed), path)
    return path


def real_weights(released: str) -> Path:
    """The released file of a network such as ``mn04_as``, or skip."""
    folder = Path(os.environ.get("AVATAR_MODELS", ROOT.parent / "shared" / "models"))
    found = sorted(folder.glob(f"{released}_mAP_*.pt"))
    if not found:
        pytest.skip(f"no weights of {released}: set AVATAR_MODELS or put them in ../shared/models")
    return found[0]
