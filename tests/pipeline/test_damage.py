"""A file that was flipped, cut or deleted is one line with a way out, never another answer."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DamagedError
from pipeline.records.schema import digest_of
from pipeline.workspace.commit import Rows, Unit
from pipeline.workspace.ledger import Ledger
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from tests.pipeline.one_process import in_one_process
from tests.pipeline.shell import Said, Shell
from tests.video_factory import bursts, make_video

KEPT = "keptkeptkep"
READING = (
    ("status",),
    ("failures", "--drops"),
    ("why", KEPT),
    ("sample", "--dry-run"),
    ("label", "report"),
)
SETTINGS = """
[download]
source_template = "ARCHIVE/{video_id}.mp4"
width = 96
height = 72
[sample]
clip_s = 2
min_active_s = 1
[run]
workers = 1
"""

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with rows kept, dropped and failed, made by the real stages."""
    folder = tmp_path_factory.mktemp("damage")
    archive, root = folder / "archive", folder / "ws"
    archive.mkdir()
    make_video(archive / f"{KEPT}.mp4", frames=260, sound=bursts(10.4, [2.0, 5.0, 8.0]))
    make_video(archive / "shortshorts.mp4", frames=50, sound=bursts(2.0, [1.0]))
    names = [KEPT, "shortshorts", "missingmiss"]
    (folder / "list.csv").write_text("".join(f"{n},0,dog barking,test\n" for n in names))
    with pytest.MonkeyPatch.context() as patch:
        in_one_process(patch)
        shell = Shell(patch)
        shell("init", root, "--profile", "offline").check()
        settings = SETTINGS.replace("ARCHIVE", str(archive))
        (root / "avatar.toml").write_text(settings)
        shell("download", "-w", root, "--list", folder / "list.csv").check()
        shell("sample", "-w", root).check()
    return root


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(finished, tmp_path / "ws"))


def recorded(root: Path) -> list[Path]:
    """Every file below commits/ and tables/ that says something."""
    found = [path for top in ("commits", "tables") for path in (root / top).rglob("*")]
    return sorted(p for p in found if p.suffix in (".json", ".parquet"))


def answers(shell: Shell, root: Path) -> dict[tuple[str, ...], Said]:
    return {words: shell(*words, "-w", root) for words in READING}


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "delete", "zeros"])
def test_whatever_is_damaged_the_answer_is_the_same_or_one_line(
    root: Path, shell: Shell, how: str
) -> None:
    dice = random.Random(how)
    right = answers(shell, root)
    assert all(said.code == 0 for said in right.values())
    seen = 0
    for path in recorded(root):
        whole = path.read_bytes()
        for _ in range(4 if how == "flip" else 1):
            damaged = bytearray(whole)
            if how == "flip":
                damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
            elif how == "cut":
                del damaged[dice.randrange(1, len(whole)) :]
            elif how == "empty":
                damaged.clear()
            elif how == "zeros":
                damaged[:] = bytes(len(whole))
            path.write_bytes(damaged)
            if how == "delete":
                path.unlink()
            for words, said in answers(shell, root).items():
                if said.out.startswith("sample: 1 row to do") and how == "delete":
                    assert path.parent.name == "units", "what has no commit is to do"
                elif (said.code, said.out) != (right[words].code, right[words].out):
                    assert path.name in said.one_line(), (path, words)
                    seen += 1
        path.write_bytes(whole)
    assert seen > 10


@pytest.mark.parametrize(
    ("stage", "damaged", "how"),
    [
        ("sample", "units/*.json", "cut"),
        ("sample", "plan/00000.json", "delete"),
        ("sample", "stage.json", "cut"),
        ("download", "drops/*.parquet", "delete"),
        ("sample", "../../tables/frames/*", "cut"),
    ],
)
def test_redo_heals_what_is_damaged_of_a_stage_and_gives_the_same_rows(
    root: Path, shell: Shell, stage: str, damaged: str, how: str
) -> None:
    before = {table: Workspace(root).digest(table) for table in ("clips", "frames")}
    books = shell("status", "-w", root).out.splitlines()[-1].split()[:6]
    for path in (root / "commits" / stage).glob(damaged):
        if how == "cut":
            path.write_bytes(path.read_bytes()[:-9])
        else:
            path.unlink()
    shell(stage, "-w", root, "--redo").check()
    shell("sample", "-w", root).check()
    assert {table: Workspace(root).digest(table) for table in before} == before
    assert shell("status", "-w", root).out.splitlines()[-1].split()[:6] == books
    for words in READING:
        shell(*words, "-w", root).check()


def test_export_names_the_damaged_file_and_the_command_that_heals(root: Path, shell: Shell) -> None:
    (frames,) = (root / "tables" / "frames").iterdir()
    data = bytearray(frames.read_bytes())
    data[len(data) // 2] ^= 1
    frames.write_bytes(data)
    error = shell("export", "-w", root, "--version", "0.1", "--unverified").one_line()
    assert frames.name in error
    assert "avatar-build sample --redo" in error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[run]\nmax_failed = 'caf\u00e9'\n".encode("latin-1"), "line 2: byte 0xe9 is not UTF-8"),
        ("[run]\n".encode("utf-16"), "is not UTF-8"),
        (b"[run\n", "not valid TOML"),
        (None, "is a folder"),
    ],
)
def test_settings_that_cannot_be_read_are_one_line(
    root: Path, shell: Shell, content: bytes | None, said: str
) -> None:
    toml = root / "avatar.toml"
    toml.unlink()
    if content is None:
        toml.mkdir()
    else:
        toml.write_bytes(content)
    error = shell("status", "-w", root).one_line()
    assert "avatar.toml" in error
    assert said in error


def test_a_history_and_what_failed_are_told_whatever_the_settings_say(
    root: Path, shell: Shell
) -> None:
    said = [shell("why", KEPT, "-w", root), shell("failures", "-w", root)]
    (root / "avatar.toml").write_bytes(b"[run\n")
    assert [shell("why", KEPT, "-w", root), shell("failures", "-w", root)] == said
    assert all(one.code == 0 for one in said)
    assert "not valid TOML" in shell("why", KEPT, "-w", root, "--set", "run.workers=1").one_line()


def test_settings_may_begin_with_a_byte_order_mark(root: Path, shell: Shell) -> None:
    (root / "avatar.toml").write_bytes(b"\xef\xbb\xbf" + (root / "avatar.toml").read_bytes())
    shell("status", "-w", root).check()


def without_a_column(rows: pa.Table) -> pa.Table:
    return rows.drop_columns(["frame_id"])


def with_one_of_another_name(rows: pa.Table) -> pa.Table:
    return rows.rename_columns([{"frame_id": "frame"}.get(n, n) for n in rows.column_names])


def with_one_more(rows: pa.Table) -> pa.Table:
    return rows.append_column("note", pa.array(["x"] * len(rows)))


def with_one_of_another_type(rows: pa.Table) -> pa.Table:
    place = rows.column_names.index("frame_id")
    return rows.set_column(place, "frame_id", pa.array([1.5] * len(rows)))


def with_one_twice(rows: pa.Table) -> pa.Table:
    return rows.append_column("frame_id", rows["frame_id"])


@pytest.mark.parametrize(
    "edit",
    [
        without_a_column,
        with_one_of_another_name,
        with_one_more,
        with_one_of_another_type,
        with_one_twice,
    ],
)
def test_a_table_of_other_columns_is_one_line_even_where_its_commit_names_its_bytes(
    root: Path, shell: Shell, edit: Callable[[pa.Table], pa.Table]
) -> None:
    (frames,) = (root / "tables" / "frames").iterdir()
    (commit,) = (root / "commits" / "sample" / "units").iterdir()
    old = hashlib.sha256(frames.read_bytes()).hexdigest()
    pq.write_table(edit(pq.ParquetFile(frames).read()), frames)
    text = commit.read_text().replace(old, hashlib.sha256(frames.read_bytes()).hexdigest())
    commit.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "digest"}))
    for words in [("status",), ("why", KEPT), ("export", "--version", "0.1", "--unverified")]:
        said = shell(*words, "-w", root).one_line()
        assert frames.name in said
        assert "avatar-build sample --redo" in said


def test_a_folder_in_a_files_place_is_one_line_wherever_one_stands(
    root: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (frames,) = (root / "tables" / "frames").iterdir()
    frames.unlink()
    frames.mkdir()
    monkeypatch.chdir(root)
    assert f"{frames.name}: is a folder, where a file was expected" in shell("status").one_line()


def test_a_file_in_a_folders_place_is_one_line(root: Path, shell: Shell) -> None:
    shutil.rmtree(root / "media" / "videos")
    (root / "media" / "videos").write_bytes(b"")
    words = ("retry", "--stage", "download", "--kind", "missing_file", "-w", root)
    assert "is a file, where a folder was expected" in shell(*words).one_line()


WRONG: tuple[Any, ...] = (None, True, -1.5, "7", [7], ["a"], {"a": "b"}, {"a": {"b": "c"}})


def spoil(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a sealed file says, and seal it again."""
    document = json.loads(path.read_bytes())
    document.pop("digest")
    change(document)
    path.write_text(json.dumps(document | {"digest": digest_of(document)}))


@pytest.mark.parametrize("within", ["", "input", "counts", "endings", "files"])
def test_a_commit_that_says_what_none_can_is_one_line_though_its_digest_fits(
    root: Path, within: str
) -> None:
    path = next(p for p in (root / "commits/download/units").iterdir() if p.suffix == ".json")
    whole = path.read_bytes()
    commit = json.loads(whole)
    inner = commit[within] if within else commit
    inner = inner[0] if isinstance(inner, list) else inner
    for key in inner.keys() - {"digest"}:
        for wrong in WRONG:
            # A text in place of another is no wrong type, and these fields may be such things.
            if type(wrong) is type(inner[key]) and not isinstance(wrong, (dict, list)):
                continue
            if (key, wrong) in (("endings", None), ("ids", ["a"]), ("versions", {"a": "b"})):
                continue
            spoil(path, partial(put, within, key, wrong))
            with pytest.raises(DamagedError, match="or do its rows again") as caught:
                Workspace(root).ledger("download").commits()
            assert "\n" not in str(caught.value), (key, wrong)
            path.write_bytes(whole)


def put(within: str, key: str, value: object, document: dict[str, Any]) -> None:
    place: Any = document
    for name in within.split(".") if within else ():
        place = place[name]
        place = place[0] if isinstance(place, list) else place
    place[key] = value


@pytest.mark.parametrize("within", ["", "input", "counts", "endings", "files"])
def test_a_commit_that_lacks_a_field_is_damaged(root: Path, within: str) -> None:
    path = next(p for p in (root / "commits/download/units").iterdir() if p.suffix == ".json")
    whole = path.read_bytes()
    commit = json.loads(whole)
    inner = commit[within] if within else commit
    for key in (inner[0] if isinstance(inner, list) else inner).keys() - {"digest"}:
        if key in ("endings", "ids") or key.startswith("children:"):
            continue
        spoil(path, partial(put, within, f"other {key}", "x"))
        spoil(path, partial(take, within, key))
        with pytest.raises(DamagedError):
            Workspace(root).ledger("download").commits()
        path.write_bytes(whole)


def take(within: str, key: str, document: dict[str, Any]) -> None:
    place = document[within] if within else document
    place = place[0] if isinstance(place, list) else place
    del place[key], place[f"other {key}"]


def test_plans_and_generations_that_say_what_none_can_are_one_line(root: Path) -> None:
    plan = root / "commits/download/plan/00000.json"
    whole = plan.read_bytes()
    for wrong in (True, "7", None, [1]):
        spoil(plan, partial(put, "units.parts", "first", wrong))
        with pytest.raises(DamagedError, match="plan"):
            Workspace(root).ledger("download").plan()
        plan.write_bytes(whole)
    place = root / "commits/download/stage.json"
    raw = json.loads(place.read_bytes()) | {"config": [1]}
    del raw["key"]
    place.write_text(json.dumps(raw | {"key": digest_of(raw)}))
    with pytest.raises(DamagedError, match="config: "):
        Workspace(root).ledger("download").generation()


def test_every_reading_command_says_it_in_one_line(root: Path, shell: Shell) -> None:
    for path in (root / "commits/sample/units").glob("*.json"):
        spoil(path, lambda document: document["counts"].update(ok="many"))
    for said in answers(shell, root).values():
        assert "counts.ok" in said.one_line()


def test_a_plan_file_that_is_missing_among_others_is_named(tmp_path: Path) -> None:
    ledger = Ledger(Storage(tmp_path), "sample")
    for name in ("a", "b", "c"):
        assert ledger.append([Unit((Rows(name, "", 0, 1),), -1, "")], "key", ledger.plan())
    assert [unit.where for unit in ledger.plan()] == ["a", "b", "c"]
    ledger.storage.remove("commits/sample/plan/00001.json")
    with pytest.raises(DamagedError, match=r"plan/00001\.json: it is missing"):
        ledger.plan()


@pytest.mark.parametrize("place", ["a file/ws", "/proc/avatar-build-ws"])
def test_init_where_no_folder_can_be_is_one_line(shell: Shell, tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").touch()
    said = shell("init", tmp_path / place)
    assert said.code == 2
    assert "no workspace can be made here" in said.one_line()
