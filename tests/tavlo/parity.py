"""What the authors' own code gave, and checkpoints in their layout, from the folder AVATAR_PARITY.

Weights are made by the fixtures' rule from the seed and shapes their ``state_dict.json`` holds.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.conftest import ROOT

Arrays = dict[str, NDArray[Any]]

SHARE = 5e-5
"""Of an array's largest magnitude: how far maps, embeddings and logits may be off."""
LOSS = 2e-5
"""How far a loss may be off."""


def fixture(name: str) -> Path:
    """One model's folder; skips where it is absent."""
    parity = Path(os.environ.get("AVATAR_PARITY", ROOT.parent / "shared" / "parity"))
    if not (parity / name).is_dir():
        pytest.skip("no parity fixtures: set AVATAR_PARITY or put them in ../shared/parity")
    return parity / name


def arrays(folder: Path, file: str = "io.npz") -> Arrays:
    """All arrays of a file."""
    with np.load(folder / file) as stored:
        return dict(stored)


def inputs(io: Arrays) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture and spectrogram that the stored outputs are of."""
    image, spectrogram = (torch.from_numpy(io[name].astype(np.float32)) for name in _GIVEN)
    return image, spectrogram


_GIVEN = ("image", "spec")


def layout(folder: Path) -> dict[str, Any]:
    """How a released file is laid out."""
    found: dict[str, Any] = json.loads((folder / "state_dict.json").read_text())
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the rule; insists that they are those the fixtures were made with."""
    about = layout(folder)
    found, digest = {}, hashlib.sha256()
    for entry in about["tensors"]:
        name, shape, k = entry["name"], entry["shape"], entry["k"]
        if k is None:
            found[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        value = _by_rule(name, shape, np.random.default_rng([about["seed"], k]))
        digest.update(value.tobytes())
        found[name] = torch.from_numpy(value)
    assert digest.hexdigest() == about["weights_sha256"]
    return found


def _by_rule(name: str, shape: list[int], dice: np.random.Generator) -> NDArray[np.float32]:
    x = dice.standard_normal(shape)
    if len(shape) >= 2:
        x *= np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith((".running_var", ".weight")):
        x = 1 + 0.1 * np.abs(x)
    else:
        x *= 0.02
    return x.astype(np.float32)


def write_released(folder: Path, path: Path) -> Path:
    """A checkpoint as the authors' training writes it: wrapped, prefixed, with numpy's scores."""
    about = layout(folder)
    prefix = about.get("saved_prefix") or ""
    tensors = {prefix + name: value for name, value in weights(folder).items()}
    if not about["wrapper_key"]:
        torch.save(tensors, path)
        return path
    others = about["other_wrapper_keys"]
    beside: dict[str, Any] = {}
    for key in others if isinstance(others, list) else []:
        beside[key] = {"state": {}} if key == "optimizer" else np.float64(0.5)
    torch.save({about["wrapper_key"]: tensors, **beside}, path)
    return path


def assert_close(found: Any, wanted: NDArray[Any], share: float = SHARE) -> None:
    """Within ``share`` of the wanted array's largest magnitude."""
    got = found.detach().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=share * float(np.abs(wanted).max()))


def assert_loss(found: torch.Tensor, wanted: NDArray[Any]) -> None:
    """Within what two machines' losses differ by."""
    assert found.item() == pytest.approx(wanted.item(), abs=LOSS)


def sounds() -> dict[str, NDArray[np.float32]]:
    """The test signals: ``full`` (10 s), ``short`` (a part of it), ``second``, ``silent``."""
    stored = arrays(fixture("frontends"), "waveforms.npz")
    first, last = stored["short_slice"]
    found = {
        "full": stored["full"],
        "short": stored["full"][first:last],
        "second": stored["second"],
        "silent": np.zeros_like(stored["full"]),
    }
    return {name: wave.astype(np.float32) / np.float32(2**15) for name, wave in found.items()}


def check_sound_front(folder: Path, front: Any, atol: float) -> None:
    """A model's spectrograms of the test signals against the original loader's."""
    waves, stored, io = sounds(), arrays(folder, "frontend_audio.npz"), arrays(folder)
    given = [waves[name] for name in ("full", "short", "second", "silent")]
    full, short, second, silent = front.spectrograms(given).numpy()
    every = 4 if "short_note" in stored else 1
    np.testing.assert_allclose(full, stored["full"], rtol=0, atol=atol)
    np.testing.assert_allclose(short[..., ::every], stored["short"], rtol=0, atol=atol)
    np.testing.assert_allclose(silent, stored["silent_value"], rtol=0, atol=atol)
    # These are rounded to 11 bits.
    for found, wanted in ((full, io["spec"][0]), (second, io["spec"][1])):
        np.testing.assert_allclose(found, wanted.astype(np.float32), rtol=2**-10, atol=2 * atol)
