"""Ways in which a media file stops being the one that was recorded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Spoil = Callable[[Path], object]


def another(path: Path) -> None:
    """Other bytes, as many, later."""
    path.write_bytes(path.read_bytes()[::-1])


def another_made_to_look_as_old(path: Path) -> None:
    old = path.stat()
    another(path)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[::-1])
    path.unlink()
    path.symlink_to(other)


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILS: list[tuple[Spoil, str]] = [
    (another, "changed_file"),
    (another_made_to_look_as_old, "changed_file"),
    (longer, "changed_file"),
    (cut_short, "changed_file"),
    (emptied, "changed_file"),
    (a_folder, "changed_file"),
    (a_link_to_another, "changed_file"),
    (a_pipe, "changed_file"),
    (Path.unlink, "missing_file"),
    (a_link_to_itself, "missing_file"),
    (a_link_to_nothing, "missing_file"),
]
"""Each with the kind of the failure it must be."""
