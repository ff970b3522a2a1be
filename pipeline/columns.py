"""Tables as text, for terminals and for documents."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence


def columns(
    names: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()
) -> list[str]:
    """Lay rows out as aligned lines below their names.

    On a terminal they keep within its width; piped, a row is a line and nothing is cut.

    Args:
        names: of the columns; what does not fit the terminal goes on below, in the last one first.
        rows: a cell for each.
        right: columns of numbers.

    >>> columns(["stage", "rows"], [["sample", "12"], ["propose", "3"]], right={"rows"})
    ['stage    rows', 'sample     12', 'propose     3']
    """
    rows = [list(row) for row in rows]
    return (
        _within_terminal(names, rows, right) if sys.stdout.isatty() else _whole(names, rows, right)
    )


def _whole(
    names: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]
) -> list[str]:
    """Lay rows out a line each; rich takes 20 times as long, which 10,000 rows show."""
    from rich.cells import cell_len

    table = [names, *([" ".join(cell.splitlines()) for cell in row] for row in rows)]
    sizes = [[cell_len(cell) for cell in row] for row in table]
    widths = [max(of_column) for of_column in zip(*sizes, strict=True)]
    lines = []
    for row, size in zip(table, sizes, strict=True):
        cells = []
        for name, cell, own, width in zip(names, row, size, widths, strict=True):
            room = " " * (width - own)
            cells.append(room + cell if name in right else cell + room)
        lines.append("  ".join(cells).rstrip())
    return lines


def _within_terminal(
    names: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]
) -> list[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(
            Text(name),
            justify="right" if name in right else "left",
            no_wrap=name in right or name == names[0],
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    drawn = io.StringIO()
    width = shutil.get_terminal_size().columns
    Console(file=drawn, width=width, color_system=None).print(table)
    return [line.rstrip() for line in drawn.getvalue().splitlines()]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    r"""Return the lines of a Markdown table.

    >>> print(*markdown_table(["a", "b"], [["x", "long"], ["1|2", ""]]), sep="\n")
    | a    | b    |
    | ---- | ---- |
    | x    | long |
    | 1\|2 |      |
    """
    body = [[text.replace("|", "\\|") for text in row] for row in rows]
    widths = [max(len(row[place]) for row in [head, *body]) for place in range(len(head))]
    lines = [head, ["-" * width for width in widths], *body]
    return [
        f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |"
        for row in lines
    ]
