"""The commits of one stage, read from their own files or from the index of many; and that index.

A file that is there is read once, and taken as it was until ``forget``; the folder is listed each
time. What the index has of a file of the same size and time is as if it were read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from pipeline.workspace.commit import Commit, TableFile
from pipeline.workspace.commit_table import CommitTable, Stamp
from pipeline.workspace.ending_copies import EndingCopies
from pipeline.workspace.id_index import IdIndex
from pipeline.workspace.storage import Storage

_INDEX = "index.json"

_INDEX_FROM = 64
"""The number of commits outside the index that makes a new one, on a disk."""

_INDEX_FROM_REMOTE = 1
"""The same on an object store, where each commit outside it is a request to whoever looks first."""

_READ_AGAIN_FROM = 4
"""The number of commits for which who has looked before reads the index there again."""

_NO_STAMP = (0, 0)
"""The stamp of a file in a store that tells no times."""


class CommittedUnits:
    """The commits of a stage.

    Args:
        storage: where.
        folder: the stage's, below ``commits``.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder
        self._index: CommitTable | None = None
        self._places: dict[str, int] = {}
        """The commits in force that the index has, and where there, by the names of their files."""
        self._commits: dict[str, Commit] = {}
        """Those that were read from files of their own, and what was made of the index."""
        self._stamps: dict[str, Stamp] = {}
        """The stamps that the files of the former had before they were read."""
        self._table: CommitTable | None = None
        """All of them, as ``table`` returned them last."""
        self.held = False
        """Set while ``Workspace.one_moment`` lasts: they are as they were looked at."""

    def commits(self) -> list[Commit]:
        """Return all commits, in the order of their units.

        Raises:
            DamagedError: one is not what was written.
        """
        self.look()
        unmade = [name for name in self._places if name not in self._commits]
        if unmade and self._index is not None:
            some = self._index.take([self._places[name] for name in unmade])
            self._commits |= zip(unmade, some.commits(), strict=True)
        return sorted(self._commits.values(), key=lambda commit: commit.ordinal)

    def table(self) -> CommitTable:
        """Return all commits as columns, in the order of their units; see ``commits``."""
        self.look()
        if self._table is None:
            tables = []
            if self._index is not None:
                is_all = len(self._places) == len(self._index)
                places = [*self._places.values()]
                tables.append(self._index if is_all else self._index.take(places))
            if alone := self._commits.keys() - self._places.keys():
                stamps, commits = self._stamps, self._commits
                rows = [(name, stamps.get(name, _NO_STAMP), commits[name]) for name in alone]
                tables.append(CommitTable.of(rows))
            self._table = CommitTable.joined(tables).in_order()
        return self._table

    def look(self) -> None:
        """Find out which commits there are, and read those that no index has.

        Raises:
            DamagedError: one is not what was written.
        """
        if self.held:
            return
        stamps = self._storage.stamps(f"{self._folder}/units")
        names = unit_files(
            self._storage.names(f"{self._folder}/units") if stamps is None else stamps
        )
        known = self._commits.keys() | self._places.keys()
        least = max(self._index_from, _READ_AGAIN_FROM if known else 1)
        if stamps is not None and len(names - known) >= least:
            self._read_index(stamps)
            known = self._commits.keys() | self._places.keys()
        if names == known:
            return
        self._table = None
        new = [f"{self._folder}/units/{name}" for name in sorted(names - known)]
        for path, data in self._storage.read_all(new).items():  # less what was retired since
            name = PurePosixPath(path).name
            self._commits[name] = Commit.from_json(data, path)
            if stamps is not None:
                self._stamps[name] = stamps[name]
        for gone in known - names:  # retired
            self._drop(gone)

    def forget(self, unit: str) -> None:
        """Read a unit's commit anew: another process has replaced it."""
        self._drop(f"{unit}.json")

    def _drop(self, name: str) -> None:
        self._table = None
        for known in (self._commits, self._stamps, self._places):
            known.pop(name, None)

    @property
    def _index_from(self) -> int:
        """The number of commits outside the index that makes a new one."""
        return _INDEX_FROM if self._storage.local is not None else _INDEX_FROM_REMOTE

    def _read_index(self, stamps: Mapping[str, Stamp]) -> None:
        """Take the commits of the index whose files have the size and time they had then."""
        # It only saves time: one that is missing or damaged, or another version's, is passed over.
        with contextlib.suppress(OSError, ValueError):
            self._take(CommitTable.unpack(self._storage.read(f"{self._folder}/{_INDEX}")), stamps)

    def _take(self, index: CommitTable, stamps: Mapping[str, Stamp]) -> None:
        self._index, self._table = index, None
        self._places = {
            name: place
            for place, (name, stamp) in enumerate(index.stamps().items())
            if stamps.get(name) == stamp
        }
        for known in (self._commits, self._stamps):
            for name in known.keys() & self._places.keys():
                del known[name]

    def write_index(self) -> None:
        """Copy the commits into one file where many are in none, so that readers need only that.

        Then their ids are learned too, and what gave no output is copied.
        """
        self.look()
        if len(self._stamps) < self._index_from:
            return
        stamps = self._storage.stamps(f"{self._folder}/units") or {}
        for name, stamp in [*self._stamps.items()]:
            if stamps.get(name) != stamp:
                self._drop(name)  # replaced since it was read
        if self._index is not None:
            self._take(self._index, stamps)
        whole = self.table()
        files = [
            TableFile(file, sha256, table, rows) for _, file, sha256, table, rows in whole.files
        ]
        IdIndex(self._storage, self._folder).add(files)
        EndingCopies(self._storage, self._folder).add(files)
        self._storage.write(f"{self._folder}/{_INDEX}", whole.pack())
        self._take(whole, stamps)


def unit_files(names: Iterable[str]) -> set[str]:
    """Return those names that are of commits' files."""
    return {name for name in names if name.endswith(".json") and not name.startswith(".")}
