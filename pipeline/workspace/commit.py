"""The generations, units and commits that a ledger's files hold, checked when they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
)

from pipeline.errors import DamagedError
from pipeline.records.schema import Record, digest_of
from pipeline.words import plain, short
from pipeline.workspace.table import way_out

DIGEST = "digest"
"""The key under which a JSON file holds the digest of the rest of it."""

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""The errors of reading JSON that is not what was written."""

ENDINGS = ("drops", "failures")
"""The files that a unit has besides those of tables."""

Contents = dict[str, tuple[type[Record], list[Any]]]
"""The rows of a unit: per table (or ``drops``, ``failures``) its record and its rows."""


class _Stored:
    """A part of a JSON file: its fields are checked when read, and others are errors."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class _OfFile(_Stored):
    """Something that is said of a Parquet file."""

    file: str
    sha256: str

    @property
    def content(self) -> tuple[str, str]:
        """Return which file it is, and of which bytes."""
        return self.file, self.sha256


@dataclass(frozen=True)
class TableFile(_OfFile):
    """A Parquet file that a commit answers for."""

    table: str
    """Table name; ``drops`` or ``failures`` for those."""
    rows: StrictInt


@dataclass(frozen=True)
class Rows(_OfFile):
    """A range of a file's rows: ``first`` to ``stop - 1``."""

    first: StrictInt
    stop: StrictInt


@dataclass(frozen=True)
class _OfParts(_Stored):
    """Something that is said of rows that may lie in several files."""

    parts: tuple[Rows, ...]
    """A range of one file, or several files whole; in a retry any ranges."""

    @property
    def contents(self) -> frozenset[tuple[str, str]]:
        """Return which files it is of, and of which bytes."""
        return frozenset(part.content for part in self.parts)

    @property
    def where(self) -> str:
        """Name its files, for people."""
        first = self.parts[0].file if self.parts else "no file"
        return first + (f" and {len(self.parts) - 1} more" if self.parts[1:] else "")


@dataclass(frozen=True)
class Input(_OfParts):
    """The rows a commit answers for."""

    table: str


@dataclass(frozen=True)
class Unit(_OfParts):
    """Rows of a stage's input that are done together, or some of them again."""

    ordinal: StrictInt
    """Place in the stage's plan; a later unit's answer about a row replaces an earlier one's."""
    name: str
    ids: tuple[str, ...] = ()
    """Set in a retry: only these rows of the range."""
    attempts: tuple[StrictInt, ...] = ()
    """Set in a retry: how often each was tried before."""
    again: bool = False
    """Set where rows that are done are done again, for their media is lost; in no plan."""

    @property
    def num_rows(self) -> int:
        """Return the number of rows to do."""
        return len(self.ids) or sum(part.stop - part.first for part in self.parts)


def _in_parts(stored: Any) -> Any:
    """Take what was stored when a unit was a range of one file for what it is today."""
    if not isinstance(stored, dict) or "parts" in stored:
        return stored
    of_part = [one.name for one in fields(Rows)]
    rest = {name: value for name, value in stored.items() if name not in of_part}
    return {**rest, "parts": [{name: stored[name] for name in of_part if name in stored}]}


Units = list[Annotated[Unit, BeforeValidator(_in_parts)]]
"""The units of a plan, as ``checked`` reads them."""


def in_force(plan: Sequence[Unit], live: Set[tuple[str, str]]) -> list[Unit]:
    """Return the units of a plan that stand.

    A unit stands while all its files do. When one goes, the rows of the others are planned anew;
    should it come back, the later units keep them.

    Args:
        plan: in order.
        live: the files of the input that are in force, by name and digest.
    """
    # A file is divided at once, from its first row on.
    begun = {
        part.content: unit.ordinal
        for unit in plan
        for part in unit.parts
        if part.first == 0 and not unit.ids
    }
    return [
        unit
        for unit in plan
        if unit.contents <= live
        and all(unit.ordinal >= begun.get(part.content, 0) for part in unit.parts)
    ]


@dataclass(frozen=True)
class Generation(_Stored):
    """Everything that decides a stage's answers, besides its input."""

    stage: str
    version: StrictInt
    config: dict[str, Any]
    fingerprint: dict[str, str]
    upstream: dict[str, str]
    """Keys of the stages whose tables are joined in."""

    @property
    def key(self) -> str:
        """Return the stage key: SHA-256 over all of it."""
        return digest_of(asdict(self))


def _with(*keys: str) -> AfterValidator:
    """Insist that a JSON object has these keys."""

    def check(found: dict[str, Any]) -> dict[str, Any]:
        for key in keys:
            if key not in found:
                raise ValueError(f"{key!r} is missing")
        return found

    return AfterValidator(check)


@dataclass(frozen=True)
class Commit(_Stored):
    """A finished unit."""

    unit: str
    ordinal: StrictInt
    stage: str
    stage_key: str
    unit_key: str
    input: Annotated[Input, BeforeValidator(_in_parts)]
    files: tuple[TableFile, ...]
    counts: Annotated[dict[str, StrictInt], _with("input", "ok", "dropped", "failed")]
    """``input``, ``ok``, ``dropped``, ``failed``, and ``children:<table>``."""
    code_revision: str
    versions: dict[str, str]
    started: str
    wall_s: StrictFloat
    cpu_s: StrictFloat
    ids: tuple[str, ...] = ()
    """Set in a retry: the rows it answers again."""
    endings: Annotated[dict[str, dict[str, StrictInt]], _with("drops", "failures")] | None = None
    """The numbers of rows by reason and by kind of failure; none in old commits."""

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        return sealed(asdict(self))

    @staticmethod
    def from_json(data: bytes, where: str) -> Commit:
        """Read a commit back.

        Raises:
            DamagedError: when it is no commit of this version, or not what was written.
        """
        try:
            found: Commit = checked(Commit, unsealed(data))
        except UNREADABLE as error:
            stage, unit = where.split("/")[1], PurePosixPath(where).name
            raise DamagedError(
                f"{where}: not a commit this version can read: {what_is_wrong(error)}. Put the file"
                f" back, or {way_out(stage)}. (It is of the unit {unit.removesuffix('.json')}.)"
            ) from error
        return found


def checked(kind: Any, stored: Any) -> Any:
    """Make what was stored into one of these, its fields checked.

    Raises:
        ValidationError: it is none.
    """
    return _reader(kind).validate_python(stored)


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    """Make what reads and checks one kind of stored thing, when it is first asked for."""
    return TypeAdapter(kind)


def sealed(document: dict[str, Any]) -> bytes:
    """Write a JSON file that holds a digest of itself."""
    whole = {**document, DIGEST: digest_of(document)}
    return (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """Read what ``sealed`` was given; files older than the digest have none.

    Raises:
        ValueError: it is not what was written.
    """
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    digest = document.pop(DIGEST, None)
    if digest is not None and digest != digest_of(document):
        raise ValueError("not what was written: damaged or edited")
    return document


def what_is_wrong(error: Exception) -> str:
    """Say what is wrong with a JSON file, in one line."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {plain(first)} (got {short(first['input'])})"
    return " ".join(str(error).split()) or type(error).__name__
