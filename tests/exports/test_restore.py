from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import cv2
import pytest

from exports.release.image_bytes import difference_hash, hash_distance
from exports.restore import Answers, Attrition, fetch_media, read_ledger
from exports.verify.verify_release import verify_release
from pipeline.errors import UsageError
from pipeline.files import sha256_of
from pipeline.media import frames_between
from pipeline.records.schema import Frame
from pipeline.release.document import VideoRow, from_json
from pipeline.workspace.storage import Storage
from tests.exports.drawn import (
    CAT,
    DOG,
    HEIGHT,
    TRAIN,
    WIDTH,
    changed,
    draw_media,
    film_sound,
    release,
    tables,
)
from tests.video_factory import make_video, scene

TODAY = date(2026, 1, 2)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the site has: a film per video, each with its own picture."""
    folder = tmp_path_factory.mktemp("site")
    for seed, video_id in enumerate((DOG, CAT, TRAIN)):
        draw = scene(WIDTH, HEIGHT, seed)
        make_video(
            folder / f"{video_id}.mp4",
            frames=100,
            draw=draw,
            options={"crf": "10"},
            sound=film_sound(4),
        )
    return folder


@pytest.fixture
def folder(videos: Path, tmp_path: Path) -> Path:
    """An ids-only release of frames of these videos."""
    storage = Storage(tmp_path / "ws")
    rows = tables()
    for frame in rows.frames:
        storage.write(frame.path, picture(videos, frame))
    for video_id in (DOG, CAT, TRAIN):
        rows = changed(rows, "videos", video_id, sha256=sha256_of(videos / f"{video_id}.mp4"))
    release(storage, rows, unverified=True)
    return storage.path("releases/1.0")


def picture(videos: Path, frame: Frame) -> bytes:
    at = frame.time_s
    shown = next(frames_between(videos / f"{frame.video_id}.mp4", at - 0.001, at + 0.02))
    return shown.encode("jpg", 95)


def site(videos: Path, scratch: Path, gone: dict[str, str] | None = None) -> object:
    """A fetch that copies from ``videos``; ``gone`` are missing for a reason."""

    def fetch(wanted: Sequence[VideoRow]) -> Answers:
        for video in wanted:
            if gone and video.id in gone:
                yield video.id, None, gone[video.id], "said\nthe site"
            else:
                copy = scratch / f"{video.id}.mp4"
                copy.write_bytes((videos / copy.name).read_bytes())
                yield video.id, copy, "", ""

    return fetch


def restored(folder: Path, fetch: object) -> dict[str, Attrition]:
    rows: Iterator[Attrition] = fetch_media(folder, fetch, today=TODAY)  # type: ignore[arg-type]
    return {row.video_id: row for row in rows}


def test_the_same_videos_give_the_same_frames_and_the_release_still_verifies(
    folder: Path, videos: Path, tmp_path: Path
) -> None:
    assert verify_release(folder) == []
    rows = restored(folder, site(videos, tmp_path))
    assert {row.status for row in rows.values()} == {"restored"}
    assert sum(row.exact for row in rows.values()) == 6
    assert all(row.same_source for row in rows.values())
    assert verify_release(folder) == []
    assert len(list(folder.glob("metadata/*/*.jpg"))) == 6
    assert len(list(folder.glob("video/*.mp4"))) == 3
    assert not list(folder.rglob(".*"))  # nothing half done
    assert restored(folder, site(videos, tmp_path)) == {}  # nothing is missing any more


def test_another_encode_is_known_by_its_looks(folder: Path, videos: Path, tmp_path: Path) -> None:
    worse = tmp_path / "worse"
    worse.mkdir()
    for seed, video_id in enumerate((DOG, CAT, TRAIN)):
        draw = scene(WIDTH, HEIGHT, seed)
        make_video(
            worse / f"{video_id}.mp4",
            frames=100,
            draw=draw,
            options={"crf": "24"},
            sound=film_sound(4),
        )
    rows = restored(folder, site(worse, tmp_path))
    assert {row.status for row in rows.values()} == {"restored"}
    assert sum(row.alike for row in rows.values()) == 6
    assert not any(row.same_source for row in rows.values())
    assert verify_release(folder) == []


def test_what_is_gone_or_changed_is_in_the_ledger_with_its_date(
    folder: Path, videos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for video_id in (DOG, CAT):
        (other / f"{video_id}.mp4").write_bytes((videos / f"{CAT}.mp4").read_bytes())
    rows = restored(folder, site(other, tmp_path, {TRAIN: "private"}))
    assert {name: row.status for name, row in rows.items()} == {
        DOG: "changed",  # another video stands there now
        CAT: "restored",
        TRAIN: "private",
    }
    assert not list(folder.glob(f"*/{DOG}*/*.jpg"))
    assert not list(folder.glob(f"video/{DOG}*"))
    with (folder / "attrition.csv").open(newline="") as handle:
        listed = {row["video_id"]: row for row in csv.DictReader(handle)}
    assert listed[TRAIN]["status"] == "private"
    assert listed[TRAIN]["date"] == "2026-01-02"
    assert listed[TRAIN]["detail"] == "said the site"
    assert read_ledger(folder) == rows
    assert verify_release(folder) == []
    later = restored(folder, site(videos, tmp_path))  # the two come back
    assert {row.status for row in later.values()} == {"restored"}
    assert {row.status for row in read_ledger(folder).values()} == {"restored"}


def test_a_video_that_is_shorter_now_is_changed(folder: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    for video_id in (DOG, CAT, TRAIN):
        make_video(short / f"{video_id}.mp4", frames=20, draw=scene(WIDTH, HEIGHT))
    rows = restored(folder, site(short, tmp_path))
    assert {row.status for row in rows.values()} == {"changed"}


def test_an_image_put_in_by_hand_is_found(folder: Path, videos: Path, tmp_path: Path) -> None:
    restored(folder, site(videos, tmp_path))
    first, second = sorted(folder.glob(f"metadata/{DOG}*/*.jpg"))
    first.write_bytes(second.read_bytes())
    assert [finding.check for finding in verify_release(folder)] == ["images"]


def test_a_release_with_media_has_nothing_to_fetch(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "ws")
    rows = draw_media(storage, tables())
    release(storage, rows, media=True)
    with pytest.raises(UsageError, match="ships its media"):
        restored(storage.path("releases/1.0"), None)


def test_frames_without_fingerprint_are_restored_and_counted(videos: Path, tmp_path: Path) -> None:
    storage = Storage(tmp_path / "ws")
    release(storage, replace(tables()), unverified=True)  # no image was at hand
    folder = storage.path("releases/1.0")
    document = from_json((folder / "annotations/instances.json").read_bytes())
    assert {image.image_sha256 for image in document.images} == {""}
    rows = restored(folder, site(videos, tmp_path))
    assert sum(row.unchecked for row in rows.values()) == 6


def test_the_hash_tells_frames_apart_and_encodes_not() -> None:
    hashes = []
    for seed in range(12):
        image = scene(320, 180, seed)(0)
        good, bad = (
            difference_hash(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, q])[1].tobytes())
            for q in (95, 30)
        )
        assert hash_distance(good, bad) <= 6
        hashes.append(good)
    apart = [hash_distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert difference_hash(b"no image") == ""
    assert max(apart) > 10
