"""Write settings into ``avatar.toml`` beside the results they made, and leave the rest as it is.

A line is changed, or the default that is commented out there; a section or a line is added where
there is none. What comes out is parsed and must say what it said before but for what was written,
so a file that is laid out in some other way is left alone, and the caller told.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from pipeline.config import every_name, render_value, todays_names
from pipeline.errors import ConfigError

_HEADER = re.compile(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]\s*(#.*)?")


def with_settings(toml: str, values: Mapping[str, Mapping[str, Any]]) -> str:
    r"""Return the text of a settings file with other values in it.

    >>> with_settings("[sample]\n#seed = 0\nclip_s = 10  # ours\n", {"sample": {"seed": 7}})
    '[sample]\nseed = 7\nclip_s = 10  # ours\n'

    Args:
        toml: the file.
        values: by section and key.

    Raises:
        ConfigError: the file is laid out so that it cannot be changed line by line.
    """
    wanted = todays_names(tomllib.loads(toml))
    lines = toml.splitlines(keepends=True)
    for section, chosen in values.items():
        for key, value in chosen.items():
            wanted.setdefault(section, {})[key] = value
            lines = _with_line(lines, section, key, render_value(value))
    text = "".join(lines)
    try:
        exact = todays_names(tomllib.loads(text)) == wanted
    except tomllib.TOMLDecodeError:
        exact = False
    if not exact:
        raise ConfigError("it is not laid out a setting a line below the [section] it belongs to")
    return text


def _with_line(lines: list[str], section: str, key: str, value: str) -> list[str]:
    first, stop = _body(lines, section)
    if first is None:
        gap = ["\n"] if lines and lines[-1].strip() else []
        ended = [line if line.endswith("\n") else line + "\n" for line in lines]
        return [*ended, *gap, f"[{section}]\n", f"{key} = {value}\n"]
    newline = "\r\n" if lines[first - 1].endswith("\r\n") else "\n"
    if not lines[first - 1].endswith("\n"):
        lines = [*lines[: first - 1], lines[first - 1] + newline, *lines[first:]]
    new = f"{key} = {value}"
    names = "|".join(map(re.escape, every_name(section, key)))
    for commented in (False, True):
        for place in range(first, stop):
            mark = r"#\s*" if commented else r"\s*"
            if re.match(rf"{mark}(?:{names})\s*=", lines[place]):
                end = place + 1 if commented else _end_of_value(lines, place, stop)
                note = "" if commented else _comment_of(lines[end - 1])
                return [*lines[:place], new + note + newline, *lines[end:]]
    return [*lines[:first], new + newline, *lines[first:]]


def _body(lines: list[str], section: str) -> tuple[int | None, int]:
    """Return the lines of a section, without its header."""
    first = None
    for place, line in enumerate(lines):
        header = _HEADER.fullmatch(line.rstrip("\r\n"))
        if first is not None and (header or line.lstrip().startswith("[")):
            return first, place
        if header and header.group(1) == section:
            first = place + 1
    return first, len(lines)


def _end_of_value(lines: list[str], place: int, stop: int) -> int:
    """Return the line behind a value that may take several."""
    for end in range(place + 1, stop + 1):
        try:
            tomllib.loads("".join(lines[place:end]))
        except tomllib.TOMLDecodeError:
            continue
        return end
    return place + 1


def _comment_of(line: str) -> str:
    """Return the comment at the end of a value's last line, with the space before it."""
    text = line.rstrip("\r\n")
    start = text.find("#")
    while start >= 0:
        value = text[:start].partition("=")[2] if "=" in text[:start] else text[:start]
        try:
            tomllib.loads(f"value = {value}")
        except tomllib.TOMLDecodeError:
            start = text.find("#", start + 1)
        else:
            return text[len(text[:start].rstrip()) :]
    return ""
