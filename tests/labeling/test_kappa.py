"""Kappa against the contingency table written out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.quality.kappa import cohen_kappa

answers = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=30)


def by_contingency(pairs: list[tuple[str, str]]) -> Fraction | None:
    """The textbook's way: the table, its diagonal, its margins."""
    names = sorted({name for pair in pairs for name in pair})
    table = [[pairs.count((a, b)) for b in names] for a in names]
    n = sum(map(sum, table))
    if n == 0:
        return None
    observed = Fraction(sum(table[i][i] for i in range(len(names))), n)
    expected = sum(
        (
            Fraction(sum(table[i]), n) * Fraction(sum(row[i] for row in table), n)
            for i in range(len(names))
        ),
        Fraction(0),
    )
    return None if expected == 1 else (observed - expected) / (1 - expected)


@given(answers)
def test_kappa_is_what_the_contingency_table_gives(pairs: list[tuple[str, str]]) -> None:
    expected = by_contingency(pairs)
    found = cohen_kappa(pairs)
    assert found.n == len(pairs)
    if expected is None:
        assert found.value is None
    else:
        assert found.value == pytest.approx(float(expected), abs=1e-12)


def test_a_table_worked_by_hand() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = cohen_kappa(pairs)
    assert found.value == pytest.approx(0.4)
    assert (found.n, found.agreed) == (50, 35)


@given(answers)
def test_kappa_does_not_depend_on_who_comes_first_nor_on_the_names(
    pairs: list[tuple[str, str]],
) -> None:
    value = cohen_kappa(pairs).value
    assert cohen_kappa([(b, a) for a, b in pairs]).value == value
    renamed = {"a": "x", "b": "a", "c": "b"}
    assert cohen_kappa([(renamed[a], renamed[b]) for a, b in pairs]).value == value


def test_agreement_no_better_than_chance_is_zero_and_opposite_answers_are_below() -> None:
    chance = [(a, b) for a in "ab" for b in "ab"]
    assert cohen_kappa(chance).value == 0
    assert cohen_kappa([("a", "b"), ("b", "a")]).value == -1


def test_an_undefined_kappa_is_said_and_is_neither_zero_nor_one() -> None:
    for pairs in ([], [("a", "a")], [("a", "a")] * 9):
        assert cohen_kappa(pairs).value is None
    assert cohen_kappa([("a", "a")] * 9).sentence() == "undefined (100 % of 9)"
    assert cohen_kappa([]).sentence() == "-"
    assert cohen_kappa([("a", "b")]).value == 0, "never the same answer: defined, and 0"
