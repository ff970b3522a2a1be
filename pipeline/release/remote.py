"""A release on an object store, as a local folder for as long as it is needed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.release.layout import CHECKSUMS, DOCUMENT
from pipeline.workspace.storage import Storage


def is_remote(place: str | Path) -> bool:
    """Say whether a place is an address of an object store.

    >>> is_remote("s3://bucket/ws/releases/0.1"), is_remote("releases/0.1")
    (True, False)
    """
    return "://" in str(place) and not str(place).startswith("file://")


def release_on(place: str) -> tuple[Storage, str]:
    """Return the storage above a release, and the release's folder in it.

    >>> storage, version = release_on("memory://bucket/ws/releases/0.1/")
    >>> storage.url, version
    ('memory://bucket/ws/releases', '0.1')

    Raises:
        UsageError: the address names no folder below a bucket.
    """
    above, _, version = place.rstrip("/").rpartition("/")
    if above.endswith("/") or above.endswith(":") or not version:
        raise UsageError(
            f"{place}: no release; name its folder, such as s3://bucket/ws/releases/1.0."
        )
    return Storage(above), version


def workspace_of(place: str) -> Storage | None:
    """Return the workspace whose ``releases`` a release on an object store lies in, if it does."""
    root, releases, _ = place.rstrip("/").rpartition("/releases/")
    if not releases:
        return None
    storage = Storage(root)
    return storage if storage.exists("commits/workspace.json") else None


@contextlib.contextmanager
def local_release(place: str) -> Iterator[Path]:
    """Yield the folder of a release; of one on an object store a copy, gone at the end.

    Raises:
        UsageError: there is none.
        StopRun: the store refuses, or there is not the room.
    """
    if not is_remote(place):
        yield Path(place.removeprefix("file://"))
        return
    storage, version = release_on(place)
    if not any(storage.exists(f"{version}/{name}") for name in (CHECKSUMS, DOCUMENT)):
        raise UsageError(f"No release at {place}: neither {DOCUMENT} nor {CHECKSUMS} is there.")
    with tempfile.TemporaryDirectory(prefix="avatar-build-") as folder:
        storage.fetch_all(version, Path(folder) / version)
        yield Path(folder) / version
