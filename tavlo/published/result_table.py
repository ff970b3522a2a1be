"""A table of numbers, written for papers, pages, spreadsheets and programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.columns import markdown_table
from pipeline.files import write_whole

Entry = float | str | None
"""A number in percent, a text, or nothing."""


@dataclass(frozen=True)
class Table:
    """Rows under named columns; the first column names the rows."""

    title: str
    columns: list[str]
    rows: list[list[Entry]]
    notes: list[str] = field(default_factory=list)


def to_markdown(tables: Sequence[Table]) -> str:
    """Write one heading and table after the other."""
    blocks = []
    for table in tables:
        rows = [[_text(entry) for entry in row] for row in table.rows]
        lines = [f"**{table.title}**", "", *markdown_table(table.columns, rows)]
        blocks.append("\n".join([*lines, *(f"\n{note}" for note in table.notes)]))
    return "\n\n".join(blocks) + "\n"


def to_latex(tables: Sequence[Table]) -> str:
    """Write ``tabular`` environments; rules as in the package booktabs."""
    blocks = []
    for table in tables:
        form = "l" + "r" * (len(table.columns) - 1)
        lines = [f"% {table.title}", rf"\begin{{tabular}}{{{form}}}", r"\toprule"]
        lines += [_tex_row(table.columns), r"\midrule"]
        lines += [_tex_row([_text(entry) for entry in row]) for row in table.rows]
        lines += [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in table.notes)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def to_csv(tables: Sequence[Table]) -> str:
    """Write one number a row, whole."""
    rows: list[list[Entry]] = [["table", "row", "column", "value"]]
    for table in tables:
        for name, *entries in table.rows:
            pairs = zip(table.columns[1:], entries, strict=True)
            rows += [[table.title, name, column, entry] for column, entry in pairs]
    return csv_text(rows)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Write rows as CSV; None is an empty cell."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def to_json(tables: Sequence[Table]) -> str:
    """Write the tables as they are."""
    return json.dumps([table.__dict__ for table in tables], indent=1, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "md": to_markdown,
    "tex": to_latex,
    "csv": to_csv,
    "json": to_json,
}
"""Output formats by file ending."""


def write_tables(tables: Sequence[Table], folder: Path, name: str) -> None:
    """Write ``<name>.md``, ``.tex``, ``.csv`` and ``.json``."""
    for ending, write in FORMATS.items():
        write_whole(folder / f"{name}.{ending}", write(tables))


def _text(entry: Entry) -> str:
    if entry is None:
        return ""
    return entry if isinstance(entry, str) else f"{entry:.2f}"


def _tex_row(texts: Sequence[str]) -> str:
    escaped = [text.replace("%", r"\%").replace("&", r"\&").replace("_", r"\_") for text in texts]
    return " & ".join(escaped) + r" \\"
