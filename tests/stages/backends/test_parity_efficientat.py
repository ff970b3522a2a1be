"""Our EfficientAT against what the authors' own network and front end gave, with real weights.

The fixtures are read from the folder ``efficientat`` of ``AVATAR_PARITY``, the weights from
``AVATAR_MODELS``. Which network and which sounds, the fixtures say.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.backends.efficientat.mel_spectrogram import mel_spectrogram
from tests.conftest import ROOT

torch = pytest.importorskip("torch")
from stages.backends.efficientat.efficientat_model import (  # noqa: E402
    EfficientAt,
    fast,
    load_efficientat,
)
from tests.stages.backends.efficientat_weights import real_weights  # noqa: E402

MEL_ATOL = 2e-4
LOGITS_RTOL = 2e-3
"""Of the largest absolute logit, from a waveform."""
NETWORK_RTOL = 5e-5
"""The same from a given mel spectrogram."""


@pytest.fixture(scope="module")
def folder() -> Path:
    parity = Path(os.environ.get("AVATAR_PARITY", ROOT.parent / "shared" / "parity"))
    if not (parity / "efficientat" / "io.npz").exists():
        pytest.skip("no parity fixtures: set AVATAR_PARITY or put them in ../shared/parity")
    return parity / "efficientat"


@pytest.fixture(scope="module")
def released(folder: Path) -> dict[str, list[tuple[str, list[int]]]]:
    """Names and shapes of the checkpoint's tensors, by the authors' name of the network."""
    found = json.loads((folder / "tensors.json").read_text())
    return {name: [(row[0], list(row[1])) for row in rows] for name, rows in found.items()}


@pytest.fixture(scope="module")
def io(folder: Path) -> dict[str, Any]:
    with np.load(folder / "io.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def model(released: dict[str, Any]) -> EfficientAt:
    (name,) = released
    torch.set_num_threads(1)
    return load_efficientat(real_weights(name), name_of(name))


def name_of(released: str) -> str:
    """Our name of a network of the authors: ``mn04_as`` is ``efficientat-mn04-as``."""
    return f"efficientat-{released.replace('_', '-')}"


def waves_of(io: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Every sound with logits: the stored ones, the start of the first, and silence."""
    waves = {
        key.removeprefix("wave_"): value.astype(np.float32) / np.float32(32768)
        for key, value in io.items()
        if key.startswith("wave_")
    }
    first = next(iter(waves.values()))
    return {"short": first[:73600], "silence": np.zeros(320000, np.float32)} | waves


def run(network: EfficientAt, mel: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(mel)[None])[0].numpy(), np.float32)


def assert_near(found: Any, wanted: Any, rtol: float) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=rtol * np.abs(wanted).max())


def test_our_tensors_have_the_names_shapes_and_order_of_the_checkpoint(
    released: dict[str, Any], model: EfficientAt
) -> None:
    (tensors,) = released.values()
    assert [(name, list(t.shape)) for name, t in model.state_dict().items()] == tensors


def test_the_mel_spectrogram_is_the_authors(io: dict[str, Any]) -> None:
    waves = waves_of(io)
    stored = [name for name in waves if f"mel_{name}" in io]
    assert stored
    for name in stored:
        mel = mel_spectrogram(waves[name])
        np.testing.assert_allclose(mel, io[f"mel_{name}"], rtol=0, atol=MEL_ATOL)
    silence = mel_spectrogram(waves["silence"])
    bounds = [silence.min(), silence.max()]
    np.testing.assert_allclose(bounds, io["mel_silence_value"], rtol=0, atol=MEL_ATOL)


def test_from_a_given_spectrogram_the_logits_are_the_authors(
    io: dict[str, Any], model: EfficientAt
) -> None:
    for key in io:
        name = key.removeprefix("mel_")
        if key != name and f"logits_{name}" in io:
            assert_near(run(model, io[key]), io[f"logits_{name}"], NETWORK_RTOL)


def test_from_the_waveform_the_features_and_logits_are_the_authors(
    io: dict[str, Any], model: EfficientAt
) -> None:
    waves = waves_of(io)
    names = [key.removeprefix("logits_") for key in io if key.startswith("logits_")]
    assert len(names) >= 4
    for name in names:
        mel = mel_spectrogram(waves[name])
        assert_near(run(model, mel), io[f"logits_{name}"], LOGITS_RTOL)
        if f"features_{name}" in io:
            with torch.inference_mode():
                pooled = model.classifier[:2](model.features(torch.from_numpy(mel)[None, None]))
            assert_near(pooled[0].numpy(), io[f"features_{name}"], LOGITS_RTOL)


def test_what_runs_in_the_stage_is_the_same_network(
    released: dict[str, Any], io: dict[str, Any]
) -> None:
    (name,) = released
    quick = fast(load_efficientat(real_weights(name), name_of(name)))
    for sound, wave in waves_of(io).items():
        assert_near(run(quick, mel_spectrogram(wave)), io[f"logits_{sound}"], LOGITS_RTOL)
