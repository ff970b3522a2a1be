"""The work of one stage: its generation, its plan and its commits.

    commits/<stage>/stage.json             the generation: config, version, digests, and their key
                    plan/<n>.json          units, written once; new input appends a file
                    units/<unit>.json      a commit: the unit is done, and these are its files
                    drops/, failures/      the rows that gave no output, named by the commits
                    work/<run>/            files not committed yet
                    retired/<key>/...      what an earlier generation made
                    run.lock, claims.lock  see ``locks``; where none tells runs/, see ``leases``
                    index.json             copies of many commits: ``committed``
                    ids/, copies/          see ``id_index``, ``ending_copies``

A commit is written after its files and before they move into ``tables/``. So a table holds nothing
uncommitted, and a crash in between is mended by moving them at the next start (``recover``). What
no commit names is garbage.

Where no lock tells who is at work (an object store, a shared disk whose locks are per node), files
lie in ``tables/`` before the commit that names them, and carry a digest of their bytes in their
names: an attempt cannot touch the files of another, and a request that is late or repeated writes
what is there. Who reads the folders alone may see rows an instant before they are committed. What
no commit names is left alone while it is young: it may be of a run that is about to commit it.

Commits, plans and ``stage.json`` hold a digest of themselves, as tables have one in their commit. A
file that is not what was written is a ``DamagedError``; ``set_aside`` takes its unit out of force.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from itertools import count
from pathlib import PurePosixPath

from pipeline.errors import DamagedError, StopRun
from pipeline.records.schema import DropRow, FailureRow, digest_of
from pipeline.workspace.commit import (
    ENDINGS,
    UNREADABLE,
    Commit,
    Contents,
    Generation,
    TableFile,
    Unit,
    Units,
    checked,
    sealed,
    unsealed,
    what_is_wrong,
)
from pipeline.workspace.committed import CommittedUnits, unit_files
from pipeline.workspace.ending_copies import EndingCopies
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import RecordT, committed_bytes, read_records, to_parquet, way_out

_YOUNG_S = 24 * 3600.0
"""The age under which a file may be another run's work, where no lock tells."""

_ATTEMPT = 16
"""Digits of its SHA-256 in the name of a file that is written in its place."""


@dataclass
class Ledger:
    """The folder of a stage below ``commits/``."""

    storage: Storage
    stage: str
    fence: Callable[[], None] = lambda: None
    """Called before anything is taken out of force; raises where that is no longer allowed."""
    committed: CommittedUnits = field(init=False)
    """The commits, as they were last looked at."""

    def __post_init__(self) -> None:
        self.committed = CommittedUnits(self.storage, self.folder)

    @property
    def folder(self) -> str:
        """Return where it lives."""
        return f"commits/{self.stage}"

    # Reading

    def generation(self) -> Generation | None:
        """Return the generation whose results are in the tables; none before the first run."""
        name = f"{self.folder}/stage.json"
        try:
            text = self.storage.read(name)
        except FileNotFoundError:
            return None
        try:
            raw = json.loads(text)
            key = raw.pop("key")
            found: Generation = checked(Generation, raw)
            if found.key != key:
                raise ValueError("it is not what its key was made of")
        except UNREADABLE as error:
            raise self._damaged(name, error) from error
        return found

    def plan(self) -> list[Unit]:
        """Return all units, in order.

        Where there are leases, a file of another generation is passed over: it was written by a
        run that was taken for dead, or by a request that came late.

        Raises:
            DamagedError: one of its files is missing or not what was written.
        """
        units: list[Unit] = []
        key, missing = "", ""
        if not self.storage.has_locks and (current := self.generation()):
            key = current.key
        for number, name in enumerate(self._segments()):
            path = f"{self.folder}/plan/{name}"
            try:
                if name != _segment(number):
                    missing = missing or f"{self.folder}/plan/{_segment(number)}"
                document = unsealed(self.storage.read(path))
                if key and document["stage_key"] != key:
                    continue
                if missing:
                    path = missing
                    raise ValueError("it is missing")
                units += checked(Units, document["units"])
            except FileNotFoundError:  # retired since it was listed
                continue
            except UNREADABLE as error:
                raise self._damaged(path, error) from error
        return units

    def plan_of(self, commits: Iterable[Commit]) -> list[Unit]:
        """Return the plan, looked at again where a commit is of none of its units.

        Inside ``listed_once`` the plan may be of an earlier moment than the commits.
        """
        units = self.plan()
        if not {commit.unit for commit in commits} <= {unit.name for unit in units}:
            self.storage.look_again()
            units = self.plan()
        return units

    def checked_plan(self) -> list[Unit]:
        """Return the plan, where each commit must be of one of its units.

        Raises:
            DamagedError: as ``plan``, or the last of its files is missing.
        """
        commits = self.commits()  # before the plan, which other runs may add to meanwhile
        units = self.plan_of(commits)
        known = {unit.name for unit in units}
        for commit in commits:
            if commit.unit not in known:
                path = f"{self.folder}/plan/{_segment(len(self._segments()))}"
                raise self._damaged(path, ValueError(f"it is missing, with unit {commit.unit}"))
        return units

    def _segments(self) -> list[str]:
        names = self.storage.names(f"{self.folder}/plan")
        return [name for name in names if not name.startswith(".")]

    def _damaged(self, name: str, error: Exception) -> DamagedError:
        what = what_is_wrong(error)
        return DamagedError(f"{name}: {what}. Put the file back, or {way_out(self.stage)}.")

    def commits(self) -> list[Commit]:
        """Return all commits, in the order of their units.

        Raises:
            DamagedError: one is not what was written.
        """
        return self.committed.commits()

    def is_committed(self, unit: Unit) -> bool:
        """Say whether the unit is done; one that is done again never is."""
        if unit.again:
            return False
        try:  # on a store one request, where to look for it takes two
            self.storage.read(f"{self.folder}/units/{unit.name}.json")
        except FileNotFoundError:
            return False
        return True

    def files(self, table: str) -> list[TableFile]:
        """Return the files of ``table`` this stage has committed."""
        return [file for commit in self.commits() for file in commit.files if file.table == table]

    def failed(self, among: Sequence[Commit] | None = None) -> list[tuple[str, FailureRow]]:
        """Return the rows that stand as failed now, each with the name of the unit that says so.

        A retry's answer replaces the earlier one.

        Args:
            among: only of these commits; none takes all.
        """
        current: dict[str, tuple[str, FailureRow]] = {}
        for commit, rows in self._ended(FailureRow, "failures", among):
            for row_id in commit.ids:
                current.pop(row_id, None)
            current |= {row.input_id: (commit.unit, row) for row in rows}
        return list(current.values())

    def failures(self, among: Sequence[Commit] | None = None) -> list[FailureRow]:
        """Return the rows that stand as failed now, see ``failed``."""
        return [row for _, row in self.failed(among)]

    def failures_of(self, commit: Commit) -> list[FailureRow]:
        """Return the rows that failed in one unit, whatever became of them later."""
        return self.rows_of(commit, FailureRow, "failures")

    def drops(self, among: Sequence[Commit] | None = None) -> list[DropRow]:
        """Return the rows that were set aside on purpose.

        Args:
            among: only of these commits; none takes all.
        """
        return [row for _, rows in self._ended(DropRow, "drops", among) for row in rows]

    def _ended(
        self, record: type[RecordT], table: str, among: Sequence[Commit] | None
    ) -> Iterator[tuple[Commit, list[RecordT]]]:
        """Yield commits and the rows of each that ended so; ``among`` none takes all commits."""
        commits = self.commits() if among is None else among
        files = [file for one in commits for file in one.files if file.table == table]
        copied = EndingCopies(self.storage, self.folder).rows(record, table, files) if files else {}
        for commit in commits:
            rows: list[RecordT] = []
            for file in commit.files:
                if file.table == table:
                    rows += copied.get(file.content) or self._rows_in(record, file)
            yield commit, rows

    def drop_counts(self, commits: Sequence[Commit]) -> dict[str, int]:
        """Count the drops of these commits by reason, most first."""
        if any(commit.endings is None for commit in commits):
            return _summed([Counter(row.reason for row in self.drops(commits))])
        return _summed(commit.endings["drops"] for commit in commits if commit.endings)

    def failure_counts(self, commits: Sequence[Commit]) -> dict[str, int]:
        """Count the failures of these commits by kind, most first."""
        if any(commit.endings is None or commit.ids for commit in commits):
            return _summed([Counter(row.kind for row in self.failures(commits))])
        return _summed(commit.endings["failures"] for commit in commits if commit.endings)

    def rows_of(self, commit: Commit, record: type[RecordT], table: str) -> list[RecordT]:
        """Return the rows of a table (or ``drops``, ``failures``) in one unit, in their order."""
        files = [file for file in commit.files if file.table == table]
        return [row for file in files for row in self._rows_in(record, file)]

    def _rows_in(self, record: type[RecordT], file: TableFile) -> list[RecordT]:
        return read_records(record, self.storage, file.file, file.sha256)

    def forget(self, unit: Unit) -> None:
        """Read a unit's commit anew: another process has replaced it."""
        self.committed.forget(unit.name)

    # Writing

    def begin(self, generation: Generation) -> None:
        """Make ``generation`` the one in force; the tables must hold nothing of another one."""
        self.fence()
        document = {**asdict(generation), "key": generation.key}
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        self.storage.write(f"{self.folder}/stage.json", text.encode())

    def append(self, units: Sequence[Unit], stage_key: str, after: Sequence[Unit]) -> bool:
        """Add units to the plan, unless another process added some meanwhile.

        Args:
            units: their ordinals and names are given here.
            stage_key: of the generation in force.
            after: the plan they were chosen by.

        Returns:
            Whether they were added; if not, look at the plan again.
        """
        there = set(self._segments())
        if len(self.plan()) != len(after):
            return False
        segment = next(number for number in count() if _segment(number) not in there)
        ordinal = max((unit.ordinal for unit in after), default=-1) + 1
        named = []
        for number, unit in enumerate(units, ordinal):
            parts = [astuple(part) for part in unit.parts]
            key = digest_of([stage_key, unit.ids, unit.attempts, parts])
            named.append(replace(unit, ordinal=number, name=f"{number:06d}-{key[:12]}"))
        document = {"stage_key": stage_key, "units": [asdict(unit) for unit in named]}
        return self.storage.create(f"{self.folder}/plan/{_segment(segment)}", sealed(document))

    def commit(self, commit: Commit, contents: Contents, run_id: str) -> bool:
        """Publish a unit's rows; say whether this call did it or another process had before.

        Args:
            commit: everything but ``files``.
            contents: the rows.
            run_id: names the work folder.

        Raises:
            DamagedError: a file of the unit was taken away meanwhile; the unit is to do again.
            StopRun: results of other settings took the place of this run's.
        """
        if not self.storage.has_locks and commit.stage_key:
            current = self.generation()
            if current is not None and current.key != commit.stage_key:
                raise StopRun(
                    f"{self.stage}: a run with other settings has retired the results of this one,"
                    " which it took for dead. Run again with the settings that are to hold."
                )
        whole, moves = self._write(commit, contents, run_id, ())
        if not self.storage.create(f"{self.folder}/units/{commit.unit}.json", whole.to_json()):
            for work, _ in moves:
                self.storage.remove(work)
            return False
        for work, name in moves:
            try:
                self.storage.move(work, name)
            except FileNotFoundError as error:
                # Another process that recovers at this moment may have moved it for us.
                if not self.storage.exists(name):
                    self.storage.remove(f"{self.folder}/units/{commit.unit}.json")
                    raise DamagedError(
                        f"{work}: gone before it became {name}: something deleted this run's work."
                        " The unit's commit was taken back; run again to do its rows again."
                    ) from error
        return True

    def replace(self, old: Commit, new: Commit, contents: Contents, run_id: str) -> None:
        """Put other rows in the place of a unit's, under the same names; the old ones are retired.

        Args:
            old: the commit in force.
            new: everything but ``files``.
            contents: the rows.
            run_id: names the work folder.
        """
        whole, moves = self._write(new, contents, run_id, old.files)
        self.fence()
        self.storage.write(f"{self.folder}/units/{new.unit}.json", whole.to_json())
        files = {file.file: file for file in whole.files}
        for work, name in moves:
            try:
                self.storage.move(work, name)
            except FileNotFoundError as error:
                # Another process that recovers at this moment may have moved it for us.
                if not self._holds(name, files[name]):
                    raise DamagedError(
                        f"{work}: gone before it became {name}: something deleted this run's work."
                        f" Put the file back, or {way_out(self.stage)}."
                    ) from error
        for name in sorted({file.file for file in old.files} - files.keys()):
            self.storage.remove(name)  # of a table it is kept as retired

    def _write(
        self, commit: Commit, contents: Contents, run_id: str, before: Sequence[TableFile]
    ) -> tuple[Commit, list[tuple[str, str]]]:
        """Write a unit's files, those of tables into the work folder, where ``before`` differs.

        Returns:
            The commit that names them, and what to move into its table after it: from where to
            where. What it will replace there is kept as retired.
        """
        files, moves, unit = [], [], commit.unit
        stood = {file.table: file for file in before}
        for table, (record, rows) in contents.items():
            old = stood.get(table)
            if not rows and old is None:
                continue  # a table that had rows keeps its file, an empty one
            data = to_parquet(record, rows)
            sha256 = hashlib.sha256(data).hexdigest()
            if old is not None and old.sha256 == sha256:
                files.append(old)
                continue
            in_place = not self.storage.has_locks
            attempt = sha256[:_ATTEMPT] if in_place else run_id
            name = work = f"{self.folder}/{table}/{unit}.{attempt}.parquet"
            if table not in ENDINGS:
                if in_place:
                    name = work = f"tables/{table}/{self.stage}-{unit}.{attempt}.parquet"
                else:
                    name = f"tables/{table}/{self.stage}-{unit}.parquet"
                    work = f"{self.folder}/work/{run_id}/{table}--{self.stage}-{unit}.parquet"
                    moves.append((work, name))
                if old is not None:
                    kept = f"{old.sha256[:12]}--{old.file.replace('/', '--')}"
                    home = f"{self.folder}/retired/{commit.stage_key[:12]}"
                    self.storage.write(f"{home}/{kept}", self.storage.read(old.file))
            self.storage.write(work, data)
            files.append(TableFile(name, sha256, table, len(rows)))
        return replace(commit, files=tuple(files), endings=_endings(contents)), moves

    # Cleaning: only while no other run of the stage is alive

    @contextlib.contextmanager
    def fenced(self, check: Callable[[], None]) -> Iterator[None]:
        """Take nothing out of force inside the ``with`` unless ``check`` allows it each time."""
        before, self.fence = self.fence, check
        try:
            yield
        finally:
            self.fence = before

    def recover(self) -> None:
        """Finish what a crash interrupted, and sweep what no commit names."""
        with self.storage.listed_once():
            self.storage.look_again()  # the lock was taken since
            self._recover()

    def _recover(self) -> None:
        work = self._work()
        waiting = {PurePosixPath(path).name: path for path in work}
        named = set()
        for commit in self.commits():
            for file in commit.files:
                named.add(file.file)
                found = waiting.get(_in_work(file))
                if found and self._holds(found, file) and not self._holds(file.file, file):
                    self.storage.move(found, file.file)
        outcomes = {
            f"{self.folder}/{table}/{name}"
            for table in ENDINGS
            for name in self.storage.names(f"{self.folder}/{table}")
        }
        if self.storage.has_locks:
            self.storage.remove(f"{self.folder}/work")
            for path in outcomes - named:
                self.storage.remove(path)
        else:
            self._sweep({*work, *outcomes} - named)
            self._take_out_beaten(named)
        self.committed.write_index()

    def _sweep(self, paths: Iterable[str]) -> None:
        """Delete of these what is old: nobody is at work on it."""
        for path in paths:
            if self.storage.age_s(path) > _YOUNG_S:
                self.fence()
                self.storage.remove(path)

    def _take_out_beaten(self, named: Collection[str]) -> None:
        """Keep aside the files of attempts at units whose commit is another attempt's.

        That commit stands, so none can name them any more.
        """
        tables = {file.table for commit in self.commits() for file in commit.files} - {*ENDINGS}
        starts = {f"{self.stage}-{commit.unit}" for commit in self.commits()}
        for table in sorted(tables):
            for name in self.storage.names(f"tables/{table}"):
                path = f"tables/{table}/{name}"
                beaten = is_attempt(name) and name.partition(".")[0] in starts
                if beaten and path not in named and self.storage.age_s(path) > _YOUNG_S:
                    self.fence()
                    self.storage.move(
                        path, f"{self.folder}/retired/beaten/{path.replace('/', '--')}"
                    )

    def _work(self) -> list[str]:
        """Return the paths of the files that are not committed yet, or not moved."""
        return [
            f"{self.folder}/work/{run}/{name}"
            for run in self.storage.folders(f"{self.folder}/work")
            for name in self.storage.names(f"{self.folder}/work/{run}")
        ]

    def gone(self) -> list[Commit]:
        """Return the commits of which a file is not there, whatever its bytes are."""
        there: dict[str, set[str]] = {}
        waiting: set[str] | None = None

        def is_there(file: TableFile) -> bool:
            nonlocal waiting
            folder, _, name = file.file.rpartition("/")
            if folder not in there:
                there[folder] = set(self.storage.names(folder))
            if name in there[folder]:
                return True
            if waiting is None:
                waiting = {PurePosixPath(path).name for path in self._work()}
            # It may have been moved between the looks.
            return _in_work(file) in waiting or self.storage.exists(file.file)

        return [
            commit for commit in self.commits() if not all(is_there(file) for file in commit.files)
        ]

    def is_interrupted(self) -> bool:
        """Say whether there is work of runs that are alive, or did not clean up."""
        return bool(self._work())

    def set_aside(self, live: Sequence[TableFile]) -> int:
        """Take out of force every unit whose commit or files are not what was written.

        Without its plan or generation no unit can be told from another, and all of them go.

        Args:
            live: the files of the tables that are in force; others may lie elsewhere.

        Returns:
            The number of units.
        """
        home, aside = f"{self.folder}/retired/damaged", 0
        for name in sorted(unit_files(self.storage.names(f"{self.folder}/units"))):
            path = f"{self.folder}/units/{name}"
            try:
                commit = Commit.from_json(self.storage.read(path), path)
            except DamagedError:
                unit = name.removesuffix(".json")
                for table in self.storage.folders("tables"):
                    for found in self.storage.names(f"tables/{table}"):
                        if found.partition(".")[0] == f"{self.stage}-{unit}":
                            file = f"tables/{table}/{found}"
                            self.storage.move(file, f"{home}/{file.replace('/', '--')}")
                self.storage.move(path, f"{home}/units/{name}")
                aside += 1
                continue
            if not all(self._is_whole(file, live) for file in commit.files):
                self.retire([commit], "damaged")
                aside += 1
        try:
            self.generation()
            self.checked_plan()
        except DamagedError:
            aside += len(self.commits())
            self.retire_all("damaged")
        return aside

    def _is_whole(self, file: TableFile, live: Sequence[TableFile]) -> bool:
        if file.table not in ENDINGS and file not in live:
            return True
        try:
            committed_bytes(self.storage, file.file, file.sha256)
        except DamagedError:
            return False
        return True

    def _holds(self, name: str, file: TableFile) -> bool:
        """Say whether ``name`` is the file of a commit; a replaced one may still be the old one."""
        if not self.storage.exists(name):
            return False
        return hashlib.sha256(self.storage.read(name)).hexdigest() == file.sha256

    def retire(self, commits: Sequence[Commit], key: str) -> None:
        """Take commits and their files out of force, into ``retired/<key>``.

        The commit goes last: interrupted, the rest is retired by the next call.
        """
        home = f"{self.folder}/retired/{key[:12]}"
        for commit in commits:
            self.fence()
            for file in commit.files:
                self._put_aside(file.file, f"{home}/{file.file.replace('/', '--')}")
            name = f"units/{commit.unit}.json"
            self._put_aside(f"{self.folder}/{name}", f"{home}/{name}")

    def _put_aside(self, path: str, target: str) -> None:
        """Move a file that goes out of force, unless it is gone: interrupted, this is done again.

        Where there are leases, a run that stood still may meet here the one that took its place.
        """
        if self.storage.exists(path):
            with contextlib.suppress(*([] if self.storage.has_locks else [FileNotFoundError])):
                self.storage.move(path, target)

    def retire_all(self, key: str) -> None:
        """Retire the whole generation: every commit, then the plan, then its name."""
        self.retire(self.commits(), key)
        home = f"{self.folder}/retired/{key[:12]}"
        for name in (*(f"plan/{name}" for name in self._segments()), "stage.json"):
            self.fence()
            self._put_aside(f"{self.folder}/{name}", f"{home}/{name}")


def _in_work(file: TableFile) -> str:
    """Return the name a file has in the work folder, before its move into its table."""
    return f"{file.table}--{file.file.rsplit('/', 1)[-1]}"


def is_attempt(name: str) -> bool:
    """Say whether a file was written in its place, before a commit named it or none did.

    >>> is_attempt("sample-000000-0a1b2c3d4e5f.0123456789abcdef.parquet")
    True
    """
    parts = name.split(".")
    return len(parts) == 3 and len(parts[1]) == _ATTEMPT and parts[2] == "parquet"


def _endings(contents: Contents) -> dict[str, dict[str, int]]:
    """Count the rows of a unit that were dropped by reason, and that failed by kind."""
    drops, failures = (contents.get(name, (None, []))[1] for name in ("drops", "failures"))
    return {
        "drops": dict(Counter(row.reason for row in drops)),
        "failures": dict(Counter(row.kind for row in failures)),
    }


def _segment(number: int) -> str:
    return f"{number:05d}.json"


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total.most_common())
