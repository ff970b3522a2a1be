"""A workspace: settings, tables, commits and media below one folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import PROFILES, Config, load_config, render_toml
from pipeline.errors import UsageError
from pipeline.ledger import Ledger, TableFile
from pipeline.schema import TABLES, Record, arrow_schema
from pipeline.storage import Storage
from pipeline.table import Lookup, read_arrow, read_records, table_digest

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
            raise UsageError(
                f"{root}: no workspace here. Make one with 'avatar-build init {root}',"
                " or name another with --workspace."
            )
        made = json.loads(self.storage.read(_MARKER))
        if made.get("format") != FORMAT:
            raise UsageError(
                f"{root}: a workspace of format {made.get('format')} (made by avatar-build"
                f" {made.get('version')}), this version reads format {FORMAT}. Use that version,"
                " or start a new workspace: downloaded videos can be reused as a mirror."
            )
        toml = self.storage.read("avatar.toml") if self.storage.exists("avatar.toml") else b""
        self.config: Config = load_config(toml.decode(), settings, where=f"{root}/avatar.toml")
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
        if storage.exists(_MARKER):
            raise UsageError(f"{root}: already a workspace.")
        if storage.names(".") or storage.folders("."):
            raise UsageError(f"{root}: not empty. Name a new folder.")
        from pipeline.versions import package_version

        for table in TABLES:
            storage.make_folder(f"tables/{table}")
        for kind in ("videos", "frames", "clips"):
            storage.make_folder(f"media/{kind}")
        storage.make_folder("releases")
        storage.write("avatar.toml", render_toml(profile).encode())
        marker = {"format": FORMAT, "version": package_version()}
        storage.write(_MARKER, (json.dumps(marker) + "\n").encode())
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
        """
        found: dict[tuple[str, str], list[TableFile]] = {}
        copies: dict[tuple[str, str], list[TableFile]] = {}
        for ledger in self.ledgers():
            for commit in ledger.commits():
                for file in (file for file in commit.files if file.table == table):
                    if commit.input["table"] == table:
                        source = (commit.input["file"], commit.input["sha256"])
                        copies.setdefault(source, []).append(file)
                    else:
                        found[file.file, file.sha256] = [file]
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
            for row in read_records(record, self.storage, file.file)
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
            part = read_arrow(self.storage, file.file)
            for column in schema:
                if column.name not in part.column_names:
                    default = TABLES[table].model_fields[column.name].default
                    values = pa.array([default] * len(part), column.type)
                    part = part.append_column(column, values)
            parts.append(part)
        return pa.concat_tables(parts, promote_options="default")


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
