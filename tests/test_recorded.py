"""A media file is the one its row names, or a failure with its kind, whoever reads it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from exports.from_workspace import workspace_report
from labeling.projects.annotator_clips import FrameMedia
from labeling.review.instances import bring_instances_up_to_date
from pipeline.cli import cli
from pipeline.config import SegmentConfig
from pipeline.errors import InputError, MediaError
from pipeline.files import sha256_of
from pipeline.records.schema import TABLES, Frame, Video
from pipeline.run.runner import RunOptions, recover, run_stage
from pipeline.workspace import recorded
from pipeline.workspace.recorded import frame_bytes, video_file
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from stages.download.import_list import import_list
from stages.segment.refine import FrameRefiner
from tests.pipeline.one_process import in_one_process
from tests.rows import frame, video
from tests.spoiled import SPOILS, Spoil, another_made_to_look_as_old
from tests.video_factory import Drawing, bursts, make_video, scene

FIRST, SECOND = "aaaaaaaaaaa", "bbbbbbbbbbb"
SETTINGS = [
    "download.width=160",
    "download.height=120",
    "hear.tagger='vggsound-label'",
    "propose.detector='motion'",
    "segment.segmenter='grabcut'",
    "label.accept_score=0.0",
    "sample.max_frames=2",
    "run.workers=1",
]
SPOILED = pytest.mark.parametrize(("spoil", "kind"), SPOILS)


def recorded_video(path: Path, data: bytes = b"a video") -> Video:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return video(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


@SPOILED
def test_a_spoiled_video_is_never_opened(tmp_path: Path, spoil: Spoil, kind: str) -> None:
    storage, path = Storage(tmp_path), tmp_path / video().path
    row = recorded_video(path)
    with video_file(storage, row) as found:
        assert found == path
    spoil(path)
    with pytest.raises(MediaError) as caught, video_file(storage, row):
        pytest.fail("opened")
    assert (caught.value.kind, caught.value.retryable) == (kind, True)
    assert f"retry --stage download --kind {kind}" in caught.value.detail


@SPOILED
def test_a_spoiled_frame_is_never_read(tmp_path: Path, spoil: Spoil, kind: str) -> None:
    storage, path = Storage(tmp_path), tmp_path / frame().path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a picture")
    row = frame(sha256=hashlib.sha256(b"a picture").hexdigest())
    assert frame_bytes(storage, row) == b"a picture"
    spoil(path)
    with pytest.raises(MediaError) as caught:
        frame_bytes(storage, row)
    assert (caught.value.kind, caught.value.retryable) == (kind, True)


def test_a_frame_of_an_older_table_has_nothing_to_be_held_against(tmp_path: Path) -> None:
    path = tmp_path / frame().path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"any picture")
    assert frame_bytes(Storage(tmp_path), frame()) == b"any picture"


def test_a_video_that_changes_while_it_is_read_fails(tmp_path: Path) -> None:
    storage, path = Storage(tmp_path), tmp_path / video().path
    row = recorded_video(path)
    with pytest.raises(MediaError, match="changed_file"), video_file(storage, row):
        another_made_to_look_as_old(path)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is hashed, in order."""
    seen: list[Path] = []
    known = sha256_of

    def counted(path: Path) -> str:
        seen.append(path)
        return known(path)

    monkeypatch.setattr(recorded, "sha256_of", counted)
    return seen


def test_a_video_is_hashed_once_and_again_only_when_it_looks_otherwise(
    tmp_path: Path, hashed: list[Path]
) -> None:
    storage, path = Storage(tmp_path), tmp_path / video().path
    row = recorded_video(path)
    for _ in range(3):
        with video_file(storage, row):
            pass
    assert hashed == [path]
    shutil.copytree(tmp_path / "media", tmp_path / "copy" / "media")
    for _ in range(2):
        with video_file(Storage(tmp_path / "copy"), row):
            pass
    assert len(hashed) == 2, "a copied workspace costs one hash a file"
    os.utime(path, (1, 1))
    for _ in range(2):
        with video_file(storage, row):
            pass
    assert len(hashed) == 3
    with video_file(storage, row, always_hash=True):
        pass
    assert len(hashed) == 4


def test_where_no_note_can_be_written_each_reading_hashes(
    tmp_path: Path, hashed: list[Path]
) -> None:
    storage, path = Storage(tmp_path), tmp_path / video().path
    row = recorded_video(path)
    (tmp_path / "media" / "checked").write_text("no folder")
    for _ in range(2):
        with video_file(storage, row):
            pass
    assert len(hashed) == 2


@pytest.mark.parametrize("note", [b"", b"[]", b"{", b'{"sha256": 1}', b"[1, 2, 3]", b"\xff"])
def test_a_damaged_note_costs_a_hash_and_nothing_else(
    tmp_path: Path, hashed: list[Path], note: bytes
) -> None:
    storage, path = Storage(tmp_path), tmp_path / video().path
    row = recorded_video(path)
    with video_file(storage, row):
        pass
    (found,) = (tmp_path / "media" / "checked").iterdir()
    found.write_bytes(note)
    with video_file(storage, row):
        pass
    assert len(hashed) == 2


def test_on_an_object_store_what_is_fetched_is_always_hashed() -> None:
    storage = Storage("memory://recorded")
    row = video(sha256=hashlib.sha256(b"a video").hexdigest(), size_bytes=7)
    with pytest.raises(MediaError, match="missing_file"), video_file(storage, row):
        pass
    storage.write(row.path, b"a video")
    with video_file(storage, row) as path:
        assert path.read_bytes() == b"a video"
    storage.write(row.path, b"another")
    with pytest.raises(MediaError, match="changed_file"), video_file(storage, row):
        pass
    storage.remove("media")


# The stages and commands, over a workspace


def mover(seed: int) -> Drawing:
    """A bright square that walks over a ground that stays."""
    ground = scene(160, 120, seed)(0) // 4

    def draw(number: int) -> NDArray[np.uint8]:
        image = ground.copy()
        x = 10 + 3 * number % 90
        image[40:80, x : x + 40] = 200 + np.arange(40, dtype=np.uint8)[:, None, None] % 8 * 6
        return image

    return draw


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of two downloaded videos; beside it the archive they came from."""
    root = tmp_path_factory.mktemp("recorded")
    (root / "archive").mkdir()
    sound = bursts(11.0, [1.0, 3.0, 5.0, 7.0, 9.0])
    for number, name in enumerate((FIRST, SECOND)):
        make_video(
            root / f"archive/{name}.mp4", frames=275, draw=mover(number), sound=sound, gop=50
        )
    (root / "list.csv").write_text(f"{FIRST},0,dog barking,test\n{SECOND},0,dog barking,test\n")
    Workspace.create(root / "ws", "offline")
    opened = opened_at(root / "ws", root / "archive")
    import_list(opened, root / "list.csv", (), None)
    assert ran(opened, "download") == {"ok": 2}
    return root


@pytest.fixture(scope="module")
def made(fetched: Path) -> Path:
    """The same after all stages up to the masks."""
    root = fetched.with_name("made")
    shutil.copytree(fetched, root)
    opened = opened_at(root / "ws", root / "archive")
    for stage in ("sample", "hear", "propose", "accept"):
        assert "failed" not in ran(opened, stage)
    bring_instances_up_to_date(opened)
    assert ran(opened, "segment")["ok"]
    return root


def opened_at(root: Path, archive: Path) -> Workspace:
    template = f"download.source_template='{archive}/{{video_id}}.mp4'"
    return Workspace(root, [*SETTINGS, template])


def copied(made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(made / "ws", tmp_path / "ws", symlinks=True)
    shutil.copytree(made / "archive", tmp_path / "archive")
    return opened_at(tmp_path / "ws", tmp_path / "archive")


def ran(workspace: Workspace, stage: str, **options: Any) -> dict[str, int]:
    """Run a stage; how many rows ended how, where any did."""
    with pytest.MonkeyPatch.context() as patch:
        in_one_process(patch)
        counts = run_stage(workspace, stage, RunOptions(workers=1, **options)).counts
    return {name: counts[name] for name in ("ok", "dropped", "failed") if counts[name]}


def kinds(workspace: Workspace, stage: str) -> set[str]:
    return {row.kind for row in workspace.ledger(stage).failures()}


def redone(workspace: Workspace, stage: str) -> dict[str, int]:
    """Forget what a stage made, and run it again."""
    ledger = workspace.ledger(stage)
    ledger.retire_all("0" * 12)
    workspace.storage.remove("media/cache")
    return ran(workspace, stage)


@pytest.mark.parametrize(("spoil", "kind"), [SPOILS[1], SPOILS[8]])
def test_sample_fails_a_spoiled_video_and_takes_the_other(
    fetched: Path, tmp_path: Path, spoil: Spoil, kind: str
) -> None:
    workspace = copied(fetched, tmp_path)
    spoil(workspace.storage.path(workspace.rows(Video)[0].path))
    assert ran(workspace, "sample") == {"ok": 1, "failed": 1}
    assert kinds(workspace, "sample") == {kind}
    assert {row.video_id for row in workspace.rows(Frame)} == {SECOND}


def test_a_sampled_frame_carries_the_digest_of_its_file(made: Path) -> None:
    workspace = opened_at(made / "ws", made / "archive")
    for row in workspace.rows(Frame):
        data = workspace.storage.read(row.path)
        assert (row.sha256, row.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))


@pytest.mark.parametrize("stage", ["propose", "segment"])
def test_another_picture_under_a_frames_name_fails_its_rows(
    made: Path, tmp_path: Path, stage: str
) -> None:
    workspace = copied(made, tmp_path)
    lost, *others = [row for row in workspace.rows(Frame) if row.video_id == FIRST]
    shutil.copyfile(*(workspace.storage.path(row.path) for row in (others[0], lost)))
    assert redone(workspace, stage)["failed"]
    failed = [row for row in workspace.ledger(stage).failures() if row.kind == "changed_file"]
    assert failed
    assert all(row.retryable and lost.path in row.detail for row in failed)


def test_another_video_is_not_looked_at_by_the_detector(made: Path, tmp_path: Path) -> None:
    workspace = copied(made, tmp_path)
    one, other = (workspace.storage.path(row.path) for row in workspace.rows(Video))
    shutil.copyfile(one, other)
    assert redone(workspace, "propose")["failed"] == 2
    assert kinds(workspace, "propose") == {"changed_file"}


def read_by_push(workspace: Workspace, row: Frame) -> Iterator[str]:
    said = FrameMedia(workspace).addresses(row)
    if isinstance(said, str):
        yield said


def read_by_backend(workspace: Workspace, row: Frame) -> Iterator[str]:
    refiner = FrameRefiner(workspace.storage, SegmentConfig(segmenter="grabcut"), kept=2)
    try:
        refiner.refine(row, [10.0, 10.0, 40.0, 40.0], [])
    except InputError as error:
        yield str(error)


def read_by_report(workspace: Workspace, row: Frame) -> Iterator[str]:
    yield workspace_report(workspace).read_text(encoding="utf-8")


@pytest.mark.parametrize("read", [read_by_push, read_by_backend, read_by_report])
def test_people_are_not_shown_another_picture(
    made: Path, tmp_path: Path, read: Callable[[Workspace, Frame], Iterator[str]]
) -> None:
    workspace = copied(made, tmp_path)
    lost, other = [row for row in workspace.rows(Frame) if row.video_id == FIRST]
    assert not any("changed_file" in said for said in read(workspace, lost))
    shutil.copyfile(*(workspace.storage.path(row.path) for row in (other, lost)))
    assert any("changed_file" in said for said in read(workspace, lost))


def test_a_prompt_on_a_picture_that_was_swapped_since_the_last_one_is_refused(
    made: Path, tmp_path: Path
) -> None:
    workspace = copied(made, tmp_path)
    lost, other = [row for row in workspace.rows(Frame) if row.video_id == FIRST]
    refiner = FrameRefiner(workspace.storage, SegmentConfig(segmenter="grabcut"), kept=2)
    refiner.refine(lost, [10.0, 10.0, 40.0, 40.0], [])
    shutil.copyfile(*(workspace.storage.path(row.path) for row in (other, lost)))
    with pytest.raises(InputError, match="changed_file"):
        refiner.refine(lost, [10.0, 10.0, 40.0, 40.0], [])


def test_clips_for_annotators_are_of_the_recorded_video_and_as_they_were_made(
    made: Path, tmp_path: Path
) -> None:
    workspace = copied(made, tmp_path)
    row = next(row for row in workspace.rows(Frame) if row.video_id == FIRST)
    media = FrameMedia(workspace)
    assert not isinstance(media.addresses(row), str)
    folder = workspace.storage.path("media/clips")
    whole = {path.name: path.read_bytes() for path in folder.glob("*.mp4")}
    assert len(whole) == 2
    loop, context = sorted(folder.glob("*.mp4"), reverse=True)
    shutil.copyfile(context, loop)
    assert not isinstance(media.addresses(row), str)
    assert {path.name: path.read_bytes() for path in folder.glob("*.mp4")} == whole
    another_made_to_look_as_old(workspace.storage.path(f"media/videos/{FIRST}.mp4"))
    loop.unlink()
    assert "changed_file" in str(media.addresses(row))
    fresh = workspace.rows(Video)[0].model_copy(update={"sha256": "1" * 64})
    media._videos[FIRST] = fresh
    assert "changed_file" in str(media.addresses(row)), "a clip of other bytes is another clip"


# The way back


def typed(workspace: Workspace, *words: str) -> Result:
    place = ["--workspace", str(workspace.storage.local)]
    settings = [f"download.source_template='{workspace.config.download.source_template}'"]
    options = [word for setting in [*SETTINGS, *settings] for word in ("--set", setting)]
    with pytest.MonkeyPatch.context() as patch:
        in_one_process(patch)
        return CliRunner().invoke(cli, [*words, *place, *options])


def status_of(workspace: Workspace, stage: str) -> dict[str, Any]:
    (found,) = (
        row
        for row in json.loads(typed(workspace, "status", "--json").stdout)["result"]["stages"]
        if row["stage"] == stage
    )
    row: dict[str, Any] = found
    total = row["ok"] + row["dropped"] + row["failed"] + row["pending"]
    assert row["input"] == total, "conservation"
    return row


def digests(workspace: Workspace) -> dict[str, str]:
    opened = Workspace(str(workspace.storage.local))
    return {table: opened.digest(table) for table in TABLES}


@SPOILED
def test_a_lost_video_comes_back_and_no_table_changes(
    made: Path, tmp_path: Path, spoil: Spoil, kind: str
) -> None:
    workspace = copied(made, tmp_path)
    before = digests(workspace)
    row = workspace.rows(Video)[0]
    path = workspace.storage.path(row.path)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole)  # no longer the archive's own file
    spoil(path)
    assert "retry --stage download" in typed(workspace, "download").output
    assert "warn  media: videos" in typed(workspace, "doctor").output
    found = status_of(workspace, "download")["media"]
    assert found["files"] == 2
    assert found[kind.removesuffix("_file")] + found["unsure"] == 1 or spoil is SPOILS[1][0]
    done = typed(workspace, "retry", "--stage", "download", "--kind", kind)
    assert done.exit_code == 0, done.output
    assert "download: 1 row: 1 ok (1 video)" in done.output
    assert path.read_bytes() == whole
    assert not path.is_symlink()
    assert digests(workspace) == before
    assert status_of(workspace, "download")["media"] == {
        "files": 2,
        "looked_at": 2,
        "missing": 0,
        "changed": 0,
        "unsure": 0,
    }
    assert "Nothing new to do" in typed(workspace, "sample").output, "nothing downstream is stale"


@pytest.mark.parametrize(("spoil", "kind"), [SPOILS[1], SPOILS[8]])
def test_a_lost_frame_comes_back_and_no_table_changes(
    made: Path, tmp_path: Path, spoil: Spoil, kind: str
) -> None:
    workspace = copied(made, tmp_path)
    before = digests(workspace)
    row = workspace.rows(Frame)[0]
    path = workspace.storage.path(row.path)
    whole = path.read_bytes()
    spoil(path)
    done = typed(workspace, "retry", "--stage", "sample", "--kind", kind)
    assert done.exit_code == 0, done.output
    assert path.read_bytes() == whole
    assert digests(workspace) == before
    assert status_of(workspace, "sample")["media"]["missing"] == 0


def test_status_looks_at_some_of_many_files_and_says_so(
    fetched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Workspace.create(tmp_path / "ws", "offline")
    workspace = opened_at(tmp_path / "ws", fetched / "archive")
    for limit in (1, 2):  # a unit each
        import_list(workspace, fetched / "list.csv", (), limit)
        assert ran(workspace, "download") == {"ok": 1}
    for row in workspace.rows(Video):
        workspace.storage.remove(row.path)
    monkeypatch.setattr("pipeline.run.lost.LOOKED_AT", 1)
    found = status_of(workspace, "download")["media"]
    assert (found["files"], found["looked_at"], found["missing"]) == (2, 1, 1)
    said = typed(workspace, "status").output
    assert "1 of 2 files looked at; 'avatar-build doctor' looks at all." in said
    assert "2 files: 2 missing" in typed(workspace, "doctor").output


def test_a_row_whose_video_cannot_be_had_again_stays_as_it_was(made: Path, tmp_path: Path) -> None:
    workspace = copied(made, tmp_path)
    before = digests(workspace)
    workspace.storage.remove(workspace.rows(Video)[0].path)
    (tmp_path / f"archive/{FIRST}.mp4").unlink()
    done = typed(workspace, "retry", "--stage", "download", "--kind", "missing_file")
    assert "download: 1 row: 0 ok; 1 failed" in done.output
    assert f"{FIRST}: missing_file: " in done.output
    assert "its row stays as it was" in done.output
    assert digests(workspace) == before
    assert status_of(workspace, "download")["media"]["missing"] == 1


def test_other_bytes_replace_the_row_and_what_was_made_of_it_is_done_anew(
    made: Path, tmp_path: Path
) -> None:
    workspace = copied(made, tmp_path)
    workspace.storage.remove(workspace.rows(Video)[0].path)
    source = tmp_path / f"archive/{FIRST}.mp4"
    sound = bursts(11.0, [2.0, 4.0, 6.0, 8.0, 10.0])
    make_video(source, frames=275, draw=mover(7), sound=sound, gop=50)
    assert "failed" not in ran(workspace, "download", again=("missing_file",))
    assert status_of(workspace, "download")["ok"] == 2
    rows = {row.video_id: row for row in workspace.rows(Video)}
    assert rows[FIRST].sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert sorted(rows) == [FIRST, SECOND]
    assert ran(workspace, "sample") == {"ok": 2}
    for row in workspace.rows(Frame):
        assert frame_bytes(workspace.storage, row)
    assert {row.video_id for row in workspace.rows(Frame)} == {FIRST, SECOND}


def test_other_bytes_that_the_filter_rejects_become_a_drop(made: Path, tmp_path: Path) -> None:
    workspace = copied(made, tmp_path)
    workspace.storage.remove(workspace.rows(Video)[0].path)
    make_video(tmp_path / f"archive/{FIRST}.mp4", frames=275, sound=bursts(11.0, [2.0]))
    assert ran(workspace, "download", again=("missing_file",)) == {"dropped": 1}
    found = status_of(workspace, "download")
    assert (found["ok"], found["dropped"], found["children"]) == (1, 1, {"videos": 1})
    assert [row.video_id for row in Workspace(workspace.storage.url).rows(Video)] == [SECOND]


def test_a_replacement_that_was_killed_before_its_file_moved_is_finished(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copied(made, tmp_path)
    ledger = workspace.ledger("download")
    (old,) = ledger.commits()
    rows = [row.model_copy(update={"title": "new"}) for row in workspace.rows(Video)]

    def killed(source: str, target: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workspace.storage, "move", killed)
        with pytest.raises(KeyboardInterrupt):
            ledger.replace(old, old, {"videos": (Video, rows)}, "run")
    again = Workspace(workspace.storage.url)
    recover(again)
    assert {row.title for row in again.rows(Video)} == {"new"}
    (file,) = again.files("videos")
    assert hashlib.sha256(again.storage.read(file.file)).hexdigest() == file.sha256
