"""Read a video list: the official ``vggsound.csv`` and the two-column ``test.csv``.

Neither form has a header line. A row whose id is no id, or comes twice, is no reason to refuse the
list and none to forget the row: it becomes a failure or a drop named ``<file name>#<row number>``.
(VGGSound's own ``test.csv`` names 595 videos twice, for two spans of 10 s each.) A file that is not
such a list is refused as a whole.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InputError, UsageError
from pipeline.records.schema import Source, check_video_id
from pipeline.run.stage import Drop, Fail

_CLIP_NAME = re.compile(r"(.+)_(\d{6})\.mp4", re.DOTALL)
"""``<id>_<start, six digits>.mp4``; an id may itself hold ``_``."""

_TWO_COLUMN_SPLIT = "test"
"""The split that the two-column list is of; it has no column that says so."""

_FORMS = (
    "4 columns (YouTube id, start second, label, split) or"
    " 2 (<id>_<start, six digits>.mp4, label), without a header line"
)


@dataclass(frozen=True)
class ListRow:
    """A row as the file has it; its id is not checked yet."""

    number: int
    """Counted from 1, blank lines included, so that an editor finds it."""
    video_id: str
    start_s: int
    label: str
    split: str


@dataclass
class ImportResult:
    """The outcome of every row of a list.

    ``total_rows`` is the sum of the lengths of the first three and ``not_selected``.
    """

    sources: list[Source] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    """``duplicate_id``; the first row of an id is the one that counts."""
    failures: list[Fail] = field(default_factory=list)
    """``invalid_id``."""
    total_rows: int = 0
    not_selected: int = 0
    """Rows with another label, or past the limit."""


def read_list(path: Path) -> list[ListRow]:
    """Parse a list in either form; the first row says which.

    Args:
        path: UTF-8, with or without a byte order mark, LF or CRLF.

    Raises:
        UsageError: no such file, an empty one, or a row that does not parse, by its number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_parsed(csv.reader(file, strict=True), path))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file. Name a list with --list.") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: not UTF-8 text (byte {error.start}). Expected {_FORMS}."
        ) from error
    if not rows:
        raise UsageError(f"{path}: empty. Expected {_FORMS}.")
    return rows


def select_sources(
    rows: Sequence[ListRow], file_name: str, labels: Iterable[str] = (), limit: int | None = None
) -> ImportResult:
    """Decide every row: a source, a drop, a failure, or not selected.

    Args:
        rows: of one list.
        file_name: names the rows that do not become sources.
        labels: exact labels to keep, several in one string parted by ``;``; none keeps all.
        limit: stop after so many sources.

    Raises:
        UsageError: a label that no row has, or a limit under 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: should be at least 1.")
    wanted = _wanted_labels(rows, labels)
    result = ImportResult(total_rows=len(rows))
    seen: dict[str, int] = {}
    for row in rows:
        full = limit is not None and len(result.sources) >= limit
        if full or (wanted and row.label not in wanted):
            result.not_selected += 1
            continue
        name = f"{file_name}#{row.number}"
        try:
            check_video_id(row.video_id)
        except InputError as error:
            result.failures.append(Fail(name, error.kind, error.detail))
            continue
        if row.video_id in seen:
            detail = (
                f"{row.video_id} ({row.label!r} at {row.start_s} s) is already in row"
                f" {seen[row.video_id]}; its video is fetched whole, once"
            )
            result.drops.append(Drop(name, "duplicate_id", detail))
            continue
        seen[row.video_id] = row.number
        result.sources.append(
            Source(video_id=row.video_id, label=row.label, split=row.split, start_s=row.start_s)
        )
    return result


def _parsed(reader: Iterable[list[str]], path: Path) -> Iterator[ListRow]:
    columns = 0
    numbered = enumerate(reader, 1)
    number = 0
    while True:
        try:
            number, fields = next(numbered)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"{path}, row {number + 1}"
            raise UsageError(f"{where}: not CSV ({error}). Expected {_FORMS}.") from error
        if not fields:
            continue
        columns = columns or len(fields)
        if len(fields) != columns or columns not in (2, 4):
            want = _FORMS if columns not in (2, 4) else f"{columns}, as in the rows before"
            raise UsageError(f"{path}, row {number}: {len(fields)} columns. Expected {want}.")
        yield _row([text.strip() for text in fields], f"{path}, row {number}", number)


def _row(fields: Sequence[str], where: str, number: int) -> ListRow:
    if len(fields) == 2:
        name, label = fields
        match = _CLIP_NAME.fullmatch(name)
        if match is None:
            raise UsageError(f"{where}: {name[:80]!r}. Expected <id>_<start, six digits>.mp4.")
        video_id, start = match.groups()
        split = _TWO_COLUMN_SPLIT
    else:
        video_id, start, label, split = fields
    if not re.fullmatch(r"[0-9]{1,9}", start):
        raise UsageError(
            f"{where}: start second {start[:80]!r} is no whole number. Expected {_FORMS}."
        )
    for column, text in (("label", label), ("split", split)):
        if not text:
            raise UsageError(f"{where}: the {column} is empty. Expected {_FORMS}.")
    return ListRow(number, video_id, int(start), label, split)


def _wanted_labels(rows: Sequence[ListRow], labels: Iterable[str]) -> set[str]:
    labels = list(labels)
    wanted = {part.strip() for text in labels for part in text.split(";") if part.strip()}
    known = {row.label for row in rows}
    if labels and not wanted:
        raise UsageError("--labels '': no label. Name one of the list, or leave --labels out.")
    for label in sorted(wanted - known):
        near = difflib.get_close_matches(label, sorted(known), n=3)
        hint = f" Near: {'; '.join(near)}." if near else f" It has {len(known)} others."
        raise UsageError(f"--labels {label!r}: no row of the list has this label.{hint}")
    return wanted
