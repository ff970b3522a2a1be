"""Checkpoints are tensors under the right names and shapes, or one error that names the first."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import UsageError
from pipeline.models import check_state_dict, load_state_dict

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


class Bomb:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path("/tmp/avatar-build-bomb").touch, ())


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tensors_come_back_as_written(tmp_path: Path, suffix: str) -> None:
    found = load_state_dict(written(tmp_path, suffix))
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)
    check_state_dict(SHAPES, found, "weights")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, 0.95])
def test_a_truncated_checkpoint_is_one_error(tmp_path: Path, suffix: str, keep: float) -> None:
    path = written(tmp_path, suffix)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(UsageError, match="not a readable checkpoint") as error:
        load_state_dict(path)
    assert "\n" not in str(error.value)


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for write in (lambda p: torch.save(Bomb(), p), lambda p: p.write_bytes(pickle.dumps(Bomb()))):
        write(path)
        with pytest.raises(UsageError, match="not a readable checkpoint"):
            load_state_dict(path)
    assert not Path("/tmp/avatar-build-bomb").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [({"model": TENSORS}, "'model' is a dict"), ([1], "holds a list"), ({"epoch": 3}, "epoch")],
)
def test_anything_but_named_tensors_is_refused(tmp_path: Path, content: object, said: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(UsageError, match=said):
        load_state_dict(path)


def test_the_first_wrong_tensor_is_named() -> None:
    missing = {"a.weight": TENSORS["a.weight"]}
    with pytest.raises(UsageError, match=r"w.pth: tensor a.bias is missing"):
        check_state_dict(SHAPES, missing, "w.pth")
    other = TENSORS | {"a.weight": torch.zeros(3, 2)}
    with pytest.raises(UsageError, match=r"a.weight is \(3, 2\), this model's is \(2, 3\)"):
        check_state_dict(SHAPES, other, "w.pth")
    with pytest.raises(UsageError, match=r"b.weight is none of this model"):
        check_state_dict(SHAPES, TENSORS | {"b.weight": torch.zeros(1)}, "w.pth")
