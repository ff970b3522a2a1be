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
_BUFFER = 65_536
"""Bytes of a column that are read at once."""

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
    """Return how the copy of the list ``name`` departs from it; none when they agree.

    Some rows at a time are in memory, of the copy and of the list.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    record, rows = ROWS[name], getattr(document, name)
    schema, expected = arrow_schema(record), iter(rows)
    number, said = 0, None
    try:
        with (folder / COPIES[name]).open("rb") as stream:
            copy = pq.ParquetFile(stream, buffer_size=_BUFFER)
            empty = copy.schema_arrow.empty_table()
            alike = _with_younger(empty, schema, record).schema.equals(schema)
            # To its end in any case: what is broken, or too long, is told before a row.
            for batch in copy.iter_batches(_TOGETHER, use_threads=False):
                if alike and said is None:
                    found = _with_younger(pa.Table.from_batches([batch]), schema, record)
                    stated = _table(record, islice(expected, batch.num_rows))
                    said = _difference(found, stated, number)
                number += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {short(str(error).splitlines()[0], 200)}"
    if not alike:
        return f"its columns are not those of {name} in the JSON"
    if number != len(rows):
        return f"has {number} rows, the JSON {len(rows)} {name}"
    return said


def _difference(found: Any, expected: Any, first: int) -> str | None:
    """Return the first difference of some rows, of which the first has the number ``first``."""
    if found.equals(expected):
        return None
    pairs = zip(found.to_pylist(), expected.to_pylist(), strict=False)
    for number, (ours, theirs) in enumerate(pairs, first):
        for column in theirs:
            if ours[column] != theirs[column]:
                there, stated = short(ours[column]), short(theirs[column])
                return f"row {number}, {column}: {there}, the JSON has {stated}"
    return None


def _with_younger(found: Any, schema: Any, record: type[Row]) -> Any:
    """Return a copy written before a column was known with its default in every row."""
    import pyarrow as pa

    for place, field in enumerate(schema):
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
