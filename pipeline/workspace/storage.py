"""The place of a workspace: a local folder or any object store fsspec knows.

Paths are relative to the root and use ``/``. Every write is whole or absent: beside and renamed on
a local disk, a single put on an object store. Listings bypass caches, or a reader would miss what
another process just wrote.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import InputError, UsageError
from pipeline.files import replacing, write_whole
from pipeline.workspace.mounts import Mount, mount_of

_WRITTEN = ("LastModified", "last_modified", "mtime", "updated", "modified")
"""The names under which fsspec's file systems list when a file was written."""


class Storage:
    """The files below one root.

    Args:
        root: a local folder, or a URL such as ``s3://bucket/ws``.
    """

    def __init__(self, root: str | Path) -> None:
        self.url = str(root)
        self.local: Path | None = None
        """The root as a local folder; none on an object store."""
        if "://" in self.url and not self.url.startswith("file://"):
            import fsspec

            self._fs: Any
            self._fs, path = fsspec.core.url_to_fs(self.url)
            self._root = path.rstrip("/")
            self._made: set[str] = set()
        else:
            self.local = Path(self.url.removeprefix("file://")).absolute()

    def __reduce__(self) -> tuple[object, ...]:
        return (Storage, (self.url,))

    def path(self, name: str) -> Path:
        """Return the local path of ``name``; for names that hold a link out of the root too.

        Raises:
            UsageError: on an object store, or when ``name`` leads outside the root.
        """
        if self.local is None:
            raise UsageError(f"{self.url} is not a local folder; this command needs one.")
        return self.local / _inside(name)

    def local_path(self, name: str) -> Path | None:
        """Return the path of ``name`` on a local disk; none on an object store."""
        return None if self.local is None else self.path(name)

    @cached_property
    def mount(self) -> Mount | None:
        """The disk a local root is on; none on an object store, or where it cannot be told."""
        return None if self.local is None else mount_of(self.local)

    @cached_property
    def has_locks(self) -> bool:
        """True where locks tell which runs are alive, on whatever node; else leases do."""
        return self.local is not None and not (self.mount and self.mount.locks_by_node)

    def free_bytes(self) -> int | None:
        """Return the room left on a local disk; none on an object store."""
        return None if self.local is None else shutil.disk_usage(self.local).free

    def _remote(self, name: str, *, write: bool = False) -> str:
        path = f"{self._root}/{_inside(name)}"
        folder = path.rpartition("/")[0]
        if write and folder not in self._made:
            # Nothing on an object store, needed on sftp, hdfs and their like.
            self._fs.makedirs(folder, exist_ok=True)
            self._made.add(folder)
        return path

    def exists(self, name: str) -> bool:
        """Say whether ``name`` is a file or folder."""
        if self.local is not None:
            return self.path(name).exists()
        return bool(self._fs.exists(self._remote(name)))

    def names(self, folder: str) -> list[str]:
        """List the files directly in ``folder`` by name, sorted; empty when it is missing."""
        return self._list(folder, "file", os.DirEntry.is_file)

    def folders(self, folder: str) -> list[str]:
        """List the folders directly in ``folder`` by name, sorted; empty when it is missing."""
        return self._list(folder, "directory", os.DirEntry.is_dir)

    def _list(
        self, folder: str, kind: str, is_one: Callable[[os.DirEntry[str]], bool]
    ) -> list[str]:
        """List one kind of entry: ``kind`` is fsspec's word, ``is_one`` asks the local disk."""
        try:
            if self.local is not None:
                with os.scandir(self.path(folder)) as entries:
                    return sorted(entry.name for entry in entries if _is_so(is_one, entry))
            self._fs.invalidate_cache()
            found = self._fs.ls(self._remote(folder), detail=True)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(entry["name"]).name for entry in found if entry["type"] == kind)

    def make_folder(self, folder: str) -> None:
        """Make ``folder`` where folders exist at all."""
        if self.local is not None:
            self.path(folder).mkdir(parents=True, exist_ok=True)

    def size(self, name: str) -> int:
        """Return the size of the file ``name``, bytes."""
        if self.local is not None:
            return self.path(name).stat().st_size
        return int(self._fs.size(self._remote(name)))

    def stamps(self, folder: str) -> dict[str, tuple[int, int]] | None:
        """Return size and time of each file of a local ``folder``; none on an object store."""
        if self.local is None:
            return None
        try:
            with os.scandir(self.path(folder)) as entries:
                stats = ((entry.name, entry.stat()) for entry in entries if entry.is_file())
                return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats}
        except FileNotFoundError:
            return {}

    def times(self, folder: str) -> dict[str, float]:
        """Return when each file of ``folder`` was written, in seconds of the store's own clock.

        A file of which a store does not say it counts as written this instant.
        """
        if (stamps := self.stamps(folder)) is not None:
            return {name: time_ns / 1e9 for name, (_, time_ns) in stamps.items()}
        self._fs.invalidate_cache()
        try:
            entries = self._fs.ls(self._remote(folder), detail=True)
        except FileNotFoundError:
            return {}
        files = {PurePosixPath(one["name"]).name: one for one in entries if one["type"] == "file"}
        return {name: self._time(folder, name, entry) for name, entry in files.items()}

    def _time(self, folder: str, name: str, entry: dict[str, Any]) -> float:
        found = next((entry[key] for key in _WRITTEN if key in entry), None)
        if found is None:
            try:
                found = self._fs.modified(self._remote(f"{folder}/{name}"))
            except (NotImplementedError, FileNotFoundError):
                return time.time()
        if isinstance(found, str):
            found = datetime.fromisoformat(found)
        if isinstance(found, datetime):
            found = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        return float(found)

    def age_s(self, name: str) -> float:
        """Return the seconds since ``name`` was written; 0 where an object store does not say."""
        if self.local is not None:
            return time.time() - self.path(name).stat().st_mtime
        try:
            written: datetime = self._fs.modified(self._remote(name))
        except (NotImplementedError, FileNotFoundError):
            return 0.0
        return (datetime.now(UTC) - written.astimezone(UTC)).total_seconds()

    def read(self, name: str) -> bytes:
        """Read the whole file ``name``."""
        if self.local is not None:
            return self.path(name).read_bytes()
        return bytes(self._fs.cat_file(self._remote(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write ``name`` whole, replacing what was there."""
        if self.local is None:
            self._fs.pipe_file(self._remote(name, write=True), data)
            return
        write_whole(self.path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write ``name`` whole unless it exists; say whether it was written.

        Exact on a local disk, and on stores that know conditional writes (``If-None-Match``). On
        others two writers at the same instant both win. Bytes of which no two writers have the
        same make it exact also where a client sends its request again.
        """
        if self.local is not None:
            try:
                with replacing(self.path(name), keep=True) as staged:
                    staged.write_bytes(data)
            except FileExistsError:
                return False
            return True
        if self.exists(name):
            return False
        try:
            self._fs.pipe_file(self._remote(name, write=True), data, mode="create")
        except OSError as error:  # also that it exists, for which not all stores have one word
            try:
                # What a client sends twice, as no answer came, stands in its own way.
                return self.read(name) == data
            except FileNotFoundError:
                if isinstance(error, FileExistsError):
                    return False  # and was taken away since
            raise
        return True

    def move(self, source: str, target: str) -> None:
        """Rename a file; the target is replaced. A copy and a delete on an object store."""
        if self.local is not None:
            self.path(target).parent.mkdir(parents=True, exist_ok=True)
            self.path(source).replace(self.path(target))
            return
        self._fs.copy(self._remote(source), self._remote(target, write=True))
        self._fs.rm_file(self._remote(source))

    def remove(self, name: str) -> None:
        """Delete the file or folder ``name``; no error when it is missing."""
        if self.local is not None:
            path = self.path(name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._remote(name), recursive=True)

    def publish(self, file: Path, name: str) -> None:
        """Move the finished local ``file`` to ``name``, whole or not at all.

        On a local root ``file`` must be on the same disk: take it from ``WorkerContext.scratch``.
        """
        if self.local is not None:
            target = self.path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if target.is_dir() and not target.is_symlink():
                    target.rmdir()  # an empty folder in its place; one with files is somebody's
                file.replace(target)
            except OSError as error:
                if not target.is_dir():
                    raise
                detail = f"{name}: a folder with files in it is in the way. Move it away"
                raise InputError("folder_in_the_way", detail, retryable=True) from error
            return
        self._fs.put_file(str(file), self._remote(name, write=True))
        file.unlink()

    @contextlib.contextmanager
    def as_local(self, name: str) -> Iterator[Path]:
        """Yield the file ``name`` as a local path; a copy that goes again when remote."""
        if self.local is not None:
            yield self.path(name)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PurePosixPath(name).name
            self._fs.get_file(self._remote(name), str(path))
            yield path


def _is_so(asked: Callable[[os.DirEntry[str]], bool], entry: os.DirEntry[str]) -> bool:
    """Ask about a folder's entry; a link to itself is neither file nor folder."""
    try:
        return asked(entry)
    except OSError:
        return False


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(f"{name!r} leads outside the workspace.")
    return str(path)
