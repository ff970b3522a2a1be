"""The place of a workspace: a local folder or any object store fsspec knows.

Paths are relative to the root and use ``/``. Every write is whole or absent: beside and renamed on
a local disk, a single put on an object store. Nothing is answered from a cache, or a reader would
miss what another process just wrote; but see ``listed_once``.

What an object store refuses is a ``StopRun``: no row is at fault, and what is not done stays
pending.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path, PurePosixPath

from pipeline.errors import InputError, StopRun, UsageError
from pipeline.files import replacing, write_whole
from pipeline.words import size as size_of
from pipeline.workspace.stores.mounts import Mount, mount_of
from pipeline.workspace.stores.object_store import ObjectStore

_AT_ONCE = 8
"""The files that are copied side by side."""


class Storage:
    """The files below one root.

    Args:
        root: a local folder, or a URL such as ``s3://bucket/ws``.

    Raises:
        UsageError: the URL's scheme is unknown, or its package is not installed.
    """

    def __init__(self, root: str | Path) -> None:
        self.url = str(root)
        self.local: Path | None = None
        """The root as a local folder; none on an object store."""
        self._store: ObjectStore | None = None
        if "://" in self.url and not self.url.startswith("file://"):
            self._store = ObjectStore(self.url.rstrip("/"))
        else:
            self.local = Path(self.url.removeprefix("file://")).absolute()

    def __reduce__(self) -> tuple[object, ...]:
        # A worker on another node has another current folder.
        root = self.url if self.local is None else str(self.local)
        return (Storage, (root,), {"is_conditional": self.is_conditional})

    def __setstate__(self, state: dict[str, bool | None]) -> None:
        if self._store is not None:
            self._store.is_conditional = state["is_conditional"]

    @property
    def is_conditional(self) -> bool | None:
        """Say whether ``create`` is exact; none while an object store was not asked."""
        return True if self._store is None else self._store.is_conditional

    @contextlib.contextmanager
    def listed_once(self) -> Iterator[None]:
        """List each folder of an object store once, ``commits`` and ``tables`` as a whole.

        What is read of ``commits`` is read once too. Own writes show, those of others do not, until
        ``look_again``. On a disk it changes nothing.
        """
        with contextlib.nullcontext() if self._store is None else self._store.listed_once():
            yield

    @contextlib.contextmanager
    def asked_each_time(self) -> Iterator[None]:
        """Ask the store itself inside the ``with``, and list anew after it: others are at work."""
        with contextlib.nullcontext() if self._store is None else self._store.asked_each_time():
            yield

    def look_again(self) -> None:
        """Forget what was listed: others may have written."""
        if self._store is not None:
            self._store.look_again()

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

    def local_stat(self, name: str) -> os.stat_result:
        """Look at the file ``name`` on a local disk, as ``path(name).stat()`` does.

        A path that is made for each of a million files takes twice as long as to look at them.

        Raises:
            UsageError: as ``path``.
            OSError: there is none.
        """
        if self.local is None:
            return self.path(name).stat()
        return os.stat(f"{self._root}/{_inside(name)}")  # noqa: PTH116

    @cached_property
    def _root(self) -> str:
        return str(self.local)

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

    def exists(self, name: str) -> bool:
        """Say whether ``name`` is a file or folder."""
        if self._store is not None:
            return self._store.exists(_inside(name))
        return self.path(name).exists()

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
        if self._store is not None:
            entries = self._store.entries(_inside(folder)).items()
            return sorted(name for name, entry in entries if entry["type"] == kind)
        try:
            with os.scandir(self.path(folder)) as found:
                return sorted(entry.name for entry in found if _is_so(is_one, entry))
        except FileNotFoundError:
            return []

    def make_folder(self, folder: str) -> None:
        """Make ``folder`` where folders exist at all."""
        if self.local is not None:
            self.path(folder).mkdir(parents=True, exist_ok=True)

    def size(self, name: str) -> int:
        """Return the size of the file ``name``, bytes."""
        if self._store is not None:
            return self._store.size(_inside(name))
        return self.path(name).stat().st_size

    def stamps(self, folder: str) -> dict[str, tuple[int, int]] | None:
        """Return size and time of each file of ``folder``; none where a store tells no times.

        Another file of the same name has another stamp.
        """
        if self._store is not None:
            return self._store.stamps(_inside(folder))
        try:
            with os.scandir(self.path(folder)) as entries:
                stats = ((entry.name, entry.stat()) for entry in entries if entry.is_file())
                return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats}
        except FileNotFoundError:
            return {}

    def times(self, folder: str) -> dict[str, float]:
        """Return when each file of ``folder`` was written, in seconds of the store's own clock.

        Asked anew at each call. A file of which a store does not say it counts as written this
        instant.
        """
        if self._store is not None:
            return self._store.times(_inside(folder))
        stamps = self.stamps(folder) or {}
        return {name: time_ns / 1e9 for name, (_, time_ns) in stamps.items()}

    def age_s(self, name: str) -> float:
        """Return the seconds since ``name`` was written; 0 where an object store does not say."""
        if self._store is not None:
            return self._store.age_s(_inside(name))
        return time.time() - self.path(name).stat().st_mtime

    def read(self, name: str, *, anew: bool = False) -> bytes:
        """Read the whole file ``name``; ``anew`` also inside ``listed_once``."""
        if self._store is not None:
            return self._store.read(_inside(name), anew=anew)
        return self.path(name).read_bytes()

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read files, side by side where that is faster; without those that are gone."""
        if self._store is not None:
            return self._store.read_all(map(_inside, names))
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = self.path(name).read_bytes()
        return found

    def write(self, name: str, data: bytes) -> None:
        """Write ``name`` whole, replacing what was there."""
        if self._store is not None:
            self._store.write(_inside(name), data)
            return
        write_whole(self.path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write ``name`` whole unless it exists; say whether it was written.

        Exact on a local disk, and on stores that know conditional writes (``If-None-Match``), which
        the first call finds out. On others two writers at the same instant both win. Bytes of which
        no two writers have the same make it exact also where a client sends its request again.
        """
        if self._store is not None:
            return self._store.create(_inside(name), data)
        try:
            with replacing(self.path(name), keep=True) as staged:
                staged.write_bytes(data)
        except FileExistsError:
            return False
        return True

    def move(self, source: str, target: str) -> None:
        """Rename a file; the target is replaced. A copy and a delete on an object store."""
        if self._store is not None:
            self._store.move(_inside(source), _inside(target))
            return
        self.path(target).parent.mkdir(parents=True, exist_ok=True)
        self.path(source).replace(self.path(target))

    def remove(self, name: str) -> None:
        """Delete the file ``name``, on a disk also a folder; no error when it is missing."""
        if self._store is not None:
            self._store.remove(_inside(name))
            return
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def publish(self, file: Path, name: str) -> None:
        """Move the finished local ``file`` to ``name``, whole or not at all.

        On a local root ``file`` must be on the same disk: take it from ``WorkerContext.scratch``.
        """
        if self._store is not None:
            self._store.publish(file, _inside(name))
            file.unlink()
            return
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

    @contextlib.contextmanager
    def as_local(self, name: str) -> Iterator[Path]:
        """Yield the file ``name`` as a local path; a copy that goes again when remote."""
        if self._store is None:
            yield self.path(name)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PurePosixPath(name).name
            self._store.fetch(_inside(name), path)
            yield path

    def fetch_all(self, folder: str, target: Path) -> None:
        """Copy a folder of an object store, with all below it, to a local one.

        Raises:
            StopRun: there is not the room.
            UsageError: a file's name leads outside of it.
        """
        assert self._store is not None
        files = {_inside(name): size for name, size in self._store.below(_inside(folder)).items()}
        target.mkdir(parents=True, exist_ok=True)
        need, free = sum(files.values()), shutil.disk_usage(target).free
        if need > free:
            raise StopRun(
                f"{self.url}/{folder}: {size_of(need)} to copy, and {size_of(free)} are free in"
                f" {target}. Make room, or name another disk in TMPDIR."
            )

        def fetch(name: str) -> None:
            place = target / PurePosixPath(name).relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            assert self._store is not None
            self._store.fetch(name, place)

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for _ in threads.map(fetch, files):
                pass

    def signed(self, name: str, expires_s: int) -> str:
        """Return an address that opens ``name`` on an object store for whoever has it, for so long.

        Raises:
            UsageError: on a disk, or where the store signs none.
        """
        if self._store is None:
            raise UsageError(f"{self.url}: a folder has no addresses to sign.")
        return self._store.sign(_inside(name), expires_s)


def _is_so(asked: Callable[[os.DirEntry[str]], bool], entry: os.DirEntry[str]) -> bool:
    """Ask about a folder's entry; a link to itself is neither file nor folder."""
    try:
        return asked(entry)
    except OSError:
        return False


_ORDINARY = re.compile(r"[^/.][^/]*(/[^/.][^/]*)*")
"""Names that lead nowhere else, and are written in the one way."""


def _inside(name: str) -> str:
    if _ORDINARY.fullmatch(name):
        return name
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(f"{name!r} leads outside the workspace.")
    return str(path)
