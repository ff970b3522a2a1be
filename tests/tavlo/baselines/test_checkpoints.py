"""Files of the authors' layouts are read strictly; what is wrong with another is one line."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from pipeline.errors import UsageError  # noqa: E402
from tavlo.baselines.checkpoints import load_into, read_released  # noqa: E402
from tavlo.baselines.interface import open_model  # noqa: E402
from tavlo.baselines.localiser import PriorNetwork, load_prior  # noqa: E402
from tavlo.baselines.sslalignment import Aligned  # noqa: E402
from tests.tavlo.baselines.networks import NETWORKS, network, pictures, sounds  # noqa: E402

FULL = 64


def save(
    path: Path, tensors: dict[str, Any], wrapper: str, prefix: str = "", **beside: Any
) -> Path:
    torch.save({wrapper: {prefix + k: v for k, v in tensors.items()}, **beside}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_tensors_are_found_under_their_wrapper_with_and_without_prefix(
    tmp_path: Path, prefix: str
) -> None:
    given = network("ezvsl").state_dict()
    beside = {"epoch": 7, "best_cIoU": np.float64(0.5), "optimizer": {"state": {}}}
    path = save(tmp_path / "best.pth", given, "model", prefix, **beside)
    tensors = read_released(path, "model")
    assert tensors.keys() == given.keys()
    other = network("ezvsl", seed=1)
    load_into(other, tensors, path)
    for name, value in other.state_dict().items():
        assert torch.equal(value, given[name])


def test_a_file_of_tensors_alone_is_taken_too(tmp_path: Path) -> None:
    given = network("lvs").state_dict()
    torch.save(given, tmp_path / "flat.pth")
    tensors = read_released(tmp_path / "flat.pth", "model_state_dict")
    assert tensors.keys() == given.keys()


def test_a_missing_tensor_another_shape_and_nan_are_errors_that_name_it(tmp_path: Path) -> None:
    net, path = network("ezvsl"), tmp_path / "x.pth"
    whole = net.state_dict()
    short = {name: value for name, value in whole.items() if name != "aud_proj.bias"}
    with pytest.raises(UsageError, match=r"x\.pth: tensor aud_proj\.bias is missing"):
        load_into(net, short, path)
    wide = whole | {"img_proj.bias": torch.zeros(7)}
    with pytest.raises(UsageError, match=r"img_proj\.bias is \(7,\), this model's is \(512,\)"):
        load_into(net, wide, path)
    broken = whole | {"aud_proj.bias": torch.full((512,), torch.nan)}
    with pytest.raises(UsageError, match=r"aud_proj\.bias holds NaN"):
        load_into(net, broken, path)


def test_tensors_too_many_are_ignored_by_name_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = network("lvs")
    extra = net.state_dict() | {"head.weight": torch.zeros(2), "head.bias": torch.zeros(1)}
    with caplog.at_level(logging.INFO, "avatar_build.baselines"):
        load_into(net, extra, tmp_path / "x.pth")
    assert [(row.levelname, row.message) for row in caplog.records] == [
        ("WARNING", f"{tmp_path / 'x.pth'}: 2 tensors ignored: head.weight, head.bias")
    ]


OTHERS = [
    ("ezvsl", "slavc", r"tensor img_proj\.weight is missing"),
    ("slavc", "ezvsl", r"tensor img_proj1\.weight is missing"),
    ("ssltie", "lvs", "no 'state_dict' in it, .* it holds model_state_dict, epoch"),
    ("lvs", "ssltie", "no 'model_state_dict' in it, .* it holds state_dict, epoch"),
    ("sslalignment", "ezvsl", "no 'model_state_dict' in it, .* it holds model, epoch"),
    ("ezvsl", "lvs", "no 'model' in it, .* it holds model_state_dict, epoch"),
]


@pytest.mark.parametrize(("asked", "given", "said"), OTHERS)
def test_another_models_checkpoint_is_refused_at_the_first_mismatch(
    tmp_path: Path, asked: str, given: str, said: str
) -> None:
    about, make = NETWORKS[given]
    one = torch.zeros(())
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in make(FULL).state_dict().items()}
    # Each tensor is one number, repeated by its strides: kilobytes instead of megabytes.
    tensors = {name: one.expand(shape) for name, shape in shapes.items()}
    path = save(tmp_path / "other.pth", tensors, about.wrapper, epoch=1)
    with pytest.raises(UsageError, match=said) as error:
        open_model(asked, path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_needs_pickle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": {}, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(UsageError, match=r"holds a argparse\.Namespace, .*weights_only=False"):
        read_released(path, "model")


@pytest.mark.parametrize("content", [b"", b"not torch's", b"PK\x03\x04broken"])
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.pth: not a") as error:
        read_released(path, "model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([1], "holds a list"),
        ({"model": [1]}, "'model' is a list, not named tensors"),
        ({"model": {"a": 1}}, "'a' is a int, not a tensor"),
        ({}, "no 'model' in it, .* it holds nothing"),
    ],
)
def test_a_file_of_something_else_says_what_it_holds(tmp_path: Path, found: Any, said: str) -> None:
    torch.save(found, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=said):
        read_released(tmp_path / "x.pth", "model")


def test_old_imagenet_weights_without_counters_make_a_prior(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    net = PriorNetwork()
    kept = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(kept | {"fc.weight": torch.zeros(1000, 512)}, tmp_path / "resnet18.pth")
    with caplog.at_level(logging.WARNING, "avatar_build.baselines"):
        found = load_prior(tmp_path / "resnet18.pth")
    assert not caplog.records  # its classifier is known to be of no use
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(found(image), net.eval()(image))
    torch.save({k: v for k, v in kept.items() if k != "layer4.1.bn2.bias"}, tmp_path / "less.pth")
    with pytest.raises(UsageError, match=r"layer4\.1\.bn2\.bias is missing"):
        load_prior(tmp_path / "less.pth")


def test_our_training_of_cross_modal_alignment_opens_with_its_projections(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = Aligned().eval()
    path = save(tmp_path / "ours.pth", ours.state_dict(), "model_state_dict")
    opened = open_model("sslalignment", path)
    with torch.no_grad():
        spectrogram = opened.spectrograms(sounds(1))  # type: ignore[attr-defined]
        wanted = ours.sound_vectors(spectrogram).numpy()
    _, heard = opened.embeddings(pictures(1), sounds(1))
    np.testing.assert_allclose(heard, wanted, rtol=0, atol=1e-6)
