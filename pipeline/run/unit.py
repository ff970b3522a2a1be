"""The one thing an executor runs: a unit of a stage, from its rows to its commit.

``run_unit`` is the same function whichever machine calls it. It answers for conservation: every
input row ends as exactly one of ok, dropped or failed, or nothing is committed.
"""

from __future__ import annotations

import errno
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from pipeline.errors import DamagedError, InputError, StopRun, machine_says
from pipeline.flow import imported
from pipeline.records.schema import TABLES, DropRow, FailureRow, Record, Video, by_table, digest_of
from pipeline.run.stage import Drop, Fail, Ok, Outcome, Stage, StageSpec
from pipeline.versions import code_revision, tool_versions
from pipeline.workspace.commit import Commit, Contents, Input, Unit
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import CommittedFile, to_records

BUG = "bug"
"""Kind of a row whose processing raised an exception nobody foresaw."""

LOCAL_DISK = "local_disk"
"""Kind of a row that found no room: one too large, or the disk is full and the run stops."""

_FULL_BELOW_BYTES = 50_000_000


class ConservationError(Exception):
    """A stage lost, invented or answered twice a row. Always a bug in the stage."""


@dataclass(frozen=True)
class Job:
    """All a worker needs to run units of one stage; travels to it by pickle.

    The process that makes it gives it a run id, and its own code and libraries.
    """

    storage: Storage
    stage: str
    stage_key: str
    stage_class: str = ""
    """``module:Class``."""
    config: Any = None
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    code_revision: str = field(default_factory=code_revision)
    versions: dict[str, str] = field(default_factory=tool_versions)

    def make_stage(self) -> Stage[Any]:
        """Construct the stage; nothing heavy happens before its ``open``."""
        stage: Stage[Any] = imported(self.stage_class)(self.config)
        return stage


@dataclass(frozen=True)
class UnitResult:
    """The report of a finished unit."""

    unit: Unit
    counts: dict[str, int]
    bugs: tuple[str, ...]
    """Tracebacks."""
    reasons: dict[str, int]
    """Rows that were dropped, by reason."""
    kinds: dict[str, int]
    """Rows that failed, by kind."""
    wall_s: float
    """Seconds it took."""
    notes: tuple[str, ...] = ()
    """Other lines for the user."""


# A large file's units follow one another; those of small ones read each once.
_opened = lru_cache(maxsize=1)(CommittedFile)


def read_unit(job: Job, spec: StageSpec, unit: Unit) -> list[Record]:
    """Return the input rows of a unit, in their order."""
    record = TABLES[spec.reads]
    records = []
    for part in unit.parts:
        rows = _opened(record, job.storage, *part.content).rows(part.first, part.stop)
        records += to_records(record, rows.to_pylist(), part.file)
    if unit.ids:
        wanted = set(unit.ids)
        records = [row for row in records if row.id in wanted]
    return records


def run_unit(job: Job, stage: Stage[Any], unit: Unit, beat: Callable[[int], None]) -> UnitResult:
    """Process a unit and commit it.

    Args:
        job: where and as what.
        stage: opened.
        unit: which rows.
        beat: called with the number of finished rows before each batch; tells hangs from work.
    """
    clock = Clock()
    rows = read_unit(job, stage.spec, unit)
    outcomes: list[Outcome] = []
    for start in range(0, len(rows), stage.spec.batch_size):
        beat(start)
        outcomes += answer(job, stage, rows[start : start + stage.spec.batch_size])
    return commit_unit(job, stage.spec, unit, [row.id for row in rows], outcomes, clock)


def answer(job: Job, stage: Stage[Any], rows: Sequence[Record]) -> list[Outcome]:
    """Answer every row of a batch, unless the machine is at fault and not a row.

    Raises:
        StopRun: a row could not be written because the disk is full; its unit stays pending.
    """
    outcomes = process_batch(stage, rows)
    refused = any(isinstance(found, Fail) and found.kind == LOCAL_DISK for found in outcomes)
    if refused and disk_is_full(job.storage):
        raise StopRun(_disk_full(job.storage))
    return outcomes


def process_batch(stage: Stage[Any], rows: Sequence[Record]) -> list[Outcome]:
    """Answer every row of a batch; a batch that raises is halved down to the row at fault."""
    try:
        outcomes = list(stage.process(rows))
    except (StopRun, DamagedError):
        raise
    except Exception as error:  # noqa: BLE001  the row at fault is recorded, with its traceback
        if len(rows) > 1:
            half = len(rows) // 2
            return process_batch(stage, rows[:half]) + process_batch(stage, rows[half:])
        return [_failure_of(rows[0].id, error)]
    return outcomes


def _failure_of(row_id: str, error: Exception) -> Fail:
    if isinstance(error, InputError):
        return Fail(row_id, error.kind, error.detail, error.retryable)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Fail(row_id, LOCAL_DISK, "no space left on the device", retryable=True)
    if isinstance(error, OSError) and (said := machine_says(error)):
        if not _of_one_file(error):
            raise StopRun(said) from error
        return Fail(row_id, LOCAL_DISK, said, retryable=True)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Fail(row_id, "out_of_memory", str(error)[:500], retryable=True)
    return Fail(row_id, BUG, traceback.format_exc(), retryable=True)


def _of_one_file(error: OSError) -> bool:
    """Say whether the machine refuses a file that is there, and may give the others."""
    one = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
    return error.errno in one and Path(error.filename or "").is_file()


class Clock:
    """Wall and CPU time since it was made."""

    def __init__(self) -> None:
        self.started = _now()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def seconds(self) -> tuple[float, float]:
        """Wall and CPU seconds so far."""
        wall = time.perf_counter() - self._wall
        return round(wall, 4), round(time.process_time() - self._cpu, 4)


def commit_unit(
    job: Job,
    spec: StageSpec,
    unit: Unit,
    ids: Sequence[str],
    outcomes: Iterable[Outcome],
    clock: Clock,
) -> UnitResult:
    """Check conservation, then publish the outcomes.

    Args:
        job: where and as what.
        spec: of the stage.
        unit: the work.
        ids: of its input rows, in their order.
        outcomes: one per id, in any order.
        clock: started with the unit.

    Raises:
        ConservationError: a row has no answer, two, or was never asked about.
        StopRun: the disk is full.
    """
    answers = _by_id(ids, outcomes, spec.name)
    if unit.again:
        return _commit_again(job, spec, unit, answers, clock)
    answered = [answers[row_id] for row_id in ids]
    tries = dict(zip(unit.ids, unit.attempts, strict=True))
    now = _now()
    tables = _checked_children(
        [row for answer in answered if isinstance(answer, Ok) for row in answer.rows], spec
    )
    drops = [_drop_row(one, spec.name, now) for one in answered if isinstance(one, Drop)]
    failures = [
        FailureRow(
            input_id=one.id,
            stage=spec.name,
            kind=one.kind,
            retryable=one.retryable,
            detail=one.detail,
            attempts=tries.get(one.id, 0) + 1,
            last_time=now,
        )
        for one in answered
        if isinstance(one, Fail)
    ]
    counts = {
        "input": len(ids),
        "ok": len(ids) - len(drops) - len(failures),
        "dropped": len(drops),
        "failed": len(failures),
        **{f"children:{table}": len(found) for table, found in tables.items()},
    }
    wall_s, cpu_s = clock.seconds()
    commit = Commit(
        unit=unit.name,
        ordinal=unit.ordinal,
        stage=spec.name,
        stage_key=job.stage_key,
        unit_key=digest_of([job.stage_key, [astuple(part)[1:] for part in unit.parts], unit.ids]),
        input=Input(unit.parts, spec.reads),
        files=(),  # the ledger names them as it writes them
        counts=counts,
        code_revision=job.code_revision,
        versions=job.versions,
        started=clock.started,
        wall_s=wall_s,
        cpu_s=cpu_s,
        ids=unit.ids,
    )
    try:
        contents = _contents(tables, drops, failures)
        Ledger(job.storage, spec.name).commit(commit, contents, job.run_id)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StopRun(_disk_full(job.storage)) from error
        if said := machine_says(error):
            raise StopRun(said) from error
        raise
    bugs = tuple(row.detail for row in failures if row.kind == BUG)
    reasons = Counter(row.reason for row in drops)
    kinds = Counter(row.kind for row in failures)
    return UnitResult(unit, counts, bugs, dict(reasons), dict(kinds), wall_s)


def _contents(
    tables: dict[str, list[Any]], drops: list[DropRow], failures: list[FailureRow]
) -> Contents:
    """Pair the rows of each table, of drops and of failures with their record."""
    found: Contents = {table: (TABLES[table], rows) for table, rows in tables.items()}
    return {**found, "drops": (DropRow, drops), "failures": (FailureRow, failures)}


def _commit_again(
    job: Job, spec: StageSpec, unit: Unit, answers: dict[str, Outcome], clock: Clock
) -> UnitResult:
    """Hold the answers about rows that were done against their rows, and replace what differs.

    A row whose media cannot be made again stays as it is: what people made of it is still true.
    """
    ledger = Ledger(job.storage, spec.name)
    old = next(commit for commit in ledger.commits() if commit.unit == unit.name)
    column = TABLES[spec.reads].key
    tables = {table: ledger.rows_of(old, TABLES[table], table) for table in spec.writes}
    drops = ledger.rows_of(old, DropRow, "drops")
    counts = Counter({"input": len(answers), "ok": 0, "dropped": 0, "failed": 0})
    reasons, kinds = Counter[str](), Counter[str]()
    notes: list[str] = []
    bugs: list[str] = []
    changed = False
    for row_id, answer in answers.items():
        if isinstance(answer, Fail):
            counts["failed"] += 1
            kinds[answer.kind] += 1
            notes.append(f"{row_id}: {answer.kind}: {answer.detail}; its row stays as it was.")
            bugs += [answer.detail] if answer.kind == BUG else []
            continue
        counts["ok" if isinstance(answer, Ok) else "dropped"] += 1
        new = _checked_children(answer.rows if isinstance(answer, Ok) else (), spec)
        mine = {
            table: [row for row in rows if getattr(row, column) == row_id]
            for table, rows in tables.items()
        }
        counts.update({f"children:{table}": len(rows) for table, rows in new.items()})
        if all(_is_same(new.get(table, []), rows) for table, rows in mine.items()):
            continue  # the media alone was lost: its rows, and all made of them, are still true
        changed = True
        notes.append(
            f"{row_id}: what came is not what was recorded. Its rows are replaced; the next run of"
            " each stage does anew what was made of them."
        )
        for table in tables:
            tables[table] = _put(tables[table], mine[table], new.get(table, []))
        if isinstance(answer, Drop):
            reasons[answer.reason] += 1
            drops.append(_drop_row(answer, spec.name, _now()))
    if changed:
        failures = ledger.rows_of(old, FailureRow, "failures")
        dropped = len(drops)
        new_counts = {
            **old.counts,
            "dropped": dropped,
            "ok": old.counts["input"] - dropped - len(failures),
            **{f"children:{table}": len(rows) for table, rows in tables.items()},
        }
        made = replace(
            old, counts=new_counts, code_revision=job.code_revision, versions=job.versions
        )
        ledger.replace(old, made, _contents(tables, drops, failures), job.run_id)
    wall_s, _ = clock.seconds()
    told = dict(counts), tuple(bugs), dict(reasons), dict(kinds), wall_s, tuple(notes)
    return UnitResult(unit, *told)


def _is_same(new: Sequence[Record], old: Sequence[Record]) -> bool:
    """Say whether rows are the same; what a site now says of a video is no change."""
    if [*map(type, new), *map(type, old)] == [Video, Video]:
        one, other = cast(Video, new[0]), cast(Video, old[0])
        return (one.path, one.sha256) == (other.path, other.sha256)
    return list(new) == list(old)


def _put(rows: list[Any], old: list[Any], new: list[Any]) -> list[Any]:
    """Return the rows with ``new`` where the first of ``old`` was, else at the end."""
    place = rows.index(old[0]) if old else len(rows)
    kept = [row for row in rows[:place] if row not in old]
    return [*kept, *new, *(row for row in rows[place:] if row not in old)]


def _drop_row(answer: Drop, stage: str, now: str) -> DropRow:
    return DropRow(
        input_id=answer.id,
        stage=stage,
        reason=answer.reason,
        detail=answer.detail,
        last_time=now,
    )


def _by_id(ids: Sequence[str], outcomes: Iterable[Outcome], stage: str) -> dict[str, Outcome]:
    answers: dict[str, Outcome] = {}
    for outcome in outcomes:
        if outcome.id in answers:
            raise ConservationError(f"{stage}: two answers about {outcome.id!r}")
        answers[outcome.id] = outcome
    asked = set(ids)
    if len(asked) != len(ids):
        raise ConservationError(f"{stage}: the input holds an id twice")
    if asked != answers.keys():
        lost = sorted(asked - answers.keys())[:3]
        invented = sorted(answers.keys() - asked)[:3]
        raise ConservationError(
            f"{stage}: no answer about {lost}, answers about unasked {invented}"
        )
    return answers


def _checked_children(children: Sequence[Record], spec: StageSpec) -> dict[str, list[Record]]:
    tables = by_table(children)
    for table, found in tables.items():
        if table not in spec.writes:
            raise ConservationError(f"{spec.name}: wrote to {table!r}, declares {spec.writes}")
        if len({row.id for row in found}) != len(found):
            raise ConservationError(f"{spec.name}: two rows of {table!r} have one id")
    return tables


def disk_is_full(storage: Storage) -> bool:
    """Say whether the workspace's disk is as good as full."""
    free = storage.free_bytes()
    return free is not None and free < _FULL_BELOW_BYTES


def _disk_full(storage: Storage) -> str:
    return f"{storage.url}: the disk is full. Make room and run again: nothing is lost."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
