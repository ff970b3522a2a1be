"""Progress as people see it: a bar on a terminal, a plain line now and then elsewhere.

The only module that draws bars, with rich.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_LINE_EVERY_S = 15.0


@contextmanager
def counting(
    name: str, total: int, *, done: int = 0, of: str = "", shown: bool = True
) -> Iterator[Callable[[int, str], None]]:
    """Follow anything that is counted.

    Args:
        name: what is under way.
        total: how many there are.
        done: how many were done before.
        of: what is counted, where a line would not say.
        shown: off for machines.

    Yields:
        What to call with how many are done, and a note.
    """
    if not shown:
        yield lambda _done, _note: None
    elif not sys.stderr.isatty():
        yield _count_lines(name, total, done, of)
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        label, note_column = TextColumn("{task.description:9}"), TextColumn("{task.fields[note]}")
        columns = (label, BarColumn(), MofNCompleteColumn(), note_column, TimeRemainingColumn())
        with _bar(*columns) as bar:
            task = bar.add_task(name, total=total, completed=done, note="")

            def show(count: int, note: str) -> None:
                bar.update(task, completed=count, note=note)

            yield show


@contextmanager
def transfers(*, shown: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """Follow files being fetched.

    Args:
        shown: off for machines.

    Yields:
        What to call with a file's name, its bytes so far, and its bytes in all where known.
    """
    if not shown:
        yield lambda _name, _done, _size: None
    elif not sys.stderr.isatty():
        yield _transfer_lines()
    else:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

        label = TextColumn("{task.description}")
        with _bar(label, BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
            tasks: dict[str, Any] = {}

            def show(name: str, done: int, size: int | None) -> None:
                if name not in tasks:
                    tasks[name] = bar.add_task(name)
                bar.update(tasks[name], completed=done, total=size)

            yield show


def _bar(*columns: Any) -> Any:
    """Return a bar on standard error that goes away when it is done."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True)


class _LinesNowAndThen:
    """Writes a line where the last one is long enough ago."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._next_line = self.started + _LINE_EVERY_S

    def write(self, line: str) -> None:
        now = time.monotonic()
        if now > self._next_line:
            self._next_line = now + _LINE_EVERY_S
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def _count_lines(name: str, total: int, first: int, of: str) -> Callable[[int, str], None]:
    lines = _LinesNowAndThen()

    def show(done: int, note: str) -> None:
        each_s = (time.monotonic() - lines.started) / max(1, done - first)
        count = f"{done} of {total} {of}".rstrip()
        left = f"about {each_s * (total - done):.0f} s left"
        lines.write(f"{name}: {', '.join(part for part in (count, note, left) if part)}")

    return show


def _transfer_lines() -> Callable[[str, int, int | None], None]:
    lines = _LinesNowAndThen()

    def show(name: str, done: int, size: int | None) -> None:
        whole = f" of {size / 1e6:.0f}" if size else ""
        lines.write(f"{name}: {done / 1e6:.0f}{whole} MB")

    return show
