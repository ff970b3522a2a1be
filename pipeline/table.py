"""Rows in and out of Parquet, and the digest two runs are compared by.

A table is a folder of Parquet files; which of them count is the ledger's business. Writing checks
nothing (records are checked when made), reading checks every row and names the bad one.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ValidationError

from pipeline.errors import AvatarBuildError
from pipeline.schema import Record, arrow_schema
from pipeline.words import plain, short

if TYPE_CHECKING:
    from pipeline.storage import Storage

RecordT = TypeVar("RecordT", bound=Record)


class TableError(AvatarBuildError):
    """A row in a table is not what its schema says."""


def to_parquet(record: type[Record], rows: Sequence[Record]) -> bytes:
    """The rows as one Parquet file; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([row.model_dump() for row in rows], schema=arrow_schema(record))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_arrow(storage: Storage, name: str) -> Any:
    """The file ``name`` as a ``pyarrow.Table``.

    Raises:
        TableError: when it is missing or no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not pq.read_table: that loads pyarrow.dataset, and with it pandas, and starts threads
        # that now and then abort the interpreter at its exit.
        with pq.ParquetFile(io.BytesIO(storage.read(name)), pre_buffer=False) as file:
            return file.read(use_threads=False)
    except FileNotFoundError as error:
        raise TableError(
            f"{name}: a commit names this file, but it is gone. Restore it, or run its stage"
            " with --redo."
        ) from error
    except pa.ArrowInvalid as error:
        raise TableError(f"{name}: not a Parquet file: {error}") from error


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
                f" reading a {record.__name__}."
            ) from error
    return records


def read_records(record: type[RecordT], storage: Storage, name: str) -> list[RecordT]:
    """All rows of one file of a table."""
    return to_records(record, read_arrow(storage, name).to_pylist(), name)


def table_digest(rows: Iterable[Record]) -> str:
    """SHA-256 over the rows, whatever order or files they came in.

    >>> table_digest([]) == hashlib.sha256(b"").hexdigest()
    True
    """
    lines = sorted(json.dumps(row.model_dump(), sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Lookup(Generic[RecordT]):
    """Rows of one table found by the value of one column.

    The table stays in Arrow's memory; only the rows asked for become records.

    Args:
        record: the table's record.
        table: all its rows, a ``pyarrow.Table``.
        column: the column to find them by.
    """

    def __init__(self, record: type[RecordT], table: Any, column: str) -> None:
        self._record = record
        self._table = table
        self._column = column
        self._places: dict[Any, list[int]] = {}
        for place, value in enumerate(table.column(column).to_pylist()):
            self._places.setdefault(value, []).append(place)

    def rows(self, value: object) -> list[RecordT]:
        """All rows whose column equals ``value``, ordered by the table's key."""
        places = self._places.get(value, [])
        if not places:
            return []
        rows = self._table.take(places).to_pylist()
        found = to_records(self._record, rows, f"{self._record.table} by {self._column}")
        return sorted(found, key=lambda row: row.id)

    def one(self, value: object) -> RecordT | None:
        """The only row whose column equals ``value``; none when there is none.

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
