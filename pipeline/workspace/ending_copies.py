"""Copies of the rows that gave no output, of many small files in one; it only saves time.

    commits/<stage>/copies/index.json         the copies, and which files each is of, in order
                           <sha256>.parquet   the rows of these files, one file after the other

A unit leaves a file of a row or two for what failed in it, and to open one takes longer than to
read a thousand rows. What is copied of a file is known of its bytes, by their digest, so that no
answer can be out of date; a file that is in no copy, or in one that is gone or not what was
written, is opened itself.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import DamagedError
from pipeline.records.schema import DropRow, FailureRow, Record
from pipeline.workspace.commit import UNREADABLE, TableFile
from pipeline.workspace.id_index import read_directory, write_directory
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import RecordT, read_records, to_parquet

_RECORDS: dict[str, type[Record]] = {"drops": DropRow, "failures": FailureRow}

_FROM = 64
"""The number of files that are in no copy that makes another copy."""

_MOST = 4096
"""The files of a copy, at most: bounds the memory it takes to make one."""


@dataclass(frozen=True)
class _Copy:
    table: str
    sha256: str
    files: list[TableFile]


class EndingCopies:
    """The copies of one stage.

    Args:
        storage: where.
        folder: the stage's, below ``commits``.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, f"{folder}/copies"
        self._copies: list[_Copy] = []
        try:
            self._copies = [
                _Copy(table, sha256, [TableFile(name, of, table, rows) for name, of, rows in files])
                for table, sha256, files in read_directory(storage, self._folder) or []
            ]
        except (OSError, *UNREADABLE):
            self._copies = []

    def rows(
        self, record: type[RecordT], table: str, files: Iterable[TableFile]
    ) -> dict[tuple[str, str], list[RecordT]]:
        """Return the rows of those of these files that are copied, by name and digest."""
        wanted = {file.content for file in files}
        found = {}
        for copy in self._copies:
            if copy.table != table or wanted.isdisjoint(file.content for file in copy.files):
                continue
            try:
                rows = read_records(record, self._storage, self._path(copy), copy.sha256)
            except DamagedError:
                continue
            first = 0
            for file in copy.files:
                if file.content in wanted:
                    found[file.content] = rows[first : first + file.rows]
                first += file.rows
        return found

    def add(self, every: Iterable[TableFile]) -> None:
        """Copy files, where there are enough that are in no copy.

        A file that is gone or not what was committed is left out: who reads it says so.

        Args:
            every: all of the stage that are in force.
        """
        there = {file.content: file for file in every if file.table in _RECORDS}
        kept = [copy for copy in self._copies if self._is_of_use(copy, there)]
        copied = {file.content for copy in kept for file in copy.files}
        copies = [*kept]
        for table in _RECORDS:
            files = [file for file in there.values() if file.table == table]
            new = [file for file in files if file.content not in copied]
            for first in range(0, len(new) if len(new) >= _FROM else 0, _MOST):
                copies.append(self._write(table, new[first : first + _MOST]))
        if copies == self._copies:
            return
        self._copies = copies
        document = [
            [copy.table, copy.sha256, [[file.file, file.sha256, file.rows] for file in copy.files]]
            for copy in copies
        ]
        names = [f"{copy.sha256}.parquet" for copy in copies]
        write_directory(self._storage, self._folder, document, names)

    def _is_of_use(self, copy: _Copy, there: Mapping[tuple[str, str], TableFile]) -> bool:
        """Say whether a copy is there, and most of what it is of in force."""
        count = sum(file.content in there for file in copy.files)
        return 2 * count > len(copy.files) and self._storage.exists(self._path(copy))

    def _write(self, table: str, files: Sequence[TableFile]) -> _Copy:
        record = _RECORDS[table]
        copied: list[TableFile] = []
        rows: list[Record] = []
        for file in files:
            with contextlib.suppress(DamagedError):
                rows += read_records(record, self._storage, file.file, file.sha256)
                copied.append(file)
        data = to_parquet(record, rows)
        copy = _Copy(table, hashlib.sha256(data).hexdigest(), copied)
        self._storage.write(self._path(copy), data)
        return copy

    def _path(self, copy: _Copy) -> str:
        return f"{self._folder}/{copy.sha256}.parquet"
