"""Fetch a model's files: go on from a part, check, and only then let them have their names.

Every publisher's files come this way, the Hugging Face Hub's too: its own client resumes by name
alone and knows no digest of ours, and the others would still need this one.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import AvatarBuildError, StopRun, UsageError
from pipeline.files import sha256_of
from pipeline.models.catalogue import Model, RemoteFile
from pipeline.models.register import (
    ModelFile,
    Noted,
    make_models_folder,
    read_register,
    register,
)
from pipeline.partial import PartialFile, StalePartError
from pipeline.words import size

Shown = Callable[[str, int, int | None], None]
"""Called with a file's name, its bytes so far and its whole size when known."""

_BLOCK = 1 << 20
_TIMEOUT_S = 30.0
_ATTEMPTS = 5
_SPARE_BYTES = 500_000_000


class _PassingError(Exception):
    """A transfer broke off; the part stays."""


def fetch(
    model: Model,
    show: Shown = lambda _name, _done, _size: None,
    *,
    check: Callable[[Mapping[str, Path]], None] | None = None,
    backoff_s: float = 1.0,
) -> ModelFile:
    """Fetch what is missing of a model and register it.

    Args:
        model: of the table.
        show: told of the progress.
        check: raises for files, by name, that are not of this model; they are thrown away.
        backoff_s: first wait after a transfer that broke off; doubles each time.

    Raises:
        AvatarBuildError: it cannot be had, or is not what is documented.
        UsageError: people must fetch it.
        StopRun: the disk is too small.
    """
    if not all(file.url for file in model.files):
        raise UsageError(
            f"{model.name}: no address of its file is documented. Fetch it by hand from"
            f" {model.page} and register it: 'avatar-build models add {model.name} PATH'."
        )
    folder = make_models_folder(model.name)
    noted = read_register(model.name) or {}
    paths = {}
    for file in model.files:
        path = folder / file.name
        if not _is_whole(path, file, noted.get(file.name)):
            _fetch_file(file, path, show, backoff_s)
        paths[file.name] = path
    try:
        if check is not None:
            check(paths)
    except UsageError:
        for path in paths.values():
            path.unlink()  # under its name it would pass for what was checked
        raise
    return register(model, paths)


def _is_whole(path: Path, file: RemoteFile, noted: Noted | None) -> bool:
    """Say whether a file lies under its name, where only checked files come to lie.

    One whose digest nobody documents is held against the one noted when it came.
    """
    if not path.is_file():
        return False
    of_it = noted is not None and Path(noted.path) == path
    expected = file.sha256 or (noted.sha256 if noted and of_it else "")
    return sha256_of(path).startswith(expected)


def _fetch_file(file: RemoteFile, path: Path, show: Shown, backoff_s: float) -> None:
    part = path.with_name(path.name + ".part")
    partial = PartialFile(part, part.with_name(part.name + ".json"), file.url)
    said = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(backoff_s * 2 ** (attempt - 1))
        try:
            _transfer(file, part, partial, show)
            break
        except StalePartError as error:
            said = str(error)
            partial.forget()
        except _PassingError as error:
            said = str(error)
    else:
        raise AvatarBuildError(
            f"{file.name}: {file.url}: {said}, {_ATTEMPTS} times. What came is kept; the same"
            " command goes on from there. Or bring the file: 'avatar-build models add NAME PATH'."
        )
    if wrong := _difference(file, part):
        partial.forget()
        raise AvatarBuildError(
            f"{file.name}: {file.url} gave {wrong}; it was thrown away. Fetch it again, or bring"
            " the file: 'avatar-build models add NAME PATH'."
        )
    part.replace(path)
    partial.forget()


def _difference(file: RemoteFile, part: Path) -> str:
    """Return what is not as documented of a fetched file; empty when all is."""
    length = part.stat().st_size
    if file.size is not None and length != file.size:
        return f"{length} bytes, documented are {file.size}"
    if file.sha256 and not file.is_of(digest := sha256_of(part)):
        return f"SHA-256 {digest}, documented is {file.sha256}"
    return ""


def _transfer(file: RemoteFile, part: Path, partial: PartialFile, show: Shown) -> None:
    """Bring a part to its full length.

    Raises:
        _PassingError: the transfer broke off.
        StalePartError: the part is not of this file.
    """
    asked = partial.headers(partial.length)
    with _open(file, asked) as response:
        if response.headers.get_content_type() == "text/html":
            raise AvatarBuildError(
                f"{file.name}: {file.url} gave a web page, not the file. Fetch it with a browser"
                " and register it: 'avatar-build models add NAME PATH'."
            )
        done = partial.check(response.status, response.headers, response)
        whole = partial.size
        _check_room(part, (whole or 0) - done)
        with part.open("ab") as stream:
            while block := response.read(_BLOCK):
                stream.write(block)
                done += len(block)
                show(file.name, done, whole)
    if whole is not None and done < whole:
        raise _PassingError(f"broke off at {done} of {whole} bytes")
    if whole is not None and done > whole:
        raise StalePartError(f"{done} bytes came, {whole} were announced")


@contextlib.contextmanager
def _open(file: RemoteFile, headers: Mapping[str, str]) -> Any:
    ours = {"User-Agent": "avatar-build", "Accept-Encoding": "identity"}
    request = urllib.request.Request(file.url, headers={**ours, **headers})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            if urlsplit(file.url).scheme == "https" != urlsplit(response.url).scheme:
                raise AvatarBuildError(f"{file.name}: {file.url}: leads to a plain http address.")
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            raise StalePartError("the part is longer than the file") from error
        if error.code in (408, 429) or error.code >= 500:
            raise _PassingError(f"the server answered {error.code}") from error
        raise AvatarBuildError(
            f"{file.name}: {file.url}: the server answered {error.code}. Bring the file instead:"
            " 'avatar-build models add NAME PATH'."
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if isinstance(error, OSError) and error.errno == 28:
            raise StopRun(f"{file.name}: the disk is full. Make room and fetch again.") from error
        reason = getattr(error, "reason", error)
        raise _PassingError(f"broke off ({str(reason) or type(error).__name__})") from error


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed + _SPARE_BYTES:
        raise StopRun(
            f"{part.parent}: {size(free)} free, {size(needed)} are to come. Make"
            " room, or name another folder in AVATAR_BUILD_MODELS."
        )
