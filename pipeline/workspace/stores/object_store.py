"""The files below one URL of an object store, through fsspec, with as few requests as it takes.

A request costs 20 to 100 ms and money. So what is there is asked for and not first whether it is
there; a write that must be the first is one conditional put; and ``listed_once`` answers all that
is asked of names from one listing.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import StopRun, UsageError
from pipeline.workspace.stores.refusals import is_conflict, is_taken, lacking, store_says

Entry = dict[str, Any]
"""A file or folder as fsspec lists it."""

_S3 = {"s3", "s3a"}
_FLAT = {*_S3, "gs", "gcs", "abfs", "abfss", "az"}
"""The stores whose folders are parts of names, and that list all below one at once.

Elsewhere folders must be made, and are listed one by one. On these, making a folder would make a
bucket that is missing, as a mistyped one is.
"""

_WHOLE = ("commits", "tables")
"""The folders that ``listed_once`` lists with all below them; the others it lists as asked."""

_READ_ONCE = "commits"
"""The folder whose files it reads once."""

_WRITTEN = ("LastModified", "last_modified", "mtime", "updated", "modified")
"""The names under which fsspec's file systems list when a file was written."""

_TOLD = ("type", "size", "ETag", "etag", *_WRITTEN)
"""What is kept of an entry, of the dozen things a store tells: there may be 100,000 of them."""

_CONFLICTS = 5
"""The tries of a conditional put that meets another one under way."""

_AGAIN_S = 0.2
"""The seconds between them."""


class ObjectStore:
    """See the module.

    Args:
        url: such as ``s3://bucket/ws``.

    Raises:
        UsageError: the scheme is unknown, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        scheme = url.partition("://")[0]
        try:
            self._fs: Any
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise lacking(scheme, error) from error
        except (ValueError, OSError) as error:
            raise UsageError(f"{url}: {_one_line(error)}.") from error
        self._root = root.rstrip("/")
        named = self._fs.protocol
        protocols = {named} if isinstance(named, str) else {*named}
        self._is_flat = bool(protocols & _FLAT)
        # One request, where s3fs would first ask for the size to read in parts.
        self._whole: dict[str, Any] = {"max_concurrency": 1} if protocols & _S3 else {}
        self._made: set[str] = set()
        self._listed: dict[str, dict[str, Entry]] | None = None
        self._held: dict[str, bytes] = {}
        """The files of ``commits`` read since, inside ``listed_once``."""
        self.is_conditional: bool | None = None
        """Whether a put may ask not to replace anything; none until ``create`` has found out."""

    @contextlib.contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Turn what the store refuses into one line."""
        try:
            yield
        except Exception as error:
            if said := store_says(error, f"{self.url}/{name}"):
                raise StopRun(said) from error
            raise

    def _path(self, name: str, *, write: bool = False) -> str:
        path = f"{self._root}/{name}" if name != "." else self._root
        folder = path.rpartition("/")[0]
        if write and not self._is_flat and folder not in self._made:
            self._fs.makedirs(folder, exist_ok=True)
            self._made.add(folder)
        return path

    # Listings

    @contextlib.contextmanager
    def listed_once(self) -> Iterator[None]:
        """Answer what is asked of names from one listing a folder; own writes show in it."""
        if self._listed is not None:
            yield
            return
        self._listed, self._held = {}, {}
        try:
            yield
        finally:
            self._listed, self._held = None, {}

    @contextlib.contextmanager
    def asked_each_time(self) -> Iterator[None]:
        """Answer from the store itself inside the ``with``, also within ``listed_once``."""
        listed, self._listed, self._held = self._listed, None, {}
        try:
            yield
        finally:
            self._listed = None if listed is None else {}

    def look_again(self) -> None:
        """List anew from now on, inside ``listed_once``."""
        if self._listed is not None:
            self._listed, self._held = {}, {}

    def entries(self, folder: str, *, anew: bool = False) -> dict[str, Entry]:
        """Return the files and folders in ``folder`` by name; empty when it is missing.

        Args:
            folder: its name.
            anew: whatever was listed before.
        """
        listed = self._listed
        if listed is None or anew:
            return self._ls(folder)
        if folder not in listed:
            if top := self._listed_whole(folder):
                if top not in listed:
                    listed |= self._tree(top)
                return listed.get(folder, {})
            listed[folder] = self._ls(folder)
        return listed[folder]

    def _listed_whole(self, folder: str) -> str:
        """Return the folder that is listed with all below it and holds this one; empty: none."""
        tops = (top for top in _WHOLE if self._is_flat and _is_within(folder, top))
        return next(tops, "")

    def _ls(self, folder: str) -> dict[str, Entry]:
        with self._asking(folder):
            try:
                found = self._fs.ls(self._path(folder), detail=True)
            except FileNotFoundError as error:
                if store_says(error, ""):  # the bucket itself
                    raise
                return {}
        return {one["name"].rstrip("/").rpartition("/")[2]: one for one in found}

    def _tree(self, top: str) -> dict[str, dict[str, Entry]]:
        """List all below a folder, by folder."""
        with self._asking(top):
            found = self._fs.find(self._path(top), detail=True)
        tree: dict[str, dict[str, Entry]] = {top: {}}
        for path, entry in found.items():
            name = path.removeprefix(f"{self._root}/")
            _put(tree, name, {key: entry[key] for key in _TOLD if key in entry})
        return tree

    def _note(self, name: str, entry: Entry | None) -> None:
        """Let a write show in what was listed."""
        listed = self._listed
        if listed is None:
            return
        self._held.pop(name, None)
        folder, _, last = name.rpartition("/")
        if entry is None:
            listed.get(folder, {}).pop(last, None)
        elif (top := self._listed_whole(folder)) and top in listed:
            _put(listed, name, entry)
        elif folder in listed:
            listed[folder][last] = entry

    def _entry(self, name: str) -> Entry | None:
        """Return what was listed of ``name``."""
        folder, _, last = name.rpartition("/")
        return self.entries(folder or ".").get(last)

    def exists(self, name: str) -> bool:
        """Say whether ``name`` is a file or folder."""
        if self._listed is not None:
            return self._entry(name) is not None
        return self._is_there(name)

    def _is_there(self, name: str) -> bool:
        with self._asking(name):
            try:
                return bool(self._fs.exists(self._path(name)))
            except OSError:  # whose reason the answer to a HEAD cannot tell, but that to a listing
                with contextlib.suppress(FileNotFoundError):
                    self._fs.ls(self._path(name))
                raise

    def size(self, name: str) -> int:
        """Return the size of a file, bytes."""
        entry = self._entry(name) if self._listed is not None else None
        if entry and entry.get("size") is not None:
            return int(entry["size"])
        with self._asking(name):
            return int(self._fs.size(self._path(name)))

    def stamps(self, folder: str) -> dict[str, tuple[int, int]] | None:
        """Return size and time of each file of ``folder``; none where the store tells no times.

        Where it tells a digest of the bytes, that takes the place of parts of a second: two files
        of one second and size differ all the same.
        """
        found = {}
        for name, entry in self.entries(folder).items():
            if entry["type"] != "file":
                continue
            at = _time(entry)
            if at is None or entry.get("size") is None:
                return None
            time_ns = round(at * 1e9)
            if etag := entry.get("ETag") or entry.get("etag"):
                digest = hashlib.sha256(str(etag).encode()).digest()
                time_ns = int(at) * 1_000_000_000 + int.from_bytes(digest[:8]) % 1_000_000_000
            found[name] = (int(entry["size"]), time_ns)
        return found

    def times(self, folder: str) -> dict[str, float]:
        """Return when each file of ``folder`` was written, asked anew; see ``Storage.times``."""
        entries = self.entries(folder, anew=True)
        return {
            name: self._time_of(f"{folder}/{name}", entry) or time.time()
            for name, entry in entries.items()
            if entry["type"] == "file"
        }

    def age_s(self, name: str) -> float:
        """Return the seconds since ``name`` was written; 0 where the store does not say."""
        entry = self._entry(name) if self._listed is not None else {}
        at = self._time_of(name, entry) if entry is not None else None
        return 0.0 if at is None else time.time() - at

    def _time_of(self, name: str, entry: Entry) -> float | None:
        found = _time(entry)
        if found is None:
            with contextlib.suppress(NotImplementedError, FileNotFoundError), self._asking(name):
                return _seconds(self._fs.modified(self._path(name)))
        return found

    # Reading

    def read(self, name: str, *, anew: bool = False) -> bytes:
        """Read a whole file; see ``listed_once``.

        Args:
            name: of the file.
            anew: whatever was read before.
        """
        if anew or self._listed is None or not _is_within(name, _READ_ONCE):
            return self._get(name)
        if name not in self._held:
            self._held[name] = self._get(name)
        return self._held[name]

    def _get(self, name: str) -> bytes:
        with self._asking(name):
            return bytes(self._fs.cat_file(self._path(name), **self._whole))

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read files at once, where the store can; without those that are gone."""
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        found: dict[str, bytes] = {}
        answers = self._fs.cat([*paths], on_error="return", **self._whole)
        for path, answer in answers.items():
            with self._asking(paths[path]):
                if isinstance(answer, FileNotFoundError) and not store_says(answer, ""):
                    continue
                if isinstance(answer, BaseException):
                    raise answer
            found[paths[path]] = bytes(answer)
        return found

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to a local path."""
        with self._asking(name):
            self._fs.get_file(self._path(name), str(target))

    def below(self, folder: str) -> dict[str, int]:
        """Return the sizes of all files in a folder and in those in it, by name."""
        if self._is_flat:
            tree = self._tree(folder)
            return {
                f"{held}/{name}": int(entry["size"])
                for held, entries in tree.items()
                for name, entry in entries.items()
                if entry["type"] == "file"
            }
        found = {}
        for name, entry in self.entries(folder).items():
            inner = f"{folder}/{name}"
            if entry["type"] == "file":
                found[inner] = int(entry["size"])
            else:
                found |= self.below(inner)
        return found

    def sign(self, name: str, expires_s: int) -> str:
        """Return an address that opens a file for whoever has it, for so long.

        Raises:
            UsageError: the store signs no addresses.
        """
        try:
            with self._asking(name):
                return str(self._fs.sign(self._path(name), expiration=expires_s))
        except NotImplementedError as error:
            raise UsageError(f"{self.url}: this store signs no addresses.") from error

    # Writing

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole, replacing what was there."""
        with self._asking(name):
            self._fs.pipe_file(self._path(name, write=True), data)
        self._note(name, _made_here(len(data)))

    def create(self, name: str, data: bytes) -> bool:
        """Write a file whole unless it exists; say whether it was written."""
        if not self.is_conditional and self._is_there(name):
            return False
        written = self._create(name, data)
        if written:
            if self.is_conditional is None:
                self.is_conditional = self._is_refused(name, data)
            self._note(name, _made_here(len(data)))
        else:
            self.look_again()
        return written

    def _create(self, name: str, data: bytes) -> bool:
        path = self._path(name, write=True)
        with self._asking(name):
            for left in reversed(range(_CONFLICTS)):
                try:
                    self._fs.pipe_file(path, data, mode="create")
                except OSError as error:  # also that it exists, for which stores differ in words
                    try:
                        # What a client sends twice, as no answer came, stands in its own way.
                        return bytes(self._fs.cat_file(path, **self._whole)) == data
                    except FileNotFoundError:
                        if is_taken(error):
                            return False  # and was taken away since
                        if not (left and is_conflict(error)):
                            raise error from error.__cause__
                        time.sleep(_AGAIN_S)
                else:
                    return True
        raise AssertionError

    def _is_refused(self, name: str, data: bytes) -> bool:
        """Say whether a store refuses to create what is there; the same bytes do no harm."""
        try:
            with self._asking(name):
                self._fs.pipe_file(self._path(name), data, mode="create")
        except OSError as error:
            return is_taken(error)
        return False

    def publish(self, file: Path, name: str) -> None:
        """Copy a local file to ``name``, whole or not at all."""
        size = file.stat().st_size
        with self._asking(name):
            self._fs.put_file(str(file), self._path(name, write=True))
        self._note(name, _made_here(size))

    def move(self, source: str, target: str) -> None:
        """Copy a file and delete it where it was."""
        size = (self._entry(source) or {}).get("size", 0) if self._listed is not None else 0
        with self._asking(source):
            self._fs.cp_file(self._path(source), self._path(target, write=True))
        self._note(target, _made_here(size))
        self.remove(source)

    def remove(self, name: str) -> None:
        """Delete a file; no error when it is missing."""
        with contextlib.suppress(FileNotFoundError), self._asking(name):
            self._fs.rm_file(self._path(name))
        self._note(name, None)


def _is_within(folder: str, top: str) -> bool:
    return folder == top or folder.startswith(f"{top}/")


def _put(tree: dict[str, dict[str, Entry]], name: str, entry: Entry) -> None:
    """Put a file into a tree, and the folders it is in."""
    folder, _, last = name.rpartition("/")
    tree.setdefault(folder, {})[last] = entry
    while folder:
        folder, _, last = folder.rpartition("/")
        held = tree.setdefault(folder, {})
        if last in held:
            return
        held[last] = {"type": "directory", "size": 0}


def _made_here(size: int) -> Entry:
    """Return the entry of a file that was written since the listing."""
    return {"type": "file", "size": size, "LastModified": time.time()}


def _time(entry: Entry) -> float | None:
    found = next((entry[key] for key in _WRITTEN if entry.get(key) is not None), None)
    return None if found is None else _seconds(found)


def _seconds(found: Any) -> float:
    """Return seconds since 1970 of what file systems say of times."""
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    if isinstance(found, datetime):
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return float(found)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
