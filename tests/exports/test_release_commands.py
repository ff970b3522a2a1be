"""The commands around a release, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exports.verify import verify_release
from pipeline.cli import cli
from pipeline.release import read
from pipeline.workspace.workspace import Workspace
from tests.exports.drawn import CAT, DOG, HEIGHT, TRAIN, WIDTH, film_sound, release, tables
from tests.video_factory import make_video, scene


def typed(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


@pytest.fixture
def root(workspace: Workspace) -> Path:
    """A workspace with one release without media."""
    release(workspace.storage, tables(), unverified=True)
    return workspace.storage.path(".")


def test_a_takedown_makes_the_old_release_fail_and_says_where_the_video_still_is(
    root: Path,
) -> None:
    old = root / "releases/1.0"
    assert typed("export", "--verify", str(old)).exit_code == 0
    done = typed("takedown", "--workspace", str(root), "--", CAT)
    assert done.exit_code == 0
    assert "Still in releases/1.0" in done.output
    failed = typed("export", "--verify", str(old))
    assert failed.exit_code == 1
    assert f"takedown: video {CAT}" in failed.output
    moved = old.rename(root.parent / "elsewhere")
    assert typed("export", "--verify", str(moved)).exit_code == 0
    assert typed("export", "--verify", str(moved), "--workspace", str(root)).exit_code == 1


def test_verify_says_of_an_unverified_release_that_it_is_one(
    root: Path, workspace: Workspace
) -> None:
    said = typed("export", "--verify", str(root / "releases/1.0")).output
    assert "no findings. The release itself is unverified" in said
    release(workspace.storage, tables(), "2.0")
    said = typed("export", "--verify", str(root / "releases/2.0")).output
    assert "no findings." in said
    assert "unverified" not in said


def test_verify_prints_twenty_findings_and_their_number(root: Path) -> None:
    folder = root / "releases/1.0"
    for number in range(30):
        (folder / f"extra{number}").write_text("x")
    failed = typed("export", "--verify", str(folder))
    assert failed.exit_code == 1
    assert failed.output.count("\n") == 21
    assert failed.output.endswith(": 60 findings.\n")


def test_leaks_are_told_for_a_release_that_exists(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text(f"{DOG}_000000\n{TRAIN}_000001\nzzzzzzzzzzz_000001\n")
    done = typed("export", "--verify", str(root / "releases/1.0"), "--leaks", str(path))
    assert done.exit_code == 0
    assert "train.txt: 3 videos; 2 videos and 2 clips are here too." in done.output


def test_what_was_verified_is_not_read_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(*_: object) -> None:
        raise AssertionError

    path = tmp_path / "train.txt"
    path.write_text(f"{DOG}_000000\n")
    asked = ("export", "--verify", str(root / "releases/1.0"), "--leaks", str(path))
    before = typed(*asked).output
    monkeypatch.setattr(read, "from_json", whole)
    monkeypatch.setattr(verify_release, "from_json", whole)
    assert typed(*asked).output == before
    assert "unverified" in before


def test_two_releases_are_compared(root: Path) -> None:
    storage = Workspace(root).storage
    release(storage, tables(), "2.0")
    done = typed("release", "diff", *(str(root / "releases" / v) for v in ("1.0", "2.0")))
    assert done.exit_code == 0
    assert "removed  video     train_train" in done.output
    found = json.loads(
        typed(
            "release", "diff", str(root / "releases/1.0"), str(root / "releases/2.0"), "--json"
        ).output
    )
    assert [row["removed"] for row in found["result"]["counts"]] == [1, 2, 1, 1]


def test_media_is_fetched_from_an_archive_and_the_ledger_kept(root: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for seed, video_id in enumerate((DOG, CAT)):
        make_video(
            archive / f"{video_id}.mp4",
            frames=100,
            draw=scene(WIDTH, HEIGHT, seed),
            sound=film_sound(4),
        )
    folder = root / "releases/1.0"
    words = ["--source-template", f"{archive}/{{video_id}}.mp4", "--set", "download.backoff_s=0"]
    done = typed("fetch-media", str(folder), *words, "--set", "download.min_free_bytes=0")
    assert done.exit_code == 0, done.output
    assert f"{TRAIN} missing_file" in done.output
    assert "restored 2, missing_file 1" in done.output
    assert len(list(folder.glob("video/*.mp4"))) == 2
    assert (folder / "attrition.csv").is_file()
    assert typed("export", "--verify", str(folder)).exit_code == 0


def test_a_foreign_release_is_imported(tmp_path: Path) -> None:
    source = tmp_path / "vggss"
    source.mkdir()
    rows = [{"file": f"{DOG}_000020", "class": "dog barking", "bbox": [[0.25, 0.5, 0.75, 1.0]]}]
    (source / "vggss.json").write_text(json.dumps(rows))
    done = typed("import-release", str(source), "--to", str(tmp_path / "vggss-1"))
    assert done.exit_code == 0, done.output
    assert "1 video, 1 frame (0 off-screen), 1 instance." in done.output
    assert typed("export", "--verify", str(tmp_path / "vggss-1")).exit_code == 0
