"""Training lists as their authors spell them, read for the YouTube ids in them.

Lists spell a clip in many ways, and a join by text finds none of these in another:
``<id>_000020`` (VGGSound files, seconds in six digits), ``<id>_00020`` (AVATAR, five),
``<id>_20000_30000`` (milliseconds, from and to), ``<id>_00020000`` (our clips, eight digits of
milliseconds), ``<id>,20,label,split`` (VGGSound's table), and the bare id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError

_NAME = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d+)(?:_(\d+))?)?")

_HEADINGS = {"", "id", "ids", "file", "name", "video", "video_id", "youtube_id", "ytid"}
"""Of a first column, not names."""

Entry = tuple[str, float | None]
"""A YouTube id, and the start in seconds of the listed 10 s where it is told."""


def read_list(path: Path) -> list[Entry]:
    """The clips of a training list: text or CSV, one a line, or JSON with names in it.

    Raises:
        UsageError: the file is missing or names no YouTube id.
    """
    entries = [entry for row in _rows(path) if (entry := parse_entry(row)) is not None]
    if not entries:
        raise UsageError(
            f"training list {path}: no YouTube id in it; one a line, in the first column."
        )
    return entries


def read_ids(path: Path) -> set[str]:
    """The videos of a training list: YouTube ids, or whatever names it has (Flickr's numbers).

    Raises:
        UsageError: the file is missing or empty.
    """
    rows = _rows(path)
    ids = {entry[0] for row in rows if (entry := parse_entry(row)) is not None}
    if not ids or path.suffix != ".json":  # JSON holds other texts beside names
        ids |= {_stem(row[0]) for row in rows if parse_entry(row) is None} - _HEADINGS
    if not ids:
        raise UsageError(f"training list {path}: it is empty.")
    return ids


def _rows(path: Path) -> list[Sequence[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UsageError(f"training list {path}: {error.strerror}.") from error
    if path.suffix == ".json":
        try:
            return [[name] for name in _strings(json.loads(text))]
        except ValueError as error:
            raise UsageError(f"training list {path}: not JSON ({error}).") from error
    lines = [line.replace('"', "").strip() for line in text.splitlines()]
    return [re.split(r"[,;\s]+", line) for line in lines if line]


def _stem(name: str) -> str:
    """A file's name without folders and ending."""
    plain = name.strip().replace("\\", "/").rpartition("/")[2]
    return re.sub(r"\.[A-Za-z0-9]{2,4}$", "", plain)


def parse_entry(row: Sequence[str]) -> Entry | None:
    """One line of a list; none when it names no YouTube id.

    >>> parse_entry(["l_7B1wnTNtA_000020"]), parse_entry(["a/l_7B1wnTNtA_20000_30000.mp4"])
    (('l_7B1wnTNtA', 20.0), ('l_7B1wnTNtA', 20.0))
    >>> parse_entry(["l_7B1wnTNtA", " 20", "dog", "test"]), parse_entry(["video"])
    (('l_7B1wnTNtA', 20.0), None)
    """
    match = _NAME.fullmatch(_stem(row[0]))
    if match is None:
        return None
    video_id, start, end = match.groups()
    if start is None:
        told = row[1].strip() if len(row) > 1 else ""
        return video_id, float(told) if re.fullmatch(r"\d{1,6}(\.\d+)?", told) else None
    milliseconds = end is not None or len(start) > 6
    return video_id, int(start) / (1000 if milliseconds else 1)


def _strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield str(key)
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
