"""Our CAV-MAE against values the authors' own network gave for weights made by a rule.

The fixtures (inputs, outputs, intermediate values) are read from the folder ``cav_mae`` of
``AVATAR_PARITY``; nothing of them is written here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.conftest import ROOT

torch = pytest.importorskip("torch")
from stages.backends.cav_mae.cav_mae_model import CavMae, Mode, load_cav_mae  # noqa: E402
from stages.backends.cav_mae.filter_bank import filter_bank, model_input  # noqa: E402
from stages.backends.cav_mae.picture_input import prepare  # noqa: E402
from tests.stages.backends.cav_mae_weights import weight  # noqa: E402

MODES: tuple[Mode, ...] = get_args(Mode)


@pytest.fixture(scope="module")
def folder() -> Path:
    parity = Path(os.environ.get("AVATAR_PARITY", ROOT.parent / "shared" / "parity"))
    if not (parity / "cav_mae" / "io.npz").exists():
        pytest.skip("no parity fixtures: set AVATAR_PARITY or put them in ../shared/parity")
    return parity / "cav_mae"


@pytest.fixture(scope="module")
def io(folder: Path) -> dict[str, Any]:
    with np.load(folder / "io.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def front(folder: Path) -> dict[str, Any]:
    with np.load(folder / "frontend.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def model(folder: Path, io: dict[str, Any], tmp_path_factory: Any) -> Iterator[CavMae]:
    """The network, through a checkpoint file of the authors' layout and our loader."""
    entries = json.loads((folder / "state_dict.json").read_text())
    seed = json.loads((folder / "meta.json").read_text())["seed"]
    tensors = {
        e["name"]: weight(seed, e["k"], e["shape"], layernorm=e["layernorm_weight"])
        for e in entries
    }
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.numpy().tobytes())
    assert digest.hexdigest() == str(io["weights_sha256"])
    path = tmp_path_factory.mktemp("weights") / "rule.pth"
    torch.save(tensors, path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_cav_mae(path)
    torch.set_num_threads(threads)
    path.unlink()


def test_our_tensors_have_the_names_shapes_and_order_of_the_checkpoint(
    folder: Path, model: CavMae
) -> None:
    entries = json.loads((folder / "state_dict.json").read_text())
    wanted = [(entry["name"].removeprefix("module."), entry["shape"]) for entry in entries]
    assert [(name, list(t.shape)) for name, t in model.state_dict().items()] == wanted


@pytest.mark.parametrize("mode", MODES)
def test_the_logits_of_every_mode_are_the_authors_to_1e_5(
    model: CavMae, io: dict[str, Any], mode: Mode
) -> None:
    audio = torch.from_numpy(io["a_q"].astype(np.float32) / 32)  # (b, s, f)
    image = torch.from_numpy(io["v_q"].astype(np.float32) / 32)  # (b, c, 224, 224)
    needs_audio, needs_image = "video" not in mode, "audio" not in mode
    with torch.inference_mode():
        logits = model(audio if needs_audio else None, image if needs_image else None, mode)
    np.testing.assert_allclose(logits.numpy(), io[f"out_{mode}"], rtol=0, atol=1e-5)


def test_the_tokens_after_the_patches_and_blocks_are_the_authors(
    model: CavMae, io: dict[str, Any]
) -> None:
    found: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: found.update({name: output[0]})

    places = {
        "patch_a": model.patch_embed_a,
        "block_a0": model.blocks_a[0],
        "block_a10": model.blocks_a[10],
        "block_u0": model.blocks_u[0],
    }
    hooks = [module.register_forward_hook(keep(name)) for name, module in places.items()]
    with torch.inference_mode():
        model(torch.from_numpy(io["a_q"][:1].astype(np.float32) / 32), None, "audioonly")
    for hook in hooks:
        hook.remove()
    for name, tokens in found.items():
        wanted = io[f"tap_audioonly_{name}"]
        np.testing.assert_allclose(tokens[[0, 1, 8, -1]].numpy(), wanted, rtol=0, atol=1e-4)


def sounds_of(front: dict[str, Any]) -> dict[str, Any]:
    sweep, speech = front["wav_sweep"], front["wav_speechlike"]
    long = np.concatenate([speech, sweep[:4800]])
    steady = np.full(16000, 8192, np.int16)
    named = {"sweep": sweep, "speechlike": speech, "long": long, "dc": steady}
    return {name: wave.astype(np.float32) / 32768 for name, wave in named.items()}


@pytest.mark.parametrize("name", ["sweep", "speechlike", "long", "dc"])
def test_the_filter_bank_is_torchaudios_to_a_hundredth_and_a_thousandth_in_the_mean(
    front: dict[str, Any], name: str
) -> None:
    bank = filter_bank(sounds_of(front)[name])
    assert bank.shape == tuple(front[f"fbank_shape_{name}"])
    off = np.abs(bank[front[f"fbank_rows_{name}"]] - front[f"fbank_{name}"])
    assert off.max() < 1e-2
    assert off.mean() < 1e-3


@pytest.mark.parametrize("name", ["sweep", "speechlike", "long", "dc"])
def test_what_the_network_is_given_and_says_of_a_sound_is_the_authors(
    model: CavMae, front: dict[str, Any], name: str
) -> None:
    given = model_input(sounds_of(front)[name])
    rows = front[f"input_rows_{name}"]
    np.testing.assert_allclose(given[rows], front[f"input_{name}"], rtol=0, atol=1e-2 / 4.4849)
    with torch.inference_mode():
        logits = model(torch.from_numpy(given)[None], None, "audioonly")[0]
    np.testing.assert_allclose(logits.numpy(), front[f"logits_{name}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["landscape", "portrait"])
def test_a_picture_is_resized_and_cropped_as_the_authors_do(
    front: dict[str, Any], name: str
) -> None:
    given = prepare(front[f"frame_{name}_in"])
    assert given.shape == (3, 224, 224)
    wanted = front[f"frame_{name}_bilinear_norm"]
    np.testing.assert_allclose(given[:, ::16, ::16], wanted, rtol=0, atol=1e-6)
