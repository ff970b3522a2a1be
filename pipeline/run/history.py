"""The whole history behind one id: what it came from, what came of it, who decided, with what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pipeline.errors import UsageError
from pipeline.records.schema import (
    TABLES,
    Clip,
    Frame,
    Instance,
    Mask,
    Proposal,
    Record,
    Review,
    Sounds,
    Source,
    Video,
)
from pipeline.workspace.ledger import Commit
from pipeline.workspace.table import to_records
from pipeline.workspace.workspace import Workspace

_SHORT = {
    Source: ("label", "split", "start_s"),
    Video: ("source_url", "title", "license", "format_id", "width", "height", "fps", "sha256"),
    Clip: ("start_s", "end_s", "active_seconds", "candidates", "rms_per_second"),
    Frame: ("frame_index", "time_s", "event_rms", "event_rank", "sharpness", "suspect", "path"),
    Sounds: ("tagger", "categories"),
    Proposal: ("bbox", "detector", "detector_class", "detector_score", "categories", "audible"),
    Review: ("kind", "purpose", "annotator", "decision", "updated_at", "lead_time_s", "verified"),
    Instance: ("bbox", "audio_visual_category", "scenario", "proposal_id", "verified"),
    Mask: ("source", "area", "bbox", "predicted_iou", "stability", "model_digest", "verified"),
}


@dataclass(frozen=True)
class HistoryRow:
    """A record of the history and the commit that made it."""

    record: Record
    commit: Commit | None
    config: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        made = None
        if self.commit:
            names = ("stage", "unit", "stage_key", "code_revision", "versions", "started")
            made = {name: getattr(self.commit, name) for name in names} | {"config": self.config}
        return {"table": self.record.table, "row": self.record.model_dump(), "made_by": made}

    def lines(self) -> Iterator[str]:
        """Yield lines for people."""
        yield f"{self.record.table:10} {self.record.id}"
        for name in _SHORT[type(self.record)]:
            value = _brief(getattr(self.record, name))
            if value not in ("", "None"):
                yield f"{'':12}{name:22} {value}"
        if self.commit:
            made = f"{self.commit.stage}, unit {self.commit.unit}, {self.commit.started}"
            yield f"{'':12}{'made by':22} {made}"
            yield f"{'':12}{'code':22} {self.commit.code_revision}"


@dataclass(frozen=True)
class RowOutcome:
    """A row that ended somewhere: a failure or a drop."""

    stage: str
    input_id: str
    ending: str
    detail: str


def history(workspace: Workspace, some_id: str) -> tuple[list[HistoryRow], list[RowOutcome]]:
    """Everything between a list row and a mask that ``some_id`` has part in.

    Args:
        workspace: where.
        some_id: the id of any row, or the start of one.

    Returns:
        The records it came from and those that came of it, in the order of the flow, and how
        its rows ended where they went no further.

    Raises:
        UsageError: nothing has that id, or several things start so.
    """
    finder = _Finder(workspace)
    outcomes = finder.outcomes(some_id)
    start = finder.identify(some_id)
    if start is None:
        if outcomes:
            return [], outcomes
        raise UsageError(f"{some_id!r}: no row of this workspace has that id.")
    records = finder.chain(start)
    for record in records:
        outcomes += [outcome for outcome in finder.outcomes(record.id) if outcome not in outcomes]
    return [finder.row(record) for record in records], outcomes


class _Finder:
    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.table = cache(workspace.arrow)

    def where(self, record: type[Record], column: str, value: str | None) -> list[Any]:
        """Return the rows of a table with a value in a column, by id; none has no value."""
        if value is None:
            return []
        import pyarrow.compute as pc

        table = self.table(record.table)
        rows = table.filter(pc.equal(table.column(column), value)).to_pylist()
        found = to_records(record, rows, record.table)
        return sorted(found, key=lambda row: row.id)

    def identify(self, some_id: str) -> Record | None:
        import pyarrow.compute as pc

        starts: dict[str, Record] = {}
        for record in reversed(TABLES.values()):
            table = self.table(record.table)
            hits = table.filter(pc.starts_with(table.column(record.key), pattern=some_id))
            for row in to_records(record, hits.slice(0, 50).to_pylist(), record.table):
                if row.id == some_id:
                    return row
                starts.setdefault(row.id, row)
        if len(starts) > 1:
            some = ", ".join(sorted(starts)[:5])
            raise UsageError(f"{some_id!r}: {len(starts)} ids start so: {some}, ...")
        return next(iter(starts.values()), None)

    def chain(self, start: Record) -> list[Record]:
        """Follow the flow from the video down to what ``start`` is, then to what came of it."""
        frame_id = getattr(start, "frame_id", None)
        frames = self.where(Frame, "frame_id", frame_id)
        at = frames[0] if frames else start
        video_id = getattr(at, "video_id", None)
        of_video = isinstance(start, (Source, Video))
        place = ("video_id", video_id) if of_video else ("clip_id", getattr(at, "clip_id", None))
        clips = self.where(Clip, *place)
        video_id = video_id or (clips[0].video_id if clips else None)
        found = self.where(Source, "video_id", video_id) + self.where(Video, "video_id", video_id)
        found += clips
        for clip in clips:
            heard = self.where(Sounds, "clip_id", clip.clip_id)
            found += [row for row in heard if not frame_id or row.frame_id in (None, frame_id)]
        if of_video or isinstance(start, Clip):
            return found + self.where(Frame, *place)
        return found + frames + self._below(start, frame_id)

    def _below(self, start: Record, frame_id: str | None) -> list[Record]:
        proposals = self.where(Proposal, "frame_id", frame_id)
        reviews = self.where(Review, "frame_id", frame_id)
        instances = self.where(Instance, "frame_id", frame_id)
        masks = self.where(Mask, "frame_id", frame_id)
        if isinstance(start, (Instance, Mask)):
            instances = [row for row in instances if row.id == start.id]
            masks = [row for row in masks if row.id == start.id]
            origins = {row.proposal_id for row in instances}
            review_ids = {review for row in instances for review in row.review_ids}
            proposals = [row for row in proposals if row.id in origins]
            reviews = [
                row
                for row in reviews
                if row.id in review_ids or any(one.instance_id == start.id for one in row.instances)
            ]
        elif isinstance(start, Proposal):
            proposals = [row for row in proposals if row.id == start.id]
            instances = [row for row in instances if row.proposal_id == start.id]
            masks = [row for row in masks if row.id in {one.id for one in instances}]
        return [*proposals, *reviews, *instances, *masks]

    def row(self, record: Record) -> HistoryRow:
        import pyarrow.compute as pc

        from pipeline.workspace.table import read_arrow

        for file in self.workspace.files(record.table):
            table = read_arrow(type(record), self.workspace.storage, file.file, file.sha256)
            if pc.any(pc.equal(table.column(record.key), getattr(record, record.key))).as_py():
                return self._made(record, file.file)
        return HistoryRow(record, None, {})

    def _made(self, record: Record, file: str) -> HistoryRow:
        for ledger in self.workspace.ledgers():
            for commit in ledger.commits():
                if all(made.file != file for made in commit.files):
                    continue
                copied = commit.input.table == record.table and commit.input.file
                if copied and getattr(record, "source", "") != "annotator":
                    return self._made(record, copied)
                generation = ledger.generation()
                return HistoryRow(record, commit, generation.config if generation else {})
        return HistoryRow(record, None, {})

    def outcomes(self, row_id: str) -> list[RowOutcome]:
        found = []
        for ledger in self.workspace.ledgers():
            for failure in ledger.failures():
                if failure.input_id == row_id:
                    ending = f"failed: {failure.kind}"
                    found.append(RowOutcome(ledger.stage, row_id, ending, failure.detail))
            for drop in ledger.drops():
                if drop.input_id == row_id:
                    found.append(
                        RowOutcome(ledger.stage, row_id, f"dropped: {drop.reason}", drop.detail)
                    )
        return found


def _brief(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        if value and all(isinstance(item, float) for item in value):
            return "[" + ", ".join(f"{item:.4g}" for item in value) + "]"
        return ", ".join(
            f"{item.category} {item.score:.2f}{'' if item.active else ' (inactive)'}"
            if hasattr(item, "category")
            else str(item)
            for item in value
        )
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."
