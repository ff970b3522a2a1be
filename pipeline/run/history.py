"""The whole history behind one id: what it came from, what came of it, who decided, with what."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import groupby, islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.records.schema import (
    TABLES,
    Clip,
    DropRow,
    FailureRow,
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
from pipeline.workspace.commit import ENDINGS, Commit, TableFile
from pipeline.workspace.commit_table import Content
from pipeline.workspace.id_index import IdIndex
from pipeline.workspace.table import read_arrow, read_records, to_records
from pipeline.workspace.workspace import Workspace

_SHORT = {
    Source: ("label", "split", "start_s"),
    Video: ("source_url", "title", "license", "format_id", "width", "height", "fps", "sha256"),
    Clip: ("start_s", "end_s", "active_seconds", "candidates", "rms_per_second"),
    Frame: ("frame_index", "time_s", "event_rms", "event_rank", "sharpness", "suspect", "path"),
    Sounds: ("tagger", "categories"),
    Proposal: (
        "bbox",
        "detector",
        "detector_class",
        "detector_score",
        "categories",
        "audible",
        "track_id",
    ),
    Review: ("kind", "purpose", "annotator", "decision", "updated_at", "lead_time_s", "verified"),
    Instance: ("bbox", "audio_visual_category", "scenario", "proposal_id", "track_id", "verified"),
    Mask: ("source", "area", "bbox", "predicted_iou", "stability", "model_digest", "verified"),
}

_BY_CONTENT = (Mask, Instance, Review, Proposal)
"""The rows whose ids are made from their content; the others' start with their video's."""

_ENOUGH = 50
"""The rows of a table that show which ids start alike."""

EndedT = TypeVar("EndedT", FailureRow, DropRow)


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
    with workspace.one_moment():
        finder = _Finder(workspace)
        start = finder.identify(some_id)
        records = finder.chain(start) if start else []
        outcomes: list[RowOutcome] = []
        for row_id in dict.fromkeys([some_id, *(record.id for record in records)]):
            outcomes += finder.outcomes(row_id)
        if not (start or outcomes):
            raise UsageError(f"{some_id!r}: no row of this workspace has that id.")
        return [finder.row(record) for record in records], outcomes


class _Finder:
    """Look for rows where the commits say they must be, and only else in whole tables.

    A commit says which rows of which file it answers for, and names the files that came of them. So
    what came of a video lies in the few files that are reached from its row of the list, commit by
    commit, and in those that were made of no file, such as people's answers, and what came of them.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._commits = workspace.commits()
        self._made_by: dict[str, int] = {}
        digests: dict[str, str] = {}
        for place, file, sha256, *_ in self._commits.files:
            self._made_by.setdefault(file, place)
            digests[file] = sha256
        self._readers: dict[Content, list[tuple[int, int, int]]] = {}
        """The commits that answer for rows of a file: place, first row, end."""
        for place, file, sha256, first, stop in self._commits.parts:
            self._readers.setdefault((file, sha256), []).append((place, first, stop))
        self._unlinked = {
            place
            for (file, sha256), readers in self._readers.items()
            if digests.get(file) != sha256
            for place, *_ in readers
        }
        self._listed = [
            (file, self._values(Source, file, Source.key)) for file in workspace.files(Source.table)
        ]
        self._reached: set[Content] | None = None
        """The files to look in, see ``_look_in``; none while that is all."""
        self._looked: set[int] | None = None
        """The commits that are reached, by their places; none while that is all."""
        self._homes: dict[tuple[str, str], str] = {}
        self._ids_of_ended = cache(partial(self._values, column="input_id"))
        self._known_without = cache(self._files_without)
        self._commit = cache(lambda place: self._commits.take([place]).commits()[0])

    # Where to look

    def _look_in(self, videos: Collection[str] | None) -> None:
        """Look from now on only in what may hold rows of these videos; in everything for none."""
        self._reached = self._looked = None
        if videos is None:
            return
        todo, reached, looked = list(self._unlinked), set(), set()
        for video_id in videos:
            for file, ids in self._listed:
                place = ids.index(video_id).as_py()
                if place >= 0:
                    reached.add(file.content)
                    read = self._readers.get(file.content, [])
                    todo += [one for one, first, stop in read if first <= place < stop]
        while todo:
            commit = todo.pop()
            looked.add(commit)
            for _, name, sha256, table, _ in self._commits.files_of(commit):
                content = name, sha256
                # Of a list only the units of these videos go on.
                if table != Source.table and content not in reached:
                    reached.add(content)
                    todo += [one for one, *_ in self._readers.get(content, [])]
        self._reached, self._looked = reached, looked

    def _videos_of(self, row: Record) -> list[str] | None:
        """Return the videos of the list that a row may be of; none where no id of it tells."""
        names = [getattr(row, name, None) for name in ("video_id", "clip_id", "frame_id")]
        # The ids of clips and frames start with their video's.
        return self._videos_that_start(*filter(None, names)) or None

    def _videos_that_start(self, *names: str) -> list[str]:
        """Return the videos of the list whose id one of these names starts with."""
        starts = {name[:length] for name in names for length in range(1, len(name) + 1)}
        return self._videos_where(lambda ids: pc.is_in(ids, pa.array(starts, pa.string())))

    def _videos_where(self, is_wanted: Callable[[Any], Any]) -> list[str]:
        return [
            video for _, ids in self._listed for video in ids.filter(is_wanted(ids)).to_pylist()
        ]

    @cached_property
    def _indexes(self) -> list[IdIndex]:
        storage = self.workspace.storage
        return [IdIndex(storage, ledger.folder) for ledger in self.workspace.ledgers()]

    def _files_without(self, some_id: str) -> frozenset[Content]:
        return frozenset(file for index in self._indexes for file in index.without(some_id))

    def _without(self, some_id: str) -> frozenset[Content]:
        """Return files that are known to hold no id that starts so; of a few none is asked for."""
        return self._known_without(some_id) if self._reached is None else frozenset()

    # Rows

    def _values(self, record: type[Record], file: TableFile, column: str) -> Any:
        """Read one column of a file, a ``pyarrow.ChunkedArray``."""
        storage = self.workspace.storage
        return read_arrow(record, storage, file.file, file.sha256, [column]).column(0)

    def _rows(
        self,
        record: type[Record],
        column: str,
        is_wanted: Callable[[Any], Any],
        without: Set[Content] = frozenset(),
    ) -> Iterator[Any]:
        """Yield the rows whose value in a column is wanted, in the order of the files.

        Args:
            record: of which table.
            column: which.
            is_wanted: given the column of a file, says of each value whether it is.
            without: files of which it is known that they hold none.
        """
        for file in self.workspace.files(record.table, self._reached):
            if file.content in without:
                continue
            wanted = is_wanted(self._values(record, file, column))
            if pc.any(wanted).as_py():
                whole = read_arrow(record, self.workspace.storage, file.file, file.sha256)
                rows = whole.filter(wanted).to_pylist()
                for row in to_records(record, rows, record.table):
                    self._homes.setdefault((record.table, getattr(row, record.key)), file.file)
                    yield row

    def where(self, record: type[Record], column: str, value: str | None) -> list[Any]:
        """Return the rows of a table with a value in a column, by id; none has no value."""
        if value is None:
            return []
        return sorted(
            self._rows(record, column, lambda found: pc.equal(found, value)),
            key=lambda row: row.id,
        )

    def identify(self, some_id: str) -> Record | None:
        """Find the row of an id, or of the start of one, and look from now on where it leads.

        Raises:
            UsageError: several ids start so.
        """
        every = list(reversed(TABLES.values()))
        alike = [record for record in _BY_CONTENT if self._first_id(record)[:2] == some_id[:2]]
        within = self._videos_that_start(some_id)
        begun = self._videos_where(lambda ids: pc.starts_with(ids, some_id))
        starts: dict[str, Record] = {}
        # From what reads least to what reads all.
        for videos, records in ((within, every), (None, alike), (begun[:2], every), (None, every)):
            if videos == [] or (records is every and videos is None and starts):
                continue
            self._look_in(videos)
            for row in self._starting(some_id, records):
                if row.id == some_id:
                    self._look_in(self._videos_of(row))
                    return row
                starts.setdefault(row.id, row)
        if len(starts) > 1:
            some = ", ".join(sorted(starts)[:5])
            raise UsageError(f"{some_id!r}: several ids start so: {some}, ...")
        found = next(iter(starts.values()), None)
        self._look_in(self._videos_of(found) if found else None)
        return found

    def _starting(self, some_id: str, records: Iterable[type[Record]]) -> Iterator[Record]:
        """Yield rows whose key starts so; some of each table are enough."""
        for record in records:
            rows = self._rows(
                record,
                record.key,
                lambda found: pc.starts_with(found, some_id),
                self._without(some_id),
            )
            yield from islice(rows, _ENOUGH)

    def _first_id(self, record: type[Record]) -> str:
        """Return any id of a table, to see what they look like; empty where it has none."""
        ids = (self._values(record, one, record.key) for one in self.workspace.files(record.table))
        return next((str(names[0]) for names in ids if len(names)), "")

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
        if of_video or isinstance(start, Clip) or (isinstance(start, Sounds) and not frame_id):
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

    # Who made them, and how they ended

    def row(self, record: Record) -> HistoryRow:
        """Return a record that was found, with the commit that made it."""
        file = self._homes[record.table, getattr(record, record.key)]
        while file in self._made_by:
            commit = self._commit(self._made_by[file])
            is_copy = commit.input.table == record.table
            if not is_copy or getattr(record, "source", "") == "annotator":
                generation = self.workspace.ledger(commit.stage).generation()
                return HistoryRow(record, commit, generation.config if generation else {})
            (original,) = commit.input.parts  # see Workspace.files
            file = original.file
        return HistoryRow(record, None, {})

    def outcomes(self, row_id: str) -> list[RowOutcome]:
        """Return where a row went no further: failures as they stand now, and drops."""
        found = []
        for stage, commits in groupby(self._ending(row_id), key=lambda one: one.stage):
            failure: FailureRow | None = None
            drops: list[DropRow] = []
            for commit in commits:
                failure = None if row_id in commit.ids else failure
                for row in self._ended(commit, FailureRow, "failures", row_id):
                    failure = row
                drops += self._ended(commit, DropRow, "drops", row_id)
            if failure:
                ending = f"failed: {failure.kind}"
                found.append(RowOutcome(stage, row_id, ending, failure.detail))
            for drop in drops:
                ending = f"dropped: {drop.reason}"
                found.append(RowOutcome(stage, row_id, ending, drop.detail))
        return found

    def _ending(self, row_id: str) -> Iterator[Commit]:
        """Yield, in order, the commits that may say how a row ended, or tried it again."""
        without, commits = self._without(row_id), self._commits
        every = range(len(commits)) if self._looked is None else self._looked
        files = (file for place in every for file in commits.files_of(place))
        places = {
            place
            for place, file, sha256, table, _ in files
            if table in ENDINGS and (file, sha256) not in without
        }
        places |= {*commits.retries.get(row_id, [])} & {*every}
        for place in sorted(places):
            yield self._commit(place)

    def _ended(self, commit: Commit, record: type[EndedT], table: str, row_id: str) -> list[EndedT]:
        """Return the rows about ``row_id`` in one unit's drops or failures."""
        found = []
        for file in commit.files:
            if file.table == table and file.content not in self._without(row_id):
                ids = self._ids_of_ended(record, file)
                if ids.index(row_id).as_py() >= 0:
                    rows = read_records(record, self.workspace.storage, file.file, file.sha256)
                    found += [row for row in rows if row.input_id == row_id]
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
