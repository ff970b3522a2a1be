"""The tables of a workspace part by part, so that none is in memory as a whole.

A part has all rows of some videos, and the parts follow the order of the videos. A review of a
frame that another sampling left out waits for it, and is in none ('settle' lists it). The rows of a
table lie in its files in any order, so they are sorted into parts first, on the disk and as Arrow
columns; only those of the part that is looked at become records. In memory stay the ids of clips
and frames, some 100 bytes a frame.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from exports.release.selection import ReleaseTables
from pipeline.errors import AvatarBuildError, DamagedError
from pipeline.records.schema import TABLES, Record, arrow_schema
from pipeline.workspace.commit import TableFile
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import read_records, to_records
from pipeline.workspace.workspace import Workspace

TablesT = TypeVar("TablesT", bound=ReleaseTables)

_TOGETHER = 4096
"""The frames of a part, and those of its last video on top."""
_SORTED = 64_000_000
"""Bytes of a table that are sorted into parts together."""
_BY = {"sounds": "clip_id", "reviews": "frame_id", "instances": "frame_id", "masks": "frame_id"}
_BY |= {"proposals": "frame_id"}
"""The column that says of which clip or frame a row is; the other tables name their video."""


class Parts(Generic[TablesT]):
    """The rows of a workspace in parts; iterate over it as often as you like.

    Args:
        workspace: whose.
        kind: the tables that are wanted, by the names of its fields.
        folder: a place on the disk for the sorted rows.
    """

    def __init__(self, workspace: Workspace, kind: type[TablesT], folder: Path) -> None:
        self._workspace, self._kind, self._folder = workspace, kind, folder
        self._names = [field.name for field in fields(kind)]
        with workspace.one_moment():
            self._files = {name: workspace.files(name) for name in self._names}
        clips = self._columns("clips", "clip_id", "video_id")
        frames = self._columns("frames", "frame_id", "video_id")
        of_video = _Numbering.of_videos(
            self._columns("videos", "video_id").column(0), clips.column(1), frames.column(1)
        )
        self.clip_ids: list[str] = clips.column(0).to_pylist()
        """The ids of all clips."""
        self._frame_ids = frames.column(0)
        self._number = of_video.parts
        self._of = {
            "video_id": of_video,
            "clip_id": _Numbering(clips.column(0), of_video.of(clips.column(1)), self._number),
            "frame_id": _Numbering(frames.column(0), of_video.of(frames.column(1)), self._number),
        }
        self._batches: dict[str, list[list[int]]] = {}
        if self._number > 1:
            for name in self._names:
                self._sort(name)

    def _columns(self, table: str, *columns: str) -> Any:
        return self._workspace.arrow(table, self._files[table], columns)

    def __iter__(self) -> Iterator[TablesT]:
        for part in range(self._number):
            yield self._kind(**{name: self._rows(name, part) for name in self._names})

    def _rows(self, name: str, part: int) -> list[Any]:
        record, files = TABLES[name], self._files[name]
        if self._number == 1:
            rows: list[Any] = [row for file in files for row in self._read(record, file)]
            if name != "reviews":
                return rows
            known = set(self._frame_ids.to_pylist())
            return [row for row in rows if row.frame_id in known]
        with pa.OSFile(str(self._path(name))) as source:
            reader = pa.ipc.open_file(source)
            batches = [reader.get_batch(number) for number in self._batches[name][part]]
        table = pa.Table.from_batches(batches, arrow_schema(record))
        try:
            return to_records(record, table.to_pylist(), f"tables/{name}")
        except DamagedError:
            for file in files:  # which names the file and the row in it
                self._read(record, file)
            raise

    def _read(self, record: type[Record], file: TableFile) -> list[Record]:
        return read_records(record, self._workspace.storage, file.file, file.sha256)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.arrow"

    def _sort(self, name: str) -> None:
        """Write a table's rows part by part, some files of it at a time."""
        record = TABLES[name]
        schema = arrow_schema(record)
        self._batches[name] = [[] for _ in range(self._number)]
        ids = array("q")
        written = 0
        with pa.OSFile(str(self._path(name)), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
            for table in self._some_files(name):
                column = table.column(record.key)
                ids.extend(map(hash, column.to_pylist()))
                parts = self._parts_of(name, table)
                order = np.argsort(parts, kind="stable")
                order = order[np.searchsorted(parts[order], 0) :]  # less those that wait
                table, parts = table.take(order), parts[order]
                starts = np.searchsorted(parts, np.arange(self._number + 1))
                for part in np.unique(parts).tolist():
                    rows = table.slice(starts[part], starts[part + 1] - starts[part])
                    for batch in rows.combine_chunks().to_batches():
                        out.write_batch(batch)
                        self._batches[name][part].append(written)
                        written += 1
        if len(np.unique(np.frombuffer(ids, np.int64))) < len(ids):
            self._check_once(name)

    def _some_files(self, name: str) -> Iterator[Any]:
        held: list[Any] = []
        size = 0
        for file in self._files[name]:
            held.append(self._workspace.arrow(name, [file]))
            size += held[-1].nbytes
            if size >= _SORTED:
                yield pa.concat_tables(held)
                held, size = [], 0
        if held:
            yield pa.concat_tables(held)

    def _parts_of(self, name: str, table: Any) -> NDArray[np.int64]:
        """Return the part of each row; -1 of a review that waits for its frame."""
        column = _BY.get(name, "video_id")
        parts = self._of[column].of(table.column(column))
        # What else belongs to nothing contradicts a table, which is found in whichever part.
        return parts if name == "reviews" else np.maximum(parts, 0)

    def _check_once(self, name: str) -> None:
        key = TABLES[name].key
        times = Counter(self._columns(name, key).column(0).to_pylist())
        for value, count in times.most_common(1):
            if count > 1:
                raise AvatarBuildError(
                    f"tables/{name}: {key} {value[:80]!r} is there twice. The tables come from"
                    " different runs; 'avatar-build status' shows which stage to run again."
                )


class _Numbering:
    """The part of everything that has an id."""

    def __init__(self, ids: Any, part_of: NDArray[np.int64], parts: int) -> None:
        self._ids, self._part_of, self.parts = ids, part_of, parts

    @classmethod
    def of_videos(cls, *columns: Any) -> _Numbering:
        """Part videos by their order; the last column has one row per frame."""
        types = [column.cast(pa.string()) for column in columns]
        names = pa.chunked_array([chunk for one in types for chunk in one.chunks], pa.string())
        counts = names.value_counts()
        order = pc.sort_indices(counts.field("values"))
        # A video counts itself, its clips and its frames: close enough to its frames.
        before = np.cumsum(counts.field("counts").take(order).to_numpy()) - 1
        part_of = before // _TOGETHER
        _, part_of = np.unique(part_of, return_inverse=True)
        parts = int(part_of[-1]) + 1 if len(part_of) else 1
        return cls(counts.field("values").take(order), part_of.astype(np.int64), parts)

    def of(self, values: Any) -> NDArray[np.int64]:
        """Return the part of each value; -1 of what is not known."""
        places = pc.index_in(values, value_set=self._ids)
        known = pc.is_valid(places).to_numpy(zero_copy_only=False)
        found = np.full(len(values), -1, np.int64)
        found[known] = self._part_of[places.drop_null().to_numpy()]
        return found


@contextmanager
def parts_of(workspace: Workspace, kind: type[TablesT]) -> Iterator[Parts[TablesT]]:
    """Yield the tables of a workspace in parts, sorted on its own disk where it has one."""
    with tempfile.TemporaryDirectory(
        prefix=".tables.", suffix=".partial", dir=_scratch(workspace.storage)
    ) as folder:
        yield Parts(workspace, kind, Path(folder))


def _scratch(storage: Storage) -> Path | None:
    """Return the folder of releases, from which what a killed export leaves is swept."""
    place = storage.local_path("releases")
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
    return place
