"""Tables that read well in a terminal and in a document alike."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    r"""The lines of a Markdown table.

    >>> print(*table(["a", "b"], [["x", "long"], ["1|2", ""]]), sep="\n")
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
