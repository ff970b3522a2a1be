"""Rows in and out of Parquet, and the digest two runs are compared by.

A table is a folder of Parquet files; which of them count is the ledger's business. Writing checks
nothing (records are checked when made), reading checks every row and names the bad one.
"""

from __future__ import annotations

import hashlib
import io
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate, groupby
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ValidationError

from pipeline.errors import DamagedError
from pipeline.flow import FLOW
from pipeline.records.schema import Record, arrow_schema
from pipeline.words import plain, short

if TYPE_CHECKING:
    from pipeline.workspace.storage import Storage

RecordT = TypeVar("RecordT", bound=Record)

_GROUP_ROWS = 4096
"""The rows of a file that are read and decoded together: a long list is not, as a whole."""

_FILES_HELD = 16
"""The files a lookup keeps in memory. A unit's rows lie in few files of the tables it joins."""

_ANSWERS_HELD = 64
"""The answers a lookup keeps: a clip's frames ask the same one after the other."""


class TableError(DamagedError):
    """A table's file is not what was committed, or a row in it not what its schema says."""


def to_parquet(record: type[Record], rows: Sequence[Record]) -> bytes:
    """Write rows as one Parquet file; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([row.model_dump() for row in rows], schema=arrow_schema(record))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=_GROUP_ROWS)
    return buffer.getvalue()


class CommittedFile:
    """A file of a table, its bytes held against its commit and its columns against its record.

    The bytes stay in memory, compressed; what is asked of them is decoded.

    Args:
        record: the table's record.
        storage: where.
        name: the file.
        sha256: what its commit says of its bytes; empty where none speaks of it.

    Raises:
        TableError: when it is missing, not what was committed, no Parquet, or has other columns.
    """

    def __init__(self, record: type[Record], storage: Storage, name: str, sha256: str = "") -> None:
        self._record, self._name = record, name
        self._file = _parquet(committed_bytes(storage, name, sha256), name)
        metadata = self._file.metadata
        counts = (metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))
        self._starts = list(accumulate(counts, initial=0))
        self._group = lru_cache(maxsize=1)(self._read_group)
        self._is_current = self._file.schema_arrow.equals(arrow_schema(record))
        if not self._is_current:
            self._check_columns()

    def _check_columns(self) -> None:
        expected = {column.name: column.type for column in arrow_schema(self._record)}
        found = {column.name: column.type for column in self._file.schema_arrow}
        for title in sorted(found.keys() | expected.keys()):
            there, right = found.get(title), expected.get(title)
            if there is None and not self._record.model_fields[title].is_required():
                continue
            if there is None or right is None or not _is_as_old(there, right):
                raise TableError(
                    f"{self._name}: edited, or of another version: its column {short(title)} is"
                    f" {there or 'missing'}, should be {right or 'not there'}."
                    f"{_or_again(self._name)}"
                )

    def read(self, columns: Sequence[str] | None = None) -> Any:
        """Return all its rows as a ``pyarrow.Table``; younger columns have their defaults.

        Args:
            columns: only these; none takes all.
        """
        return self._conform(columns, lambda names: self._file.read(names, use_threads=False))

    def rows(self, first: int, stop: int) -> Any:
        """Return the rows ``first`` to ``stop - 1``; of the others no more than their group."""
        import pyarrow as pa

        low = max(bisect_right(self._starts, first) - 1, 0)
        high = min(bisect_left(self._starts, stop), len(self._starts) - 1)
        groups = [self._group(number) for number in range(low, high)]
        if not groups:
            return pa.Table.from_batches([], arrow_schema(self._record))
        return pa.concat_tables(groups).slice(first - self._starts[low], stop - first)

    def _read_group(self, number: int) -> Any:
        return self._conform(
            None, lambda names: self._file.read_row_group(number, names, use_threads=False)
        )

    def _conform(
        self, columns: Sequence[str] | None, read: Callable[[list[str] | None], Any]
    ) -> Any:
        """Read columns and give them the types, order and defaults of the record."""
        import pyarrow as pa

        schema = arrow_schema(self._record)
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        there = self._file.schema_arrow.names
        with _named_errors(self._name):
            table = read([name for name in schema.names if name in there])
        if self._is_current:
            return table
        for column in schema:
            if column.name not in there:
                default = self._record.model_fields[column.name].get_default()
                table = table.append_column(column, pa.array([default] * len(table), column.type))
        return table.select(schema.names).cast(schema)


def read_arrow(
    record: type[Record],
    storage: Storage,
    name: str,
    sha256: str = "",
    columns: Sequence[str] | None = None,
) -> Any:
    """Read a file, or columns of it, as a ``pyarrow.Table``; see ``CommittedFile``."""
    return CommittedFile(record, storage, name, sha256).read(columns)


def _is_as_old(found: Any, expected: Any) -> bool:
    """Say whether a type is the expected one, or lacks parts that may be null: younger columns."""
    import pyarrow as pa

    if pa.types.is_list(found) and pa.types.is_list(expected):
        return _is_as_old(found.value_type, expected.value_type)
    if not (pa.types.is_struct(found) and pa.types.is_struct(expected)):
        return bool(found == expected)
    parts = {field.name: field.type for field in found}
    return parts.keys() <= {field.name for field in expected} and all(
        _is_as_old(parts[field.name], field.type) if field.name in parts else field.nullable
        for field in expected
    )


def _parquet(data: bytes, name: str) -> Any:
    """Open the bytes of a file as a ``pyarrow.parquet.ParquetFile``."""
    import pyarrow.parquet as pq

    with _named_errors(name):
        # Not pq.read_table: that loads pyarrow.dataset, and with it pandas, and starts threads
        # that now and then abort the interpreter at its exit.
        file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
        titles = file.schema_arrow.names
    if len(set(titles)) < len(titles):
        raise TableError(f"{name}: has two columns of one name.{_or_again(name)}")
    return file


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Say of which file it is when pyarrow cannot read what it holds."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise TableError(
            f"{name}: not a Parquet file that can be read: {error}.{_or_again(name)}"
        ) from error


def committed_bytes(storage: Storage, name: str, sha256: str = "") -> bytes:
    """Read the bytes of a file that a commit names, wherever a crash has left it.

    Raises:
        TableError: when it is missing or not what was committed.
    """
    try:
        data = storage.read(name)
    except FileNotFoundError as error:
        found = _before_its_move(storage, name)
        if found is None:
            raise TableError(
                f"{name}: a commit names this file, but it is gone. Put it back, or"
                f" {way_out(_stage_of(name))}."
            ) from error
        data = found
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise TableError(
            f"{name}: not the bytes that were committed (SHA-256 {sha256}): damaged or edited."
            f"{_or_again(name)}"
        )
    return data


def _before_its_move(storage: Storage, name: str) -> bytes | None:
    """Read a table's file that is committed, but not moved into its table; see ``ledger``."""
    top, _, rest = name.partition("/")
    if top == "tables":
        for stage in storage.folders("commits"):
            for run in storage.folders(f"commits/{stage}/work"):
                work = f"commits/{stage}/work/{run}/{rest.replace('/', '--')}"
                if storage.exists(work):
                    return storage.read(work)
    # It may have been moved between the two looks.
    return storage.read(name) if storage.exists(name) else None


def _or_again(name: str) -> str:
    """Say what to do about a damaged file; nothing of one that is none of the workspace's."""
    ours = name.startswith(("commits/", "tables/"))
    return f" Put the file back, or {way_out(_stage_of(name))}." if ours else ""


def _stage_of(name: str) -> str:
    """Return the stage that committed a file: its folder of commits, or the start of its name."""
    parts = name.split("/")
    return parts[1] if parts[0] == "commits" else parts[-1].rsplit("-", 2)[0]


def way_out(stage: str) -> str:
    """Say what heals a damaged file of a stage, to follow an 'or'.

    >>> way_out("sample")
    "do its rows again: 'avatar-build sample --redo'"
    """
    step = next((step for step in FLOW if step.name == stage), None)
    if step and step.section:
        return f"do its rows again: 'avatar-build {step.command} --redo'"
    # Who made a file that no step made is unknown; 'run' brings all up to date that can be.
    command = step.command if step else "run"
    return f"move it out of the workspace and run 'avatar-build {command}'"


def to_records(record: type[RecordT], rows: Iterable[dict[str, Any]], where: str) -> list[RecordT]:
    """Check rows against their record.

    Raises:
        TableError: naming the file, the row (from 0), the column, the rule and the value.
    """
    records = []
    for number, row in enumerate(rows):
        try:
            records.append(record.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            column = ".".join(str(part) for part in first["loc"])
            problem = plain(first)
            raise TableError(
                f"{where}, row {number}: {column}: {problem} (got {short(first['input'])}),"
                f" reading a {record.__name__}.{_or_again(where)}"
            ) from error
    return records


def read_records(
    record: type[RecordT], storage: Storage, name: str, sha256: str = ""
) -> list[RecordT]:
    """Read all rows of one file of a table; columns may be of any type that holds their values."""
    file = _parquet(committed_bytes(storage, name, sha256), name)
    with _named_errors(name):
        rows = file.read(use_threads=False).to_pylist()
    return to_records(record, rows, name)


def table_digest(rows: Iterable[Record]) -> str:
    """Return the SHA-256 over the rows, whatever order or files they came in.

    >>> table_digest([]) == hashlib.sha256(b"").hexdigest()
    True
    """
    lines = sorted(json.dumps(row.model_dump(), sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Lookup(Generic[RecordT]):
    """Rows of one table found by the value of one column.

    In memory are that column, sorted, and the few files asked of last; only the rows asked for
    become records. So it takes some 40 bytes a row, and an answer does not depend on their number.

    Args:
        record: the table's record.
        column: the column to find them by.
        files: for each of the table's files what reads the named columns of it, or all, as a
            ``pyarrow.Table``.
    """

    def __init__(
        self,
        record: type[RecordT],
        column: str,
        files: Sequence[Callable[[Sequence[str] | None], Any]],
    ) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._record, self._column = record, column
        parts = [file([column]).column(0) for file in files]
        self._starts = list(accumulate(map(len, parts), initial=0))
        chunks = [chunk for part in parts for chunk in part.chunks]
        values = pa.chunked_array(chunks, arrow_schema(record).field(column).type).combine_chunks()
        self._places = pc.sort_indices(values)  # stable; nulls last
        self._values = values.take(self._places)
        self._num_values = len(values) - values.null_count
        self._file = lru_cache(_FILES_HELD)(lambda number: files[number](None).combine_chunks())
        self._answer = lru_cache(_ANSWERS_HELD)(self._find)

    def rows(self, value: object) -> list[RecordT]:
        """Return all rows whose column equals ``value``, ordered by the table's key."""
        return list(self._answer(value))

    def _find(self, value: Any) -> list[RecordT]:
        low, high = self._num_values, len(self._values)
        if value is not None:
            python: Callable[[Any], Any] = methodcaller("as_py")
            low = bisect_left(self._values, value, 0, self._num_values, key=python)
            high = bisect_right(self._values, value, low, self._num_values, key=python)
        rows = []
        places = self._places.slice(low, high - low).to_pylist()
        for number, group in groupby(places, lambda place: bisect_right(self._starts, place) - 1):
            here = [place - self._starts[number] for place in group]
            rows += self._file(number).take(here).to_pylist()
        found = to_records(self._record, rows, f"{self._record.table} by {self._column}")
        return sorted(found, key=lambda row: row.id)

    def one(self, value: object) -> RecordT | None:
        """Return the only row whose column equals ``value``; none when there is none.

        Raises:
            TableError: when there are several.
        """
        found = self.rows(value)
        if len(found) > 1:
            raise TableError(
                f"{self._record.table}: {len(found)} rows with {self._column} = {short(value)},"
                " where one was expected."
            )
        return found[0] if found else None
