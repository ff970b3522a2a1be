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

from pipeline.records.schema import TABLES, Clip, Record, Review, Source, Video, arrow_schema
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


def test_a_lookup_finds_all_rows_of_a_value_and_one_when_there_is_one() -> None:
    rows = [
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
    lookup = Lookup(Clip, pa.Table.from_pylist(rows, arrow_schema(Clip)), "video_id")
    assert [row.clip_id for row in lookup.rows("b")] == ["b_2.0", "b_3.0"]
    assert lookup.one("c") is None
    assert lookup.one("a") is not None
    with pytest.raises(TableError, match="2 rows with video_id = 'b'"):
        lookup.one("b")
