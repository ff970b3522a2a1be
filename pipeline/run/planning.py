"""Division of the rows of new files into units.

A unit leaves a file in each table its stage writes, so few units are few files. They are made large
in the first place, rather than their files put together later: who reads a folder of Parquet files
lists it and opens them one by one, and there is no instant at which one of those might be deleted.

A unit is a range of one file or several files whole. So a file that is made anew takes with it what
was made of it and of its neighbours in a unit, and nothing made of parts of other files.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from pipeline.records.schema import FailureRow
from pipeline.run.stage import StageSpec
from pipeline.workspace.commit import Rows, TableFile, Unit

UNITS = 400
"""The units that a large table is divided into."""

UNITS_EACH = 4
"""The units of new rows for each worker, at the least, so that none is idle at the end for long."""

MOST = 6
"""The largest unit, in ``rows_per_unit``: what is lost with a worker stays a matter of minutes."""


def rows_each(spec: StageSpec, rows: int, new: int, workers: int) -> int:
    """Return how many rows a unit has, about.

    Args:
        spec: of the stage.
        rows: in the table it reads.
        new: those among them that are in no unit yet.
        workers: that will share them.

    >>> from dataclasses import replace
    >>> spec = StageSpec("sample", 1, "videos", ("clips",), rows_per_unit=32)
    >>> [rows_each(spec, rows, rows, 16) for rows in (4_000, 17_500, 70_000, 280_000)]
    [32, 43, 175, 192]
    >>> rows_each(spec, 70_000, 5_000, 16)
    78
    >>> spec = replace(spec, rows_per_unit=256, rows_worth_a_worker=8)
    >>> [rows_each(spec, rows, rows, 2) for rows in (5, 27, 300, 1_000)]
    [8, 14, 150, 256]
    """
    least = spec.rows_per_unit
    if spec.rows_worth_a_worker is not None:
        least = min(least, max(spec.rows_worth_a_worker, -(-new // workers)))
    return max(least, min(rows // UNITS, new // (UNITS_EACH * workers), MOST * spec.rows_per_unit))


def divided(files: Iterable[TableFile], size: int) -> list[Unit]:
    """Divide files into units of about ``size`` rows, of half as many more at the most.

    Their ordinals and names they get in the plan.

    >>> files = [TableFile(name, "", "videos", rows) for name, rows in zip("abcd", (3, 2, 4, 21))]
    >>> for unit in divided(files, 8):
    ...     print([(part.file, part.first, part.stop) for part in unit.parts])
    [('a', 0, 3), ('b', 0, 2), ('c', 0, 4)]
    [('d', 0, 7)]
    [('d', 7, 14)]
    [('d', 14, 21)]
    """
    units: list[list[Rows]] = []
    room = 0
    for file in (file for file in files if file.rows):
        # Another file joins where that brings the unit nearer to its size.
        if file.rows <= size and 2 * room > file.rows:
            units[-1].append(_rows(file, 0, file.rows))
        else:
            count = max(1, round(file.rows / size))
            bounds = [file.rows * number // count for number in range(count + 1)]
            units += [[_rows(file, *ends)] for ends in pairwise(bounds)]
            room = size if count == 1 else 0
        room -= file.rows
    return [Unit(tuple(parts), -1, "") for parts in units]


def retries(failed: Iterable[tuple[Unit, FailureRow]]) -> list[Unit]:
    """Return units of failed rows alone, each given with the unit that says so.

    Rows of the same files go into one unit, as long as it is no larger than theirs were. Those of
    others do not: the first file that goes would take the answers about all of them out of force.
    """
    of_files: dict[frozenset[tuple[str, str]], list[tuple[Unit, FailureRow]]] = {}
    for unit, row in failed:
        of_files.setdefault(unit.contents, []).append((unit, row))
    units = []
    for found in of_files.values():
        size = max(unit.num_rows for unit, _ in found)
        for start in range(0, len(found), size):
            some = found[start : start + size]
            parts = dict.fromkeys(part for unit, _ in some for part in unit.parts)
            ids = tuple(row.input_id for _, row in some)
            attempts = tuple(row.attempts for _, row in some)
            units.append(Unit(tuple(parts), -1, "", ids, attempts))
    return units


def _rows(file: TableFile, first: int, stop: int) -> Rows:
    return Rows(file.file, file.sha256, first, stop)
