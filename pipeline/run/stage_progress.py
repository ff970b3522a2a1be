"""The progress of a run of a stage, counted in rows over all its units."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.progress import counting

if TYPE_CHECKING:
    from pipeline.run.unit import UnitResult
    from pipeline.workspace.commit import Unit


class Progress:
    """Follows one stage at a time.

    Args:
        shown: off for machines.
        each_unit: say of every unit what it read and how long it took.
    """

    def __init__(self, *, shown: bool = True, each_unit: bool = False) -> None:
        self._shown = shown
        self._each_unit = each_unit
        self._counts: Counter[str] = Counter()
        self._running: dict[str, int] = {}
        self._name = ""
        self._show: Callable[[int, str], None] = lambda _done, _note: None

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        """Follow a stage over ``total`` rows."""
        self._counts.clear()
        self._running.clear()
        self._name = name
        with counting(name, total, of="rows", shown=self._shown) as self._show:
            yield

    def say(self, line: str) -> None:
        """Write a line for people at once; also where progress is not shown, for it is none."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def rows(self, unit: Unit, done: int) -> None:
        """Count ``done`` finished rows of a unit that is under way."""
        self._running[unit.name] = done
        self._update()

    def committed(self, result: UnitResult) -> None:
        """Count a unit that is committed."""
        self._running.pop(result.unit.name, None)
        self._counts.update(result.counts)
        if self._each_unit:
            unit, rows = result.unit, result.counts["input"]
            took = f"{result.wall_s:.2f} s"
            self.say(f"{self._name}: unit {unit.name}, {rows} of the rows of {unit.where}: {took}")
        self._update()

    def _update(self) -> None:
        note = f"{self._counts['dropped']} dropped, {self._counts['failed']} failed"
        self._show(self._counts["input"] + sum(self._running.values()), note)
