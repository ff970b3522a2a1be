"""``models add`` opens what it registers, and runs none of its code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.models.opening import check_files
from pipeline.models.register import brought, find_model
from tests.pipeline.shell import Shell

torch = pytest.importorskip("torch")


class Code:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def saved(folder: Path, content: object) -> bytes:
    torch.save(content, folder / "saved")
    return (folder / "saved").read_bytes()


@pytest.mark.parametrize("name", ["ezvsl-vggsound-144k", "yolov8n-oiv7", "sam-vit-b"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("page", "a web page"),
        ("pointer", "a pointer of Git LFS"),
        ("empty", "an empty file"),
        ("cut", "not a"),
        ("noise", "not a"),
        ("text", "not a"),
    ],
)
def test_what_is_no_checkpoint_is_not_registered(
    tmp_path: Path, shell: Shell, models_folder: Path, name: str, kind: str, said: str
) -> None:
    whole = saved(tmp_path, {"a": torch.zeros(3)})
    contents = {
        "page": b" <!DOCTYPE html><title>Virus scan warning</title>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "noise": bytes(range(256)) * 9,
        "text": b"root:x:0:0:root:/root:/bin/bash\n",  # 'r' is a word of pickle
    }
    path = tmp_path / "best.pth"
    path.write_bytes(contents[kind])
    error = shell("models", "add", name, path, "--own").one_line()
    assert said in error
    assert "best.pth" in error
    assert not list(models_folder.glob("*.json"))


def test_code_is_never_run_and_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path, made = tmp_path / "w.pth", tmp_path / "made"
    path.write_bytes(saved(tmp_path, {"a": Code(made)}))
    for name, said in (("ezvsl-vggsound-144k", "tensors"), ("yolov8n-oiv7", "another model")):
        model = find_model(name)
        with pytest.raises(UsageError, match=said):
            check_files(model, brought(model, path))
    assert not made.exists()
    path.write_bytes(saved(tmp_path, {"state_dict": {"a": torch.zeros(3)}, "best": 1.0}))
    ezvsl, yolo = find_model("ezvsl-vggsound-144k"), find_model("yolov8n-oiv7")
    assert check_files(ezvsl, brought(ezvsl, path)) == ""
    with pytest.raises(UsageError, match="no network of ultralytics"):
        check_files(yolo, brought(yolo, path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("y/data.pkl", b"cultralytics.nn.tasks\nDetectionModel\n.")
    assert check_files(yolo, brought(yolo, path)) == ""


def test_a_folder_of_safetensors_is_held_against_its_own_header(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = find_model("sam2.1-hiera-tiny")
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(3)}, weights)
    assert check_files(model, brought(model, tmp_path)) == ""
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        check_files(model, brought(model, tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        check_files(model, brought(model, tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "ezvsl-vggsound-144k",
        "lvs-vggsound-144k",
        "cav-mae-as-46.6",
        "efficientat-mn10-as",
        "yolox-nano",
    ],
)
def test_tensors_of_another_model_are_not_registered(
    tmp_path: Path, shell: Shell, models_folder: Path, name: str
) -> None:
    path = tmp_path / "best.pth"
    path.write_bytes(saved(tmp_path, {"image_encoder.proj.weight": torch.zeros(3)}))
    error = shell("models", "add", name, path).one_line()
    assert str(path) in error
    assert not list(models_folder.glob(f"{name}*"))


def test_a_pickle_is_named_without_advice_to_run_it(
    tmp_path: Path, shell: Shell, models_folder: Path
) -> None:
    path = tmp_path / "best.pth"
    path.write_bytes(saved(tmp_path, {"a": Code(tmp_path / "made")}))
    error = shell("models", "add", "cav-mae-as-46.6", path).one_line()
    assert "mkdir, which only pickle reads" in error
    assert "still be loaded" not in error
    assert not (tmp_path / "made").exists()
