"""A workspace: settings, tables, commits and media below one folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pipeline.config import PROFILES, Config, load_config, render_toml
from pipeline.errors import ConfigError, DamagedError, UsageError
from pipeline.ledger import Ledger, TableFile
from pipeline.schema import TABLES, Record, arrow_schema
from pipeline.storage import Storage
from pipeline.table import Lookup, read_arrow, read_records, table_digest, way_out

FORMAT = 1
"""Raised when an older version could misread a workspace."""

_MARKER = "commits/workspace.json"

RecordT = TypeVar("RecordT", bound=Record)


class Workspace:
    """An opened workspace.

    Args:
        root: folder or URL.
        settings: ``section.key=value`` on top of its ``avatar.toml``.
    """

    def __init__(self, root: str | Path, settings: Iterable[str] = ()) -> None:
        self.storage = Storage(root)
        if not self.storage.exists(_MARKER):
            if self.storage.folders("commits"):
                raise DamagedError(
                    f"{root}/{_MARKER}: missing, beside the commits of a workspace. Put the file"
                    f' back, or write {{"format": {FORMAT}}} into it if this version made it.'
                )
            raise UsageError(
                f"{root}: no workspace here. Make one with 'avatar-build init {root}',"
                " or name another with --workspace."
            )
        try:
            made = json.loads(self.storage.read(_MARKER))
            known = (made.get("format"), made.get("version"))
        except (ValueError, AttributeError) as error:
            raise DamagedError(
                f"{root}/{_MARKER}: not what 'avatar-build init' wrote ({error}). Put the file"
                f' back, or write {{"format": {FORMAT}}} into it if it was made by this version.'
            ) from error
        if known[0] != FORMAT:
            raise UsageError(
                f"{root}: a workspace of format {known[0]} (made by avatar-build"
                f" {known[1]}), this version reads format {FORMAT}. Use that version,"
                " or start a new workspace: downloaded videos can be reused as a mirror."
            )
        toml = _read_settings(self.storage, f"{root}/avatar.toml")
        self.config: Config = load_config(toml, settings, where=f"{root}/avatar.toml")
        self._ledgers: dict[str, Ledger] = {}

    @staticmethod
    def create(root: str | Path, profile: str | None = None) -> Workspace:
        """Make a workspace in an empty or missing folder; an existing one is left as it is.

        Raises:
            UsageError: unknown profile, or the folder holds other things.
        """
        if profile is not None and profile not in PROFILES:
            raise UsageError(f"--profile {profile!r}: there is {', '.join(sorted(PROFILES))}.")
        storage = Storage(root)
        try:
            if storage.exists(_MARKER):
                raise UsageError(f"{root}: already a workspace.")
            if storage.names(".") or storage.folders("."):
                raise UsageError(f"{root}: not empty. Name a new folder.")
        except OSError as error:
            raise UsageError(f"{root}: no workspace can be made here: {error.strerror}.") from error
        from pipeline.versions import package_version

        try:
            for table in TABLES:
                storage.make_folder(f"tables/{table}")
            for kind in ("videos", "frames", "clips"):
                storage.make_folder(f"media/{kind}")
            storage.make_folder("releases")
            storage.write("avatar.toml", render_toml(profile).encode())
            marker = {"format": FORMAT, "version": package_version()}
            storage.write(_MARKER, (json.dumps(marker) + "\n").encode())
        except OSError as error:
            raise UsageError(f"{root}: no workspace can be made here: {error.strerror}.") from error
        return Workspace(root)

    def ledger(self, stage: str) -> Ledger:
        """The ledger of one stage."""
        if stage not in self._ledgers:
            self._ledgers[stage] = Ledger(self.storage, stage)
        return self._ledgers[stage]

    def ledgers(self) -> list[Ledger]:
        """Of every stage that has run here."""
        return [self.ledger(stage) for stage in self.storage.folders("commits")]

    def files(self, table: str) -> list[TableFile]:
        """The committed files of a table, in the order of their names.

        A commit that read a file of the table and wrote to it made a copy that stands in for that
        file, for as long as the file itself is in force.

        Raises:
            DamagedError: the table holds a file that no commit names, so a commit is missing.
        """
        # Before the commits: one that comes meanwhile is no surprise then.
        there = {f"tables/{table}/{name}" for name in self.storage.names(f"tables/{table}")}
        named = set()
        found: dict[tuple[str, str], list[TableFile]] = {}
        copies: dict[tuple[str, str], list[TableFile]] = {}
        for ledger in self.ledgers():
            for commit in ledger.commits():
                for file in (file for file in commit.files if file.table == table):
                    named.add(file.file)
                    if commit.input["table"] == table:
                        source = (commit.input["file"], commit.input["sha256"])
                        copies.setdefault(source, []).append(file)
                    else:
                        found[file.file, file.sha256] = [file]
        for orphan in sorted(there - named):
            if orphan.endswith(".parquet") and not PurePosixPath(orphan).name.startswith("."):
                raise _nameless(orphan)
        chosen = [copies.get(name, files) for name, files in found.items()]
        return sorted((file for files in chosen for file in files), key=lambda file: file.file)

    def producers(self, table: str) -> dict[str, str]:
        """The stages whose commits a table holds, with their stage keys."""
        keys = {}
        for ledger in self.ledgers():
            if ledger.files(table) and (generation := ledger.generation()):
                keys[ledger.stage] = generation.key
        return keys

    def rows(self, record: type[RecordT]) -> list[RecordT]:
        """All rows of a record's table, ordered by id."""
        found = [
            row
            for file in self.files(record.table)
            for row in read_records(record, self.storage, file.file, file.sha256)
        ]
        return sorted(found, key=lambda row: row.id)

    def digest(self, table: str) -> str:
        """The digest of a table's rows, whatever units or order made them."""
        return table_digest(self.rows(TABLES[table]))

    def arrow(self, table: str) -> Any:
        """A whole table as a ``pyarrow.Table``; columns younger than a file have their defaults."""
        import pyarrow as pa

        schema = arrow_schema(TABLES[table])
        parts = [schema.empty_table()]
        for file in self.files(table):
            part = read_arrow(self.storage, file.file, file.sha256)
            for column in schema:
                if column.name not in part.column_names:
                    default = TABLES[table].model_fields[column.name].default
                    values = pa.array([default] * len(part), column.type)
                    part = part.append_column(column, values)
            parts.append(part)
        return pa.concat_tables(parts, promote_options="default")


def _read_settings(storage: Storage, where: str) -> str:
    """The text of ``avatar.toml``; empty where there is none."""
    try:
        data = storage.read("avatar.toml")
    except FileNotFoundError:
        return ""
    except IsADirectoryError as error:
        raise ConfigError(f"{where}: is a folder, where the file of settings belongs.") from error
    try:
        return data.decode("utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{where}: line {line}: byte {data[error.start]:#04x} is not UTF-8. Save the file as"
            " UTF-8."
        ) from error


def _nameless(file: str) -> DamagedError:
    """About a file in a table that no commit names."""
    match = re.fullmatch(r"(.+)-(\d{6}-[^-]+)", PurePosixPath(file).stem)
    if match is None:
        return DamagedError(f"{file}: no commit names this file. Move it out of the workspace.")
    stage, unit = match.groups()
    return DamagedError(
        f"{file}: no commit names this file; commits/{stage}/units/{unit}.json is missing. Put that"
        f" back, or {way_out(stage)}."
    )


class Lookups:
    """The joined tables of a worker, each read once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._found: dict[tuple[str, str], Lookup[Any]] = {}

    @cached_property
    def _workspace(self) -> Workspace:
        return Workspace(self._storage.url)

    def __call__(self, table: str, column: str) -> Lookup[Any]:
        """Rows of ``table`` by the value of ``column``."""
        if (table, column) not in self._found:
            whole = self._workspace.arrow(table)
            self._found[table, column] = Lookup(TABLES[table], whole, column)
        return self._found[table, column]
