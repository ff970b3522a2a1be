"""Rows survive Parquet, and a bad row is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records.schema import (
    TABLES,
    Clip,
    Record,
    Review,
    Sounds,
    Source,
    Video,
    arrow_schema,
)
from pipeline.workspace import table
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import Lookup, TableError, read_records, table_digest, to_parquet

NUMBERS = st.floats(0.001, 1e6)
TEXT = st.text(max_size=12)
SOURCES = st.builds(Source, video_id=TEXT, label=TEXT, split=TEXT, start_s=st.integers(0, 999))
BOXES = st.lists(NUMBERS, min_size=4, max_size=4)
INSTANCES = st.fixed_dictionaries(
    {
        "bbox": BOXES,
        "category": TEXT,
        "scenario": st.sampled_from(["Single-sound", "Mixed-sound", "Multi-entity"]),
        "origin": st.sampled_from(["kept", "moved", "added"]),
        "proposal_id": st.none() | TEXT,
        "rle": st.none() | st.just({"size": [2, 3], "counts": "06"}),
    }
)
REVIEWS = st.builds(
    lambda **values: Review.model_validate(values),
    review_id=TEXT,
    frame_id=TEXT,
    kind=st.sampled_from(["boxes", "masks"]),
    annotator=TEXT,
    annotation_id=TEXT,
    updated_at=TEXT,
    lead_time_s=st.none() | NUMBERS,
    decision=st.sampled_from(["labelled", "off_screen", "rejected", "back_to_boxes"]),
    reject_reasons=st.lists(TEXT, max_size=3),
    off_screen_category=st.none() | TEXT,
    instances=st.lists(INSTANCES, max_size=3),
    verified=st.booleans(),
)


@given(st.lists(SOURCES, max_size=5) | st.lists(REVIEWS, max_size=5))
def test_rows_survive_parquet(rows: list[Record]) -> None:
    record = type(rows[0]) if rows else Source
    data = to_parquet(record, rows)
    assert to_parquet(record, rows) == data
    read = pq.read_table(io.BytesIO(data)).to_pylist()
    assert [record.model_validate(row) for row in read] == rows


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_has_an_arrow_schema_with_its_columns(name: str) -> None:
    record = TABLES[name]
    assert arrow_schema(record).names == list(record.model_fields)
    assert record.key in record.model_fields


VIDEO: dict[str, Any] = {
    "video_id": "v",
    "label": "dog barking",
    "split": "test",
    "source_url": "",
    "path": "media/videos/v.mp4",
    "sha256": "",
    "size_bytes": 1,
    "width": 640,
    "height": 360,
    "fps": 25.0,
    "frame_count": 250,
    "duration_s": 10.0,
    "bitrate_bps": 1000,
    "video_codec": "h264",
    "audio_codec": "aac",
    "sample_rate_hz": 44100,
    "channels": 2,
    "license": "",
    "title": "",
    "uploader": "",
    "upload_date": "",
    "format_id": "18",
}


def test_a_bad_row_is_named_with_file_row_column_and_value(tmp_path: Path) -> None:
    rows = [VIDEO, {**VIDEO, "fps": 0.0}]
    pq.write_table(pa.Table.from_pylist(rows, arrow_schema(Video)), tmp_path / "part.parquet")
    with pytest.raises(TableError) as caught:
        read_records(Video, Storage(tmp_path), "part.parquet")
    expected = (
        "part.parquet, row 1: fps: input should be greater than 0 (got 0.0), reading a Video."
    )
    assert str(caught.value) == expected


def test_a_missing_and_a_foreign_file_say_so(tmp_path: Path) -> None:
    (tmp_path / "page.parquet").write_text("<html>")
    with pytest.raises(TableError, match="it is gone"):
        read_records(Video, Storage(tmp_path), "none.parquet")
    with pytest.raises(TableError, match="not a Parquet file"):
        read_records(Video, Storage(tmp_path), "page.parquet")


@given(st.lists(SOURCES, max_size=6, unique_by=lambda row: row.video_id), st.randoms())
def test_the_digest_knows_rows_but_not_their_order(rows: list[Source], dice: Any) -> None:
    shuffled = list(rows)
    dice.shuffle(shuffled)
    assert table_digest(shuffled) == table_digest(rows)
    if rows:
        assert table_digest(rows[1:]) != table_digest(rows)


CLIPS = [
    {
        "clip_id": f"{video}_{start}",
        "video_id": video,
        "start_s": start,
        "end_s": start + 10.0,
        "active_seconds": 5,
        "rms_per_second": [],
        "candidates": 1,
    }
    for video, start in (("b", 3.0), ("a", 1.0), ("b", 2.0))
]


def _reader(record: type[Record], rows: list[dict[str, Any]]) -> Any:
    """What reads the columns of one file of a table."""
    table = pa.Table.from_pylist(rows, arrow_schema(record))
    return lambda columns: table if columns is None else table.select(columns)


def test_a_lookup_finds_all_rows_of_a_value_and_one_when_there_is_one() -> None:
    lookup = Lookup(Clip, "video_id", [_reader(Clip, CLIPS)])
    assert [row.clip_id for row in lookup.rows("b")] == ["b_2.0", "b_3.0"]
    assert lookup.one("c") is None
    assert lookup.one("a") is not None
    with pytest.raises(TableError, match="2 rows with video_id = 'b'"):
        lookup.one("b")


@given(
    st.lists(
        st.lists(st.sampled_from(["", "a", "aé", "b", "\U0001f600", "\uffff", None]), max_size=4),
        max_size=40,
    )
)
def test_a_lookup_over_many_files_is_a_search_through_all_their_rows(
    files: list[list[str | None]],
) -> None:
    rows: list[list[dict[str, Any]]] = [
        [
            {"clip_id": f"{number}", "tagger": f"{place}", "frame_id": value}
            | {"classes": [], "categories": []}
            for place, value in enumerate(values)
        ]
        for number, values in enumerate(files)
    ]
    lookup = Lookup(Sounds, "frame_id", [_reader(Sounds, part) for part in rows])
    for asked in ["", "a", "aé", "b", "c", "\U0001f600", "\uffff", None] * 2:
        every = [Sounds.model_validate(row) for part in rows for row in part]
        found = [row for row in every if row.frame_id == asked]
        assert lookup.rows(asked) == sorted(found, key=lambda row: row.id)


def test_a_lookup_reads_a_file_when_it_is_asked_of_it_and_not_again() -> None:
    read: list[tuple[int, bool]] = []

    def reader(number: int) -> Any:
        rows = [{**CLIPS[0], "clip_id": f"{number}_{n}", "video_id": f"{number}"} for n in range(9)]
        whole = _reader(Clip, rows)

        def counted(columns: list[str] | None) -> Any:
            read.append((number, columns is None))
            return whole(columns)

        return counted

    lookup = Lookup(Clip, "video_id", [reader(number) for number in range(500)])
    assert read == [(number, False) for number in range(500)], "the column, of each file once"
    read.clear()
    for _ in range(2):
        for video in (3, 4):
            assert len(lookup.rows(f"{video}")) == 9
    assert read == [(3, True), (4, True)]
    for video in range(500):
        assert len(lookup.rows(f"{video}")) == 9
    assert len(read) <= 502, "each file once, where rows are asked for in their order"


def test_rows_of_a_file_are_read_without_the_rest_of_it(tmp_path: Path) -> None:
    made = [
        Source(video_id=f"{number:011d}", label="dog", split="test", start_s=number)
        for number in range(3 * table._GROUP_ROWS + 10)
    ]
    storage = Storage(tmp_path)
    storage.write("long.parquet", to_parquet(Source, made))
    file = table.CommittedFile(Source, storage, "long.parquet")
    edges = [0, 1, table._GROUP_ROWS - 1, table._GROUP_ROWS, 2 * table._GROUP_ROWS + 1, len(made)]
    for first in edges:
        for stop in edges:
            if first < stop:
                rows = file.rows(first, stop).to_pylist()
                assert rows == [row.model_dump() for row in made[first:stop]]
    group = file._group
    group.cache_clear()
    for first in range(0, 2 * table._GROUP_ROWS, 32):
        file.rows(first, first + 32)
    assert group.cache_info().misses == 2, "each group once, for all units in it"
    assert pq.read_table(tmp_path / "long.parquet").to_pylist() == file.read().to_pylist()


def test_a_file_of_one_group_as_older_versions_wrote_it_is_read_the_same(tmp_path: Path) -> None:
    schema = arrow_schema(Source)
    rows = [
        {"video_id": f"{number:011d}", "label": "dog", "split": "test", "start_s": number}
        for number in range(3 * table._GROUP_ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "old.parquet")
    file = table.CommittedFile(Source, Storage(tmp_path), "old.parquet")
    assert file.rows(5000, 5032).to_pylist() == rows[5000:5032]


def test_columns_alone_are_those_of_the_whole_with_defaults_where_a_file_is_older(
    tmp_path: Path,
) -> None:
    schema = arrow_schema(Video)
    young = schema.get_field_index("audio_stream")
    for name, one in (("new", schema), ("old", schema.remove(young))):
        pq.write_table(pa.Table.from_pylist([VIDEO], one), tmp_path / f"{name}.parquet")
        file = table.CommittedFile(Video, Storage(tmp_path), f"{name}.parquet")
        names = ["audio_stream", "video_id"]
        assert file.read(names).equals(file.read().select(names))
        assert file.read(names).to_pylist() == [{"audio_stream": None, "video_id": "v"}]
