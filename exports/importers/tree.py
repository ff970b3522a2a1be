"""A download as it lies on the disk: folders, and ZIP files that count as folders.

Nothing is unpacked, so no name in an archive can lead anywhere; links are not followed.
"""

from __future__ import annotations

import os
import zipfile
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.release.layout import SOUND_SUFFIXES

PICTURES = (".jpg", ".jpeg", ".png")
_MOST_BYTES = 1 << 30
"""Larger members of an archive are not read."""


class Tree:
    """The files below a folder, and those inside its ZIP files, by name.

    Args:
        root: a folder, or one ZIP file.

    Raises:
        UsageError: it is neither.
    """

    def __init__(self, root: Path) -> None:
        self._plain: dict[str, Path] = {}
        self._zipped: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}
        self._passed_over: dict[str, set[str]] = {}
        if root.is_file():
            self._open_zip(root, "")
        elif root.is_dir():
            self._walk(root)
        else:
            raise UsageError(f"{root}: no such folder or ZIP file.")
        self.names = sorted({*self._plain, *self._zipped})
        """Every file, ``/`` between folders."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            AvatarBuildError: a broken or oversized member of an archive.
        """
        if name in self._plain:
            return self._plain[name].read_bytes()
        archive, info = self._zipped[name]
        if info.file_size > _MOST_BYTES:
            raise AvatarBuildError(
                f"{archive.filename}: {name[:80]!r} is over {_MOST_BYTES} bytes."
            )
        try:
            return archive.read(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise AvatarBuildError(f"{archive.filename}: {name[:80]!r}: {error}.") from error

    def ending(self, *suffixes: str) -> list[str]:
        """Return the names with one of these endings, in any case."""
        return [name for name in self.names if name.lower().endswith(suffixes)]

    def by_stem(self, *suffixes: str, folder: str = "") -> dict[str, str]:
        """Return stem to name, of the files with these endings; the first of equal stems.

        Args:
            suffixes: endings, in any case.
            folder: only files somewhere below a folder of this name; empty takes all.
        """
        found: dict[str, str] = {}
        for name in self.ending(*suffixes):
            path = PurePosixPath(name)
            if not folder or folder in path.parts:
                first = found.setdefault(path.stem, name)
                if first != name:
                    self._passed_over.setdefault(first, set()).add(name)
        return found

    def rival(self, name: str) -> str | None:
        """Return a file that ``by_stem`` passed over for ``name`` and whose bytes are others."""
        rivals = sorted(self._passed_over.get(name, ()))
        return next((one for one in rivals if self.read(one) != self.read(name)), None)

    def named(self, file: str) -> str | None:
        """Return the first file of this name, given in small letters, in any folder and case."""
        return next((n for n in self.names if PurePosixPath(n).name.lower() == file), None)

    def beside(self, sample: str) -> dict[str, Any]:
        """Return the image, clip and sound named like a sample, as ``ReadFrame`` takes them."""
        return {kind: names.get(sample) for kind, names in self._samples.items()}

    @cached_property
    def _samples(self) -> dict[str, dict[str, str]]:
        return {
            "image": self.by_stem(*PICTURES),
            "clip": self.by_stem(".mp4"),
            "sound": self.by_stem(*(suffix for suffix in SOUND_SUFFIXES if suffix != ".mp4")),
        }

    def _walk(self, root: Path) -> None:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder) / name
                if path.is_symlink() or not path.is_file():
                    continue
                place = path.relative_to(root).as_posix()
                if path.suffix.lower() == ".zip":
                    self._open_zip(path, place.removesuffix(path.suffix) + "/")
                else:
                    self._plain[place] = path

    def _open_zip(self, path: Path, prefix: str) -> None:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UsageError(f"{path}: not a ZIP file ({error}). Download it again.") from error
        for info in archive.infolist():
            if not info.is_dir():
                self._zipped[prefix + info.filename] = (archive, info)
