"""A workspace in parts is the workspace: every row once, and the same release and report."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from exports import parts as parts_module
from exports.parts import parts_of
from exports.release.selection import ReleaseTables
from exports.report import clip_files
from exports.report.frame_pictures import ReportTables
from exports.report.write_report import write_report
from pipeline.errors import AvatarBuildError, DamagedError
from pipeline.records.schema import TABLES
from pipeline.workspace.workspace import Workspace
from tests.exports.drawn import Shot, Thing, draw_media, release, report_tables, tables
from tests.labeling.labelled_workspace import commit

SHOTS = [
    Shot(
        f"{'Zz-_'[n % 4]}ideo{n:06d}",
        index,
        [Thing(("dog", "cat")[n % 2])] if index != 30 else (),
        "owl" if index == 30 else None,
        start_s=1 + n % 3,
    )
    for n in range(40)
    for index in range(5, 5 + 25 * (1 + n % 3), 25)
]


def filled(root: Path, rows: ReleaseTables, seed: int = 0) -> Workspace:
    """A workspace whose files hold the rows in no order."""
    workspace = Workspace.create(root)
    rng = random.Random(seed)
    for name, table in vars(rows).items():
        mixed = rng.sample(list(table), len(table))
        for first in range(0, len(mixed), 17):
            commit(workspace, f"s{len(name)}-{name}", TABLES[name], mixed[first : first + 17])
    return workspace


def bytes_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "_TOGETHER", 25)
    monkeypatch.setattr(parts_module, "_SORTED", 4000)


def ids(rows: ReleaseTables) -> dict[str, Counter[str]]:
    return {
        name: Counter(row.model_dump_json() for row in table) for name, table in vars(rows).items()
    }


@pytest.mark.usefixtures("small_parts")
def test_every_row_is_in_one_part_with_its_video_and_parts_follow_the_videos(
    tmp_path: Path,
) -> None:
    rows = ReportTables(**vars(report_tables()) | vars(tables(SHOTS)))
    workspace = filled(tmp_path, rows)
    with parts_of(workspace, ReportTables) as parts:
        found = list(parts)
        assert ids(found[0]) != ids(rows)
        assert [ids(part) for part in parts] == [ids(part) for part in found]  # and once more
        assert sorted(parts.clip_ids) == sorted(clip.clip_id for clip in rows.clips)
    assert len(found) > 3
    # Proposals and sounds of no clip here are in whichever part.
    assert {
        name: sum((ids(part)[name] for part in found), Counter()) for name in vars(rows)
    } == ids(rows)
    videos = [sorted(row.video_id for row in part.videos) for part in found]
    assert [one for own in videos for one in own] == sorted(row.video_id for row in rows.videos)
    for part, own in zip(found, videos, strict=True):
        frames = {frame.frame_id for frame in part.frames}
        assert {clip.video_id for clip in part.clips} == set(own)
        assert {frame.video_id for frame in part.frames} == set(own)
        assert {row.frame_id for row in part.reviews} == frames
        assert frames >= {row.frame_id for row in part.instances}
        assert frames >= {row.frame_id for row in part.masks}


def test_a_release_and_a_report_in_parts_are_those_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tables(SHOTS)
    workspace = filled(tmp_path / "ws", rows)
    draw_media(workspace.storage, tables(SHOTS[:4]))
    release(workspace.storage, rows, "0.1-whole")
    shown = ReportTables(**vars(rows))
    monkeypatch.setattr(clip_files, "_ONE_FILE", 20_000)
    whole = write_report(workspace.storage, shown, [], [], [], target=tmp_path / "a/report.html")
    monkeypatch.setattr(parts_module, "_TOGETHER", 25)
    with parts_of(workspace, ReportTables) as parts:
        release(workspace.storage, parts, "0.1-again")
        pictured = {clip.clip_id for clip in rows.clips}
        write_report(
            workspace.storage,
            parts,
            [],
            [],
            [],
            target=tmp_path / "b/report.html",
            pictured=pictured,
        )
    first, second = (tmp_path / "ws/releases" / name for name in ("0.1-whole", "0.1-again"))
    found = [
        {
            name: data.replace(b"0.1-again", b"0.1-whole")
            for name, data in bytes_below(folder).items()
        }
        for folder in (first, second)
    ]
    found = [{n: d for n, d in one.items() if n != "CHECKSUMS.sha256"} for one in found]
    assert found[0] == found[1]
    assert bytes_below(tmp_path / "a") == bytes_below(tmp_path / "b")
    assert len(bytes_below(whole.parent)) > 2


@pytest.mark.usefixtures("small_parts")
def test_a_review_whose_frame_is_gone_waits_in_no_part(tmp_path: Path) -> None:
    rows = tables(SHOTS)
    gone = rows.frames[7].frame_id
    kept = {**vars(rows), "frames": [one for one in rows.frames if one.frame_id != gone]}
    kept["instances"] = [one for one in rows.instances if one.frame_id != gone]
    kept["masks"] = [one for one in rows.masks if one.frame_id != gone]
    workspace = filled(tmp_path, ReleaseTables(**kept))
    with parts_of(workspace, ReleaseTables) as parts:
        reviews = [row for part in parts for row in part.reviews]
    assert len(reviews) == len(rows.reviews) - 1
    assert gone not in {row.frame_id for row in reviews}


@pytest.mark.usefixtures("small_parts")
def test_a_row_that_is_there_twice_is_named_whichever_parts_it_is_in(tmp_path: Path) -> None:
    rows = tables(SHOTS)
    other = rows.instances[-1]
    twin = rows.instances[0].model_copy(update={"frame_id": other.frame_id})
    twice = ReleaseTables(**{**vars(rows), "instances": [*rows.instances, twin]})
    workspace = filled(tmp_path, twice)
    with (
        pytest.raises(AvatarBuildError, match=f"instance_id '{twin.instance_id}' is there twice"),
        parts_of(workspace, ReleaseTables),
    ):
        pass


@pytest.mark.usefixtures("small_parts")
def test_a_row_that_is_none_is_named_by_its_file(tmp_path: Path) -> None:
    rows = tables(SHOTS)
    bad = rows.masks[3].model_copy(update={"area": -1})
    masks = [bad if row.id == bad.id else row for row in rows.masks]
    workspace = filled(tmp_path, ReleaseTables(**{**vars(rows), "masks": masks}))
    with (
        pytest.raises(DamagedError, match=r"tables/masks/.*\.parquet, row \d+: area"),
        parts_of(workspace, ReleaseTables) as parts,
    ):
        list(parts)


def test_a_workspace_without_rows_is_one_empty_part(tmp_path: Path) -> None:
    with parts_of(Workspace.create(tmp_path), ReportTables) as parts:
        assert list(parts) == [ReportTables(*([] for _ in vars(ReportTables())))]
    assert not list(tmp_path.glob("releases/.*"))
