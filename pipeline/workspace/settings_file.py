"""The text of ``avatar.toml``: every setting with its meaning, and a change of some.

A setting's meaning is the sentence below it in ``pipeline.config``. It is read from the source when
somebody asks for the text, and not as each command begins.

What was typed is written beside the results it made, and the rest of the file is left as it is. A
line is changed, or the default that is commented out there; a section or a line is added where
there is none. What comes out is parsed and must say what it said before but for what was written,
so a file that is laid out in some other way is left alone, and the caller told.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from typing import Any

from pipeline.config import PROFILES, Config, Section, every_name, todays_names
from pipeline.errors import ConfigError

_HEADER = re.compile(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]\s*(#.*)?")


def render_toml(profile: str | None = None, resolved: Config | None = None) -> str:
    """Write ``avatar.toml``: every setting with its meaning.

    Without ``resolved``, defaults are commented out, so that the code stays the one place where
    they are written, and the profile's values stand uncommented. With it, every value stands.
    """
    chosen = PROFILES[profile] if profile else {}
    lines = [
        "# Settings of this avatar-build workspace. What is commented out is the default.",
        "# 'avatar-build config validate' checks this file, 'config show' prints the result.",
    ]
    for name, info in Config.model_fields.items():
        section = info.annotation
        assert isinstance(section, type)
        assert issubclass(section, Section)
        lines += ["", f"# {(section.__doc__ or '').strip().splitlines()[0]}", f"[{name}]"]
        meaning = meanings(section)
        for key, field in section.model_fields.items():
            lines += [f"# {line}" for line in textwrap.wrap(meaning.get(key, ""), 96)]
            if resolved is not None:
                lines.append(f"{key} = {render_value(getattr(getattr(resolved, name), key))}")
            elif key in chosen.get(name, {}):
                lines.append(f"{key} = {render_value(chosen[name][key])}")
            else:
                lines.append(
                    f"#{key} = {render_value(field.get_default(call_default_factory=True))}"
                )
    return "\n".join(lines) + "\n"


def meanings(section: type[Section]) -> dict[str, str]:
    """Return the sentences below a section's settings, by name; of an inherited one its parent's.

    >>> from pipeline.config import RunConfig
    >>> meanings(RunConfig)["executor"].partition(".")[0]
    'Executor of the units'

    Raises:
        OSError: the package was installed without its source.
    """
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if issubclass(kind, Section):
            found |= _meanings_in(kind.__module__)[kind.__name__]
    return found


@functools.cache
def _meanings_in(module: str) -> dict[str, dict[str, str]]:
    """Return the same of each class of a module, whose source is read once."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if not isinstance(node, ast.ClassDef):
            continue
        own = found[node.name] = {}
        for line, below in zip(node.body, node.body[1:], strict=False):
            match line, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                    own[name] = " ".join(text.split())
    return found


def render_value(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML has JSON's escapes
    if isinstance(value, list):
        return "[" + ", ".join(render_value(item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{render_value(key)} = {render_value(held)}" for key, held in value.items())
        return "{" + ", ".join(pairs) + "}"
    return repr(value)


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
