from __future__ import annotations

import json
import os
import random
import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from exports.release.selection import ReleaseTables
from exports.verify.verify_release import verify_release
from pipeline.config import ExportConfig
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.records import rle
from pipeline.records.schema import Rle
from pipeline.workspace.recorded import write_note
from pipeline.workspace.storage import Storage
from tests.exports.drawn import (
    CAT,
    DOG,
    TRAIN,
    WORLD,
    Shot,
    Thing,
    added,
    changed,
    draw_media,
    release,
    tables,
    without,
)
from tests.spoiled import (
    Spoil,
    a_folder,
    a_link_to_another,
    a_link_to_itself,
    another,
    another_made_to_look_as_old,
    longer,
)

DOG_5 = f"{DOG}_00001000_0005"
DOG_40 = f"{DOG}_00001000_0040"
CAT_12 = f"{CAT}_00001000_0012"
TRAIN_0 = f"{TRAIN}_00001000_0000"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "ws")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def document_of(storage: Storage, version: str = "1.0") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        storage.read(f"releases/{version}/annotations/instances.json")
    )
    return loaded


def left_out_of(storage: Storage, version: str = "1.0") -> dict[str, str]:
    loaded = json.loads(storage.read(f"releases/{version}/statistics.json"))
    return {item["id"]: item["reason"] for item in loaded["left_out"]}


def shuffled(rows: ReleaseTables, seed: int) -> ReleaseTables:
    generator = random.Random(seed)
    mixed = {f.name: list(getattr(rows, f.name)) for f in fields(rows)}
    for table in mixed.values():
        generator.shuffle(table)
    return replace(rows, **mixed)


def test_a_release_has_what_the_contract_names(storage: Storage) -> None:
    rows = tables()
    rows = draw_media(storage, rows)
    release(storage, rows, media=True)
    assert sorted(files_of(storage.path("releases/1.0"))) == sorted(
        [
            "CHECKSUMS.sha256",
            "README.md",
            "annotations/frames.parquet",
            "annotations/instances.json",
            "annotations/instances.parquet",
            "annotations/videos.parquet",
            "figures/categories.svg",
            "figures/scenarios.svg",
            "metadata/-cat_cat-ca_00001/00012.jpg",
            "metadata/-cat_cat-ca_00001/00012.json",
            "metadata/-cat_cat-ca_00001/00030.jpg",
            "metadata/-cat_cat-ca_00001/00030.json",
            "metadata/dog0dog0dog_00001/00005.jpg",
            "metadata/dog0dog0dog_00001/00005.json",
            "metadata/dog0dog0dog_00001/00040.jpg",
            "metadata/dog0dog0dog_00001/00040.json",
            "statistics.json",
            "subsets/cross_event.txt",
            "video/-cat_cat-ca_00001.mp4",
            "video/dog0dog0dog_00001.mp4",
        ]
    )
    assert verify_release(storage.path("releases/1.0")) == []


def test_the_shipped_clip_shows_its_span_of_the_source(storage: Storage) -> None:
    rows = tables(WORLD[:1])
    rows = draw_media(storage, rows)
    release(storage, rows, media=True)
    with av.open(str(storage.path(f"releases/1.0/video/{DOG}_00001.mp4"))) as container:
        frames = [frame for frame in container.decode(video=0) if frame.time >= 0]
        assert 48 <= len(frames) <= 52
        # Second 1 starts with frame 25 of the source, whose square stands at column 25.
        row = frames[0].to_ndarray(format="gray")[15]
    assert abs(int(np.flatnonzero(row > 128)[0]) - 25) <= 1


def test_checksums_are_what_sha256sum_reads(storage: Storage) -> None:
    release(storage)
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "CHECKSUMS.sha256"],
        cwd=storage.path("releases/1.0"),
        check=False,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_same_tables_in_any_order_give_the_same_bytes(storage: Storage, tmp_path: Path) -> None:
    rows = tables()
    rows = draw_media(storage, rows)
    other = Storage(tmp_path / "other")
    draw_media(other, rows)
    release(storage, rows, unverified=True, media=True)
    first = files_of(storage.path("releases/1.0"))
    for seed in range(3):
        release(other, shuffled(rows, seed), unverified=True, media=True)
        assert files_of(other.path("releases/1.0")) == first
        other.remove("releases/1.0")


def test_only_verified_rows_are_released_and_the_others_are_named(storage: Storage) -> None:
    summary = release(storage)
    document = document_of(storage)
    assert {row["video_id"] for row in document["images"]} == {DOG, CAT}
    assert document["info"]["verified"] is True
    assert summary.verified
    assert (summary.frames, summary.off_screen_frames, summary.instances) == (4, 1, 4)
    assert left_out_of(storage) == {
        TRAIN_0: "no_instance_released",
        f"i_{TRAIN_0}_0": "not_verified",
        f"{TRAIN}_00001000_0045": "not_verified",
    }
    assert summary.left_out == {
        "frame no_instance_released": 1,
        "frame not_verified": 1,
        "instance not_verified": 1,
    }
    assert b"Unverified" not in storage.read("releases/1.0/README.md")


def test_an_unverified_release_says_so_in_card_head_and_rows(storage: Storage) -> None:
    summary = release(storage, unverified=True)
    document = document_of(storage)
    assert not summary.verified
    assert document["info"]["verified"] is False
    for name in ("images", "annotations"):
        flags = {row["video_id"]: row["verified"] for row in document[name]}
        assert flags == {DOG: True, CAT: True, TRAIN: False}
    assert b"**Unverified.**" in storage.read("releases/1.0/README.md")
    assert json.loads(storage.read("releases/1.0/statistics.json"))["verified"] is False


def test_a_box_that_people_checked_with_a_mask_they_did_not_is_unverified(storage: Storage) -> None:
    rows = changed(tables(), "masks", f"i_{DOG_5}_0", verified=False)
    release(storage, rows)
    assert left_out_of(storage)[f"i_{DOG_5}_0"] == "mask_not_verified"
    release(storage, rows, "1.1", unverified=True)
    flags = {
        row["instance_id"]: row["verified"] for row in document_of(storage, "1.1")["annotations"]
    }
    assert flags[f"i_{DOG_5}_0"] is False


def test_an_instance_without_its_mask_is_left_out_and_its_frame_says_one_is_missing(
    storage: Storage,
) -> None:
    release(storage, without(tables(), "masks", f"i_{DOG_40}_1"))
    assert left_out_of(storage)[f"i_{DOG_40}_1"] == "no_mask"
    missing = {row["frame_id"]: row["missing_instances"] for row in document_of(storage)["images"]}
    assert missing[DOG_40] == 1
    assert missing[DOG_5] == 0


def test_every_row_of_the_tables_is_released_or_named(storage: Storage) -> None:
    rows = without(tables(), "masks", f"i_{DOG_5}_0")
    rows = without(rows, "instances", f"i_{DOG_40}_1")
    release(storage, rows)
    document, left_out = document_of(storage), left_out_of(storage)
    frames = {row["frame_id"] for row in document["images"]}
    instances = {row["instance_id"] for row in document["annotations"]}
    assert frames | {f.frame_id for f in rows.frames if f.frame_id in left_out} == {
        f.frame_id for f in rows.frames
    }
    assert instances | (set(left_out) & {i.instance_id for i in rows.instances}) == {
        i.instance_id for i in rows.instances
    }
    assert left_out[f"i_{DOG_40}_1"] == "no_instance"  # its mask is left


def test_a_person_outranks_a_rule_whenever_they_spoke(storage: Storage) -> None:
    rows = tables()
    rule = rows.reviews[0].model_copy(
        update={
            "review_id": "r_rule",
            "annotator": "rule:accept",
            "updated_at": "2027-01-01T00:00:00Z",
            "decision": "off_screen",
            "verified": False,
        }
    )
    release(storage, added(rows, "reviews", rule))
    assert DOG_5 in {row["frame_id"] for row in document_of(storage)["images"]}


def test_of_rules_and_simulations_the_latest_counts(storage: Storage) -> None:
    rows = tables(WORLD[4:5])
    simulated = rows.reviews[0].model_copy(
        update={
            "review_id": "r_sim",
            "annotator": "simulated:1",
            "updated_at": "2026-01-01T00:00:00Z",
        }
    )
    instance = rows.instances[0].model_copy(update={"review_ids": ["r_sim"]})
    rows = replace(added(rows, "reviews", simulated), instances=[instance])
    summary = release(storage, rows, unverified=True)
    assert (summary.instances, summary.left_out) == (1, {})
    rejecting = simulated.model_copy(update={"decision": "rejected"})
    rows = replace(rows, reviews=[rows.reviews[0], rejecting])
    with pytest.raises(AvatarBuildError, match=r"1 frame \(rejected\), 1 instance \(rejected\)"):
        release(storage, rows, "1.1", unverified=True)


def test_the_summary_says_what_was_made_and_what_was_not(storage: Storage) -> None:
    summary = release(storage)
    assert summary.sentence() == (
        "releases/1.0: 2 videos, 4 frames (1 off-screen), 4 instances. Left out: "
        "1 frame (no_instance_released), 1 frame (not_verified), 1 instance (not_verified) "
        "(statistics.json names them). Not compared, for want of a recorded digest: 4 frames."
    )
    assert "UNVERIFIED" in release(storage, version="1.1", unverified=True).sentence()
    assert json.loads(json.dumps(summary.as_dict()))["instances"] == 4


def test_a_later_review_by_the_same_person_replaces_the_earlier(storage: Storage) -> None:
    rows = tables()
    later = rows.reviews[0].model_copy(
        update={
            "review_id": "r_later",
            "updated_at": "2027-01-01T00:00:00Z",
            "decision": "rejected",
        }
    )
    release(storage, added(rows, "reviews", later))
    left_out = left_out_of(storage)
    assert left_out[DOG_5] == "rejected"
    assert left_out[f"i_{DOG_5}_0"] == "rejected"


def test_an_instance_of_a_replaced_review_is_superseded(storage: Storage) -> None:
    rows = tables()
    later = rows.reviews[0].model_copy(
        update={"review_id": "r_later", "updated_at": "2027-01-01T00:00:00Z"}
    )
    again = rows.instances[0].model_copy(
        update={"instance_id": "i_again", "review_ids": ["r_later"]}
    )
    mask = rows.masks[0].model_copy(update={"instance_id": "i_again"})
    rows = added(added(added(rows, "reviews", later), "instances", again), "masks", mask)
    release(storage, rows)
    names = [
        r["instance_id"] for r in document_of(storage)["annotations"] if r["frame_id"] == DOG_5
    ]
    assert names == ["i_again"]
    assert left_out_of(storage)[f"i_{DOG_5}_0"] == "superseded"


@pytest.mark.parametrize("decision", ["rejected", "back_to_boxes"])
def test_a_frame_whose_masks_were_sent_back_is_left_out(storage: Storage, decision: str) -> None:
    rows = tables()
    masks = rows.reviews[0].model_copy(
        update={"review_id": "r_masks", "kind": "masks", "decision": decision}
    )
    release(storage, added(rows, "reviews", masks))
    assert left_out_of(storage)[f"i_{DOG_5}_0"] == f"masks_{decision}"


def test_a_frame_on_which_people_disagree_is_left_out(storage: Storage) -> None:
    rows = tables()
    other = rows.reviews[0].model_copy(
        update={"review_id": "r_other", "annotator": "person:2", "decision": "off_screen"}
    )
    release(storage, added(rows, "reviews", other))
    left_out = left_out_of(storage)
    assert left_out[DOG_5] == left_out[f"i_{DOG_5}_0"] == "reviews_disagree"


def test_a_frame_that_an_adjudicator_settled_is_released_with_the_decision(
    storage: Storage,
) -> None:
    rows = tables()
    mine = rows.reviews[0]
    other = {"review_id": "r_other", "annotator": "person:2", "decision": "off_screen"}
    settled = {"review_id": "r_settled", "annotator": "person:3", "purpose": "adjudicate"}
    for changes in (other, settled):
        rows = added(rows, "reviews", mine.model_copy(update=changes))
    decided = rows.instances[0].model_copy(update={"review_ids": ["r_settled"]})
    rows = replace(rows, instances=[decided, *rows.instances[1:]])
    release(storage, rows)
    assert DOG_5 not in left_out_of(storage)
    assert annotated(storage, DOG_5) == [decided.instance_id]


def test_a_gold_frame_is_there_once_however_many_answered_it(storage: Storage) -> None:
    rows = tables()
    mine = rows.reviews[0]
    known = {"review_id": "r_gold", "annotator": "gold", "purpose": "gold", "updated_at": ""}
    known["annotation_id"] = ""
    rejected = {"review_id": "r_2", "annotator": "person:2", "decision": "rejected"}
    for changes in (known, rejected):
        rows = added(rows, "reviews", mine.model_copy(update=changes))
    # The instance of the known answer, and that of somebody's own.
    decided = rows.instances[0].model_copy(update={"review_ids": ["r_gold"]})
    own = rows.instances[0].model_copy(update={"instance_id": "i_own"})
    rows = replace(rows, instances=[decided, own, *rows.instances[1:]])
    release(storage, rows)
    assert annotated(storage, DOG_5) == [decided.instance_id]
    assert left_out_of(storage)["i_own"] == "superseded"


def annotated(storage: Storage, frame_id: str) -> list[str]:
    rows = document_of(storage)["annotations"]
    return [row["instance_id"] for row in rows if row["frame_id"] == frame_id]


def test_nothing_verified_is_one_line_that_says_what_to_do(storage: Storage) -> None:
    with pytest.raises(AvatarBuildError, match="pass --unverified") as caught:
        release(storage, tables(WORLD[4:]))
    assert "1 instance (not_verified)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert storage.folders("releases") == []


def test_empty_tables_say_that_nothing_is_labelled(storage: Storage) -> None:
    with pytest.raises(AvatarBuildError, match="no frame is labelled"):
        release(storage, ReleaseTables(), unverified=True)


def test_a_release_is_never_written_over(storage: Storage) -> None:
    release(storage)
    before = files_of(storage.path("releases"))
    with pytest.raises(UsageError, match="Choose another --version"):
        release(storage)
    assert files_of(storage.path("releases")) == before


@pytest.mark.parametrize(
    "version", ["", ".", "..", "../evil", "a/b", "/tmp/x", ".hidden", "a\nb", "-v", "x" * 65, "1 0"]
)
def test_a_version_that_is_no_folder_name_is_refused(storage: Storage, version: str) -> None:
    with pytest.raises(UsageError, match="--version"):
        release(storage, version=version)
    assert not storage.exists("releases")


class FallingStorage(Storage):
    """A workspace whose disk goes away while the second image is read."""

    def read(self, name: str, *, anew: bool = False) -> bytes:
        images = list(self.path("releases").rglob("*.jpg"))
        if images:
            raise KeyboardInterrupt
        return super().read(name, anew=anew)


def test_a_crash_in_the_middle_leaves_no_release(storage: Storage) -> None:
    rows = tables()
    rows = draw_media(storage, rows)
    with pytest.raises(KeyboardInterrupt):
        release(FallingStorage(storage.path(".")), rows, media=True)
    assert list(storage.path("releases").iterdir()) == []
    release(storage, rows, media=True)
    assert verify_release(storage.path("releases/1.0")) == []


class RacingStorage(Storage):
    """A workspace in which another export of the version ends while ours reads its images."""

    def read(self, name: str, *, anew: bool = False) -> bytes:
        if not self.exists("releases/1.0"):
            release(Storage(self.path(".")), tables())
        return super().read(name, anew=anew)


def test_of_two_exports_of_one_version_the_first_stays(storage: Storage) -> None:
    rows = tables()
    rows = draw_media(storage, rows)
    with pytest.raises(UsageError, match="Choose another --version"):
        release(RacingStorage(storage.path(".")), rows, media=True)
    assert document_of(storage)["info"]["media"] is False
    assert verify_release(storage.path("releases/1.0")) == []
    assert list(storage.path("releases").glob(".*")) == []


def test_what_a_killed_export_left_is_swept_a_day_later(storage: Storage) -> None:
    old, new = (storage.path(f"releases/.0.9.{name}.partial") for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (1, 1))
    release(storage)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("table", ["frames", "videos"])
@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (Path.unlink, "missing_file"),
        (a_link_to_itself, "missing_file"),
        (another_made_to_look_as_old, "changed_file"),
        (longer, "changed_file"),
        (a_folder, "changed_file"),
        (a_link_to_another, "changed_file"),
    ],
)
def test_a_file_that_is_not_the_recorded_one_is_left_out_by_name_and_the_rest_released(
    storage: Storage, table: str, spoil: Spoil, kind: str
) -> None:
    rows = draw_media(storage, tables())
    lost = getattr(rows, table)[0]
    spoil(storage.path(lost.path))
    summary = release(storage, rows, media=True)
    assert [line.partition(":")[0] for line in summary.lost] == [lost.path]
    stage = "sample" if table == "frames" else "download"
    assert f"retry --stage {stage} --kind {kind}" in summary.sentence()
    assert left_out_of(storage)[lost.id] == kind
    images = document_of(storage)["images"]
    assert [row["frame_id"] for row in images] == [
        name for name in (CAT_12, f"{CAT}_00001000_0030", DOG_5, DOG_40) if lost.id not in name
    ]
    assert verify_release(storage.path("releases/1.0")) == []


def test_an_export_hashes_a_video_whatever_is_noted_of_its_looks(storage: Storage) -> None:
    rows = draw_media(storage, tables())
    lost = rows.videos[0]
    path = storage.path(lost.path)
    another(path)
    write_note(path, lost.sha256, storage.path(f"media/checked/{path.name}.json"))
    release(storage, rows, media=True)
    assert left_out_of(storage)[lost.id] == "changed_file"


def test_a_link_to_the_recorded_bytes_is_as_good_as_the_file(storage: Storage) -> None:
    rows = draw_media(storage, tables())
    for row in (rows.frames[0], rows.videos[0]):
        path = storage.path(row.path)
        path.rename(path.with_name("elsewhere"))
        path.symlink_to(path.with_name("elsewhere"))
    assert release(storage, rows, media=True).lost == []


def test_without_one_recorded_file_left_there_is_nothing_to_release(storage: Storage) -> None:
    rows = draw_media(storage, tables())
    storage.remove("media/videos")
    with pytest.raises(AvatarBuildError, match=r"Nothing to release.*retry --stage download"):
        release(storage, rows, media=True)
    assert storage.folders("releases") == []
    assert release(storage, rows).lost == [], "ids alone need no video"


def test_an_object_store_gets_the_same_files_checksums_last(storage: Storage) -> None:
    remote = Storage("memory://ws-exports")
    release(storage)
    release(remote)
    local = files_of(storage.path("releases/1.0"))
    assert {name: remote.read(f"releases/1.0/{name}") for name in local} == local
    with pytest.raises(UsageError, match="exists"):
        release(remote)
    remote.remove("releases")


@pytest.mark.parametrize(
    ("table", "key", "changes", "message"),
    [
        ("instances", f"i_{DOG_5}_0", {"frame_id": "nowhere"}, "tables/instances: .*nowhere"),
        ("frames", DOG_5, {"clip_id": "gone"}, "tables/frames: .*clip_id gone"),
        ("frames", DOG_5, {"video_id": CAT}, "tables/frames: .*not its clip's"),
        ("clips", f"{DOG}_00001000", {"video_id": "gone0000000"}, "tables/clips: .*gone0000000"),
        ("masks", f"i_{DOG_5}_0", {"frame_id": DOG_40}, "tables/masks: .*not its instance's"),
        ("masks", f"i_{DOG_5}_0", {"area": 7}, "tables/masks: .*not its RLE's"),
        (
            "masks",
            f"i_{DOG_5}_0",
            {"rle": rle.encode(np.ones((9, 9), dtype=bool))},
            "tables/masks: .*is 9x9, its frame is 64x48",
        ),
        (
            "masks",
            f"i_{DOG_5}_0",
            {"rle": Rle(size=[48, 64], counts="PP")},
            "tables/masks: .*cannot be decoded",
        ),
        ("reviews", f"r_{DOG_5}", {"frame_id": "nowhere"}, "tables/reviews: .*nowhere"),
        ("frames", DOG_5, {"path": "media/frames/x.svg"}, "no .jpg or .png"),
    ],
)
def test_tables_that_contradict_each_other_are_refused_by_row(
    storage: Storage, table: str, key: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(AvatarBuildError, match=message) as caught:
        release(storage, changed(tables(), table, key, **changes))
    assert "\n" not in str(caught.value)
    assert storage.folders("releases") == []


def test_a_row_that_is_there_twice_is_refused(storage: Storage) -> None:
    rows = tables()
    with pytest.raises(AvatarBuildError, match="is there twice"):
        release(storage, added(rows, "masks", rows.masks[0]))


def test_two_clips_in_one_second_are_refused(storage: Storage) -> None:
    rows = tables(WORLD[:2])
    clip = rows.clips[0].model_copy(update={"clip_id": "other", "start_s": 1.5})
    frame = rows.frames[0].model_copy(update={"clip_id": "other"})
    rows = replace(rows, clips=[*rows.clips, clip], frames=[frame, *rows.frames[1:]])
    with pytest.raises(AvatarBuildError, match="would both be"):
        release(storage, rows)


def test_simplified_polygons_still_verify(storage: Storage) -> None:
    config = ExportConfig(polygon_tolerance_px=2.0)
    release(storage, config=config)
    exact = Storage(storage.path("exact"))
    release(exact)
    folder = storage.path("releases/1.0")
    assert verify_release(folder) == []
    name = f"metadata/{DOG}_00001/00005.json"
    assert len((folder / name).read_bytes()) < len(exact.read(f"releases/1.0/{name}"))


def test_a_category_that_is_not_in_the_taxonomy_is_refused_by_row(storage: Storage) -> None:
    known = ["bird", "dog barking", "train horn"]
    with pytest.raises(AvatarBuildError, match=r"instance_id 'i_.*': category 'cat meowing' is"):
        release(storage, taxonomy=known)
    assert not storage.exists("releases/1.0")
    release(storage, taxonomy=known, config=ExportConfig(free_categories=True))
    names = [row["name"] for row in document_of(storage)["categories"]]
    assert names == [*known, "cat meowing"]


def test_a_verified_release_ships_no_media_without_a_licence(storage: Storage) -> None:
    rows = changed(tables(), "videos", DOG, license="")
    rows = draw_media(storage, rows)
    with pytest.raises(AvatarBuildError, match=f"video_id '{DOG}' states no licence"):
        release(storage, rows, media=True)
    assert not storage.exists("releases/1.0")
    release(storage, rows)  # ids only: nothing is passed on
    release(storage, rows, "1.1", unverified=True, media=True)  # a working copy
    release(storage, rows, "1.2", media=True, config=ExportConfig(unlicensed=True))


def test_a_frame_whose_scenarios_contradict_each_other_is_left_out(storage: Storage) -> None:
    pair = [Thing("dog barking"), Thing("bird", "Mixed-sound", (40, 2, 9, 9))]
    release(storage, tables([Shot(DOG, 5, pair), Shot(CAT, 5, [Thing("cat meowing")])]))
    assert set(left_out_of(storage).values()) == {"scenarios_contradict"}
    assert len(left_out_of(storage)) == 3
