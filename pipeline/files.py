"""Files on the local disk, written whole or not at all, and what tells whether bytes changed."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path, *, keep: bool = False) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to; it takes its place when the ``with`` ends well.

    Who is interrupted leaves the target as it was. The path has the target's suffix.

    Args:
        target: its folder is made where there is none.
        keep: what is there already.

    Raises:
        FileExistsError: ``keep``, and there is something.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.tmp{target.suffix}")
    try:
        yield staged
        with staged.open("rb") as handle:
            os.fsync(handle.fileno())
        if keep:
            os.link(staged, target)
        else:
            staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)


def write_whole(target: Path, content: bytes | str) -> None:
    """Write a file whole, in place of what was there; text as UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(target) as path:
        path.write_bytes(data)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def with_digest(data: bytes) -> bytes:
    """Put a line with their SHA-256 before bytes."""
    return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def without_digest(data: bytes) -> bytes:
    """Return what ``with_digest`` was given.

    Raises:
        ValueError: it is not what was written.
    """
    digest, _, rest = data.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        raise ValueError("not what was written")
    return rest
