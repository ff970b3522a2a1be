from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exports.release import parquet
from exports.release.parquet import differences, write_copies
from pipeline.release.document import from_json
from pipeline.release.layout import COPIES
from pipeline.workspace.storage import Storage
from tests.exports.drawn import CAT, DOG, release


@pytest.mark.parametrize(
    ("copy", "name"), [("videos", "videos"), ("frames", "images"), ("instances", "annotations")]
)
def test_a_copy_has_the_rows_and_columns_of_the_json(tmp_path: Path, copy: str, name: str) -> None:
    release(Storage(tmp_path))
    folder = tmp_path / "releases/1.0/annotations"
    rows = json.loads((folder / "instances.json").read_bytes())[name]
    path = folder / f"{copy}.parquet"
    assert list(pd.read_parquet(path).columns) == list(rows[0])
    assert pq.read_table(path).to_pylist() == rows


def test_the_copies_join_on_video_and_frame(tmp_path: Path) -> None:
    release(Storage(tmp_path))
    folder = tmp_path / "releases/1.0/annotations"
    videos, frames, instances = (
        pd.read_parquet(folder / f"{name}.parquet") for name in ("videos", "frames", "instances")
    )
    joined = instances.merge(frames, on="frame_id").merge(
        videos, left_on="video_id_x", right_on="video_id"
    )
    assert sorted(joined["title"]) == [f"Title of {v}" for v in (CAT, DOG, DOG, DOG)]


def test_a_path_that_looks_like_an_address_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(Storage(tmp_path / "s3:x"))
    monkeypatch.chdir(tmp_path)
    folder = Path("s3:x/releases/1.0")
    made = from_json((folder / "annotations/instances.json").read_bytes())
    assert all(differences(made, folder, name) is None for name in COPIES)
    write_copies(made, Path("s3:y"))
    assert all(differences(made, Path("s3:y"), name) is None for name in COPIES)


def test_a_difference_is_named_by_its_row_however_the_rows_are_grouped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_TOGETHER", 2)
    release(Storage(tmp_path), unverified=True)
    folder = tmp_path / "releases/1.0"
    made = from_json((folder / "annotations/instances.json").read_bytes())
    path = folder / COPIES["images"]
    table = pq.read_table(path)
    place = table.column_names.index("sharpness")
    field, values = table.schema.field(place), table["sharpness"].to_pylist()
    assert len(values) > 5
    for size in (1, 3, 100):
        pq.write_table(table, path, row_group_size=size)
        assert differences(made, folder, "images") is None
        for row in range(len(values)):
            column = pa.array([*values[:row], -1.0, *values[row + 1 :]], field.type)
            other = table.set_column(place, field, column)
            pq.write_table(other, path, row_group_size=size)
            expected = f"row {row}, sharpness: -1.0, the JSON has {values[row]}"
            assert differences(made, folder, "images") == expected
        # The number of rows is told before what is in them.
        for some in (other.slice(1), pa.concat_tables([other, other.slice(0, 1)])):
            pq.write_table(some, path, row_group_size=size)
            expected = f"has {len(some)} rows, the JSON {len(values)} images"
            assert differences(made, folder, "images") == expected
