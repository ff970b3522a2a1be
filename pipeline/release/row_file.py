"""Rows in a file, one JSON a line, of which none is in memory that is not looked at.

A release's own document has this form, list by list (``document.to_json``), and so have the rows of
one that is being made. To whoever reads them they are a sequence like a list.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Generic, Self, TypeVar, overload

from pydantic import BaseModel

RowT = TypeVar("RowT", bound=BaseModel)

_TOGETHER = 256
"""Rows that are read at once."""


class RowFile(Sequence[RowT], Generic[RowT]):
    """A sequence of rows in a file; 8 bytes a row are in memory.

    Args:
        record: the rows' type.
        file: opened for reading; the rows are read with ``pread``.
        starts: where each row begins, and where the last one ends. A row may be followed by a
            comma and white space.
    """

    def __init__(self, record: type[RowT], file: BinaryIO, starts: array[int]) -> None:
        self._record, self._file, self._starts = record, file, starts

    @classmethod
    def new(cls, record: type[RowT], path: Path) -> Self:
        """Make an empty file of rows, to be appended to."""
        return cls(record, path.open("w+b"), array("Q", [0]))

    def append(self, row: RowT) -> None:
        """Put a row after the others."""
        line = row.model_dump_json().encode() + b"\n"
        self._file.write(line)
        self._starts.append(self._starts[-1] + len(line))

    def close(self) -> None:
        """Close the file; no row can be read any more."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[RowT]:
        for first in range(0, len(self), _TOGETHER):
            yield from self._read(first, min(first + _TOGETHER, len(self)))

    @overload
    def __getitem__(self, place: int) -> RowT: ...

    @overload
    def __getitem__(self, place: slice) -> list[RowT]: ...

    def __getitem__(self, place: int | slice) -> RowT | list[RowT]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        (row,) = self._read(place, place + 1)
        return row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def _read(self, first: int, stop: int) -> Iterator[RowT]:
        if self._file.writable():
            self._file.flush()
        begin, end = self._starts[first], self._starts[stop]
        data = os.pread(self._file.fileno(), end - begin, begin)
        for place in range(first, stop):
            line = data[self._starts[place] - begin : self._starts[place + 1] - begin]
            yield self._record.model_validate_json(line.rstrip(b",\n"), strict=True)
