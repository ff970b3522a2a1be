from __future__ import annotations

import json
from pathlib import Path

import pytest

from exports.release.freeze import write_release as write
from exports.release.takedown import releases_with
from exports.verify.verify_release import verify_release
from pipeline.config import ExportConfig
from pipeline.errors import UsageError
from pipeline.release.document import from_json
from pipeline.workspace.storage import Storage
from pipeline.workspace.takedowns import read_takedowns, record_takedown
from tests.exports.drawn import CAT, DOG, PROVENANCE, release, tables


def after_takedown(storage: Storage) -> Path:
    write(
        tables(),
        storage,
        "2.0",
        unverified=True,
        media=False,
        config=ExportConfig(),
        provenance=PROVENANCE,
        takedowns=[takedown.video_id for takedown in read_takedowns(storage)],
    )
    return storage.path("releases/2.0")


def test_the_next_release_has_no_trace_of_the_video_but_its_takedown(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    record_takedown(storage, DOG, "asked by its maker")
    folder = after_takedown(storage)
    assert verify_release(folder) == []
    document = from_json((folder / "annotations/instances.json").read_bytes())
    assert {video.id for video in document.videos} == {CAT, "train_train"}
    assert document.info.takedowns == [DOG]
    said = [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and DOG in path.read_text("latin-1")
    ]
    assert sorted(said) == ["README.md", "instances.json", "statistics.json"]
    assert not list(folder.rglob(f"{DOG}*"))
    assert "asked by its maker" not in (folder / "README.md").read_text()
    statistics = json.loads((folder / "statistics.json").read_bytes())
    assert statistics["takedowns"] == [DOG]
    assert {
        "kind": "video",
        "id": DOG,
        "frame_id": "",
        "reason": "taken_down",
        "detail": "",
    } in statistics["left_out"]


def test_an_old_release_that_still_has_it_does_not_verify(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "ws")
    storage.write("commits/workspace.json", b"{}")
    release(storage)
    old = storage.path("releases/1.0")
    assert verify_release(old) == []
    takedown = record_takedown(storage, CAT)
    assert [str(finding) for finding in verify_release(old)] == [
        f"takedown: video {CAT}: was taken down on {takedown.date}"
    ]
    moved = old.rename(tmp_path / "elsewhere")
    assert verify_release(moved) == []
    assert len(verify_release(moved, read_takedowns(storage))) == 1


def test_releases_that_still_name_it_are_listed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    release(storage)
    assert releases_with(storage, DOG) == ["releases/1.0"]
    assert releases_with(storage, "x" * 11) == []


def test_a_takedown_keeps_its_first_date_and_reason(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    first = record_takedown(storage, CAT, "first")
    assert record_takedown(storage, CAT, "second") == first
    assert read_takedowns(storage) == [first]


def test_what_is_no_youtube_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a YouTube id"):
        record_takedown(Storage(tmp_path), "../../etc/x")
