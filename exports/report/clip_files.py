"""The gallery of the report: its clips in the page itself, or in files beside it.

A page of every clip of a large workspace would be too large to open. So from a size on the clips
lie in a folder beside the page, some to a file, and the page's script loads those it shows: as
scripts, since that is what a browser lets a page read that came from a disk. What the filters look
at has files of its own, which are read when somebody filters. The pictures are inside the clips'
HTML, as a file that is loaded is one that is looked at; alone they would be a million small files.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from markupsafe import Markup

from exports.report.frame_pictures import ClipView
from pipeline.templating import environment

PAGE = 12
"""Clips per page of the gallery."""
_ONE_FILE = 3_500_000
"""Bytes of clips up to which all are in the page; the figures around them take little."""
_FILE = 400_000
"""Bytes from which on a file of clips is full; its last clip comes on top."""
_INDEX = 1_500_000
"""Bytes from which on a file of the index is full."""
_OURS = re.compile(r"(seen|clips|seen-index|clips-index)-\d{5}\.js")
_ALL = ("all categories", "all scenarios", "all frames")


class _Names:
    """Categories, scenarios or states, numbered as they come."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def of(self, names: set[str]) -> list[int]:
        return sorted(self.numbers.setdefault(name, len(self.numbers)) for name in sorted(names))

    def places(self) -> list[int]:
        """Return the place of each among all in alphabetical order, by number."""
        place = {name: where for where, name in enumerate(sorted(self.numbers))}
        return [place[name] for name in self.numbers]


class _Files:
    """Pieces of text on their way into numbered files, as calls of a function with a list."""

    def __init__(self, name: str, full: int) -> None:
        self.held: list[str] = []
        self.counts: list[int] = []
        """The number of pieces in each file."""
        self._name, self._full, self._bytes = name, full, 0

    def add(self, piece: str) -> None:
        self.held.append(piece)
        self._bytes += len(piece.encode())

    def write(self, folder: Path, digest: Any, *, rest: bool) -> None:
        """Write what fills files, or all that is held."""
        while self.held and (rest or self._bytes >= self._full):
            size = number = 0
            while number < len(self.held) and size < self._full:
                size += len(self.held[number].encode())
                number += 1
            name = f"{self._name}-{len(self.counts):05d}"
            pieces = ",\n".join(self.held[:number])
            data = f'reportPart("{name}", [\n{pieces}\n]);\n'.encode()
            (folder / f"{name}.js").write_bytes(data)
            digest.update(name.encode() + data)
            self.counts.append(number)
            del self.held[:number]
            self._bytes -= size

    def files(self) -> list[tuple[str, int]]:
        """Return the name and the number of pieces of each file."""
        return [(f"{self._name}-{number:05d}", of) for number, of in enumerate(self.counts)]


class _Row:
    """Clips one after the other: first those with pictures, then the others."""

    def __init__(self, name: str) -> None:
        self.first: list[str] = []
        """The HTML of those that may be on the first page."""
        self.clips = _Files(name, _FILE)
        self.index = _Files(f"{name}-index", _INDEX)

    def add(self, html: str, entry: list[Any]) -> None:
        if len(self.first) < PAGE:
            self.first.append(html)
        self.clips.add(_json(html))
        self.index.add(_json(entry))


class Gallery:
    """The clips of a report, added one by one; a ``with`` around it leaves nothing half-made.

    Args:
        target: the report's file; clips that do not fit into it go into a folder beside it, named
            after it and after what they hold.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._template = environment("exports").get_template("clip.html.j2")
        self._rows = (_Row("seen"), _Row("clips"))
        self._names = (_Names(), _Names(), _Names())
        self._bytes = self._clips = self._frames = self._pictured = 0
        self._making: Path | None = None
        self._folder = ""
        self._digest = sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._making is not None:
            shutil.rmtree(self._making, ignore_errors=True)

    def add(self, view: ClipView) -> None:
        """Add a clip; those with pictures come before all others, else they stay in order."""
        html = self._template.render(view=view)
        frames = [
            [
                names.of(own)
                for names, own in zip(
                    self._names,
                    (
                        {name for name, _, _ in one.labels},
                        {how for _, how, _ in one.labels},
                        {one.state},
                    ),
                    strict=True,
                )
            ]
            for one in view.frames
        ]
        text = f"{view.video.title} {view.video.label} {view.clip.clip_id}".lower()
        self._rows[not view.pictured].add(html, [text, frames])
        self._bytes += len(html.encode())
        self._clips += 1
        self._frames += len(frames)
        self._pictured += view.pictured
        if self._bytes > _ONE_FILE:
            if self._making is None:
                self._target.parent.mkdir(parents=True, exist_ok=True)
                self._making = Path(
                    tempfile.mkdtemp(prefix=f".{self._target.stem}-", dir=self._target.parent)
                )
            self._write(self._making, rest=False)

    def _write(self, folder: Path, *, rest: bool) -> None:
        for row in self._rows:
            for files in (row.clips, row.index):
                files.write(folder, self._digest, rest=rest)

    def finish(self) -> dict[str, Any]:
        """Put the files into their place, if there are some; return what the page is made of."""
        first = [html for row in self._rows for html in row.first][:PAGE]
        order = [sorted(names.numbers) for names in self._names]
        data: dict[str, Any] = {"page": PAGE}
        if self._making is None:
            data["clips"] = list(self._inside(len(first)))
        else:
            self._write(self._making, rest=True)
            self._folder = self._put_in_place(self._making)
            data |= {
                "folder": self._folder,
                "files": [file for row in self._rows for file in row.clips.files()],
                "index": [file for row in self._rows for file in row.index.files()],
                "places": [names.places() for names in self._names],
                "frames": self._frames,
            }
        return {
            "num_clips": self._clips,
            "num_pictured": self._pictured,
            "folder": self._folder,
            "first_clips": [Markup(html) for html in first],
            "filters": list(zip(("category", "scenario", "state"), _ALL, order, strict=True)),
            "data": script_json(data),
        }

    def _inside(self, shown: int) -> Iterator[dict[str, Any]]:
        """Yield the clips as the page's script wants them; the first are there as HTML."""
        places = [names.places() for names in self._names]
        held = [
            pair for row in self._rows for pair in zip(row.index.held, row.clips.held, strict=True)
        ]
        for number, (entry, html) in enumerate(held):
            text, frames = json.loads(entry)
            numbered = [
                [sorted(places[kind][one] for one in own) for kind, own in enumerate(frame)]
                for frame in frames
            ]
            clip = {"text": text, "frames": numbered}
            yield clip if number < shown else clip | {"html": json.loads(html)}

    def _put_in_place(self, making: Path) -> str:
        name = f"{self._target.stem}-{self._digest.hexdigest()[:12]}"
        making.chmod(0o755)  # a temporary folder is for its maker alone
        place = self._target.with_name(name)
        if place.exists():  # the same bytes, unless somebody took some away
            shutil.rmtree(place)
        making.rename(place)
        self._making = None
        return name

    def sweep(self) -> None:
        """Remove the folders of earlier reports of this name, once the page names another."""
        for folder in self._target.parent.glob(f"{self._target.stem}-*"):
            if folder.name == self._folder or not folder.is_dir() or folder.is_symlink():
                continue
            if re.fullmatch(r"[0-9a-f]{12}", folder.name[len(self._target.stem) + 1 :]) and all(
                _OURS.fullmatch(file.name) for file in folder.iterdir()
            ):
                shutil.rmtree(folder, ignore_errors=True)


def script_json(value: Any) -> Markup:
    """Return JSON that cannot end the element it stands in."""
    text = _json(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
