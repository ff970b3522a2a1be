"""Tables on a terminal: aligned, within its width; piped, a line per row and nothing cut."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence

_ENDLESS = 100_000


def columns(
    names: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()
) -> list[str]:
    """Lay rows out as lines below their names.

    Args:
        names: of the columns; what does not fit the terminal goes on below, in the last one first.
        rows: a cell for each.
        right: columns of numbers.

    >>> columns(["stage", "rows"], [["sample", "12"], ["propose", "3"]], right={"rows"})
    ['stage    rows', 'sample     12', 'propose     3']
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS
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
    Console(file=drawn, width=width, color_system=None).print(table)
    return [line.rstrip() for line in drawn.getvalue().splitlines()]
