"""The weights on this machine, and the proof that they are still the same bytes.

The folder is one per user, so that workspaces share gigabytes: ``$AVATAR_BUILD_MODELS``, else
``avatar-build/models`` in the user's cache. Fetched files lie in ``<folder>/<name>/``; beside that
``<folder>/<name>.json`` notes each file's path, size, time and SHA-256. Files a user brings stay
where they are. A stage only ever reads here: fetching is a command of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import sha256_of, write_whole
from pipeline.models.catalogue import MODELS, Model


@dataclass(frozen=True)
class Noted:
    """A file as it was when it was registered."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class ModelFile:
    """Weights that are here and are what was registered."""

    name: str
    path: Path
    """The file; for ``transformers`` models the folder that holds their files."""
    sha256: str
    """Digest of the file; for a folder, of its files' names and digests."""
    licence: str


@dataclass(frozen=True)
class Listed:
    """A model and where it is on this machine."""

    model: Model
    path: str
    """Place of its files; empty when it is not registered."""
    documented: bool
    """The registered digests are the documented ones; false where none are documented."""

    def as_dict(self) -> dict[str, Any]:
        """Return the columns for JSON."""
        return asdict(self.model) | {"path": self.path, "documented": self.documented}

    def cells(self) -> list[str]:
        """Return what people read: name, size, licence, whether it is here, and a note."""
        model = self.model
        licence = model.licence.partition(" (")[0]
        note = "by hand" if model.page else model.note
        here = "yes" if self.path else "-"
        return [f"  {model.name}", f"{model.about_mb:.0f} MB", licence, here, note]


def list_models() -> list[Listed]:
    """Return every model of the table."""
    found = []
    for model in MODELS.values():
        noted = read_register(model.name)
        path = str(_as_model_file(model, noted).path) if noted else ""
        known = all(
            file.sha256 and noted and file.is_of(noted[file.name].sha256) for file in model.files
        )
        found.append(Listed(model, path, known))
    return found


def models_folder() -> Path:
    """Return the folder of this user's weights, which need not exist."""
    named = os.environ.get("AVATAR_BUILD_MODELS")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "avatar-build" / "models"


def make_models_folder(name: str = "") -> Path:
    """Make the folder of this user's weights, or of one model's.

    Raises:
        UsageError: there can be none.
    """
    folder = models_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: no folder of weights can be made here: {error.strerror}. Name another with"
            " the environment variable AVATAR_BUILD_MODELS."
        ) from error
    return folder


def find_model(name: str) -> Model:
    """Return the model of a name in the table.

    Raises:
        UsageError: there is none.
    """
    if name not in MODELS:
        raise UsageError(f"{name}: no model of that name; 'avatar-build models list' has them all.")
    return MODELS[name]


def require(name: str) -> ModelFile:
    """Return the registered weights of a model; never download.

    A file whose size and time are as registered is taken for the same bytes. Pickles that run code
    are always hashed again.

    Raises:
        UsageError: they are not here, or not what was registered; says the two ways out.
    """
    model = find_model(name)
    ways_out = (
        f"Fetch it with 'avatar-build models fetch {name}' (about {model.about_mb:.0f} MB,"
        f" {model.licence}), or make a workspace that needs none: 'avatar-build init DIR --profile"
        " offline'."
    )
    if model.page:
        ways_out = (
            f"Fetch it by hand from {model.page} ({model.licence}) and register it: 'avatar-build"
            f" models add {name} PATH'."
        )
    noted = read_register(name)
    if noted is None:
        raise UsageError(f"{name}: no weights on this machine. {ways_out}")
    for note in noted.values():
        if found := _difference(note, rehash=model.loader == "ultralytics"):
            raise UsageError(f"{name}: {note.path}: {found}. {ways_out}")
    return _as_model_file(model, noted)


def verify(name: str) -> str:
    """Hash a registered model's files again.

    Returns:
        What is wrong, or an empty string.
    """
    noted = read_register(name)
    if noted is None:
        return "not registered"
    wrong = ((note.path, _difference(note, rehash=True)) for note in noted.values())
    return "; ".join(f"{path}: {found}" for path, found in wrong if found)


def register(model: Model, files: Mapping[str, Path], *, own: bool = False) -> ModelFile:
    """Note files as a model's weights, with their digests.

    Args:
        model: of the table.
        files: the path of each of its files, by the table's file name.
        own: take a file that is not the documented one, such as one fine-tuned by the user.

    Raises:
        UsageError: a file is missing, or is not the documented one and ``own`` is off.
    """
    noted = {}
    for remote in model.files:
        path = files[remote.name].absolute()
        if not path.is_file():
            raise UsageError(f"{model.name}: {path}: no such file.")
        found = _note(path)
        if not remote.is_of(found.sha256) and not own:
            raise UsageError(
                f"{model.name}: {path}: SHA-256 {found.sha256}, documented is {remote.sha256}."
                " Fetch it again, or say --own if it is a checkpoint of your own."
            )
        noted[remote.name] = found
    _write(model.name, noted)
    return _as_model_file(model, noted)


def add(name: str, path: Path, *, own: bool = False) -> ModelFile:
    """Register what the user has: a file, or the folder of a model of several files."""
    model = find_model(name)
    return register(model, brought(model, path), own=own)


def brought(model: Model, path: Path) -> dict[str, Path]:
    """Return the files of a model at a path of the user's, by the table's file name."""
    if len(model.files) == 1:
        return {model.files[0].name: path}
    return {file.name: path / file.name for file in model.files}


def read_register(name: str) -> dict[str, Noted] | None:
    """Return what is noted of a model's files; none when it is not registered."""
    path = models_folder() / f"{name}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {file.name: Noted(**document["files"][file.name]) for file in find_model(name).files}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: not a register entry ({error}). Delete it and fetch or add {name} again."
        ) from error


def _note(path: Path) -> Noted:
    """Return a file's size, time and digest as they are now."""
    digest = sha256_of(path)
    stat = path.stat()
    return Noted(str(path), stat.st_size, stat.st_mtime_ns, digest)


def _difference(noted: Noted, *, rehash: bool) -> str:
    path = Path(noted.path)
    try:
        stat = path.stat()
        if stat.st_size != noted.size:
            return f"{stat.st_size} bytes, registered were {noted.size}"
        if not rehash and stat.st_mtime_ns == noted.mtime_ns:
            return ""
        digest = sha256_of(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if digest == noted.sha256 else f"SHA-256 {digest}, registered was {noted.sha256}"


def _as_model_file(model: Model, noted: Mapping[str, Noted]) -> ModelFile:
    if len(noted) == 1:
        only = next(iter(noted.values()))
        return ModelFile(model.name, Path(only.path), only.sha256, model.licence)
    lines = "".join(f"{one.sha256}  {name}\n" for name, one in sorted(noted.items()))
    folder = Path(next(iter(noted.values())).path).parent
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return ModelFile(model.name, folder, digest, model.licence)


def _write(name: str, noted: Mapping[str, Noted]) -> None:
    folder = make_models_folder()
    document = {"files": {file: asdict(one) for file, one in noted.items()}}
    write_whole(folder / f"{name}.json", json.dumps(document, indent=1))
