"""Fetch a model's files: go on from a part, check, and only then let them have their names.

A part is trusted as far as the server can prove it: the address, length and tag it was fetched
under must be the same, and its last bytes are asked for again and compared.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import AvatarBuildError, StopRun, UsageError
from pipeline.files import sha256_of
from pipeline.models.catalogue import Model, RemoteFile
from pipeline.models.register import ModelFile, make_models_folder, register
from pipeline.words import size

Shown = Callable[[str, int, int | None], None]
"""Called with a file's name, its bytes so far and its whole size when known."""

_LAP = 1 << 16
"""Bytes at the end of a part that are fetched again and compared."""

_BLOCK = 1 << 20
_TIMEOUT_S = 30.0
_ATTEMPTS = 5
_SPARE_BYTES = 500_000_000


@dataclass(frozen=True)
class _Source:
    """What a part is a part of; empty tag when the server gives none that is strong."""

    url: str
    size: int | None
    etag: str


class _PassingError(Exception):
    """A transfer broke off; the part stays."""


class _PartError(Exception):
    """The part on the disk is of no use; it goes."""


def fetch(
    model: Model, show: Shown = lambda _name, _done, _size: None, *, backoff_s: float = 1.0
) -> ModelFile:
    """Fetch what is missing of a model and register it.

    Args:
        model: of the table.
        show: told of the progress.
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
    paths = {}
    for file in model.files:
        path = folder / file.name
        if not _is_whole(path, file):
            _fetch_file(file, path, show, backoff_s)
        paths[file.name] = path
    return register(model, paths)


def _is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether a file lies under its name, where only checked files come to lie."""
    return path.is_file() and (not file.sha256 or file.is_of(sha256_of(path)))


def _fetch_file(file: RemoteFile, path: Path, show: Shown, backoff_s: float) -> None:
    part = path.with_name(path.name + ".part")
    said = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(backoff_s * 2 ** (attempt - 1))
        try:
            _transfer(file, part, show)
            break
        except _PartError as error:
            said = str(error)
            _forget(part)
        except _PassingError as error:
            said = str(error)
    else:
        raise AvatarBuildError(
            f"{file.name}: {file.url}: {said}, {_ATTEMPTS} times. What came is kept; the same"
            " command goes on from there. Or bring the file: 'avatar-build models add NAME PATH'."
        )
    _check(file, part)
    part.replace(path)
    _forget(part)


def _check(file: RemoteFile, part: Path) -> None:
    size = part.stat().st_size
    wrong = ""
    if file.size is not None and size != file.size:
        wrong = f"{size} bytes, documented are {file.size}"
    elif file.sha256 and not file.is_of(digest := sha256_of(part)):
        wrong = f"SHA-256 {digest}, documented is {file.sha256}"
    if wrong:
        _forget(part)
        raise AvatarBuildError(
            f"{file.name}: {file.url} gave {wrong}; it was thrown away. Fetch it again, or bring"
            " the file: 'avatar-build models add NAME PATH'."
        )


def _transfer(file: RemoteFile, part: Path, show: Shown) -> None:
    """Bring a part to its full length.

    Raises:
        _PassingError: the transfer broke off.
        _PartError: the part is not of this file.
    """
    start = part.stat().st_size if part.is_file() else 0
    source = _read_source(part)
    if start and (source is None or source.url != file.url):
        _forget(part)
        start, source = 0, None
    lap = min(start, _LAP)
    headers = {"User-Agent": "avatar-build", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start - lap}-"
    with _open(file, headers) as response:
        found = _source_of(response, file, start - lap)
        if response.status != http.client.PARTIAL_CONTENT:
            start = lap = 0
        elif source is None or (source.size, source.etag) != (found.size, found.etag):
            raise _PartError("the file changed at the source")
        _check_room(part, (found.size or 0) - start)
        if not start:
            _forget(part)
            _source_file(part).write_text(json.dumps(asdict(found)), encoding="utf-8")
        elif _read(response, lap) != _tail(part, lap):
            raise _PartError("the part on the disk is not of this file")
        _append(response, part, found.size, lambda done: show(file.name, done, found.size))


@contextlib.contextmanager
def _open(file: RemoteFile, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(file.url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            if urlsplit(file.url).scheme == "https" != urlsplit(response.url).scheme:
                raise AvatarBuildError(f"{file.name}: {file.url}: leads to a plain http address.")
            yield response
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            raise _PartError("the part is longer than the file") from error
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


def _source_of(response: Any, file: RemoteFile, asked: int) -> _Source:
    """What the answer says the whole file is."""
    if response.headers.get_content_type() == "text/html":
        raise AvatarBuildError(
            f"{file.name}: {file.url} gave a web page, not the file. Fetch it with a browser and"
            " register it: 'avatar-build models add NAME PATH'."
        )
    size: int | None = None
    if response.status == http.client.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != asked:
            raise _PartError("the server sent another part than asked for")
        size = int(match[2])
    elif length := response.headers.get("Content-Length"):
        size = int(length)
    etag = response.headers.get("ETag", "")
    return _Source(file.url, size, "" if etag.startswith("W/") else etag)


def _append(response: Any, part: Path, size: int | None, show: Callable[[int], None]) -> None:
    with part.open("ab") as stream:
        done = stream.tell()
        while block := response.read(_BLOCK):
            stream.write(block)
            done += len(block)
            show(done)
    if size is not None and done < size:
        raise _PassingError(f"broke off at {done} of {size} bytes")
    if size is not None and done > size:
        raise _PartError(f"{done} bytes came, {size} were announced")


def _read(response: Any, count: int) -> bytes:
    data: bytes = response.read(count)
    if len(data) < count:
        raise _PassingError("broke off at once")
    return data


def _tail(part: Path, count: int) -> bytes:
    with part.open("rb") as stream:
        stream.seek(-count, 2)
        return stream.read()


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed + _SPARE_BYTES:
        raise StopRun(
            f"{part.parent}: {size(free)} free, {size(needed)} are to come. Make"
            " room, or name another folder in AVATAR_BUILD_MODELS."
        )


def _source_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_source(part: Path) -> _Source | None:
    try:
        return _Source(**json.loads(_source_file(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _source_file(part).unlink(missing_ok=True)
