"""The nearest clips are the nearest, and only those that are trained on are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import AvatarBuildError, UsageError
from tavlo.baselines import neighbours
from tavlo.baselines.neighbours import Neighbours, find_neighbours, read_neighbours

NAMES = [f"clip{number}" for number in range(30)]


def vectors(seed: int, count: int = 30) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 5))


def slowly(given: Any, count: int) -> list[list[int]]:
    found = []
    for i, one in enumerate(given):
        cosine = [
            (-(one @ other) / np.linalg.norm(one) / np.linalg.norm(other), j)
            for j, other in enumerate(given)
            if j != i
        ]
        found.append([j for _, j in sorted(cosine)[:count]])
    return found


@pytest.mark.parametrize("block", [7, 1024])
def test_the_neighbours_are_those_of_a_slow_search(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    pictures, sounds = vectors(0), vectors(1)
    table = find_neighbours(NAMES, pictures, sounds, 4)
    assert table.pictures.tolist() == slowly(pictures, 4)
    assert table.sounds.tolist() == slowly(sounds, 4)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = find_neighbours(NAMES, vectors(0), vectors(1), 3)
    table.save(tmp_path / "table.npz")
    found = read_neighbours(tmp_path / "table.npz")
    assert found.clip_ids == NAMES
    np.testing.assert_array_equal(found.pictures, table.pictures)
    np.testing.assert_array_equal(found.sounds, table.sounds)


def test_every_present_neighbour_is_drawn_and_nothing_else() -> None:
    table = find_neighbours(NAMES, vectors(0), vectors(1), 4)
    absent = NAMES[table.pictures[3][0]]
    present = set(NAMES) - {absent}
    rng = np.random.default_rng(0)
    drawn = [table.draw("clip3", present, rng) for _ in range(200)]
    alike = {NAMES[number] for number in table.pictures[3]} - {absent}
    sounding = {NAMES[number] for number in table.sounds[3]} - {absent}
    assert {one for one, _ in drawn} == alike
    assert {other for _, other in drawn} == sounding


def test_a_clip_without_neighbours_is_an_error() -> None:
    table = Neighbours(["a", "b"], np.array([[1], [0]]), np.array([[1], [0]]))
    rng = np.random.default_rng(0)
    with pytest.raises(AvatarBuildError, match="not in the table"):
        table.draw("c", {"a", "b"}, rng)
    with pytest.raises(AvatarBuildError, match="none of the 1 clips it looks like is trained on"):
        table.draw("a", {"a"}, rng)


@pytest.mark.parametrize(
    ("names", "pictures", "count", "said"),
    [
        (["a", "a"], vectors(0, 2), 1, "twice"),
        (["a", "b"], vectors(0, 3), 1, "3 pictures"),
        (["a", "b"], vectors(0, 2), 2, "2 neighbours"),
        (["a", "b"], np.zeros((2, 3)), 1, "a vector is zero"),
        (["a", "b"], np.full((2, 3), np.nan), 1, "a vector is zero, NaN"),
    ],
)
def test_what_makes_no_table_is_refused(
    names: list[str], pictures: Any, count: int, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        find_neighbours(names, pictures, vectors(1, 2), count)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    with pytest.raises(UsageError, match="no table of neighbours"):
        read_neighbours(path)
    path.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"not a table of neighbours \(not an \.npz of numbers\)"):
        read_neighbours(path)
    np.savez(path, clip_ids=np.array(["a", "b"]), pictures=[[1], [2]], sounds=[[1], [0]])
    with pytest.raises(UsageError, match="not a table of neighbours"):
        read_neighbours(path)
