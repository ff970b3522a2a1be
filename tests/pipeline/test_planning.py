"""However input comes in files and is divided into units, each row is done once."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from pipeline.errors import InputError
from pipeline.flow import Step
from pipeline.records.schema import Clip, Record, Sounds, Source
from pipeline.run import planning, runner
from pipeline.run.planning import divided, rows_each
from pipeline.run.pool import UnitSource
from pipeline.run.runner import RunOptions, RunSummary, plan_retry, run_stage
from pipeline.run.stage import Drop, Fail, Ok, Outcome, Stage, StageSpec, WorkerContext
from pipeline.run.unit import Job, UnitResult, run_unit
from pipeline.workspace.commit import Rows, TableFile, Unit, in_force
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Lookups, Workspace
from tests.pipeline.faulty import Faulty, FaultyConfig, add_sources


class Loud(Stage[FaultyConfig]):
    """Hear every clip; a quiet one is dropped, and one in eight fails."""

    spec: ClassVar[StageSpec] = StageSpec(
        "loud", 1, reads="clips", writes=("sounds",), rows_per_unit=6, batch_size=2
    )

    def open(self, ctx: WorkerContext) -> None:
        """Need nothing."""

    def process(self, rows: Sequence[Clip]) -> Iterator[Outcome]:
        for row in rows:
            yield self.answer(row)

    def answer(self, row: Clip) -> Outcome:
        if row.active_seconds < 64:
            return Drop(row.id, "quiet")
        if row.active_seconds % 8 == 1:
            return Fail(row.id, "odd", retryable=True)
        return Ok(row.id, [Sounds(clip_id=row.id, tagger="loud", classes=[], categories=[])])


class Small(Faulty):
    """The faulty stage in small units."""

    spec: ClassVar[StageSpec] = StageSpec(
        "faulty", 1, reads="sources", writes=("clips",), rows_per_unit=6, batch_size=2
    )


STEPS = {
    kind.spec.name: Step(kind.spec.name, stage=f"{__name__}:{kind.__name__}", section="sample")
    for kind in (Small, Loud)
}

files = st.lists(st.integers(0, 40), max_size=30).map(
    lambda sizes: [TableFile(f"{n}", f"{n}", "t", rows) for n, rows in enumerate(sizes)]
)


@given(files, st.integers(1, 20))
def test_units_hold_each_row_once_and_are_ranges_of_a_file_or_whole_files(
    given_files: list[TableFile], size: int
) -> None:
    units = divided(given_files, size)
    found = [
        (part.file, row)
        for unit in units
        for part in unit.parts
        for row in range(part.first, part.stop)
    ]
    assert found == [(file.file, row) for file in given_files for row in range(file.rows)]
    rows = {file.file: file.rows for file in given_files}
    whole = [
        all((part.first, part.stop) == (0, rows[part.file]) for part in unit.parts)
        for unit in units
    ]
    for unit, is_whole in zip(units, whole, strict=True):
        assert 0 < unit.num_rows <= 1.5 * size
        assert is_whole or len(unit.parts) == 1
    for (one, other), both in zip(pairwise(units), pairwise(whole), strict=True):
        assert one.num_rows + other.num_rows >= size or not all(both), "as few as may be"


@given(st.integers(1, 10**7), st.integers(1, 10**7), st.integers(1, 300))
def test_units_grow_with_the_table_within_bounds(rows: int, new: int, workers: int) -> None:
    spec, new = Small.spec, min(rows, new)
    each = rows_each(spec, rows, new, workers)
    assert spec.rows_per_unit <= each <= planning.MOST * spec.rows_per_unit
    assert rows_each(spec, rows + 1000, new, workers) >= each
    if each > spec.rows_per_unit:
        assert new // each >= planning.UNITS_EACH * workers
        assert rows // each >= planning.UNITS


@given(st.integers(1, 10**6), st.integers(1, 64), st.integers(1, 12))
def test_few_costly_rows_are_work_for_all_workers(new: int, workers: int, worth: int) -> None:
    spec = replace(Small.spec, rows_worth_a_worker=worth)
    each, usual = (rows_each(one, new, new, workers) for one in (spec, Small.spec))
    units = divided([TableFile("a", "", "clips", new)], each)
    if each < usual:
        assert each <= max(worth, new // workers + 1)
        assert min(worth, new) / 2 <= min(unit.num_rows for unit in units)
        assert len(units) <= workers, "no more files than that takes"
    else:
        assert each == usual


@pytest.mark.parametrize("videos", [4_000, 17_500, 70_000])
def test_at_the_papers_size_a_table_has_fewer_than_500_files(videos: int) -> None:
    """Through four stages, each of whose files hold what a unit of the one before gave."""
    of_stage = [
        ("download", 32, 0.88),
        ("sample", 32, 4.75),
        ("propose", 256, 1.8),
        ("segment", 256, 1.0),
    ]
    held = [TableFile("list", "", "sources", videos)]
    for name, least, children in of_stage:
        spec = StageSpec(name, 1, "", (), rows_per_unit=least)
        rows = sum(file.rows for file in held)
        units = divided(held, rows_each(spec, rows, rows, 2))
        assert len(units) <= max(450, 125)
        held = [
            TableFile(f"{name}{n}", "", name, round(unit.num_rows * children) + n % 7)
            for n, unit in enumerate(units)
        ]


def unit_of(ordinal: int, *parts: Rows, ids: tuple[str, ...] = ()) -> Any:
    """A planned unit."""
    return Unit(parts, ordinal, f"{ordinal}", ids, (0,) * len(ids))


def test_a_unit_stands_while_its_files_do_and_no_later_one_has_their_rows() -> None:
    a, b, c = (Rows(name, name, 0, 4) for name in "abc")
    low, high = Rows("d", "d", 0, 2), Rows("d", "d", 2, 4)
    plan = [unit_of(0, a, b), unit_of(1, low), unit_of(2, high), unit_of(3, a, b, ids=("x",))]

    def standing(live: str) -> list[int]:
        return [unit.ordinal for unit in in_force(plan, {(name, name) for name in live})]

    assert standing("abcd") == [0, 1, 2, 3]
    assert standing("ad") == [1, 2]
    plan.append(unit_of(4, a, c))
    assert standing("acd") == [1, 2, 4]
    assert standing("abcd") == [1, 2, 4], "b comes back, but the rows of a are another unit's"
    plan.append(unit_of(5, a, c, ids=("x",)))
    assert standing("abcd") == [1, 2, 4, 5], "a retry takes nothing away"


# The runner itself, with workers in this process.


class Killed(BaseException):
    """The process is dead."""


FOR_EVER = 10**9


class Mortal(Storage):
    """A storage whose process dies before it changes a file for the last time but some."""

    left = FOR_EVER

    def _live(self) -> None:
        Mortal.left -= 1
        if Mortal.left < 0:
            raise Killed

    def write(self, name: str, data: bytes) -> None:
        self._live()
        super().write(name, data)

    def create(self, name: str, data: bytes) -> bool:
        self._live()
        return super().create(name, data)

    def move(self, source: str, target: str) -> None:
        self._live()
        super().move(source, target)

    def remove(self, name: str) -> None:
        self._live()
        super().remove(name)


class PoolHere:
    """Does units in this process, one after the other."""

    def __init__(
        self,
        _team: object,
        job: Job,
        _spec: StageSpec,
        source: UnitSource,
        on_result: Callable[[UnitResult], None],
        *_more: object,
    ) -> None:
        self._job, self._source, self._on_result = job, source, on_result

    def run(self, _count: int) -> None:
        """Do all there is to do."""
        storage = self._job.storage
        stage = self._job.make_stage()
        stage.open(WorkerContext(storage, storage.path("scratch"), Lookups(storage)))
        while unit := self._source.take():
            result = run_unit(self._job, stage, unit, lambda _rows: None)
            self._source.done(unit)
            self._on_result(result)


def opened(root: Path) -> Workspace:
    """The workspace as a new process opens it."""
    workspace = Workspace(root)
    workspace.storage = Mortal(root)
    return workspace


def run(root: Path, name: str, **options: Any) -> RunSummary:
    """Run one of the stages."""
    how = RunOptions(**{"workers": 1, **options})
    return run_stage(opened(root), name, how, step=STEPS[name], config=FaultyConfig())


def answers(stage: Stage[Any], row: Record) -> list[Outcome]:
    """What a stage says of one row."""
    try:
        return list(stage.process([row]))
    except InputError as error:
        return [Fail(row.id, error.kind)]


def check(root: Path) -> None:
    """The tables hold what the stages make of each row that is there, and nothing else."""
    workspace = Workspace(root)
    for stage, record, made in ((Small, Source, Clip), (Loud, Clip, Sounds)):
        spec, ledger = stage.spec, workspace.ledger(stage.spec.name)
        rows = workspace.rows(record)
        # The slow second definition: row by row, without files and units.
        said = [one for row in rows for one in answers(stage(FaultyConfig()), row)]
        children = [child for one in said if isinstance(one, Ok) for child in one.rows]
        assert workspace.rows(made) == sorted(children, key=lambda row: row.id)
        failed, dropped = ledger.failures(), ledger.drops()
        ended = Counter([row.input_id for row in failed] + [row.input_id for row in dropped])
        assert ended == Counter(one.id for one in said if not isinstance(one, Ok))
        ids = {
            file.content: workspace.arrow(spec.reads, [file])
            for file in workspace.files(spec.reads)
        }
        answered = Counter(
            row_id
            for commit in ledger.commits()
            for part in commit.input.parts
            for row_id in ids[part.content].column(record.key).to_pylist()[part.first : part.stop]
            if not commit.ids
        )
        assert answered == Counter(row.id for row in rows)
        if children:
            shown = pd.read_parquet(workspace.storage.path(f"tables/{made.table}"))
            assert len(shown) == len(children)
        assert run(root, spec.name, dry_run=True).pending == 0
        assert workspace.storage.folders(f"commits/{spec.name}/work") == []


LABELS = st.lists(
    st.sampled_from(["ok", "ok", "ok", "drop", "fail", "refuse"]), min_size=1, max_size=6
)


class Chain(RuleBasedStateMachine):
    """Lists come, change, go and come back; two stages run and die; in the end all is right."""

    @initialize(lists=st.lists(LABELS, min_size=3, max_size=8))
    def begin(self, lists: list[list[str]]) -> None:
        """Bring in some lists."""
        self.folder = Path(tempfile.mkdtemp())
        self.root = self.folder / "ws"
        Workspace.create(self.root)
        self.known: dict[str, list[str]] = {}
        for labels in lists:
            self.comes(labels)

    def _put(self, name: str, labels: list[str]) -> None:
        add_sources(Workspace(self.root), labels, name)
        self.known[name] = labels

    def _take(self, name: str) -> None:
        ledger = Workspace(self.root).ledger("list")
        ledger.retire([one for one in ledger.commits() if one.unit == name], "x" * 12)

    @rule(labels=LABELS)
    def comes(self, labels: list[str]) -> None:
        """Bring in another list."""
        self._put(f"{len(self.known):06d}-list", labels)

    @rule(data=st.data(), labels=LABELS)
    def changes(self, data: st.DataObject, labels: list[str]) -> None:
        """Put another file in the place of a list, under its name."""
        name = data.draw(st.sampled_from(sorted(self.known)))
        self._take(name)
        self._put(name, labels)

    @rule(data=st.data())
    def goes(self, data: st.DataObject) -> None:
        """Take a list away."""
        self._take(data.draw(st.sampled_from(sorted(self.known))))

    @rule(data=st.data())
    def comes_back(self, data: st.DataObject) -> None:
        """Bring a list back as it was."""
        there = {commit.unit for commit in Workspace(self.root).ledger("list").commits()}
        if gone := sorted(self.known.keys() - there):
            name = data.draw(st.sampled_from(gone))
            self._put(name, self.known[name])

    @rule(
        name=st.sampled_from(sorted(STEPS)),
        units=st.sampled_from([2, 5, 400]),
        part=st.sampled_from([(1, 1), (1, 1), (1, 2), (2, 2)]),
        steps=st.none() | st.integers(0, 25),
    )
    def runs(self, name: str, units: int, part: tuple[int, int], steps: int | None) -> None:
        """Run a stage, to its end or its death; a dry run says before how much there is to do."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planning, "UNITS", units)
            pending = run(self.root, name, part=part, dry_run=True).pending
            patch.setattr(Mortal, "left", FOR_EVER if steps is None else steps)
            with contextlib.suppress(Killed):
                assert run(self.root, name, part=part).counts["input"] == pending

    @rule(name=st.sampled_from(sorted(STEPS)), steps=st.none() | st.integers(0, 1))
    def retries(self, name: str, steps: int | None) -> None:
        """Plan what failed again."""
        if Workspace(self.root).ledger(name).generation() is None:
            return
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(Mortal, "left", FOR_EVER if steps is None else steps)
            plan_retry(opened(self.root), name, None)
            assert plan_retry(opened(self.root), name, None) == 0, "all are planned"

    def teardown(self) -> None:
        """Run both stages to their end and look at everything."""
        if hasattr(self, "root"):
            for name in ("faulty", "loud"):
                run(self.root, name)
            check(self.root)
            shutil.rmtree(self.folder)


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the work in this process."""
    monkeypatch.setattr(runner, "Pool", PoolHere)
    monkeypatch.setattr(planning, "UNITS_EACH", 1)


@pytest.mark.usefixtures("workers_here")
def test_whatever_becomes_of_its_input_each_row_is_done_once() -> None:
    run_state_machine_as_test(
        Chain,
        settings=settings(
            max_examples=12,
            stateful_step_count=14,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def as_of_one_file(stored: Any) -> Any:
    """A plan's unit, or a commit's input, as it was stored when it was a range of one file."""
    if isinstance(stored, list):
        return [as_of_one_file(one) for one in stored]
    if not isinstance(stored, dict):
        return stored
    found = {name: as_of_one_file(value) for name, value in stored.items() if name != "digest"}
    if "parts" in found:
        (part,) = found.pop("parts")
        found |= part
    return found


@pytest.mark.usefixtures("workers_here")
def test_a_workspace_whose_units_are_of_one_file_each_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    Workspace.create(root)
    add_sources(Workspace(root), ["ok", "refuse", "drop"] * 20)
    for name in STEPS:
        run(root, name)
    before = {file.file for file in Workspace(root).files("sounds")}
    stored = [path for path in (root / "commits").rglob("*.json") if path.name != "index.json"]
    for path in stored:
        document = json.loads(path.read_bytes())
        path.write_text(json.dumps(as_of_one_file(document)))
    assert all(b'"parts"' not in path.read_bytes() for path in stored)
    assert run(root, "faulty").counts["input"] == 0
    assert plan_retry(Workspace(root), "faulty", "refused") == 20
    for number in range(1, 9):
        add_sources(Workspace(root), ["ok", "ok"], f"{number:06d}-list")
    counts = [run(root, name).counts["input"] for name in STEPS]
    assert counts == [20 + 16, 32]
    assert before < {file.file for file in Workspace(root).files("sounds")}
    plan = Workspace(root).ledger("faulty").plan()
    assert {len(unit.parts) for unit in plan if not unit.ids} == {1, 3, 2}
    check(root)
