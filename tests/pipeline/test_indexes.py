"""The indexes of commits and ids save time and never change an answer, whatever became of them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.files import with_digest
from pipeline.records.schema import TABLES, Mask, Proposal
from pipeline.run.status import failed_rows, stage_status
from pipeline.workspace import committed
from pipeline.workspace import ending_copies as copies_module
from pipeline.workspace import id_index as index_module
from pipeline.workspace.commit import Commit
from pipeline.workspace.commit_table import CommitTable
from pipeline.workspace.id_index import IdIndex
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.workspace import Workspace
from tests.pipeline.counting import counting
from tests.pipeline.faulty import add_sources
from tests.pipeline.whole_flow import grow, retried, told

BY_CONTENT = ("instances", "masks", "proposals", "reviews")
"""The tables whose ids say nothing of their video."""

EVENTS = 10
ASKED = 3
"""The ids that are asked for after each event, of each kind."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes of few commits, in many blocks that are filled in many steps."""
    monkeypatch.setattr(committed, "_INDEX_FROM", 2)
    monkeypatch.setattr(copies_module, "_FROM", 2)
    monkeypatch.setattr(copies_module, "_MOST", 3)
    monkeypatch.setattr(index_module, "_FROM", 2)
    monkeypatch.setattr(index_module, "_BLOCK", 16)
    monkeypatch.setattr(index_module, "_AT_ONCE", 64)
    monkeypatch.setattr(index_module, "_READ_AT_ONCE", 2)


def index_all(workspace: Workspace) -> None:
    """What the start and the end of every run does."""
    for ledger in workspace.ledgers():
        ledger.recover()


def indexes(root: Path) -> list[Path]:
    """Every file of an index."""
    return sorted(
        [
            *root.glob("commits/*/index.json"),
            *root.glob("commits/*/ids/*"),
            *root.glob("commits/*/copies/*"),
        ]
    )


def bare(root: Path, where: Path) -> Workspace:
    """A copy without any index."""
    shutil.rmtree(where, ignore_errors=True)
    shutil.copytree(root, where)
    for path in indexes(where):
        path.unlink()
    return Workspace(where)


def held_ids(workspace: Workspace) -> dict[tuple[str, str], set[str]]:
    """The ids of each file, read one by one."""
    held = {
        file.content: set(workspace.arrow(record.table, [file])[record.key].to_pylist())
        for record in TABLES.values()
        for file in workspace.files(record.table)
    }
    for ledger in workspace.ledgers():
        for commit in ledger.commits():
            files = {file.table: file.content for file in commit.files}
            if rows := ledger.failures_of(commit):
                held[files["failures"]] = {row.input_id for row in rows}
            if drops := ledger.drops([commit]):
                held[files["drops"]] = {row.input_id for row in drops}
    return held


def ruled_out(workspace: Workspace, start: str) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for ledger in workspace.ledgers():
        found |= IdIndex(workspace.storage, ledger.folder).without(start)
    return found


class History:
    """Things that happen to a workspace, drawn at random."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.draw, self.lists = root, random.Random(seed), 0
        self.workspace = Workspace.create(root)
        self.aside: list[dict[Path, bytes]] = []
        self.old: dict[Path, bytes] = {}
        for _ in range(2):
            self.more()
        index_all(self.workspace)
        self.keep()

    def more(self) -> None:
        """A list goes through the flow."""
        if self.lists < 5:
            grow(self.workspace, self.lists)
            self.lists += 1

    def retry(self) -> None:
        retried(self.workspace)

    def index(self) -> None:
        index_all(Workspace(self.root))

    def replace(self) -> None:
        """Another process puts other rows in the place of a unit's."""
        ledger = Workspace(self.root).ledger("propose")
        old = self.draw.choice([one for one in ledger.commits() if one.files])
        rows = ledger.rows_of(old, Proposal, "proposals")
        new = [
            row.model_copy(update={"proposal_id": f"p_{self.draw.getrandbits(48):012x}"})
            for row in rows[:1]
        ]
        ledger.replace(old, replace(old), {"proposals": (Proposal, [*rows[2:], *new])}, "run")
        unit = next(one for one in ledger.plan() if one.name == old.unit)
        self.workspace.ledger("propose").forget(unit)

    def retire(self) -> None:
        """Some masks go, and are kept as they were."""
        ledger = self.workspace.ledger("segment")
        commit = self.draw.choice(ledger.commits())
        paths = [f"{ledger.folder}/units/{commit.unit}.json", *(one.file for one in commit.files)]
        self.aside.append({self.root / path: (self.root / path).read_bytes() for path in paths})
        ledger.retire([commit], "former")

    def restore(self) -> None:
        """Somebody puts them back."""
        for path, data in (self.aside.pop() if self.aside else {}).items():
            path.write_bytes(data)

    def set_aside(self) -> None:
        """A file of masks is damaged, and its unit taken out of force."""
        ledger, files = self.workspace.ledger("segment"), self.workspace.files("masks")
        path = self.root / self.draw.choice(files).file
        path.write_bytes(path.read_bytes()[:-9])
        assert ledger.set_aside(files) == 1

    def lose(self) -> None:
        self.draw.choice(indexes(self.root) or [self.root / "nothing"]).unlink(missing_ok=True)

    def cut(self) -> None:
        for path in self.some():
            path.write_bytes(path.read_bytes()[: self.draw.randrange(path.stat().st_size)])

    def change(self) -> None:
        """One bit of an index is another."""
        for path in self.some():
            data = bytearray(path.read_bytes())
            data[self.draw.randrange(len(data))] ^= 1 << self.draw.randrange(8)
            path.write_bytes(data)

    def some(self) -> list[Path]:
        found = [path for path in indexes(self.root) if path.stat().st_size]
        return [self.draw.choice(found)] if found else []

    def keep(self) -> None:
        """Somebody keeps a copy of the indexes."""
        self.old = {path: path.read_bytes() for path in indexes(self.root)}

    def swap(self) -> None:
        """The copy takes their place, or that of some of them."""
        for path, data in self.old.items():
            if self.draw.random() < 0.7:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)

    def happen(self) -> str:
        """Let something happen, and say what."""
        events: list[Callable[[], None]] = [
            self.more,
            self.retry,
            self.index,
            self.index,
            self.replace,
            self.retire,
            self.restore,
            self.set_aside,
            self.lose,
            self.cut,
            self.change,
            self.keep,
            self.swap,
        ]
        event = self.draw.choice(events)
        event()
        return event.__name__


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_to_a_workspace_its_indexes_change_no_answer(
    tmp_path: Path, seed: int
) -> None:
    past = History(tmp_path / "ws", seed)
    happened = []
    for _ in range(EVENTS):
        happened.append(past.happen())
        same_as_without(past.root, tmp_path / "bare", past.draw, happened)
    for path in indexes(past.root):
        path.unlink()
    index_all(Workspace(past.root))
    same_as_without(past.root, tmp_path / "bare", past.draw, happened)
    rules_out_all_others(Workspace(past.root))


def same_as_without(root: Path, copy: Path, draw: random.Random, said: list[str]) -> None:
    """Hold a workspace, opened anew, against a copy that has no index."""
    plain, opened = bare(root, copy), Workspace(root)
    for ledger in plain.ledgers():
        units = plain.storage.read_all(
            f"{ledger.folder}/units/{name}"
            for name in plain.storage.names(f"{ledger.folder}/units")
        )
        one_by_one = [Commit.from_json(data, path) for path, data in units.items()]
        found = opened.ledger(ledger.stage).commits()
        assert sorted(found, key=lambda one: one.unit) == sorted(one_by_one, key=lambda o: o.unit)
    assert stage_status(opened) == stage_status(plain), said
    assert failed_rows(opened) == failed_rows(plain), said
    truth = held_ids(plain)
    every = sorted(set().union(*truth.values()))
    for start in starts_of(every, draw):
        for content in ruled_out(opened, start) & truth.keys():
            assert not any(one.startswith(start) for one in truth[content]), (start, said)
    for start in [*draw.sample(every, ASKED), *draw.sample([*starts_of(every, draw)], ASKED)]:
        assert told(opened, start) == told(plain, start), (start, said)


def starts_of(ids: list[str], draw: random.Random) -> Iterator[str]:
    """Ids, starts of them, and some there are not."""
    for one in draw.sample(ids, min(12, len(ids))):
        yield from (one, one[:-1], one[: draw.randrange(3, 9)], f"{one[:-1]}~", f"{one}0")
    yield from ("", "i", "i_", "p_", "r_", "0_vid", "1_vid000003_", "zzz", "A", "\U0010ffff")


def rules_out_all_others(workspace: Workspace) -> None:
    """Where all files are known, those that are left are just those that have the id."""
    truth = held_ids(workspace)
    small = {content for content in truth if content not in ruled_out(workspace, "no id")}
    assert len(small) < 20, "those of stages with too few to be learned"
    for some_id in sorted(set().union(*truth.values()))[::7]:
        left = truth.keys() - ruled_out(workspace, some_id) - small
        right = {file for file, ids in truth.items() if any(i.startswith(some_id) for i in ids)}
        assert left == right - small


@pytest.mark.usefixtures("small")
def test_blocks_that_are_not_what_was_written_are_made_anew_with_the_next_files(
    tmp_path: Path,
) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    grow(workspace, 0)
    index_all(workspace)
    for path in (tmp_path / "ws").glob("commits/*/ids/*.parquet"):
        path.write_bytes(path.read_bytes()[:-1])
    some_id = workspace.rows(Mask)[0].id
    assert not any(file.startswith("tables/masks/") for file, _ in ruled_out(workspace, some_id))
    grow(workspace, 1)
    index_all(workspace)
    rules_out_all_others(Workspace(tmp_path / "ws"))


@pytest.mark.usefixtures("small")
def test_an_id_made_from_content_is_found_in_as_many_files_of_however_many(tmp_path: Path) -> None:
    most, files = [], []
    workspace = Workspace.create(tmp_path / "ws")
    for number in range(3):
        grow(workspace, number, people=False)  # what people said is looked through for every id
        index_all(workspace)
        opened, reads = counting(workspace)
        counts = []
        for mask in workspace.rows(Mask)[::9]:
            reads.clear()
            assert len(told(opened, mask.id)[0]) > 4
            assert len(told(opened, mask.id[:9])[0]) > 4
            counts.append(len([name for name in reads if is_of_content(name)]))
        most.append(max(counts))
        files.append(sum(len(workspace.files(table)) for table in BY_CONTENT))
    assert files[2] > 2.5 * files[0]
    assert most[2] <= most[0] + 2, (most, files)


def is_of_content(name: str) -> bool:
    """Whether a file is of a table whose ids are made from content, or of an index of these."""
    return name.startswith(tuple(f"tables/{table}/" for table in BY_CONTENT)) or "/ids/" in name


@pytest.mark.usefixtures("small")
def test_a_commit_that_another_process_replaces_is_not_indexed_as_it_was(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    grow(workspace, 0)
    ledger, other = workspace.ledger("propose"), Workspace(tmp_path / "ws").ledger("propose")
    old = ledger.commits()[0]
    other.replace(old, replace(old), {"proposals": (Proposal, [])}, "run")
    ledger.committed.write_index()
    opened, reads = counting(workspace)
    found = opened.ledger("propose").commits()
    assert [*reads] == ["commits/propose/index.json"]
    assert found == Workspace(tmp_path / "ws").ledger("propose").commits() == ledger.commits()
    assert old not in found


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"0" * 64 + b"\n[]", with_digest(b""), with_digest(b"[[], [], []]")]
)
def test_an_index_that_cannot_be_read_is_written_anew_by_the_next_run(
    workspace: Workspace, text: bytes
) -> None:
    for number in range(70):
        add_sources(workspace, ["ok"], f"{number:06d}-list")
    ledger = workspace.ledger("list")
    ledger.recover()
    path = workspace.storage.path("commits/list/index.json")
    whole = path.read_bytes()
    path.write_bytes(text)
    assert Workspace(workspace.storage.url).ledger("list").commits() == ledger.commits()
    Workspace(workspace.storage.url).ledger("list").recover()
    assert path.read_bytes() == whole
    opened, reads = counting(workspace)
    assert opened.ledger("list").commits() == ledger.commits()
    assert [*reads] == ["commits/list/index.json"]


@pytest.mark.usefixtures("small")
def test_columns_say_what_the_commits_say(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    grow(workspace, 0)
    retried(workspace)
    for ledger in workspace.ledgers():
        commits = ledger.commits()
        table = ledger.committed.table()
        assert table.commits() == commits
        assert CommitTable.unpack(table.pack()).commits() == commits
        assert [table.stamps()[f"{one.unit}.json"] for one in commits] == [
            (path.stat().st_size, path.stat().st_mtime_ns)
            for path in (
                tmp_path / "ws" / ledger.folder / "units" / f"{o.unit}.json" for o in commits
            )
        ]
        numbered = [*enumerate(commits)]
        assert table.inputs == [one.input.table for one in commits]
        assert table.files == [
            (place, file.file, file.sha256, file.table, file.rows)
            for place, one in numbered
            for file in one.files
        ]
        assert table.parts == [
            (place, part.file, part.sha256, part.first, part.stop)
            for place, one in numbered
            for part in one.input.parts
        ]
        assert [*table.retries.items()] == [
            (row_id, [place]) for place, one in numbered for row_id in one.ids
        ]
        mixed = numbered[::-2] + numbered[1::3]
        some = table.take([place for place, _ in mixed])
        assert some.commits() == [one for _, one in mixed]
        assert some.take([*range(len(mixed))][1::2]).commits() == [one for _, one in mixed[1::2]]
        for number, (place, _) in enumerate(mixed):
            assert [one[1:] for one in some.files_of(number)] == [
                one[1:] for one in table.files_of(place)
            ]
        assert some.in_order().commits() == sorted(some.commits(), key=lambda one: one.ordinal)
        twice = CommitTable.joined([table, some])
        assert twice.commits() == commits + some.commits()
        assert twice.files[len(table.files) :] == [
            (len(table) + place, *rest) for place, *rest in some.files
        ]
    assert any(ledger.committed.table().retries for ledger in workspace.ledgers())


def test_who_has_looked_misses_none_where_an_older_index_is_put_back(workspace: Workspace) -> None:
    def add(first: int, count: int) -> None:
        for number in range(first, first + count):
            add_sources(workspace, ["ok"], f"{number:06d}-list")

    add(0, 70)
    workspace.ledger("list").recover()
    path = workspace.storage.path("commits/list/index.json")
    older = path.read_bytes()
    add(70, 70)
    workspace.ledger("list").recover()
    looked = Workspace(workspace.storage.url).ledger("list")
    assert len(looked.committed.table()) == 140
    path.write_bytes(older)
    add(140, 70)
    assert len(looked.committed.table()) == len(looked.commits()) == 210
    assert looked.commits() == looked.committed.table().commits()


def test_an_index_says_once_what_all_commits_say(workspace: Workspace) -> None:
    for number in range(70):
        add_sources(workspace, ["ok"], f"{number:06d}-list")
    ledger: Ledger = workspace.ledger("list")
    ledger.recover()
    index = workspace.storage.read("commits/list/index.json")
    alone = sum(
        len(json.dumps(json.loads(path.read_bytes())))
        for path in workspace.storage.path("commits/list/units").iterdir()
    )
    assert len(index) < alone / 2
    first, second = Workspace(workspace.storage.url).ledger("list").commits()[:2]
    assert first.versions is second.versions
    assert first.files[0].table is second.files[0].table


@pytest.mark.usefixtures("small")
def test_an_id_there_is_none_of_is_looked_for_in_as_many_files_of_however_many(
    tmp_path: Path,
) -> None:
    opened_files = []
    workspace = Workspace.create(tmp_path / "ws")
    for number in range(2):
        grow(workspace, number, people=False)
        index_all(workspace)
        opened, reads = counting(workspace)
        assert "no row of this workspace" in told(opened, "i_000000000000")
        assert "no row of this workspace" in told(opened, "nothing")
        opened_files.append(len([name for name in reads if name.endswith(".parquet")]))
    assert opened_files[1] <= opened_files[0] + 3, opened_files
