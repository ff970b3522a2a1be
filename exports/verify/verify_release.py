"""The check of a release from outside: trust nothing in it, repair nothing, name every finding.

The release may come from anyone. Only plain files below its folder are opened, by names this code
makes itself or has checked; links are a finding and end the check.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from pydantic import ValidationError

from exports.release.takedown import still_there, workspace_around
from exports.verify.checks import CHECKS, expected_files, restorable_files
from pipeline.errors import UsageError
from pipeline.files import sha256_of
from pipeline.release import layout
from pipeline.release.document import (
    AnnotationRow,
    CategoryRow,
    Document,
    ImageRow,
    Info,
    LicenseRow,
    Row,
    VideoRow,
    from_json,
)
from pipeline.release.findings import Finding
from pipeline.release.row_file import RowFile, RowT
from pipeline.words import plain, short
from pipeline.workspace.takedowns import Takedown, read_takedowns

__all__ = ["Finding", "verified", "verify_release"]

_HEAD = b'{"info": '
_LISTS: dict[str, type[Row]] = {
    "licenses": LicenseRow,
    "videos": VideoRow,
    "images": ImageRow,
    "categories": CategoryRow,
    "annotations": AnnotationRow,
}
"""The document's lists, in their order."""
_CHECKSUM = re.compile(r"([0-9a-f]{64})  (.+)")


def verify_release(folder: Path, takedowns: Sequence[Takedown] = ()) -> list[Finding]:
    """Return everything that is wrong with the release in ``folder``; empty when it is sound.

    Args:
        folder: the release.
        takedowns: videos it must not have any more. Those of the workspace whose ``releases/`` it
            lies in are added.

    Raises:
        UsageError: there is no such folder, or it holds nothing of a release.
    """
    with verified(folder, takedowns) as (_, findings):
        return findings


@contextmanager
def verified(
    folder: Path, takedowns: Sequence[Takedown] = ()
) -> Iterator[tuple[Document | None, list[Finding]]]:
    """Yield what ``verify_release`` returns behind the document, as long as that is needed.

    The document's rows are read when they are asked for; it is none where it could not be read.
    """
    if not folder.is_dir():
        raise UsageError(f"No release at {folder}. 'avatar-build export' writes releases/VERSION.")
    if not any((folder / name).exists() for name in (layout.DOCUMENT, layout.CHECKSUMS)):
        raise UsageError(
            f"No release at {folder}: neither {layout.DOCUMENT} nor {layout.CHECKSUMS} is there."
        )
    files, odd = _walk(folder)
    if odd:
        yield None, odd
        return
    with _opened(folder, files) as (document, unreadable):
        restored = restorable_files(document) if document is not None else set()
        findings = list(_checksums(folder, files, restored))
        if document is None:
            yield None, findings + unreadable
            return
        findings += _complete(document, files - restored)
        around = workspace_around(folder)
        takedowns = [*takedowns, *(read_takedowns(around) if around else [])]
        findings += still_there(document, takedowns)
        for check in CHECKS:
            findings += check(document, folder)
        yield document, findings


@contextmanager
def _opened(folder: Path, files: set[str]) -> Iterator[tuple[Document | None, list[Finding]]]:
    """Yield the document, its rows left in its file where that has our form, or why not."""
    if layout.DOCUMENT not in files:
        yield None, [Finding("schema", layout.DOCUMENT, "is missing")]
        return
    with (folder / layout.DOCUMENT).open("rb") as stream:
        try:
            document = _by_lines(stream)
        except (ValueError, RecursionError, _KeyTwiceError):  # which the whole text tells better
            yield _read_document(folder)
        else:
            yield document, []


def _by_lines(stream: BinaryIO) -> Document:
    """Read a document of one row a line, as ``json_lines`` writes it.

    Raises:
        ValueError, RecursionError, _KeyTwiceError: it has another form, or a row is none.
    """
    head = stream.readline()
    if not (head.startswith(_HEAD) and head.endswith(b",\n")):
        raise ValueError
    info = _checked(Info, head[len(_HEAD) : -2])
    lists: dict[str, Sequence[Any]] = {}
    for number, (name, record) in enumerate(_LISTS.items()):
        end = b"}\n" if number == len(_LISTS) - 1 else b",\n"
        opening = stream.readline()
        if opening == f'"{name}": []'.encode() + end:
            lists[name] = []
            continue
        starts = array("Q", [stream.tell()])
        if opening != f'"{name}": [\n'.encode():
            raise ValueError
        more = True
        while more:
            line = stream.readline()
            more = line.endswith(b",\n")
            _checked(record, line[:-2] if more else line[:-1])
            starts.append(starts[-1] + len(line))
        if stream.readline() != b"]" + end:
            raise ValueError
        rows = RowFile(record, stream, starts)
        lists[name] = rows if record in (VideoRow, ImageRow, AnnotationRow) else list(rows)
    if stream.read(1):
        raise ValueError
    return Document.model_construct(None, info=info, **lists)


def _checked(record: type[RowT], text: bytes) -> RowT:
    json.loads(text, object_pairs_hook=_once)
    return record.model_validate_json(text, strict=True)


def _walk(folder: Path) -> tuple[set[str], list[Finding]]:
    """Return the plain files below ``folder``, and everything that is neither file nor folder."""
    files: set[str] = set()
    odd: list[Finding] = []
    for root, folders, names in os.walk(folder):
        for name in sorted([*folders, *names]):
            path = Path(root) / name
            place = path.relative_to(folder).as_posix()
            if path.is_symlink():
                odd.append(Finding("files", short(place), "is a link; a release has none"))
            elif name in folders:
                continue
            elif path.is_file():
                files.add(place)
            else:
                odd.append(Finding("files", short(place), "is not a plain file"))
    return files, odd


def _checksums(folder: Path, files: set[str], restored: set[str]) -> Iterator[Finding]:
    if layout.CHECKSUMS not in files:
        yield Finding("checksums", layout.CHECKSUMS, "is missing")
        return
    text = (folder / layout.CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    listed: set[str] = set()
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        match = _CHECKSUM.fullmatch(line)
        where = f"{layout.CHECKSUMS}, line {number}"
        if match is None:
            yield Finding("checksums", where, "is not 'sha256  path'")
            continue
        expected, name = match.groups()
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            yield Finding("checksums", where, f"{short(name)} leads outside the release")
        elif name in listed:
            yield Finding("checksums", where, f"{short(name)} is listed twice")
        elif name not in files:
            yield Finding("checksums", short(name), "is listed and missing")
        elif sha256_of(folder / name) != expected:
            yield Finding("checksums", short(name), "is not the file that was released")
        listed.add(name)
    for name in sorted(files - listed - restored - {layout.CHECKSUMS}):
        yield Finding("checksums", short(name), "is not listed")


def _read_document(folder: Path) -> tuple[Document | None, list[Finding]]:
    data = (folder / layout.DOCUMENT).read_bytes()
    try:
        document = from_json(data)
    except ValidationError as error:
        return None, [
            Finding(
                "schema",
                f"{layout.DOCUMENT}: {short('.'.join(str(part) for part in problem['loc']))}",
                f"{plain(problem)} (got {short(problem['input'])})",
            )
            for problem in error.errors()
        ]
    try:
        json.loads(data, object_pairs_hook=_once)
    except _KeyTwiceError as error:
        return None, [
            Finding("schema", layout.DOCUMENT, f"the key {short(str(error))} is there twice")
        ]
    return document, []


class _KeyTwiceError(Exception):
    """Readers differ on which of the values counts."""


def _once(pairs: list[tuple[str, object]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise _KeyTwiceError(next(key for key in keys if keys.count(key) > 1))


def _complete(document: Document, files: set[str]) -> Iterator[Finding]:
    expected = expected_files(document)
    for name in sorted(expected - files):
        yield Finding("files", short(name), "is missing")
    for name in sorted(files - expected):
        yield Finding("files", short(name), "does not belong to the release")
