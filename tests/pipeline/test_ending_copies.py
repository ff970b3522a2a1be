"""Copies of what gave no output save opening many files, and never change an answer."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import DamagedError
from pipeline.files import with_digest
from pipeline.records.schema import DropRow, FailureRow
from pipeline.run.derive import Derived, hold
from pipeline.run.stage import Drop, Fail, Outcome, StageSpec
from pipeline.workspace import committed, ending_copies
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.workspace import Workspace
from tests.pipeline.counting import counting

SPEC = StageSpec("list", 1, "", ("sources",))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are made of few files, and no more than eight go into one."""
    monkeypatch.setattr(committed, "_INDEX_FROM", 2)
    monkeypatch.setattr(ending_copies, "_FROM", 3)
    monkeypatch.setattr(ending_copies, "_MOST", 8)


def commit(workspace: Workspace, first: int, units: int) -> None:
    """Commit units of five rows: some fail, some are dropped, and every third tries one again."""
    with hold(workspace, SPEC) as held:
        for number in range(first, first + units):
            ids = [f"v{number:04d}{row:06d}" for row in range(5)]
            answers: list[Outcome] = [
                Fail(one, "gone", f"of {number}") for one in ids[: number % 4]
            ]
            answers += [Drop(one, "too_short", one) for one in ids[number % 4 : 4]]
            held.commit(Derived(f"{number:012d}", "a.csv", "", answers))
            if number % 3 == 2:
                again: list[Outcome] = [Fail(f"v{number - 1:04d}000000", "still_gone", "twice")]
                tried = {one.id: 1 for one in again}
                held.commit(Derived(f"a{number:011d}", "a.csv", "", again, attempts=tried))


def one_by_one(ledger: Ledger) -> tuple[list[FailureRow], list[DropRow]]:
    """What failed and was dropped, each read from its unit's own file."""
    failed: dict[str, FailureRow] = {}
    drops: list[DropRow] = []
    for one in ledger.commits():
        for row_id in one.ids:
            failed.pop(row_id, None)
        failed |= {row.input_id: row for row in ledger.rows_of(one, FailureRow, "failures")}
        drops += ledger.rows_of(one, DropRow, "drops")
    return [*failed.values()], drops


def told(workspace: Workspace) -> tuple[tuple[list[FailureRow], list[DropRow]], Counter[str]]:
    """The answers of a workspace opened anew, and the files of rows that were read for them."""
    opened, reads = counting(workspace)
    ledger = opened.ledger("list")
    ledger.committed.look()
    reads.clear()
    answers = ledger.failures(), ledger.drops()
    return answers, Counter({name: n for name, n in reads.items() if name.endswith(".parquet")})


def test_answers_are_those_of_the_units_and_are_read_from_few_files(workspace: Workspace) -> None:
    for first in range(0, 48, 16):
        commit(workspace, first, 16)
        ledger = workspace.ledger("list")
        answers, reads = told(workspace)
        assert answers == one_by_one(ledger)
        files = len(ledger.files("failures")) + len(ledger.files("drops"))
        assert files > 1.5 * (first + 16)
        assert len(reads) <= files / 8 + 2 * (1 + first / 16), (reads, files)


def test_of_one_commit_only_its_own_is_told(workspace: Workspace) -> None:
    commit(workspace, 0, 16)
    ledger = workspace.ledger("list")
    for one in ledger.commits():
        assert ledger.failures([one]) == ledger.rows_of(one, FailureRow, "failures")
        assert ledger.drops([one]) == ledger.rows_of(one, DropRow, "drops")


@pytest.mark.parametrize("seed", range(4))
def test_copies_that_are_lost_cut_changed_or_older_change_no_answer(
    workspace: Workspace, seed: int
) -> None:
    draw = random.Random(seed)
    folder = workspace.storage.path("commits/list/copies")
    commit(workspace, 0, 16)
    old = {path: path.read_bytes() for path in folder.iterdir()}
    for step in range(1, 7):
        commit(workspace, 16 * step, draw.choice([1, 16]))
        ledger = workspace.ledger("list")
        if draw.random() < 0.5:
            ledger.retire(draw.sample(ledger.commits(), 8), "former")
        path = draw.choice([*folder.iterdir()])
        data = bytearray(path.read_bytes())
        match draw.randrange(4):
            case 0:
                path.unlink()
            case 1:
                path.write_bytes(data[: draw.randrange(len(data))])
            case 2:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
                path.write_bytes(data)
            case _:
                for path, data_then in old.items():
                    path.write_bytes(data_then)
        assert told(workspace)[0] == one_by_one(workspace.ledger("list"))


@pytest.mark.parametrize(
    "text", [b"", b"[]", with_digest(b""), with_digest(b"{}"), with_digest(b'[["x"]]')]
)
def test_a_list_of_copies_that_cannot_be_read_is_made_anew(
    workspace: Workspace, text: bytes
) -> None:
    commit(workspace, 0, 16)
    expected, reads = told(workspace)
    path = workspace.storage.path("commits/list/copies/index.json")
    path.write_bytes(text)
    answers, more = told(workspace)
    assert answers == expected
    assert len(more) > len(reads)
    commit(workspace, 16, 4)
    answers, reads = told(workspace)
    assert answers == one_by_one(workspace.ledger("list"))
    assert len(reads) < len(more)
    named = {path.name for path in path.parent.iterdir()}
    assert named == {"index.json", *(Path(name).name for name in reads)}, "others are deleted"


def test_a_file_that_is_damaged_is_copied_by_nobody_and_named(workspace: Workspace) -> None:
    commit(workspace, 0, 2)
    ledger = workspace.ledger("list")
    name = ledger.files("drops")[0].file
    path = workspace.storage.path(name)
    path.write_bytes(path.read_bytes()[:-1])
    commit(workspace, 2, 16)
    with pytest.raises(DamagedError, match=name):
        Workspace(workspace.storage.url).ledger("list").drops()
