"""Commits as columns: of many there is a list for each field, and those wanted alone are made.

``index.json`` of a stage's folder holds copies of its commits, which only save time: a line with
the SHA-256 of the rest, one with the names of the columns, and then a line of JSON for each column.
They were checked when they were read to be copied, so what has the digest is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cache, cached_property
from itertools import accumulate, pairwise
from sys import intern
from typing import Any

from pipeline.files import with_digest, without_digest
from pipeline.workspace.commit import UNREADABLE, Commit, Input, Rows, TableFile

Stamp = tuple[int, int]
"""Size and time of a commit's file; a file that is another has another."""

Content = tuple[str, str]
"""Name and digest of a file."""

_PLAIN = [one.name for one in fields(Commit) if one.name not in ("input", "files")]
_OF_PART, _OF_FILE = ([one.name for one in fields(kind)] for kind in (Rows, TableFile))

_FLAT = {
    f"{kind}.{name}": kind for kind, of in (("parts", _OF_PART), ("files", _OF_FILE)) for name in of
}
"""The columns of what a commit has several of: all of the first commit, then of the second."""

_COLUMNS = ["name", "size", "time", *_PLAIN, "input.table", "parts", "files", *_FLAT]
"""Name and stamp of each commit's file; its fields; how many parts of its input and how many files
there are; and the fields of these."""

_ALIKE = {"stage", "stage_key", "counts", "code_revision", "versions", "endings", "files.table"}
"""The columns in which many say the same. Each value is written once, and kept once."""


class CommitTable:
    """Commits, one after the other, as columns.

    Args:
        column: returns the values of a column; asked once for each, when it is wanted.
    """

    def __init__(self, column: Callable[[str], list[Any]]) -> None:
        self._column = cache(column)

    @classmethod
    def of(cls, commits: Sequence[tuple[str, Stamp, Commit]]) -> CommitTable:
        """Make it of commits, each with the name and the stamp of its file."""
        found: dict[str, list[Any]] = {
            "name": [name for name, _, _ in commits],
            "size": [size for _, (size, _), _ in commits],
            "time": [time for _, (_, time), _ in commits],
            "input.table": [commit.input.table for _, _, commit in commits],
        }
        for name in _PLAIN:
            found[name] = [getattr(commit, name) for _, _, commit in commits]
        several: dict[str, list[Sequence[Any]]] = {
            "parts": [commit.input.parts for _, _, commit in commits],
            "files": [commit.files for _, _, commit in commits],
        }
        for kind, of_each in several.items():
            found[kind] = [*map(len, of_each)]
        for column, kind in _FLAT.items():
            name = column.removeprefix(f"{kind}.")
            found[column] = [getattr(one, name) for some in several[kind] for one in some]
        return cls(found.__getitem__)

    @classmethod
    def joined(cls, tables: Iterable[CommitTable]) -> CommitTable:
        """Return the commits of several, one after the other."""
        every = [*tables]
        if len(every) == 1:
            return every[0]
        return cls(lambda name: [value for one in every for value in one._column(name)])

    def pack(self) -> bytes:
        """Return it as it is stored."""
        lines: list[Any] = [_COLUMNS]
        for name in _COLUMNS:
            values = self._column(name)
            lines.append(_shared(values) if name in _ALIKE else values)
        text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
        return with_digest(text.encode())

    @classmethod
    def unpack(cls, data: bytes) -> CommitTable:
        """Read what ``pack`` wrote.

        Raises:
            ValueError: it is not what was written, or by another version.
        """
        names, *lines = without_digest(data).split(b"\n")
        try:
            if json.loads(names) != _COLUMNS or len(lines) != len(_COLUMNS):
                raise ValueError("of other columns")
        except UNREADABLE as error:
            raise ValueError("not an index of this version") from error
        texts = dict(zip(_COLUMNS, lines, strict=True))

        def column(name: str) -> list[Any]:
            found: list[Any] = json.loads(texts[name])
            if name not in _ALIKE:
                return found
            values, places = found
            return [values[place] for place in places]

        return cls(column)

    def __len__(self) -> int:
        return len(self._column("name"))

    def stamps(self) -> dict[str, Stamp]:
        """Return the stamps that their files had when they were read, by the names of these."""
        name, size, time = map(self._column, ("name", "size", "time"))
        return dict(zip(name, zip(size, time, strict=True), strict=True))

    @property
    def inputs(self) -> list[str]:
        """The table that each answers for."""
        return self._column("input.table")

    @cached_property
    def files(self) -> list[tuple[int, str, str, str, int]]:
        """The files of all: the place of their commit, and file, sha256, table and rows."""
        return self._several("files", ["file", "sha256", "table", "rows"])

    @cached_property
    def parts(self) -> list[tuple[int, str, str, int, int]]:
        """The rows they answer for: the place of the commit, and file, sha256, first and stop."""
        return self._several("parts", ["file", "sha256", "first", "stop"])

    def _several(self, kind: str, names: Sequence[str]) -> list[Any]:
        counts = enumerate(self._column(kind))
        places = [place for place, count in counts for _ in range(count)]
        return list(zip(places, *(self._column(f"{kind}.{name}") for name in names), strict=True))

    def files_of(self, place: int) -> list[tuple[int, str, str, str, int]]:
        """Return those of ``files`` that one of them has."""
        starts = self._starts("files")
        return self.files[starts[place] : starts[place + 1]]

    @cached_property
    def _starts(self) -> Callable[[str], list[int]]:
        return cache(lambda kind: [*accumulate(self._column(kind), initial=0)])

    @cached_property
    def retries(self) -> dict[str, list[int]]:
        """The rows that were tried again, with the places of the commits that say so, in order."""
        found: dict[str, list[int]] = {}
        for place, ids in enumerate(self._column("ids")):
            for row_id in ids:
                found.setdefault(row_id, []).append(place)
        return found

    def take(self, places: Sequence[int]) -> CommitTable:
        """Return some of them, in this order."""

        def column(name: str) -> list[Any]:
            values = self._column(name)
            if name not in _FLAT:
                return [values[place] for place in places]
            starts = self._starts(_FLAT[name])
            slices = (values[starts[place] : starts[place + 1]] for place in places)
            return [value for some in slices for value in some]

        return CommitTable(column)

    def in_order(self) -> CommitTable:
        """Return them by the order of their units."""
        keys = list(zip(self._column("ordinal"), self._column("name"), strict=True))
        if all(one <= other for one, other in pairwise(keys)):
            return self
        return self.take(sorted(range(len(keys)), key=keys.__getitem__))

    def commits(self) -> list[Commit]:
        """Make them all. Names are kept once, whoever says them."""
        made: dict[str, Iterable[Any]] = {name: self._column(name) for name in _PLAIN}
        made["ids"] = map(tuple, self._column("ids"))
        made["input"] = map(Input, self._made("parts", Rows), map(intern, self.inputs))
        made["files"] = self._made("files", TableFile)
        every = zip(*(made[one.name] for one in fields(Commit)), strict=True)
        return [Commit(*one) for one in every]

    def _made(self, kind: str, make: Any) -> Iterator[tuple[Any, ...]]:
        """Make what a commit has several of, and yield those of each."""
        columns = []
        for field in fields(make):
            values = self._column(f"{kind}.{field.name}")
            columns.append([*map(intern, values)] if field.type == "str" else values)
        every = [make(*one) for one in zip(*columns, strict=True)]
        for start, stop in pairwise(self._starts(kind)):
            yield tuple(every[start:stop])


def _shared(values: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Return the values there are, and the place among them of each."""
    places: dict[str, int] = {}
    found: list[Any] = []
    at = []
    for value in values:
        text = json.dumps(value)
        if text not in places:
            places[text] = len(found)
            found.append(value)
        at.append(places[text])
    return found, at
