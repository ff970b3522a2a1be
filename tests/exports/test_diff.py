from __future__ import annotations

from pathlib import Path

import pytest

from exports.diff import as_json, as_lines, compare
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.release.read import read_document
from pipeline.workspace.storage import Storage
from tests.exports.drawn import CAT, DOG, WORLD, changed, release, tables


def test_a_release_differs_from_itself_in_nothing(tmp_path: Path) -> None:
    release(Storage(tmp_path))
    document = read_document(tmp_path / "releases/1.0")
    assert compare(document, document) == []


def test_added_removed_and_changed_rows_are_told_by_kind(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    release(storage, tables([shot for shot in WORLD if shot.video_id != CAT]))
    rows = changed(tables([WORLD[0], *WORLD[2:4]]), "videos", DOG, license="CC BY 4.0")
    release(storage, rows, "2.0")
    old, new = (read_document(tmp_path / f"releases/{v}") for v in ("1.0", "2.0"))
    found = as_json(old, new)
    assert found["versions"] == ["1.0", "2.0"]
    assert found["counts"] == [
        {"kind": "video", "before": 1, "after": 2, "added": 1, "removed": 0, "changed": 1},
        {"kind": "frame", "before": 2, "after": 3, "added": 2, "removed": 1, "changed": 0},
        {"kind": "instance", "before": 3, "after": 2, "added": 1, "removed": 2, "changed": 0},
        {"kind": "category", "before": 2, "after": 2, "added": 1, "removed": 1, "changed": 0},
    ]
    assert {"kind": "video", "id": DOG, "change": "changed", "columns": ("license",)} in found[
        "rows"
    ]
    lines = as_lines(old, new, most=3)
    assert lines[0] == "1.0 -> 2.0"
    assert lines[-1] == f"and {len(found['rows']) - 3} more (--json names all)."


def test_what_is_no_release_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No release at"):
        read_document(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances.json").write_text("{}")
    with pytest.raises(AvatarBuildError, match="info: field required"):
        read_document(tmp_path)
