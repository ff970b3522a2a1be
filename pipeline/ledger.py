"""What one stage has done: its generation, its plan and its commits.

    commits/<stage>/stage.json             the generation: config, version, digests, and their key
                    plan/<n>.json          units, written once; new input appends a file
                    units/<unit>.json      a commit: the unit is done, and these are its files
                    drops/, failures/      the rows that gave no output, named by the commits
                    work/<run>/            files not committed yet
                    retired/<key>/...      what an earlier generation made
                    run.lock, claims.lock  see ``pipeline.locks``

A commit is written after its files and before they move into ``tables/``. So a table holds nothing
uncommitted, and a crash in between is mended by moving them at the next start (``recover``). What
no commit names is garbage. On an object store there are no locks: one run at a time there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import AvatarBuildError
from pipeline.schema import DropRow, FailureRow, Record, digest_of
from pipeline.storage import Storage
from pipeline.table import read_records, to_parquet


@dataclass(frozen=True)
class TableFile:
    """One Parquet file a commit answers for."""

    table: str
    """Table name; ``drops`` or ``failures`` for those."""
    file: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Unit:
    """A row range of one input file, or some of its rows again."""

    ordinal: int
    """Place in the stage's plan; a later unit's answer about a row replaces an earlier one's."""
    name: str
    file: str
    sha256: str
    first: int
    stop: int
    """Rows ``first`` to ``stop - 1`` of the file."""
    ids: tuple[str, ...] = ()
    """Set in a retry: only these rows of the range."""
    attempts: tuple[int, ...] = ()
    """Set in a retry: how often each was tried before."""
    again: bool = False
    """Set where rows that are done are done again, for their media is lost; in no plan."""


@dataclass(frozen=True)
class Generation:
    """Everything that decides a stage's answers, besides its input."""

    stage: str
    version: int
    config: dict[str, Any]
    fingerprint: dict[str, str]
    upstream: dict[str, str]
    """Keys of the stages whose tables are joined in."""

    @property
    def key(self) -> str:
        """The stage key: SHA-256 over all of it."""
        return digest_of(asdict(self))


@dataclass(frozen=True)
class Commit:
    """A finished unit."""

    unit: str
    ordinal: int
    stage: str
    stage_key: str
    unit_key: str
    input: dict[str, Any]
    files: tuple[TableFile, ...]
    counts: dict[str, int]
    """``input``, ``ok``, ``dropped``, ``failed``, and ``children:<table>``."""
    code_revision: str
    versions: dict[str, str]
    started: str
    wall_s: float
    cpu_s: float
    ids: tuple[str, ...] = ()
    """Set in a retry: the rows it answers again."""

    def to_json(self) -> bytes:
        """As it is stored."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_json(data: bytes, where: str) -> Commit:
        """Read it back.

        Raises:
            AvatarBuildError: when it is no commit of this version.
        """
        try:
            raw = json.loads(data)
            files = tuple(TableFile(**file) for file in raw.pop("files"))
            return Commit(files=files, ids=tuple(raw.pop("ids")), **raw)
        except (ValueError, TypeError, KeyError) as error:
            raise AvatarBuildError(
                f"{where}: not a commit this version can read: {error}"
            ) from error


@dataclass
class Ledger:
    """One stage's folder below ``commits/``."""

    storage: Storage
    stage: str
    _commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where it lives."""
        return f"commits/{self.stage}"

    # Reading

    def generation(self) -> Generation | None:
        """The generation whose results are in the tables; none before the first run."""
        name = f"{self.folder}/stage.json"
        if not self.storage.exists(name):
            return None
        raw = json.loads(self.storage.read(name))
        raw.pop("key")
        return Generation(**raw)

    def plan(self) -> list[Unit]:
        """All units, in order."""
        units = []
        for name in self.storage.names(f"{self.folder}/plan"):
            for raw in json.loads(self.storage.read(f"{self.folder}/plan/{name}"))["units"]:
                units.append(
                    Unit(**{**raw, "ids": tuple(raw["ids"]), "attempts": tuple(raw["attempts"])})
                )
        return units

    def commits(self) -> list[Commit]:
        """All commits, in the order of their units."""
        names = self.storage.names(f"{self.folder}/units")
        for name in names:
            if name not in self._commits:
                path = f"{self.folder}/units/{name}"
                self._commits[name] = Commit.from_json(self.storage.read(path), path)
        for gone in self._commits.keys() - set(names):
            del self._commits[gone]
        return sorted(self._commits.values(), key=lambda commit: commit.ordinal)

    def is_committed(self, unit: Unit) -> bool:
        """Whether the unit is done; one that is done again never is."""
        return not unit.again and self.storage.exists(f"{self.folder}/units/{unit.name}.json")

    def files(self, table: str) -> list[TableFile]:
        """The files of ``table`` this stage has committed."""
        return [file for commit in self.commits() for file in commit.files if file.table == table]

    def failures(self) -> list[FailureRow]:
        """The rows that stand as failed now: a retry's answer replaces the earlier one."""
        current: dict[str, FailureRow] = {}
        for commit in self.commits():
            for row_id in commit.ids:
                current.pop(row_id, None)
            for row in self.failures_of(commit):
                current[row.input_id] = row
        return list(current.values())

    def failures_of(self, commit: Commit) -> list[FailureRow]:
        """The rows that failed in one unit, whatever became of them later."""
        rows: list[FailureRow] = self._outcome_rows(commit, FailureRow, "failures")
        return rows

    def drops(self) -> list[DropRow]:
        """The rows that were set aside on purpose."""
        rows = []
        for commit in self.commits():
            rows += self._outcome_rows(commit, DropRow, "drops")
        return rows

    def _outcome_rows(self, commit: Commit, record: type[Any], table: str) -> list[Any]:
        files = [file for file in commit.files if file.table == table]
        return [row for file in files for row in read_records(record, self.storage, file.file)]

    def rows_of(self, commit: Commit, record: type[Record], table: str) -> list[Any]:
        """The rows of a table (or ``drops``, ``failures``) in one unit, in their order."""
        return self._outcome_rows(commit, record, table)

    def forget(self, unit: Unit) -> None:
        """Read a unit's commit anew: another process has replaced it."""
        self._commits.pop(f"{unit.name}.json", None)

    # Writing

    def begin(self, generation: Generation) -> None:
        """Make ``generation`` the one in force; the tables must hold nothing of another one."""
        document = {**asdict(generation), "key": generation.key}
        text = json.dumps(document, indent=1, sort_keys=True) + "\n"
        self.storage.write(f"{self.folder}/stage.json", text.encode())

    def append(self, units: Sequence[dict[str, Any]], stage_key: str) -> bool:
        """Add units to the plan, unless another process added some at the same moment.

        Args:
            units: ``file``, ``sha256``, ``first``, ``stop`` and, for retries, ``ids`` and
                ``attempts`` of each.
            stage_key: of the generation in force.

        Returns:
            Whether they were added; if not, look at the plan again.
        """
        segment = len(self.storage.names(f"{self.folder}/plan"))
        ordinal = max((unit.ordinal for unit in self.plan()), default=-1) + 1
        named = []
        for offset, raw in enumerate(units):
            raw = {"ids": (), "attempts": (), **raw}
            key = digest_of([stage_key, *(raw[k] for k in sorted(raw))])
            named.append(Unit(ordinal + offset, f"{ordinal + offset:06d}-{key[:12]}", **raw))
        text = json.dumps({"stage_key": stage_key, "units": [asdict(unit) for unit in named]})
        return self.storage.create(f"{self.folder}/plan/{segment:05d}.json", text.encode())

    def commit(
        self, commit: Commit, contents: dict[str, tuple[type[Record], list[Any]]], run_id: str
    ) -> bool:
        """Publish a unit's rows; say whether this call did it or another process had before.

        Args:
            commit: everything but ``files``.
            contents: per table (or ``drops``, ``failures``) its record and rows.
            run_id: names the work folder.
        """
        files, moves = [], []
        for table, (record, rows) in contents.items():
            if not rows:
                continue
            data = to_parquet(record, rows)
            if table in ("drops", "failures"):
                name = f"{self.folder}/{table}/{commit.unit}.{run_id}.parquet"
                self.storage.write(name, data)
            else:
                name = f"tables/{table}/{self.stage}-{commit.unit}.parquet"
                work = f"{self.folder}/work/{run_id}/{table}--{self.stage}-{commit.unit}.parquet"
                self.storage.write(work, data)
                moves.append((work, name))
            files.append(TableFile(table, name, hashlib.sha256(data).hexdigest(), len(rows)))
        whole = Commit(**{**_fields(commit), "files": tuple(files)})
        if not self.storage.create(f"{self.folder}/units/{commit.unit}.json", whole.to_json()):
            for work, _ in moves:
                self.storage.remove(work)
            return False
        for work, name in moves:
            # Another process that recovers at this moment may have moved it for us.
            with contextlib.suppress(FileNotFoundError):
                self.storage.move(work, name)
        return True

    def replace(
        self,
        old: Commit,
        new: Commit,
        contents: dict[str, tuple[type[Record], list[Any]]],
        run_id: str,
    ) -> None:
        """Put other rows in the place of a unit's, under the same names; the old ones are retired.

        Args:
            old: the commit in force.
            new: everything but ``files``.
            contents: as ``commit`` takes them.
            run_id: names the work folder.
        """
        home = f"{self.folder}/retired/{old.stage_key[:12]}"
        before = {file.table: file for file in old.files}
        files, moves = [], []
        for table, (record, rows) in contents.items():
            stood = before.get(table)
            if not rows and stood is None:
                continue  # a table that had rows keeps its file, an empty one
            data = to_parquet(record, rows)
            digest = hashlib.sha256(data).hexdigest()
            if stood is not None and stood.sha256 == digest:
                files.append(stood)
                continue
            name = f"{self.folder}/{table}/{new.unit}.{run_id}.parquet"
            if table in ("drops", "failures"):
                self.storage.write(name, data)
            else:
                name = f"tables/{table}/{self.stage}-{new.unit}.parquet"
                work = f"{self.folder}/work/{run_id}/{table}--{self.stage}-{new.unit}.parquet"
                self.storage.write(work, data)
                moves.append((work, name))
                if stood is not None:
                    kept = f"{home}/{stood.sha256[:12]}--{stood.file.replace('/', '--')}"
                    self.storage.write(kept, self.storage.read(stood.file))
            files.append(TableFile(table, name, digest, len(rows)))
        whole = Commit(**{**_fields(new), "files": tuple(files)})
        self.storage.write(f"{self.folder}/units/{new.unit}.json", whole.to_json())
        for work, name in moves:
            with contextlib.suppress(FileNotFoundError):
                self.storage.move(work, name)

    # Cleaning: only while no other run of the stage is alive

    def recover(self) -> None:
        """Finish what a crash interrupted, and sweep what no commit names."""
        waiting = {}
        for run in self.storage.folders(f"{self.folder}/work"):
            for name in self.storage.names(f"{self.folder}/work/{run}"):
                waiting[name] = f"{self.folder}/work/{run}/{name}"
        named = set()
        for commit in self.commits():
            for file in commit.files:
                named.add(file.file)
                work = waiting.get(f"{file.table}--{file.file.rsplit('/', 1)[-1]}")
                if work and self._holds(work, file) and not self._holds(file.file, file):
                    self.storage.move(work, file.file)
        self.storage.remove(f"{self.folder}/work")
        for table in ("drops", "failures"):
            for name in self.storage.names(f"{self.folder}/{table}"):
                if f"{self.folder}/{table}/{name}" not in named:
                    self.storage.remove(f"{self.folder}/{table}/{name}")

    def _holds(self, name: str, file: TableFile) -> bool:
        """Whether ``name`` is the file a commit names; a replaced one may still be the old one."""
        if not self.storage.exists(name):
            return False
        return hashlib.sha256(self.storage.read(name)).hexdigest() == file.sha256

    def retire(self, commits: Sequence[Commit], key: str) -> None:
        """Take commits and their files out of force, into ``retired/<key>``.

        The commit goes last: interrupted, the rest is retired by the next call.
        """
        home = f"{self.folder}/retired/{key[:12]}"
        for commit in commits:
            for file in commit.files:
                if self.storage.exists(file.file):
                    self.storage.move(file.file, f"{home}/{file.file.replace('/', '--')}")
            name = f"{commit.unit}.json"
            self.storage.move(f"{self.folder}/units/{name}", f"{home}/units/{name}")

    def retire_all(self, key: str) -> None:
        """Retire the whole generation: every commit, then the plan, then its name."""
        self.retire(self.commits(), key)
        for name in self.storage.names(f"{self.folder}/plan"):
            self.storage.move(
                f"{self.folder}/plan/{name}", f"{self.folder}/retired/{key[:12]}/plan/{name}"
            )
        if self.storage.exists(f"{self.folder}/stage.json"):
            self.storage.move(
                f"{self.folder}/stage.json", f"{self.folder}/retired/{key[:12]}/stage.json"
            )


def _fields(commit: Commit) -> dict[str, Any]:
    return {name: getattr(commit, name) for name in commit.__dataclass_fields__}
