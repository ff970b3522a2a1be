"""A workspace: settings, tables, commits and media below one folder."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pipeline.errors import ConfigError, DamagedError, StopRun, UsageError
from pipeline.records.schema import TABLES, Record, arrow_schema
from pipeline.words import command_line
from pipeline.workspace.commit import TableFile
from pipeline.workspace.commit_table import CommitTable, Content
from pipeline.workspace.ledger import Ledger, is_attempt
from pipeline.workspace.locks import settings_lock
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import Lookup, read_arrow, read_records, table_digest, way_out

if TYPE_CHECKING:
    import pandas

    from pipeline.config import Config

FORMAT = 1
"""The format of a workspace; raised when an older version could misread one."""

_MARKER = "commits/workspace.json"

RecordT = TypeVar("RecordT", bound=Record)


class Workspace:
    """An opened workspace.

    Args:
        root: folder or URL.
        settings: ``section.key=value`` on top of its ``avatar.toml``.

    Raises:
        UsageError: there is none, or one of another format.
        ConfigError: with ``settings``, one of these or of the file is wrong.
    """

    def __init__(self, root: str | Path, settings: Iterable[str] = ()) -> None:
        self.storage = Storage(root)
        try:
            marker = self.storage.read(_MARKER)
        except (FileNotFoundError, NotADirectoryError) as error:
            if self.storage.folders("commits"):
                raise DamagedError(
                    f"{root}/{_MARKER}: missing, beside the commits of a workspace. Put the file"
                    f' back, or write {{"format": {FORMAT}}} into it if this version made it.'
                ) from error
            raise UsageError(
                f"{root}: no workspace here. Make one with: {command_line('init', root)}"
                "  Or name another with --workspace."
            ) from error
        try:
            made = json.loads(marker)
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
        self._typed = tuple(settings)
        self._config: Config | None = None
        self._ledgers: dict[str, Ledger] = {}
        self._moment: dict[str, set[str]] | None = None
        """The names in each table as ``one_moment`` found them."""
        self._moments_files: dict[str, dict[Content, int]] = {}
        self._moments_commits: CommitTable | None = None
        if self._typed:
            _ = self.config  # what was typed is held against the rest at once

    @property
    def config(self) -> Config:
        """The settings: what was typed, on top of ``avatar.toml``, read when first asked for.

        Raises:
            ConfigError: one of them is wrong.
        """
        # Not cached_property: until Python 3.12 that reads for one workspace at a time.
        if self._config is None:
            from pipeline.config import load_config

            where = f"{self.storage.url}/avatar.toml"
            self._config = load_config(self._toml(), self._typed, where=where)
        return self._config

    def _toml(self) -> str:
        return _read_settings(self.storage, f"{self.storage.url}/avatar.toml")

    def keep_settings(self, section: str) -> list[str]:
        """Write what was typed of a section and decides its results into ``avatar.toml``.

        Call it where results are made with them. So the next command, without ``--set``, goes on
        with these results. What may hold a password is never written.

        Returns:
            What was done or could not be, in a line each.
        """
        from pipeline.config import load_config, typed_keys
        from pipeline.workspace.settings_file import render_value

        typed = typed_keys(self._typed)
        of_section = typed.get(section, [])
        where = f"{self.storage.url}/avatar.toml"
        if not of_section:
            return []
        with settings_lock(self.storage):
            toml = self._toml()
            before, now = getattr(load_config(toml), section), getattr(self.config, section)
            changed = [key for key in of_section if getattr(before, key) != getattr(now, key)]
            said = [
                f"{section}.{key} holds for this command alone, as it may hold a password; what is"
                f" to stay, write into {where}."
                for key in changed
                if key in now.private and not self.ledger(section).commits()  # once is enough
            ]
            kept = [key for key in changed if key not in now.unhashed]
            if not kept:
                return said
            try:
                self._check_writable()
                self.storage.write("avatar.toml", self._with_typed(toml, section, typed).encode())
            except (ConfigError, OSError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                return [
                    *said,
                    f"{where} cannot be changed ({why}), and these results were made with"
                    f" {', '.join(f'{section}.{key}' for key in kept)} as typed: write that there"
                    " yourself, or type it with every later command.",
                ]
        for key in kept:
            new, old = (render_value(getattr(found, key)) for found in (now, before))
            said.append(
                f"{where}: {section}.{key} = {new} (was {old}), as these results are made with it."
            )
        return said

    def _check_writable(self) -> None:
        """Refuse to replace, by a rename, a file that its owner protects or has linked."""
        path = self.storage.local_path("avatar.toml")
        if path is None or not path.exists():
            return
        if path.is_symlink():
            raise ConfigError("it is a link")
        if not path.stat().st_mode & 0o222:
            raise ConfigError("it is read-only")

    def _with_typed(self, toml: str, section: str, typed: Mapping[str, Sequence[str]]) -> str:
        """Return the file with what was typed of a section, or of all if valid only together."""
        from pipeline.config import load_config
        from pipeline.workspace.settings_file import with_settings

        resolved = self.config.model_dump(mode="json")
        for sections in ([section], typed):
            values = {
                name: {
                    key: resolved[name][key]
                    for key in typed[name]
                    if key not in getattr(self.config, name).unhashed
                }
                for name in sections
                if name != "run"
            }
            text = with_settings(toml, values)
            try:
                load_config(text)
            except ConfigError:
                continue
            break
        return text

    @classmethod
    def create(cls, root: str | Path, profile: str | None = None) -> Self:
        """Make a workspace in an empty or missing folder; an existing one is left as it is.

        Raises:
            UsageError: unknown profile, or the folder holds other things.
        """
        from pipeline.config import check_profile
        from pipeline.workspace.settings_file import render_toml

        if profile is not None:
            check_profile(profile)
        storage = Storage(root)
        from pipeline.versions import package_version

        try:
            if storage.exists(_MARKER):
                raise UsageError(f"{root}: already a workspace.")
            if storage.names(".") or storage.folders("."):
                raise UsageError(f"{root}: not empty. Name a new folder.")
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
        return cls(root)

    def ledger(self, stage: str) -> Ledger:
        """Return the ledger of one stage."""
        if stage not in self._ledgers:
            self._ledgers[stage] = Ledger(self.storage, stage)
        return self._ledgers[stage]

    def ledgers(self) -> list[Ledger]:
        """Return the ledgers of every stage that has run here."""
        return [self.ledger(stage) for stage in self.storage.folders("commits")]

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """Read what is committed once, for all that is asked of it inside the ``with``.

        A folder of 10,000 commits is listed once instead of for every question, and all answers
        are of the same moment. Nothing may be run inside.
        """
        if self._moment is not None:
            yield
            return
        with self.storage.listed_once():
            yield from self._one_moment()

    def _one_moment(self) -> Iterator[None]:
        # Tables before commits, as ``files`` does: what is committed meanwhile is no surprise then.
        self._moment = {table: self._names_in(table) for table in TABLES}
        held = self.ledgers()
        try:
            for ledger in held:
                ledger.committed.look()
                ledger.committed.held = True
            yield
        finally:
            self._moment, self._moments_files, self._moments_commits = None, {}, None
            for ledger in held:
                ledger.committed.held = False

    def commits(self) -> CommitTable:
        """Return the commits of every stage as columns, stage by stage."""
        if self._moments_commits is not None:
            return self._moments_commits
        found = CommitTable.joined(ledger.committed.table() for ledger in self.ledgers())
        if self._moment is not None:
            self._moments_commits = found
        return found

    def files(self, table: str, among: Collection[Content] | None = None) -> list[TableFile]:
        """Return the committed files of a table, in the order of their names.

        A commit that read a file of the table and wrote to it made a copy that stands in for that
        file, for as long as the file itself is in force.

        Args:
            table: its name.
            among: only those of these names and digests; none takes all.

        Raises:
            DamagedError: the table holds a file that no commit names, so a commit is missing.
        """
        found = self._moments_files.get(table)
        if found is None:
            found = self._files(table)
            if self._moment is not None:
                self._moments_files[table] = found
        return [
            TableFile(*content, table, rows)
            for content, rows in found.items()
            if among is None or content in among
        ]

    def _files(self, table: str) -> dict[Content, int]:
        """Return the rows of the files that ``files`` is of, by their names and digests."""
        # Before the commits: one that comes meanwhile is no surprise then.
        there = self._names_in(table) if self._moment is None else self._moment.get(table, set())
        commits = self.commits()
        written = [one for one in commits.files if one[3] == table]
        for orphan in sorted(there.difference(file for _, file, *_ in written)):
            name = PurePosixPath(orphan).name
            if is_attempt(name) and not self.storage.has_locks:
                continue  # of an attempt that is about to be committed, or was beaten
            if name.endswith(".parquet") and not name.startswith("."):
                raise _nameless(orphan)
        makers = {place for place, *_ in written if commits.inputs[place] == table}
        originals = {
            place: (file, sha256) for place, file, sha256, *_ in commits.parts if place in makers
        }
        found: dict[Content, int] = {}
        copies: dict[Content, dict[Content, int]] = {}
        for place, file, sha256, _, rows in written:
            if place in makers:
                copies.setdefault(originals[place], {})[file, sha256] = rows
            else:
                found[file, sha256] = rows
        for original in copies.keys() & found.keys():
            del found[original]
            found |= copies[original]
        return dict(sorted(found.items()))

    def live(self, *tables: str) -> set[Content]:
        """Return the committed files of tables by name and digest: what made of others is stale."""
        return {file.content for table in tables for file in self.files(table)}

    def _names_in(self, table: str) -> set[str]:
        return {f"tables/{table}/{name}" for name in self.storage.names(f"tables/{table}")}

    def producers(self, table: str) -> dict[str, str]:
        """Return the stages whose commits a table holds, with their stage keys."""
        keys = {}
        for ledger in self.ledgers():
            if ledger.files(table) and (generation := ledger.generation()):
                keys[ledger.stage] = generation.key
        return keys

    def rows(self, record: type[RecordT]) -> list[RecordT]:
        """Read all rows of a record's table, ordered by id."""
        found = [
            row
            for file in self.files(record.table)
            for row in read_records(record, self.storage, file.file, file.sha256)
        ]
        return sorted(found, key=lambda row: row.id)

    def digest(self, table: str) -> str:
        """Return the digest of a table's rows, whatever units or order made them."""
        return table_digest(self.rows(TABLES[table]))

    def arrow(
        self,
        table: str,
        among: Sequence[TableFile] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Any:
        """Read a table as a ``pyarrow.Table``; columns younger than a file have their defaults.

        Args:
            table: its name.
            among: only these of its files; none takes all.
            columns: only these of its columns; none takes all.
        """
        import pyarrow as pa

        schema = arrow_schema(TABLES[table])
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        # Not empty_table: that loads pandas, which costs status nearly as much as all the rest.
        parts = [pa.Table.from_batches([], schema)]
        for file in self.files(table) if among is None else among:
            parts.append(read_arrow(TABLES[table], self.storage, file.file, file.sha256, columns))
        return pa.concat_tables(parts, promote_options="default")

    def __repr__(self) -> str:
        rows = ((table, sum(file.rows for file in self.files(table))) for table in TABLES)
        held = ", ".join(f"{count} {table}" for table, count in rows if count)
        return f"Workspace({self.storage.url!r}: {held or 'empty'})"

    def table(self, name: str) -> pandas.DataFrame:
        """Read a whole table, ordered by id.

        Raises:
            UsageError: there is none of that name.
        """
        if name not in TABLES:
            raise UsageError(f"{name!r} is no table: there is {', '.join(TABLES)}.")
        frame: pandas.DataFrame = self.arrow(name).to_pandas()
        return frame.sort_values(TABLES[name].key, ignore_index=True)


def _read_settings(storage: Storage, where: str) -> str:
    """Read the text of ``avatar.toml``; empty where there is none."""
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
    """Make the error about a file in a table that no commit names."""
    match = re.fullmatch(r"(.+)-(\d{6}-[^-]+)", PurePosixPath(file).stem)
    if match is None:
        return DamagedError(f"{file}: no commit names this file. Move it out of the workspace.")
    stage, unit = match.groups()
    return DamagedError(
        f"{file}: no commit names this file; commits/{stage}/units/{unit}.json is missing. Put that"
        f" back, or {way_out(stage)}."
    )


class Lookups:
    """The joined tables of a worker, the columns they are looked up by each read once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._found: dict[tuple[str, str], Lookup[Any]] = {}

    @cached_property
    def _workspace(self) -> Workspace:
        return Workspace(self._storage.url)

    def __call__(self, table: str, column: str) -> Lookup[Any]:
        """Return rows of ``table`` by the value of ``column``."""
        if (table, column) not in self._found:
            files = [partial(self._read, table, file) for file in self._workspace.files(table)]
            self._found[table, column] = Lookup(TABLES[table], column, files)
        return self._found[table, column]

    def _read(self, table: str, file: TableFile, columns: Sequence[str] | None) -> Any:
        try:
            return read_arrow(TABLES[table], self._storage, file.file, file.sha256, columns)
        except DamagedError as error:
            if file.content in Workspace(self._storage.url).live(table):
                raise
            raise StopRun(
                f"{file.file}: its rows were done anew while they were being used. Run again."
            ) from error
