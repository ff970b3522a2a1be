"""Media that is gone or another one since it was recorded, and the rows to do again for it.

A row whose media is lost stands as it is: its file is made again by the stage that made it, from
the same input. Where the same rows come of it, no table changes. Where others do, they take the
place of the old ones in their commit, and what was made of these is retired by the next runs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.flow import FLOW, STAGES
from pipeline.records.schema import Frame, Record, Video
from pipeline.workspace.commit import Unit
from pipeline.workspace.recorded import CHANGED, MISSING, UNSURE, file_state, is_there
from pipeline.workspace.workspace import Workspace

MADE_BY: dict[str, type[Video] | type[Frame]] = {
    step.name: record for record in (Video, Frame) for step in FLOW if step.writes == record.table
}
"""The stages that make media, with the record that names a file each."""

LOOKED_AT = 1_000
"""Files of each table that ``status`` looks at, so that it answers at once at any size."""


class LostFile(NamedTuple):
    """A row's file that is not there as recorded."""

    row_id: str
    video_id: str
    path: str
    kind: str
    """``missing_file``, ``changed_file``, or ``unsure`` where only a hash would tell."""


LOOKED_AT_REMOTE = 10
"""The same of a run with nothing to do on an object store, where every folder is a request."""


def looked_over(
    workspace: Workspace, record: type[Record], at_most: int | None = None
) -> Iterator[tuple[int, list[LostFile]]]:
    """Yield, for each of a table's files, how many rows were looked at and those not as recorded.

    Nothing is read but sizes, times and notes, and of the table what names them.

    Args:
        workspace: where.
        record: of the table.
        at_most: so many rows, of units drawn anew at each call; none for all.
    """
    units = workspace.files(record.table)
    left = sum(unit.rows for unit in units)
    if at_most is not None and left > at_most:
        random.shuffle(units)
        left = at_most
    names = list(dict.fromkeys([record.key, "video_id", "path", "sha256", "size_bytes"]))
    storage, noted = workspace.storage, record is Video
    with storage.listed_once():
        for unit in units:
            if left <= 0:
                return
            rows = workspace.arrow(record.table, [unit], names).slice(0, left).to_pylist()
            left -= len(rows)
            states = (
                file_state(storage, row["path"], row["sha256"], row["size_bytes"], noted=noted)
                for row in rows
            )
            yield (
                len(rows),
                [
                    LostFile(row[record.key], row["video_id"], row["path"], state)
                    for row, state in zip(rows, states, strict=True)
                    if state
                ],
            )


def lost_files(
    workspace: Workspace, record: type[Video] | type[Frame], kinds: Collection[str]
) -> Iterator[LostFile]:
    """Yield the files that are lost, each known for sure: what may have changed is hashed."""
    known = {file.row_id: file for _, found in looked_over(workspace, record) for file in found}
    for row in workspace.rows(record):
        file = known.get(row.id) or LostFile(row.id, row.video_id, row.path, UNSURE)
        if file.kind == UNSURE:
            if CHANGED not in kinds or not row.sha256:
                continue
            if is_there(workspace.storage, row.path, row.sha256, row.size_bytes):
                continue
            file = file._replace(kind=CHANGED)
        if file.kind in kinds:
            yield file


def units_again(workspace: Workspace, stage: str, kinds: Collection[str]) -> list[Unit]:
    """Return units of rows whose media is lost; each stands for a commit that is there."""
    if stage not in MADE_BY or not kinds:
        return []
    record = MADE_BY[stage]
    ledger = workspace.ledger(stage)
    wanted = {file.row_id: file.video_id for file in lost_files(workspace, record, kinds)}
    reads = STAGES[stage].load().spec.reads
    planned = {unit.name: unit for unit in ledger.plan()}
    found = []
    live = workspace.live(reads)
    for commit in ledger.commits() if wanted else []:
        if not commit.input.contents <= live:
            continue  # what it was made of is gone: the next run retires it
        rows = ledger.rows_of(commit, record, record.table)
        ids = {wanted[row.id] for row in rows if row.id in wanted}
        if ids and commit.unit in planned:
            unit = planned[commit.unit]
            chosen = tuple(sorted(ids))
            found.append(replace(unit, ids=chosen, attempts=(0,) * len(chosen), again=True))
    return found


_LOST_WORDS = {
    MISSING: ("missing", "missing"),
    CHANGED: ("changed", "changed"),
    UNSURE: ("unsure", "written to since, maybe changed"),
}
"""Each way to be lost: its key in ``--json``, and in words."""


@dataclass(frozen=True)
class MediaState:
    """The state of the files of a table, by their looks alone."""

    stage: str
    """The stage that makes them."""
    table: str
    files: int
    """The number of files of the table."""
    looked_at: int
    lost: Counter[str]
    """The files, among those looked at, that are ``missing_file``, ``changed_file``, ``unsure``."""
    first: str
    """The path of one that is not as recorded; empty when all are."""

    def as_dict(self) -> dict[str, int]:
        """Return the counts for ``--json``."""
        lost = {name: self.lost[kind] for kind, (name, _) in _LOST_WORDS.items()}
        return {"files": self.files, "looked_at": self.looked_at, **lost}

    def said(self) -> str:
        """Say what is wrong; empty when nothing is."""
        words = ((self.lost[kind], word) for kind, (_, word) in _LOST_WORDS.items())
        lost = ", ".join(f"{count} {word}" for count, word in words if count)
        looked = f"{self.looked_at} files" + (self.partly() and f" looked at of {self.files}")
        return f"{looked}: {lost}; the first: {self.first}" if lost else ""

    def partly(self) -> str:
        """Say that not all was looked at, and what looks at all; empty when all was."""
        if self.looked_at == self.files:
            return ""
        return (
            f"{self.table}: {self.looked_at:,} of {self.files:,} files looked at;"
            " 'avatar-build doctor' looks at all."
        )

    def way_back(self) -> str:
        """Return the command that makes them again."""
        kind = MISSING if self.lost[MISSING] else CHANGED
        return f"avatar-build retry --stage {self.stage} --kind {kind}"

    def line(self) -> str:
        """Say both, where something is wrong."""
        said = self.said()
        return f"{self.table}: {said}. Make them again: {self.way_back()}" if said else ""


def media_states(
    workspace: Workspace, of: str | None = None, at_most: int | None = None
) -> list[MediaState]:
    """Look at the media of the tables that have some.

    Args:
        workspace: where.
        of: the stage that made it; none for every stage.
        at_most: about so many files of each table; none for all.
    """
    states = []
    for stage, record in MADE_BY.items():
        if of not in (None, stage):
            continue
        looked_at, lost, first = 0, Counter[str](), ""
        for rows, found in looked_over(workspace, record, at_most):
            looked_at += rows
            lost.update(file.kind for file in found)
            first = first or (found[0].path if found else "")
        if looked_at:
            total = sum(unit.rows for unit in workspace.files(record.table))
            states.append(MediaState(stage, record.table, total, looked_at, lost, first))
    return states
