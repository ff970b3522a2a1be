"""Agreement beyond chance, and the fractions and means of reports, where there may be nothing."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.columns import markdown_table


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of some pairs of answers."""

    n: int
    """The number of pairs."""
    agreed: int
    value: float | None
    """The kappa, in [-1, 1]; none where it is undefined: no pair, or both said one thing only."""

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {"n": self.n, "agreed": self.agreed, "kappa": self.value}

    def sentence(self) -> str:
        """Return the words that the command prints.

        >>> cohen_kappa([("a", "a"), ("b", "b"), ("a", "b"), ("b", "b")]).sentence()
        '0.50 (75 % of 4)'
        >>> cohen_kappa([("a", "a")]).sentence()
        'undefined (100 % of 1)'
        """
        if not self.n:
            return "-"
        value = "undefined" if self.value is None else f"{self.value:.2f}"
        return f"{value} ({100 * self.agreed / self.n:.0f} % of {self.n})"


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> Kappa:
    """Return Cohen's kappa: agreement above what the two's own habits would give by chance.

    ``(p_o - p_e) / (1 - p_e)``, where ``p_o`` is the fraction of pairs that agree and ``p_e`` the
    sum over answers of the product of both sides' fractions (Cohen, Educational and Psychological
    Measurement 20, 1960). Where ``p_e`` is 1 both sides gave one and the same answer throughout:
    then nothing tells agreement from habit, and the value is undefined, not 0 and not 1.
    """
    n = len(pairs)
    agreed = sum(first == second for first, second in pairs)
    firsts, seconds = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    # Whole numbers until the end, so that p_e = 1 is seen exactly.
    by_chance = sum(count * seconds[answer] for answer, count in firsts.items())
    if by_chance == n * n:  # also without a pair
        return Kappa(n, agreed, None)
    return Kappa(n, agreed, (agreed * n - by_chance) / (n * n - by_chance))


def section(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines of a table, and a blank one before it; each row has its name first."""
    cells = [[name, *row] for name, row in rows.items()]
    return ["", *markdown_table([title, *columns], cells)]


def ratio(part: int, whole: int) -> float | None:
    """Return a fraction; none of nothing."""
    return part / whole if whole else None


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; none of no values."""
    return statistics.fmean(values) if values else None


def text(value: float | None) -> str:
    """Write a number as tables do."""
    return "-" if value is None else f"{value:.2f}"
