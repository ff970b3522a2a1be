"""Each check is shown a release with one defect planted in it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner

from exports import load_release
from exports.release.freeze import write_checksums
from exports.release.parquet import write_copies
from exports.verify import verify_release as verify_module
from exports.verify.verify_release import verify_release
from pipeline.cli import cli
from pipeline.errors import UsageError
from pipeline.records import rle
from pipeline.release import layout
from pipeline.release.document import from_json
from pipeline.workspace.storage import Storage
from tests.exports.drawn import DOG, draw_media, release, tables

Json = dict[str, Any]
DOCUMENT = "annotations/instances.json"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release without defects, with media."""
    storage = Storage(tmp_path_factory.mktemp("ws"))
    rows = tables()
    rows = draw_media(storage, rows)
    release(storage, rows, unverified=True, media=True)
    return storage.path("releases/1.0")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(sound, tmp_path / "1.0"))


def spoil(folder: Path, change: Callable[[Json], Any], name: str = DOCUMENT) -> None:
    """Change a JSON file, and the copies and checksums so that nothing else is wrong."""
    content = json.loads((folder / name).read_bytes())
    change(content)
    data = json.dumps(content).encode()
    (folder / name).write_bytes(data)
    if name == DOCUMENT:
        with contextlib.suppress(ValueError):  # when the defect is one of form
            write_copies(from_json(data), folder)
    write_checksums(folder)


def found(folder: Path) -> dict[str, str]:
    """The findings, one text per check."""
    texts: dict[str, str] = {}
    for finding in verify_release(folder):
        texts[finding.check] = (
            texts.get(finding.check, "") + f"{finding.where}: {finding.message}\n"
        )
    return texts


def test_a_sound_release_has_no_findings(folder: Path) -> None:
    assert verify_release(folder) == []


def test_an_image_swapped_with_its_fingerprint_is_not_the_one_that_was_sampled(
    folder: Path,
) -> None:
    def swap(content: Json) -> None:
        one, other = content["images"][:2]
        data = (folder / other["file_name"]).read_bytes()
        (folder / one["file_name"]).write_bytes(data)
        one |= {key: other[key] for key in ("image_sha256", "image_dhash")}

    spoil(folder, swap)
    assert list(found(folder)) == ["images", "clips"]
    assert "is not the image that was sampled" in found(folder)["images"]
    assert "is not the picture that was saved" in found(folder)["clips"]


def test_a_release_older_than_the_recorded_digests_verifies_and_says_what_was_not_compared(
    folder: Path,
) -> None:
    content = json.loads((folder / DOCUMENT).read_bytes())
    for image in content["images"]:
        del image["recorded_sha256"]
    (folder / DOCUMENT).write_text(json.dumps(content))
    copy = folder / "annotations/frames.parquet"
    parquet.write_table(parquet.read_table(copy).drop_columns(["recorded_sha256"]), copy)
    write_checksums(folder)
    done = CliRunner().invoke(cli, ["export", "--verify", str(folder)])
    assert done.exit_code == 0, done.output
    images = len(content["images"])
    assert f"{images} of {images} images not compared" in done.output


def test_a_release_older_than_tracks_verifies_and_loads(folder: Path) -> None:
    content = json.loads((folder / DOCUMENT).read_bytes())
    for annotation in content["annotations"]:
        del annotation["track_id"]
    (folder / DOCUMENT).write_text(json.dumps(content))
    copy = folder / "annotations/instances.parquet"
    parquet.write_table(parquet.read_table(copy).drop_columns(["track_id"]), copy)
    write_checksums(folder)
    assert verify_release(folder) == []
    assert {one.track_id for frame in load_release(folder) for one in frame.instances} == {None}


def test_a_release_moved_and_named_by_a_relative_path_is_sound(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert verify_release(Path()) == []


def test_no_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No release at"):
        verify_release(tmp_path / "none")


def test_a_folder_of_other_things_is_no_release(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"neither annotations/instances\.json nor CHECKSUMS"):
        verify_release(tmp_path)
    (tmp_path / "CHECKSUMS.sha256").touch()
    assert {"checksums", "schema"} <= set(found(tmp_path))


# --- files and checksums ---


def test_a_changed_byte_is_found(folder: Path) -> None:
    path = folder / "video" / f"{DOG}_00001.mp4"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert found(folder) == {
        "checksums": f"'{path.relative_to(folder)}': is not the file that was released\n"
    }


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "README.md").unlink()
    assert found(folder) == {
        "checksums": "'README.md': is listed and missing\n",
        "files": "'README.md': is missing\n",
    }


def test_a_missing_file_that_the_checksums_forget_too_is_found(folder: Path) -> None:
    (folder / "video" / f"{DOG}_00001.mp4").unlink()
    write_checksums(folder)
    assert found(folder) == {"files": f"'video/{DOG}_00001.mp4': is missing\n"}


def test_an_added_file_is_found(folder: Path) -> None:
    (folder / "extra.txt").write_text("hello")
    assert found(folder) == {
        "checksums": "'extra.txt': is not listed\n",
        "files": "'extra.txt': does not belong to the release\n",
    }


def test_a_sound_of_its_own_is_found_where_the_clips_are_ours(folder: Path) -> None:
    (folder / "audio").mkdir()
    (folder / f"audio/{DOG}_00001.wav").write_bytes(b"RIFF")
    write_checksums(folder)
    assert found(folder) == {
        "files": f"'audio/{DOG}_00001.wav': does not belong to the release\n",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "is not 'sha256  path'"),
        (f"{'0' * 64}  ../../outside", "leads outside the release"),
        (f"{'0' * 64}  /etc/passwd", "leads outside the release"),
        (f"{'0' * 64}  README.md", "is listed twice"),
    ],
)
def test_a_bad_line_of_the_checksums_is_found(folder: Path, line: str, message: str) -> None:
    (folder.parent / "outside").write_text("secret")
    with (folder / "CHECKSUMS.sha256").open("a") as handle:
        handle.write(line + "\n")
    assert message in found(folder)["checksums"]


def test_links_are_found_and_nothing_behind_them_is_read(folder: Path) -> None:
    secret = folder.parent / "secret.json"
    secret.write_text('{"password": "hunter2"}')
    (folder / DOCUMENT).unlink()
    (folder / DOCUMENT).symlink_to(secret)
    (folder / "more").symlink_to(folder.parent, target_is_directory=True)
    findings = verify_release(folder)
    assert sorted(finding.where for finding in findings) == [f"'{DOCUMENT}'", "'more'"]
    assert all("is a link" in finding.message for finding in findings)


def test_a_pipe_is_found_and_not_waited_for(folder: Path) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    assert found(folder) == {"files": "'README.md': is not a plain file\n"}


# --- schema ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("categories"), "field required"),
        (lambda d: d.update(extra=1), "extra inputs"),
        (lambda d: d["images"][0].pop("time_s"), "field required"),
        (lambda d: d["images"][0].update(width="64"), "valid integer"),
        (lambda d: d["images"][0].update(width=10**9), "less than or equal"),
        (
            lambda d: d["images"][0].update(file_name="../../../etc/passwd"),
            "is not written as it should be",
        ),
        (
            lambda d: d["images"][0].update(clip_file="video/../../x.mp4"),
            "is not written as it should be",
        ),
        (lambda d: d["videos"][0].update(id="../../../x/"), "is not written as it should be"),
        (lambda d: d["annotations"][0].update(scenario="Off-screen"), "input should be"),
        (lambda d: d["annotations"][0].update(iscrowd=1), "less than or equal to 0"),
        (lambda d: d["annotations"][0].update(bbox=[1.0, 2.0]), "at least 4"),
        (lambda d: d["annotations"][0].update(time_s=float("nan")), "finite number"),
        (lambda d: d["images"][0].update(license=10**30), "less than 9"),
        (lambda d: d["images"][0].update(frame_index=2**63), "less than 9"),
        (lambda d: d["images"][0].update(image_dhash="not hex"), "not written as it should be"),
        (lambda d: d["images"][0].update(recorded_sha256="0"), "not written as it should be"),
        (lambda d: d["info"]["provenance"].update(sample=5), "should be an object"),
    ],
)
def test_a_document_of_another_form_is_found(
    folder: Path, change: Callable[[Json], Any], message: str
) -> None:
    spoil(folder, change)
    texts = found(folder)
    assert set(texts) == {"schema"}
    assert message in texts["schema"]


def test_a_key_that_is_there_twice_is_found_as_readers_differ_on_what_counts(folder: Path) -> None:
    path = folder / DOCUMENT
    path.write_text(path.read_text().replace('"area": ', '"area": 1, "area": ', 1))
    write_checksums(folder)
    texts = found(folder)
    assert set(texts) == {"schema"}
    assert "'area' is there twice" in texts["schema"]


@pytest.mark.parametrize("config", [5, [1], {"clip_s": "x"}, None])
def test_settings_of_another_form_are_as_by_default(folder: Path, config: object) -> None:
    spoil(folder, lambda d: d["info"]["provenance"].update(sample={"config": config}))
    assert set(found(folder)) <= {"card", "clips"}


def test_what_is_no_json_is_found(folder: Path) -> None:
    (folder / DOCUMENT).write_bytes(b'{"info": \xff\x00')
    write_checksums(folder)
    assert set(found(folder)) == {"schema"}


# --- ids, references, frames ---


def twice(name: str) -> Callable[[Json], Any]:
    return lambda d: d[name].append(d[name][0])


def one_track(same_image: bool) -> Callable[[Json], Any]:
    """Give two annotations one track: of one frame, or of two clips."""

    def change(document: Json) -> None:
        first, second = next(
            pair
            for pair in itertools.combinations(document["annotations"], 2)
            if (pair[0]["image_id"] == pair[1]["image_id"]) == same_image
            and (pair[0]["clip_id"] == pair[1]["clip_id"]) == same_image
        )
        first["track_id"] = second["track_id"] = 7

    return change


def number_alike(name: str) -> Callable[[Json], Any]:
    return lambda d: d[name][1].update(id=d[name][0]["id"])


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        (twice("videos"), "ids", "videos.id"),
        (twice("annotations"), "ids", "annotations.instance_id"),
        (twice("images"), "ids", "images.frame_id"),
        (twice("categories"), "ids", "categories.name"),
        (twice("licenses"), "ids", "licenses.id"),
        (number_alike("images"), "ids", "images.id"),
        (number_alike("annotations"), "ids", "annotations.id"),
        (
            lambda d: d["videos"].append({**d["videos"][0], "split": "train"}),
            "split_leak",
            "is in the splits",
        ),
        (lambda d: d["videos"].pop(0), "references", "is not in the release"),
        (
            lambda d: d["videos"].append(
                {**d["videos"][0], "id": "unused_vide", "video_id": "unused_vide"}
            ),
            "references",
            "has no labelled frame",
        ),
        (lambda d: d["videos"][0].update(video_id="x" * 11), "references", "video_id"),
        (lambda d: d["videos"][0].update(license_id=9), "references", "license"),
        (lambda d: d["images"][0].update(license=9), "references", "license"),
        (lambda d: d["images"][0].update(clip_id="c"), "references", "clip_id"),
        (lambda d: d["images"][0].update(frame_id="f"), "references", "frame_id"),
        (lambda d: d["images"][0].update(frame_index=9), "references", "file_name"),
        (lambda d: d["images"][0].update(clip_start_s=7.0), "references", "clip_file"),
        (lambda d: d["annotations"][0].update(image_id=99), "references", "image 99"),
        (lambda d: d["annotations"][0].update(category_id=99), "references", "category"),
        (lambda d: d["annotations"][0].update(audio_visual_category="x"), "references", "category"),
        (lambda d: d["annotations"][0].update(video_id="x" * 11), "references", "video_id"),
        (lambda d: d["annotations"][0].update(frame_index=99), "references", "frame_index"),
        (lambda d: d["annotations"][0].update(time_s=0.0), "references", "time_s"),
        (one_track(same_image=True), "references", "track 7: is twice in image"),
        (one_track(same_image=False), "references", "track 7: is of two clips"),
        (lambda d: d["images"][0].update(off_screen=False), "off_screen", "has no annotation"),
        (lambda d: d["images"][1].update(off_screen=True), "off_screen", "has annotations"),
        (
            lambda d: d["images"][1].update(off_screen_category="x"),
            "off_screen",
            "is not off-screen",
        ),
        (lambda d: d["info"].update(verified=True), "flags", "info"),
        (lambda d: d["annotations"][0].update(verified=False), "flags", "image"),
        (
            lambda d: d["images"][0].update(verified=False),
            "authors_layout",
            "is not the off-screen frame",
        ),
    ],
)
def test_rows_that_contradict_each_other_are_found(
    folder: Path, change: Callable[[Json], Any], check: str, message: str
) -> None:
    document = json.loads((folder / DOCUMENT).read_bytes())
    # The positions the changes above rely on.
    assert document["images"][0]["off_screen"]
    assert not document["images"][1]["off_screen"]
    spoil(folder, change)
    assert message in found(folder)[check]


# --- masks and images ---


def mask_of(*place: int) -> Json:
    inside = np.zeros((48, 64), dtype=bool)
    x, y, w, h = place
    inside[y : y + h, x : x + w] = True
    return rle.encode(inside).model_dump()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area": 5}, "area is 5"),
        ({"bbox": [0.0, 0.0, 5.0, 5.0]}, "bbox is"),
        ({"segmentation": {"size": [48, 64], "counts": "1"}}, "does not decode"),
        ({"segmentation": {"size": [48, 64], "counts": "ooooo"}}, "does not decode"),
        ({"segmentation": {"size": [48, 64], "counts": "\u00e9"}}, "does not decode"),
        (
            {"segmentation": rle.encode(np.ones((96, 128), dtype=bool)).model_dump()},
            "mask is [96, 128], image is [48, 64]",
        ),
        ({"segmentation": mask_of(0, 0, 0, 0)}, "area is"),
    ],
)
def test_a_mask_that_is_not_what_its_row_says_is_found(
    folder: Path, change: Json, message: str
) -> None:
    spoil(folder, lambda d: d["annotations"][0].update(change))
    assert message in found(folder)["masks"]


def test_an_image_of_another_size_is_found(folder: Path) -> None:
    spoil(folder, lambda d: d["images"][0].update(width=65))
    assert "is 64x48, its row says 65x48" in found(folder)["images"]


def test_a_file_that_is_no_image_is_found(folder: Path) -> None:
    next(folder.glob("metadata/*/*.jpg")).write_text("<html>")
    write_checksums(folder)
    assert "is no JPEG or PNG" in found(folder)["images"]


# --- the other forms of the same rows ---


@pytest.mark.parametrize("name", ["videos", "frames", "instances"])
def test_a_copy_that_says_something_else_is_found(folder: Path, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"annotations/{name}.parquet"
    table = pq.read_table(path)
    column = {"videos": "title", "frames": "off_screen_category", "instances": "mask_source"}[name]
    place = table.schema.get_field_index(column)
    values = pa.array(["other", *table[column].to_pylist()[1:]])
    pq.write_table(table.set_column(place, table.schema.field(column), values), path)
    write_checksums(folder)
    assert f"{column}: 'other'" in found(folder)["parquet"]
    pq.write_table(table.slice(1), path)
    assert "rows" in found(folder)["parquet"]
    pq.write_table(table.drop_columns([column]), path)
    assert "columns" in found(folder)["parquet"]
    path.write_bytes(b"PAR1 no PAR1")
    assert "cannot be read" in found(folder)["parquet"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(original_width=1), "size"),
        (lambda f: f.pop("original_height"), "cannot be read"),
        (lambda f: f["annotations"].pop(), "annotations, the JSON 2"),
        (lambda f: f["annotations"][0].update(task="x"), "is not annotation"),
        (lambda f: f["annotations"][0].update(bbox=[1, 2, 3, 4]), "is not annotation"),
        (lambda f: f["annotations"][0].update(audio_visual_category="x"), "is not annotation"),
        (lambda f: f["annotations"][0]["segmentation"][0].__setitem__(0, 30.0), "polygons"),
        (lambda f: f["annotations"][0]["segmentation"][0].__setitem__(0, 1e18), "polygons"),
        (lambda f: f["annotations"][0]["segmentation"][0].__setitem__(0, "x"), "cannot be read"),
        (lambda f: f["annotations"][0].update(segmentation=[]), "polygons"),
        (lambda f: f["annotations"][0].update(segmentation=[[1.0, 1.0]]), "polygons"),
        (lambda f: f["annotations"][0].update(segmentation=7), "cannot be read"),
        (lambda f: f.update(annotations=3), "cannot be read"),
    ],
)
def test_an_authors_file_that_says_something_else_is_found(
    folder: Path, change: Callable[[Json], Any], message: str
) -> None:
    spoil(folder, change, f"metadata/{DOG}_00001/00040.json")
    texts = found(folder)
    assert set(texts) == {"authors_layout"}
    assert message in texts["authors_layout"]


def test_an_authors_off_screen_file_that_says_something_else_is_found(folder: Path) -> None:
    name = "metadata/-cat_cat-ca_00001/00012.json"
    spoil(folder, lambda f: f["annotations"][0].update(task="Single-sound"), name)
    assert "off-screen" in found(folder)["authors_layout"]
    (folder / name).write_bytes(b"[" * 100_000)
    assert "cannot be read" in found(folder)["authors_layout"]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["instances"].update(total=99),
        lambda s: s["per_category"][0].update(frames=99),
        lambda s: s.update(cross_event_videos=9),
        lambda s: s.pop("frames_per_clip"),
        lambda s: s.update(version="9.9"),
        lambda s: s.update(left_out="nothing"),
        lambda s: s.pop("left_out"),
        lambda s: s["left_out"].append({"id": f"i_{DOG}_00001000_0005_0"}),
    ],
)
def test_statistics_that_are_not_the_document_are_found(
    folder: Path, change: Callable[[Json], Any]
) -> None:
    spoil(folder, change, "statistics.json")
    assert set(found(folder)) == {"statistics"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is cross-event and not listed"),
        (f"{DOG}\n{DOG}\n", "twice"),
        (f"-cat_cat-ca\n{DOG}\n", "is not cross-event"),
        (f"../../x\n{DOG}\n", "is not cross-event"),
    ],
)
def test_another_cross_event_list_is_found(folder: Path, text: str, message: str) -> None:
    (folder / "subsets/cross_event.txt").write_text(text)
    write_checksums(folder)
    texts = found(folder)
    assert set(texts) == {"cross_event"}
    assert message in texts["cross_event"]


def test_a_card_that_hides_that_nobody_verified_is_found(folder: Path) -> None:
    path = folder / "README.md"
    path.write_text(path.read_text().replace("**Unverified.**", "**Fine.**"))
    write_checksums(folder)
    assert set(found(folder)) == {"flags"}


def test_findings_are_harmless_on_a_terminal(folder: Path) -> None:
    spoil(folder, lambda d: d["images"][0].update(frame_id="\x1b[31m" + "x" * 10_000))
    for finding in verify_release(folder):
        assert str(finding).isprintable()
        assert len(str(finding)) < 400


# --- scenarios and the card ---


@pytest.mark.parametrize(
    ("scenarios", "message"),
    [
        (["Single-sound", "Mixed-sound"], "Single-sound beside another"),
        (["Single-sound", "Single-sound"], "Single-sound beside another"),
        (["Multi-entity", "Mixed-sound"], None),  # a bird among many, and a dog
        (["Mixed-sound", "Mixed-sound"], None),
    ],
)
def test_scenarios_that_cannot_stand_together_are_found(
    folder: Path, scenarios: list[str], message: str | None
) -> None:
    def change(document: Json) -> None:
        pair = [a for a in document["annotations"] if a["frame_index"] == 40]
        for row, scenario in zip(pair, scenarios, strict=True):
            row["scenario"] = scenario

    spoil(folder, change)
    texts = found(folder)
    assert ("scenarios" in texts) == (message is not None)
    assert message is None or message in texts["scenarios"]


def test_of_look_alikes_all_or_none_are_multi_entity(folder: Path) -> None:
    def change(document: Json) -> None:
        pair = [a for a in document["annotations"] if a["frame_index"] == 40]
        for row, scenario in zip(pair, ("Multi-entity", "Mixed-sound"), strict=True):
            row.update(scenario=scenario, audio_visual_category="bird")

    spoil(folder, change)
    assert "some of the frame's look-alikes only" in found(folder)["scenarios"]


def test_multi_entity_leaves_room_for_a_look_alike(folder: Path) -> None:
    everything = rle.encode(np.ones((48, 64), dtype=bool)).model_dump()

    def change(document: Json) -> None:
        row = next(a for a in document["annotations"] if a["scenario"] == "Multi-entity")
        row.update(segmentation=everything, area=48 * 64, bbox=[0.0, 0.0, 64.0, 48.0])

    spoil(folder, change)
    assert "no room for a look-alike" in found(folder)["scenarios"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| videos | 3 |", "| videos | 5000 |"),
        ("| Mixed-sound | 2 |", "| Mixed-sound | 2 |\n| Mixed-sound | 20 |"),
        ("| checked by people | no |", "| checked by people | yes |"),
        (f"| `{DOG}` | Title of {DOG} | Somebody |", f"| `{DOG}` | Title of {DOG} | Nobody |"),
        ("version 1.0+unverified", "version 1.0"),
    ],
)
def test_a_card_that_states_something_else_is_found(folder: Path, old: str, new: str) -> None:
    path = folder / "README.md"
    assert old in path.read_text() or old.replace("+", "\\+") in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    write_checksums(folder)
    assert set(found(folder)) == {"card"}


def test_a_version_that_hides_that_nobody_verified_is_found(folder: Path) -> None:
    spoil(folder, lambda d: d["info"].update(version="1.0"))
    assert "version is '1.0'" in found(folder)["flags"]


def test_one_video_in_two_splits_is_a_leak(folder: Path) -> None:
    spoil(folder, lambda d: d["videos"].append({**d["videos"][0], "split": "train"}))
    assert "is in the splits" in found(folder)["split_leak"]


def test_a_finding_shows_the_start_of_a_long_value(folder: Path) -> None:
    path = folder / "annotations/instances.parquet"
    table = parquet.read_table(path)
    column = table.column_names.index("segmentation")
    masks = [
        {**mask, "counts": mask["counts"] + "0" * 9_000}
        for mask in table["segmentation"].to_pylist()
    ]
    changed = pyarrow.array(masks, table.schema.field(column).type)
    parquet.write_table(table.set_column(column, table.schema.field(column), changed), path)
    said = found(folder)["parquet"]
    assert "segmentation" in said
    assert len(said) < 300


def test_our_own_form_is_read_row_by_row_and_another_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path)
    release(storage)
    folder = tmp_path / "releases/1.0"
    whole: list[Path] = []
    really = verify_module._read_document

    def noted(path: Path) -> Any:
        whole.append(path)
        return really(path)

    monkeypatch.setattr(verify_module, "_read_document", noted)
    assert verify_release(folder) == []
    assert whole == []
    path = folder / layout.DOCUMENT
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    assert [finding.check for finding in verify_release(folder)] == ["checksums"]
    assert whole == [folder]
