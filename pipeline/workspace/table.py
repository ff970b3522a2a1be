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

from pipeline.errors import DamagedError
from pipeline.flow import FLOW
from pipeline.records.schema import Record, arrow_schema
from pipeline.words import plain, short

if TYPE_CHECKING:
    from pipeline.workspace.storage import Storage

RecordT = TypeVar("RecordT", bound=Record)


class TableError(DamagedError):
    """A table's file is not what was committed, or a row in it not what its schema says."""


def to_parquet(record: type[Record], rows: Sequence[Record]) -> bytes:
    """Write rows as one Parquet file; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([row.model_dump() for row in rows], schema=arrow_schema(record))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_arrow(record: type[Record], storage: Storage, name: str, sha256: str = "") -> Any:
    """Read a file as a ``pyarrow.Table``; a column younger than the file has its default.

    Args:
        record: the table's record.
        storage: where.
        name: the file.
        sha256: what its commit says of its bytes; empty where none speaks of it.

    Raises:
        TableError: when it is missing, not what was committed, no Parquet, or has other columns.
    """
    import pyarrow as pa

    table = _read(storage, name, sha256)
    schema = arrow_schema(record)
    for column in schema:
        default = record.model_fields[column.name]
        if column.name not in table.column_names and not default.is_required():
            values = pa.array([default.get_default()] * len(table), column.type)
            table = table.append_column(column, values)
    found = {column.name: column.type for column in table.schema}
    expected = {column.name: column.type for column in schema}
    for title in sorted(found.keys() | expected.keys()):
        there, right = found.get(title), expected.get(title)
        if there is None or right is None or not _is_as_old(there, right):
            raise TableError(
                f"{name}: edited, or of another version: its column {short(title)} is"
                f" {there or 'missing'}, should be {right or 'not there'}.{_or_again(name)}"
            )
    return table.select(schema.names).cast(schema)


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


def _read(storage: Storage, name: str, sha256: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = committed_bytes(storage, name, sha256)
    try:
        # Not pq.read_table: that loads pyarrow.dataset, and with it pandas, and starts threads
        # that now and then abort the interpreter at its exit.
        with pq.ParquetFile(io.BytesIO(data), pre_buffer=False) as file:
            table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise TableError(
            f"{name}: not a Parquet file that can be read: {error}.{_or_again(name)}"
        ) from error
    if len(set(table.column_names)) < table.num_columns:
        raise TableError(f"{name}: has two columns of one name.{_or_again(name)}")
    return table


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
    return to_records(record, _read(storage, name, sha256).to_pylist(), name)


def table_digest(rows: Iterable[Record]) -> str:
    """Return the SHA-256 over the rows, whatever order or files they came in.

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
        """Return all rows whose column equals ``value``, ordered by the table's key."""
        places = self._places.get(value, [])
        if not places:
            return []
        rows = self._table.take(places).to_pylist()
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
