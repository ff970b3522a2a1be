"""Good answers with one place of their JSON made anything."""

from __future__ import annotations

import copy
import math
from typing import Any

from hypothesis import strategies as st

_DROP = object()

_NUMBERS = st.sampled_from(
    [math.nan, math.inf, -math.inf, 1e308, -1e308, 10**400, -(10**30), -1, 0, -0.0, 1e-9, 1e-300]
) | st.floats(-400, 400)
_TEXTS = st.sampled_from(["", "3.125", "NaN", "null", "a\nb", "\ud800", "dog", "p_10"])
_LEAVES = st.none() | st.booleans() | _NUMBERS | _TEXTS
ODD: st.SearchStrategy[Any] = _LEAVES | st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
"""Anything JSON can hold, and more that Python's reads."""


def paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place below a JSON value, but inside of lists of numbers the first alone."""
    if isinstance(value, dict):
        below = list(value.items())
    elif isinstance(value, list):
        below = list(enumerate(value[:1] if value and isinstance(value[0], int) else value))
    else:
        below = []
    places = [((*above, key), inner) for key, inner in below]
    return [place for here, inner in places for place in (here, *paths(inner, here))]


def mutated(answer: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An answer with one or two places replaced, or gone."""
    change = st.tuples(st.sampled_from(paths(answer)), ODD | st.just(_DROP))
    return st.lists(change, min_size=1, max_size=2).map(lambda changes: _changed(answer, changes))


def _changed(answer: dict[str, Any], changes: list[tuple[tuple[Any, ...], Any]]) -> dict[str, Any]:
    made = copy.deepcopy(answer)
    for path, value in changes:
        at: Any = made
        try:
            for key in path[:-1]:
                at = at[key]
            if value is _DROP:
                del at[path[-1]]
            else:
                at[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue  # the other change took this place away
    return made
