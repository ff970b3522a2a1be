"""The writing of numbers, sizes, values and commands where people read them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number and what it counts.

    >>> counted(1, "row"), counted(20, "row"), counted(0, "entry", "entries")
    ('1 row', '20 rows', '0 entries')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def size(number: float) -> str:
    """Write bytes in the largest unit that leaves a figure before the point.

    >>> size(999), size(52_000_000), size(2e9)
    ('999 bytes', '52.0 MB', '2.0 GB')
    """
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= bytes_:
            return f"{number / bytes_:.1f} {unit}"
    return counted(int(number), "byte")


def short(value: object, most: int = 80) -> str:
    """Write a value as Python does, in ASCII and of a bounded length: harmless on a terminal.

    >>> short("a" * 99, 12)
    "'aaaaaaaa..."
    """
    text = ascii(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def command_line(*words: object) -> str:
    """Write a command to be pasted into a shell.

    >>> command_line("status", "--workspace", "my data/ws")
    "avatar-build status --workspace 'my data/ws'"
    """
    return shlex.join(["avatar-build", *map(str, words)])


def plain(problem: Mapping[str, Any]) -> str:
    """Say what is wrong with a value that pydantic refused: no pattern, no foreign words.

    Args:
        problem: one of ``ValidationError.errors()``.
    """
    if problem["type"] == "string_pattern_mismatch":
        return "is not written as it should be"
    text = str(problem["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
