"""The files of a stage that hold an id, so that of many only these are opened; it saves time alone.

    commits/<stage>/ids/index.json         the files whose ids are known, and the blocks of those
                        <sha256>.parquet   a block: ids in their order, and the file of each

What is known of a file is known of its bytes, by their digest. So no answer can be out of date: a
file that was made anew is another, of which nothing is known, and it is looked into as without an
index. The same is true of all files where a block or ``index.json`` is gone or not what was
written. To look for an id, a block or two are read, of however many; to add files, the blocks are
read and written one after the other.
"""

from __future__ import annotations

import hashlib
import io
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.files import with_digest, without_digest
from pipeline.records.schema import TABLES
from pipeline.workspace.commit import ENDINGS, UNREADABLE, TableFile
from pipeline.workspace.storage import Storage

_KEYS = {table: record.key for table, record in TABLES.items()} | dict.fromkeys(ENDINGS, "input_id")
"""The column of the ids in each table's files."""

_DIRECTORY = "index.json"

_FROM = 64
"""The number of files it does not know that makes it add them."""

_BLOCK = 2**16
"""The ids of a block, at most."""

_MOST_BLOCKS = 2
"""The blocks that are read for the start of an id. Of more ids than these hold, most files have
some."""

_AT_ONCE = 2**18
"""The ids that are added together, at least; of many a quarter of what is there, so that a block is
not written more than some ten times."""

_READ_AT_ONCE = 16
"""The files that are read together."""


def read_directory(storage: Storage, folder: str) -> Any:
    """Return what ``write_directory`` wrote; none where there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what was written.
    """
    # On a store it costs nothing to see that there is none.
    if _DIRECTORY not in storage.names(folder):
        return None
    return json.loads(without_digest(storage.read(f"{folder}/{_DIRECTORY}")))


def write_directory(storage: Storage, folder: str, document: Any, names: Iterable[str]) -> None:
    """Write what a folder of short forms holds; delete the files that are not among ``names``."""
    storage.write(f"{folder}/{_DIRECTORY}", with_digest(json.dumps(document).encode()))
    for name in {*storage.names(folder)} - {_DIRECTORY, *names}:
        storage.remove(f"{folder}/{name}")


@dataclass(frozen=True)
class _Block:
    first: str
    """The first id in it."""
    rows: int
    sha256: str


class IdIndex:
    """The ids in the files of one stage.

    Args:
        storage: where.
        folder: the stage's, below ``commits``.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, f"{folder}/ids"
        self._files: list[tuple[str, str]] = []
        self._blocks: list[_Block] = []
        try:
            files, blocks = read_directory(storage, self._folder) or ([], [])
            self._files = [(file, sha256) for file, sha256 in files]
            self._blocks = [_Block(*block) for block in blocks]
        except (OSError, *UNREADABLE):
            self._files, self._blocks = [], []

    def without(self, start: str) -> set[tuple[str, str]]:
        """Return the files, by name and digest, that are known to hold no id that starts so.

        Of a start so short that most files have such ids, nothing is known.
        """
        import pyarrow.compute as pc

        firsts = [block.first for block in self._blocks]
        low = max(bisect_left(firsts, start) - 1, 0)
        high = bisect_left(firsts, True, key=lambda one: one > start and not one.startswith(start))
        if high - low > _MOST_BLOCKS:
            return set()
        known = {*self._files}
        for block in self._blocks[low:high]:
            rows = self._read(block)
            if rows is None:
                return set()
            found = rows.column("file").filter(pc.starts_with(rows.column("id"), start))
            known -= {self._files[number] for number in pc.unique(found).to_pylist()}
        return known

    def add(self, files: Iterable[TableFile]) -> None:
        """Learn the ids of these files, where there are enough of which they are not known.

        A file that is gone or not what was committed stays unknown: who looks into it says so.

        Args:
            files: all of the stage that are in force.
        """
        there = {file.content: file for file in files if file.table in _KEYS}
        gone = [content for content in self._files if content not in there]
        if 2 * len(gone) > len(self._files):
            self._files, self._blocks = [], []
        known = {*self._files}
        new = [file for content, file in there.items() if content not in known]
        if len(new) < _FROM:
            return
        if not self._take_in(new):  # a block was not what was written
            self._files, self._blocks = [], []
            self._take_in([*there.values()])
        blocks = [[block.first, block.rows, block.sha256] for block in self._blocks]
        names = [_name(block) for block in self._blocks]
        write_directory(self._storage, self._folder, [self._files, blocks], names)

    def _take_in(self, new: Sequence[TableFile]) -> bool:
        """Add files in batches; say whether all blocks could be read."""
        import pyarrow as pa

        found: list[Any] = []
        for ids in self._ids_of(new):
            found.append(ids)
            rows, most = sum(map(len, found)), sum(block.rows for block in self._blocks) // 4
            if rows >= max(_AT_ONCE, most):
                if not self._merge(pa.concat_tables(found)):
                    return False
                found = []
        return not found or self._merge(pa.concat_tables(found))

    def _ids_of(self, new: Sequence[TableFile]) -> Iterator[Any]:
        """Yield the ids of each file, and number it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for start in range(0, len(new), _READ_AT_ONCE):
            some = new[start : start + _READ_AT_ONCE]
            read = self._storage.read_all([file.file for file in some])
            for file in some:
                data = read.get(file.file, b"")
                if hashlib.sha256(data).hexdigest() != file.sha256:
                    continue
                key = _KEYS[file.table]
                held = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
                ids = held.read([key], use_threads=False).column(key)
                number = pa.repeat(pa.scalar(len(self._files), pa.int32()), len(ids))
                self._files.append(file.content)
                yield pa.table({"id": ids, "file": number})

    def _merge(self, new: Any) -> bool:
        """Put ids in their places among the blocks; say whether those could be read."""
        import pyarrow as pa

        new = _in_order(new)
        ids = new.column("id").chunk(0) if len(new) else []
        starts = [block.first for block in self._blocks[1:]]
        bounds = [0, *(bisect_left(ids, start, key=str) for start in starts), len(new)]
        blocks: list[_Block] = []
        for place, block in enumerate(self._blocks or [None]):
            some = new.slice(bounds[place], bounds[place + 1] - bounds[place])
            if not len(some):
                blocks += [block] if block else []
                continue
            if block is not None:
                old = self._read(block)
                if old is None:
                    return False
                some = _in_order(pa.concat_tables([old, some]))
            blocks += self._write(some)
        self._blocks = blocks
        return True

    def _write(self, rows: Any) -> Iterator[_Block]:
        """Write rows as blocks of about one size."""
        import pyarrow.parquet as pq

        count = -(-len(rows) // _BLOCK)
        for number in range(count):
            first, stop = (len(rows) * n // count for n in (number, number + 1))
            some = rows.slice(first, stop - first)
            buffer = io.BytesIO()
            pq.write_table(some, buffer, compression="zstd", use_dictionary=False)
            data = buffer.getvalue()
            block = _Block(str(some.column("id")[0]), len(some), hashlib.sha256(data).hexdigest())
            self._storage.write(f"{self._folder}/{_name(block)}", data)
            yield block

    def _read(self, block: _Block) -> Any | None:
        """Return a block's rows as a ``pyarrow.Table``; none where it is not what was written."""
        import pyarrow.parquet as pq

        try:
            data = self._storage.read(f"{self._folder}/{_name(block)}")
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != block.sha256:
            return None
        return pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(use_threads=False)


def _name(block: _Block) -> str:
    return f"{block.sha256}.parquet"


def _in_order(rows: Any) -> Any:
    """Return a table by its ids, in one piece."""
    import pyarrow.compute as pc

    whole = rows.combine_chunks()
    return whole.take(pc.sort_indices(whole.column("id"))).combine_chunks()
