"""The Parquet copies of the document's videos, images and annotations, column for column."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.records.schema import arrow_schema
from pipeline.release.document import AnnotationRow, Document, ImageRow, Row, VideoRow
from pipeline.release.layout import COPIES
from pipeline.words import short

_TOGETHER = 2048
"""Rows that become columns together."""

ROWS: dict[str, type[Row]] = {
    "videos": VideoRow,
    "images": ImageRow,
    "annotations": AnnotationRow,
}


def write_copies(document: Document, folder: Path) -> None:
    """Write the copies below ``folder``; the same rows give the same bytes."""
    import pyarrow.parquet as pq

    for name, path in COPIES.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # A stream, as Arrow takes some paths for addresses.
        with target.open("wb") as stream:
            pq.write_table(_table(ROWS[name], getattr(document, name)), stream, compression="zstd")


def differences(document: Document, folder: Path, name: str) -> str | None:
    """Return how the copy of the list ``name`` departs from it; none when they agree."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = _table(ROWS[name], getattr(document, name))
    try:
        with (folder / COPIES[name]).open("rb") as stream:
            found = pq.ParquetFile(stream).read()
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {short(str(error).splitlines()[0], 200)}"
    found = _with_younger(found, expected, ROWS[name])
    if not found.schema.equals(expected.schema):
        return f"its columns are not those of {name} in the JSON"
    if found.num_rows != expected.num_rows:
        return f"has {found.num_rows} rows, the JSON {expected.num_rows} {name}"
    if found.equals(expected):
        return None
    pairs = zip(found.to_pylist(), expected.to_pylist(), strict=True)
    for number, (ours, theirs) in enumerate(pairs):
        for column in theirs:
            if ours[column] != theirs[column]:
                there, stated = short(ours[column]), short(theirs[column])
                return f"row {number}, {column}: {there}, the JSON has {stated}"
    return None


def _with_younger(found: Any, expected: Any, record: type[Row]) -> Any:
    """Return a copy written before a column was known with its default in every row."""
    import pyarrow as pa

    for place, field in enumerate(expected.schema):
        column = record.model_fields[field.name]
        if field.name not in found.column_names and not column.is_required():
            default = column.get_default(call_default_factory=True)
            column = pa.array([default] * found.num_rows, field.type)
            found = found.add_column(min(place, found.num_columns), field, column)
    return found


def _table(record: type[Row], rows: Iterable[Row]) -> Any:
    """Return rows as columns, which take a tenth of their memory; the rows are read as they go."""
    import pyarrow as pa

    schema = arrow_schema(record)
    parts = [pa.Table.from_batches([], schema)]
    while some := list(islice(rows := iter(rows), _TOGETHER)):
        parts.append(pa.Table.from_pylist([row.model_dump() for row in some], schema=schema))
    # Pages end where chunks do, and the bytes are to follow from the rows alone.
    return pa.concat_tables(parts).combine_chunks()
