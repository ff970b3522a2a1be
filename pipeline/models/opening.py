"""Open what a user registers, as far as it is safe: no code of a file is ever run."""

from __future__ import annotations

import importlib.util
import json
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.models.catalogue import Model
from pipeline.models.tensors import read_checkpoint
from pipeline.signatures import HEAD_BYTES, LFS_POINTER, WEB_PAGE, looks_like


def check_files(model: Model, files: Mapping[str, Path]) -> str:
    """Insist that files can be what a model's loader reads.

    Args:
        model: of the table.
        files: the path of each of its files, by the table's file name.

    Returns:
        What could not be checked here, as a sentence; mostly empty.

    Raises:
        UsageError: a web page, a pointer, a truncated file, a pickle with code where tensors alone
            are read, or another program's format.
    """
    unchecked = ""
    for path in files.values():
        if not path.is_file():
            raise UsageError(f"{model.name}: {path}: no such file.")
        if wrong := _no_weights(path):
            raise UsageError(f"{model.name}: {path}: {wrong}")
        if path.suffix == ".json":
            _check_json(path)
        elif path.suffix == ".safetensors":
            _check_safetensors(path)
        elif model.loader == "ultralytics":
            _check_ultralytics(path)
        elif model.loader == "onnx":
            continue  # a protocol buffer: what is in it, its own runtime says
        elif importlib.util.find_spec("torch") is None:
            unchecked = "Its tensors were not looked at: that needs 'avatar-build[models]'."
        else:
            _check_tensors(path)
    return unchecked


def _no_weights(path: Path) -> str:
    """Return what a file is in place of weights, by its first bytes; empty when it may be some."""
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    found = looks_like(head)
    if not head:
        return "an empty file. Fetch it again."
    if found == WEB_PAGE:
        return f"{found}, not the file. Open its address in a browser and save what it offers."
    if found == LFS_POINTER:
        return f"{found}, not the file. Fetch it with 'git lfs pull'."
    return ""


def _check_json(path: Path) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({error}). Fetch it again.") from error


def _check_safetensors(path: Path) -> None:
    """Hold the header against the file's length, as the format defines both."""
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size - 8:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        if not header or end != size - 8 - length:
            raise ValueError(f"{size} bytes, {8 + length + end} expected")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        said = f"not a whole safetensors file ({error})"
        raise UsageError(f"{path}: {said}. Fetch it again.") from error


def _check_ultralytics(path: Path) -> None:
    """Read the pickle's words without doing what they say."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(one for one in archive.namelist() if one.endswith("/data.pkl"))
            words = [arg for _, arg, _ in pickletools.genops(archive.read(name))]
    except (zipfile.BadZipFile, StopIteration, ValueError, EOFError, OSError) as error:
        raise UsageError(
            f"{path}: not a whole file of torch.save ({str(error) or 'no pickle in it'})."
            " Fetch it again."
        ) from error
    if not any(isinstance(word, str) and word.startswith("ultralytics.") for word in words):
        raise UsageError(f"{path}: holds no network of ultralytics: weights of another model.")


def _check_tensors(path: Path) -> None:
    """Load it as its loader will: tensors and plain values alone."""
    if not isinstance(found := read_checkpoint(path), Mapping):
        raise UsageError(f"{path}: holds a {type(found).__name__}, not named tensors.")
