"""Weights on this machine are what was registered, or one line says what to do."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.cli.common.output import Failed
from pipeline.errors import UsageError
from pipeline.files import sha256_of
from pipeline.models.catalogue import MODELS
from pipeline.models.fetch import fetch
from pipeline.models.register import add, list_models, require, verify

YOLO = "yolov8n-oiv7"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mine.pt"
    path.write_bytes(bytes(range(256)) * 10)
    return path


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["models", *words], standalone_mode=False)
    if done.exception is not None and not isinstance(done.exception, Failed):
        raise done.exception
    return done.exit_code, done.output


def test_every_model_names_its_files_its_terms_and_where_they_are() -> None:
    assert {model.role for model in MODELS.values()} == {
        "tagger",
        "detector",
        "segmenter",
        "backbone",
        "localiser",
    }
    for model in MODELS.values():
        assert model.licence
        addresses = [file.url for file in model.files if not model.page] or [model.page]
        assert all(address.startswith("https://") for address in addresses)
        assert all(len(file.sha256) in (0, 8, 64) for file in model.files)
        assert (model.licence == "AGPL-3.0") == (model.loader == "ultralytics")
    assert all(MODELS[f"sam-vit-{size}"].files[0].sha256 for size in "blh")


def test_weights_that_are_not_here_are_one_line_with_two_ways_out() -> None:
    with pytest.raises(UsageError) as error:
        require("sam-vit-h")
    line = str(error.value)
    assert "\n" not in line
    assert "avatar-build models fetch sam-vit-h" in line
    assert "--profile offline" in line


def test_a_model_without_an_address_is_fetched_by_hand_from_its_authors_page(
    tmp_path: Path,
) -> None:
    name = "ssltie-vggsound-144k"
    line = rf"SSL-TIE.*'avatar-build models add {name} PATH'"
    with pytest.raises(UsageError, match=line):
        fetch(MODELS[name])
    with pytest.raises(UsageError, match=line):
        require(name)
    path = tmp_path / "vggsound144k.pth.tar"
    path.write_bytes(b"weights")
    add(name, path)
    assert require(name).path == path


def test_what_the_user_brings_is_registered_where_it_lies(weights: Path) -> None:
    found = add(YOLO, weights)
    assert (found.path, found.sha256) == (weights, sha256_of(weights))
    assert require(YOLO) == found
    assert weights.exists()


def test_a_file_that_is_not_the_documented_one_must_be_called_ones_own(weights: Path) -> None:
    with pytest.raises(UsageError, match="documented is ec2df6"):
        add("sam-vit-b", weights)
    assert add("sam-vit-b", weights, own=True).sha256 == sha256_of(weights)
    listed = next(row for row in list_models() if row.model.name == "sam-vit-b")
    assert not listed.documented


def test_a_changed_file_is_refused(weights: Path) -> None:
    add("sam-vit-b", weights, own=True)
    data = weights.read_bytes()
    weights.write_bytes(data[:-1])
    with pytest.raises(UsageError, match="2559 bytes, registered were 2560"):
        require("sam-vit-b")
    weights.write_bytes(data[:-1] + b"?")
    with pytest.raises(UsageError, match="registered was"):
        require("sam-vit-b")
    weights.write_bytes(data)
    assert require("sam-vit-b").sha256 == sha256_of(weights), "touched, and the same bytes"
    weights.unlink()
    with pytest.raises(UsageError, match="No such file"):
        require("sam-vit-b")


@pytest.mark.parametrize(("name", "noticed"), [(YOLO, True), ("sam-vit-b", False)])
def test_a_pickle_is_hashed_before_every_load_and_tensors_when_asked(
    weights: Path, name: str, noticed: bool
) -> None:
    add(name, weights, own=True)
    stat = weights.stat()
    weights.write_bytes(bytes(stat.st_size))
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if noticed:
        with pytest.raises(UsageError, match="SHA-256"):
            require(name)
    else:
        require(name)
    assert "SHA-256" in verify(name)


def test_a_folder_missing_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"model.safetensors: no such file"):
        add("sam2.1-hiera-tiny", tmp_path)


def test_an_unreadable_entry_names_itself(models_folder: Path) -> None:
    models_folder.mkdir()
    (models_folder / f"{YOLO}.json").write_text("{}")
    with pytest.raises(UsageError, match=rf"{YOLO}.json: not a register entry"):
        require(YOLO)


def test_a_folder_of_weights_below_a_file_holds_none_and_takes_none(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVATAR_BUILD_MODELS", str(tmp_path / "file" / "models"))
    assert not any(row.path for row in list_models())
    with pytest.raises(UsageError, match="no weights on this machine"):
        require(YOLO)
    with pytest.raises(UsageError, match="Name another with the environment variable"):
        add(YOLO, weights, own=True)


def test_an_unknown_name_says_where_the_names_are() -> None:
    with pytest.raises(UsageError, match="models list"):
        require("yolov9")


def test_the_commands_show_add_find_and_check(weights: Path) -> None:
    assert run("verify") == (0, "No model is registered on this machine.\n")
    code, text = run("list")
    assert code == 0
    assert "AGPL-3.0" in text
    assert all(name in text for name in MODELS)
    with zipfile.ZipFile(weights, "w") as archive:
        archive.writestr("yolo/data.pkl", b"cultralytics.nn.tasks\nDetectionModel\n.")
    assert run("add", YOLO, str(weights))[0] == 0
    assert run("path", YOLO) == (0, f"{weights}\n")
    assert run("verify") == (0, f"{YOLO}: as registered.\n")
    rows = {row["name"]: row for row in json.loads(run("list", "--json")[1])["result"]["models"]}
    assert rows[YOLO]["path"] == str(weights)
    weights.write_bytes(b"")
    assert run("verify", YOLO)[0] == 1


def test_a_digest_of_which_only_the_start_is_documented_is_held_by_that_start(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS["resnet18"]
    digest = sha256_of(weights)
    for start, fits in ((digest[:8], True), ("0" * 8, False)):
        file = replace(model.files[0], sha256=start)
        monkeypatch.setitem(MODELS, "resnet18", replace(model, files=(file,)))
        if fits:
            assert add("resnet18", weights).sha256 == digest
        else:
            with pytest.raises(UsageError, match="documented is 00000000"):
                add("resnet18", weights)
