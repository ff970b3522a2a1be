"""Names of videos, in any list, file or release: one way to read them, one way to compare.

A join by text finds none of these in another: ``<id>_000020`` (VGGSound files, seconds in six
digits), ``<id>_00020`` (AVATAR, five), ``<id>_20000_30000`` (milliseconds, from and to),
``<id>_30.000_40.000`` (AudioSet, seconds), ``<id>_00020000`` (our clips, eight digits of
milliseconds), ``<id>,20,label,split`` (VGGSound's table), ``Y<id>.wav``, ``A title [<id>].mp4``,
an address at YouTube, and the bare id.

Videos that are not YouTube's have names of any form, and ``take_00002`` may be a video's name or
the third second of ``take``. Both readings are kept: two names are of the same video when one of
them in full is a reading of the other. ``take_00002`` and ``take_00007`` may be two parts of one
video or two videos; that cannot be told, and is said.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipeline.errors import UsageError

_NUMBER = r"(\d+(?:\.\d+)?)"
_SPAN = re.compile(rf"(.+?)_{_NUMBER}(?:_{_NUMBER})?")
_YOUTUBE = r"[A-Za-z0-9_-]{11}"
_NAME = re.compile(rf"({_YOUTUBE})(?:_{_NUMBER}(?:_{_NUMBER})?)?")
_ADDRESS = re.compile(
    rf"(?:youtu\.be/|[?&]v=|/(?:shorts|embed|live|v|e)/)({_YOUTUBE})(?![A-Za-z0-9_-])"
)
_AT = re.compile(r"[?&#](?:t|start)=(\d+)s?(?:[&#]|$)")
_TITLED = re.compile(rf".*\[({_YOUTUBE})\]")
_ENDING = re.compile(
    r"\.(mp4|m4v|mov|mkv|webm|avi|flv|ts|mpe?g|wmv|3gp|wav|mp3|m4a|aac|flac|ogg|opus"
    r"|jpe?g|png|bmp|webp|npy|npz|h5|hdf5|pth?|pkl|pickle|json|xml|txt|csv|tsv|parquet|srt|vtt"
    r"|gz|tar|zip|part)$",
    re.IGNORECASE,
)
"""Endings of files; "take.v2" is a name."""
_YOUTUBES = re.compile(r"(?:youtube(?:-nocookie)?\.com|youtu\.be)/", re.IGNORECASE)
_SECONDS = re.compile(r"\d{1,6}(\.\d+)?")
_PADDED = {5, 6, 8}
"""Digits of a start in names of clips: AVATAR's, VGGSound's, ours."""

_COLUMNS = {"id", "ids", "file", "filename", "name", "video", "video_id", "youtube_id", "ytid"}
"""Headings of the column of names, or call it in JSON."""


@dataclass(frozen=True)
class VideoName:
    """A video, and where in it a clip starts, as far as a name tells."""

    name: str
    """The full name, without folders and endings."""
    youtube_id: str = ""
    """The id that the name surely holds; empty where it may be a name of another kind."""
    readings: frozenset[str] = frozenset()
    """Every name its video may have; the full one and the id are among them."""
    start_s: float | None = None
    """Seconds; none where it is not told."""

    @property
    def video_id(self) -> str:
        """Return the video, in one word: its YouTube id, else the name in full."""
        return self.youtube_id or self.name

    @property
    def sure(self) -> set[str]:
        """Return the readings that it has in any case."""
        return {self.name, self.video_id}


def read_name(text: str) -> VideoName:
    """Read a name as a release, a list or a file has it.

    >>> read_name("a/l_7B1wnTNtA_20000_30000.mp4").video_id, read_name("synth5-0_00000").video_id
    ('l_7B1wnTNtA', 'synth5-0_00000')
    >>> sorted(read_name("synth5-0_00000.MP4").readings)
    ['synth5-0', 'synth5-0_00000']
    """
    if _YOUTUBES.search(text) and (match := _ADDRESS.search(text)):
        at = _AT.search(text)
        return VideoName(match[1], match[1], frozenset({match[1]}), float(at[1]) if at else None)
    if "://" in text:
        text = unquote(re.split(r"[?#]", text, maxsplit=1)[0])
    name = _stem(text)
    if match := _TITLED.fullmatch(name):
        return VideoName(match[1], match[1], frozenset({match[1], name}))
    # "take_00001_00005": from and to, or a name that ends in a number, and a start.
    without_span = set(_without_span(name))
    readings = {name} | without_span
    youtube_id, start_s = "", None
    if match := _NAME.fullmatch(name):
        found, first, last = match.groups()
        readings.add(found)
        if first is None or last is not None or len(first) in _PADDED:
            youtube_id = found
        start_s = _start(first, last)
    elif without_span and (span := _SPAN.fullmatch(name)):
        start_s = _start(span[2], span[3])
    if len(name) == 12 and name[0] == "Y":
        readings.add(name[1:])
    readings |= {safe_id(one) for one in readings}  # as imported releases have it
    return VideoName(name, youtube_id, frozenset(readings), start_s)


def _without_span(name: str) -> Iterator[str]:
    """Yield what is left of a name when its end is a clip's span."""
    base, _, last = name.rpartition("_")
    if base and last.isdecimal() and len(last) in _PADDED:
        yield base
    outer, _, first = base.rpartition("_")
    both = re.fullmatch(_NUMBER, first), re.fullmatch(_NUMBER, last)
    if outer and all(both) and float(first) < float(last):
        yield outer


def _start(first: str | None, last: str | None) -> float | None:
    if first is None:
        return None
    if last is not None:
        milliseconds = "." not in first and float(last) - float(first) >= 1000
        return float(first) / (1000 if milliseconds else 1)
    if len(first) > 6 and "." not in first:
        return float(first) / 1000
    if len(first) >= 5 and first[0] != "0" and first.endswith("000"):
        return None  # 30000: hours in seconds, or 30 s in milliseconds
    return float(first)


def _stem(name: str) -> str:
    """Return a file's name without folders and endings."""
    plain = name.strip().strip("\"'").replace("\\", "/").rstrip("/").rpartition("/")[2].strip()
    while (shorter := _ENDING.sub("", plain).strip()) not in (plain, ""):
        # yt-dlp puts the format before the ending: "<id>.f137.mp4".
        plain = re.sub(r"(?<=.)\.f\d{2,3}$", "", shorter)
    return plain


def safe_id(name: str) -> str:
    """Return a name that can be a video's id: itself, or its safe part and a digest.

    >>> safe_id("l_7B1wnTNtA"), safe_id("baby laughter/1")
    ('l_7B1wnTNtA', 'baby-laughter-1-aa48d4f6')
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{1,50}", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Shared:
    """The videos that two collections have in common."""

    same: list[VideoName]
    """The names of the first that are in the second."""
    unsure: list[tuple[str, str]]
    """Names of the first that may be of a video of the second, which is named with each."""

    def doubt(self) -> str:
        """Return a sentence on what could not be told; empty when all could."""
        if not self.unsure:
            return ""
        one, other = self.unsure[0]
        return (
            f"{len(self.unsure)} names may be parts of the same video, which names alone do not"
            f" tell ({one} and {other}); they were taken for different ones."
        )


@dataclass
class VideoNames:
    """Videos, to be looked up by any spelling."""

    names: list[VideoName]
    unread: list[str] = field(default_factory=list)
    """Lines of the list that name no video."""

    def __post_init__(self) -> None:
        self._sure: dict[str, list[VideoName]] = {}
        self._maybe: dict[str, list[VideoName]] = {}
        for one in self.names:
            for text in one.sure:
                self._sure.setdefault(text, []).append(one)
            for text in one.readings:
                self._maybe.setdefault(text, []).append(one)

    @classmethod
    def of(cls, texts: Iterable[str]) -> VideoNames:
        """Take the videos of names as they stand in releases and checkpoints."""
        return cls([read_name(text) for text in sorted(set(texts))])

    def __len__(self) -> int:
        """Count the different videos."""
        return len({one.video_id for one in self.names})

    def same(self, one: VideoName) -> list[VideoName]:
        """Return the names of the same video."""
        found = [other for text in sorted(one.sure) for other in self._maybe.get(text, ())]
        found += [other for text in sorted(one.readings) for other in self._sure.get(text, ())]
        return list(dict.fromkeys(found))

    def shared_with(self, others: VideoNames) -> Shared:
        """Return which of these are among others."""
        same, unsure = [], []
        for one in self.names:
            if others.same(one):
                same.append(one)
            elif maybe := [o for text in sorted(one.readings) for o in others._maybe.get(text, ())]:
                unsure.append((one.name, maybe[0].name))
        return Shared(same, unsure)

    def doubt(self) -> str:
        """Return a sentence on lines that name no video; empty when there are none."""
        if not self.unread:
            return ""
        return f"{len(self.unread)} lines name no video ({self.unread[0][:60]!r})."


def read_list(path: Path) -> VideoNames:
    """Read the videos of a training list: text or CSV, one a line, or JSON with names in it.

    The first column names them, or the one with a heading such as ``video_id``. What can be no
    video's name (a word without a digit) is kept aside and counted.

    Raises:
        UsageError: the file is missing or names no video.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UsageError(f"training list {path}: {error.strerror}.") from error
    if "\0" in text:
        raise UsageError(f"training list {path}: not a text in UTF-8. Save it as one.")
    names, unread = [], []
    for row in _of_json(path, text) if path.suffix.lower() == ".json" else _of_lines(text):
        one = parse_row(row)
        if one is None:
            unread.append(",".join(row))
        else:
            names.append(one)
    if not names:
        raise UsageError(
            f"training list {path}: no YouTube id or other video's name in it; one a line, in the"
            " first column."
        )
    return VideoNames(names, unread)


def parse_row(row: Sequence[str]) -> VideoName | None:
    """Read one line of a list, its name first; none when that can be no video's.

    >>> parse_row(["l_7B1wnTNtA", " 20", "dog", "test"]).start_s, parse_row(["dog"])
    (20.0, None)
    """
    text = row[0]
    one = read_name(text)
    known = one.youtube_id or any(letter.isdigit() for letter in one.name)
    is_file = _ENDING.search(text.strip()) and one.name
    if not (known or is_file) or (_YOUTUBES.search(text) and not one.youtube_id):
        return None
    told = row[1].strip() if len(row) > 1 else ""
    if one.start_s is None and _SECONDS.fullmatch(told):
        return VideoName(one.name, one.youtube_id, one.readings, float(told))
    return one


def _of_lines(text: str) -> Iterator[list[str]]:
    column = None
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        separator = "\t" if "\t" in line else ";" if ";" in line and "," not in line else ","
        try:
            row = next(csv.reader([line.strip()], delimiter=separator))
        except csv.Error:  # a line longer than any name
            row = [line]
        cells = [cell.strip() for cell in row]
        if column is None:
            headed = [number for number, cell in enumerate(cells) if cell.lower() in _COLUMNS]
            column = headed[0] if headed else 0
            if headed:
                continue
        cells = cells[column:] or [""]
        parts = cells[0].split()
        # "ID 20 dog": spaces part the columns; in "my dog 1.mp4" they are the name's.
        if len(parts) > 1 and read_name(parts[0]).youtube_id and not _ENDING.search(cells[0]):
            cells = [*parts, *cells[1:]]
        yield cells


def _of_json(path: Path, text: str) -> Iterator[list[str]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"training list {path}: not JSON ({error}).") from error
    for value, is_name in _strings(document, called=True):
        one = read_name(value)
        # Elsewhere eleven letters may be a word.
        if is_name or (one.youtube_id and re.search(r"[A-Z0-9]", one.youtube_id)):
            yield [value]


def _strings(value: Any, *, called: bool) -> Iterator[tuple[str, bool]]:
    """Yield every text in a JSON value, names too, and whether it is called a video's name."""
    if isinstance(value, str):
        yield value, called
    elif isinstance(value, int) and called and not isinstance(value, bool):
        yield str(value), called
    elif isinstance(value, dict):
        for name, part in value.items():
            yield str(name), False
            yield from _strings(part, called=str(name).lower() in _COLUMNS)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part, called=called)
