"""What a run shows while it works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.ledger import Unit
    from pipeline.unit import UnitResult

_LINE_EVERY_S = 15.0


class Progress:
    """Follows one stage at a time.

    Args:
        shown: off for machines.
        each_unit: say of every unit what it read and how long it took.
    """

    def __init__(self, *, shown: bool = True, each_unit: bool = False) -> None:
        self._shown = shown
        self._each_unit = each_unit
        self._bar: Any = None
        self._task: Any = None
        self._counts: Counter[str] = Counter()
        self._running: dict[str, int] = {}
        self._name = ""
        self._total = 0
        self._next_line = 0.0
        self._started = 0.0

    @classmethod
    def silent(cls) -> Progress:
        """One that shows nothing."""
        return cls(shown=False)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        """Follow a stage over ``total`` rows."""
        self._counts.clear()
        self._running.clear()
        self._name, self._total = name, total
        self._started = time.monotonic()
        self._next_line = self._started + _LINE_EVERY_S
        if not (self._shown and sys.stderr.isatty()):
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description:9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as self._bar:
            self._task = self._bar.add_task(name, total=total, note="")
            try:
                yield
            finally:
                self._bar = None

    def say(self, line: str) -> None:
        """A line for people, at once; also where progress is not shown, for it is none."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def rows(self, unit: Unit, done: int) -> None:
        """A unit under way has ``done`` finished rows."""
        self._running[unit.name] = done
        self._show()

    def committed(self, result: UnitResult) -> None:
        """A unit is committed."""
        self._running.pop(result.unit.name, None)
        self._counts.update(result.counts)
        if self._each_unit:
            unit, rows = result.unit, result.counts["input"]
            took = f"{result.wall_s:.2f} s"
            self.say(f"{self._name}: unit {unit.name}, {rows} of the rows of {unit.file}: {took}")
        self._show()

    def _show(self) -> None:
        if not self._shown:
            return
        done = self._counts["input"] + sum(self._running.values())
        note = f"{self._counts['dropped']} dropped, {self._counts['failed']} failed"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY_S
            rate = done / (time.monotonic() - self._started)
            left = (self._total - done) / rate if rate else 0.0
            sys.stderr.write(
                f"{self._name}: {done} of {self._total} rows, {note}, about {left:.0f} s left\n"
            )
            sys.stderr.flush()


@contextmanager
def transfers(*, shown: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """Follow files being fetched: yields what to call with name, bytes so far, bytes in all."""
    if not shown:
        yield lambda _name, _done, _size: None
        return
    if not sys.stderr.isatty():
        yield _LineNow()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(name: str, done: int, size: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name)
            bar.update(tasks[name], completed=done, total=size)

        yield show


class _LineNow:
    """A plain line now and then."""

    def __init__(self) -> None:
        self._next_line = time.monotonic() + _LINE_EVERY_S

    def __call__(self, name: str, done: int, size: int | None) -> None:
        if time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY_S
            whole = f" of {size / 1e6:.0f}" if size else ""
            sys.stderr.write(f"{name}: {done / 1e6:.0f}{whole} MB\n")
            sys.stderr.flush()


@contextmanager
def counting(
    name: str, total: int, *, done: int = 0, shown: bool = True
) -> Iterator[Callable[[int, str], None]]:
    """Follow anything that is counted: yields what to call with how many are done, and a note."""
    if not shown:
        yield lambda _done, _note: None
        return
    if not sys.stderr.isatty():
        yield _CountNow(name, total, done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total, completed=done, note="")

        def show(count: int, note: str) -> None:
            bar.update(task, completed=count, note=note)

        yield show


class _CountNow:
    """A plain line now and then."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self._name, self._total, self._first = name, total, done
        self._started = time.monotonic()
        self._next_line = self._started + _LINE_EVERY_S

    def __call__(self, done: int, note: str) -> None:
        now = time.monotonic()
        if now > self._next_line:
            self._next_line = now + _LINE_EVERY_S
            each = (now - self._started) / max(1, done - self._first)
            left = f"about {each * (self._total - done):.0f} s left"
            said = ", ".join(part for part in (note, left) if part)
            sys.stderr.write(f"{self._name}: {done} of {self._total}, {said}\n")
            sys.stderr.flush()
