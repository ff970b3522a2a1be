"""Foreign layouts, written by hand with the defects their real files have."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from exports.importers.import_release import import_release
from exports.verify.verify_release import verify_release
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.records import rle
from pipeline.release.document import Document, from_json
from pipeline.workspace.storage import Storage
from tests.exports.drawn import DOG, draw_media, release, tables

CLIP = "l_7B1wnTNtA_00020"


def document_of(folder: Path) -> Document:
    assert verify_release(folder) == []
    return from_json((folder / "annotations/instances.json").read_bytes())


def left_out(folder: Path) -> dict[str, str]:
    stated = json.loads((folder / "statistics.json").read_bytes())["left_out"]
    return {row["id"]: row["reason"] for row in stated}


def digest(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def jpeg(width: int = 64, height: int = 48) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def square(x: float, y: float, side: float, *, back: bool = False) -> list[float]:
    points = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    return [n for point in (reversed(points) if back else points) for n in point]


FRAMES: dict[str, Any] = {
    "00010": {  # several instances, the off-screen one first, other spellings
        "original_width": 64,
        "original_height": 48,
        "annotations": [
            {"task": "Off-Screen", "audio_visual_category": "piano"},
            {
                "task": "mixed_sound",
                "bbox": [4, 4, 20, 20],
                "segmentation": [square(4, 4, 20), square(10, 10, 6, back=True)],
                "audio_visual_category": "violin",
            },
            {
                "task": "Multi-Entity",
                "segmentation": [square(40, 4, 8), square(50, 4, 8)],
                "audio_visual_category": "dog",
            },
        ],
    },
    "00050": {"annotations": [{"task": "off screen", "audio_visual_category": "cat"}]},
    "00060": {  # no polygons, an unknown task, no category
        "original_width": 64,
        "original_height": 48,
        "annotations": [{"task": "Quiet", "bbox": [1.5, 2.0, 3.0, 4.0]}],
    },
    "00070": {"original_width": 64, "original_height": 48, "annotations": [{"task": "Single"}]},
    "00080": {"original_width": 64, "original_height": 48, "annotations": []},
    "00090": {"original_width": 0, "original_height": 48, "annotations": [{"task": "Off-Screen"}]},
    "00091": [1, 2],
    "00092": {
        "original_width": 64,
        "original_height": 48,
        "annotations": [{"task": "Single", "segmentation": [[0, 0, 10**400, 0, 5, 5]]}],
    },
}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """As downloaded: ZIP files with a folder too many."""
    folder = tmp_path / "AVATAR"
    folder.mkdir()
    with zipfile.ZipFile(folder / "metadata.zip", "w") as archive:
        for name, content in FRAMES.items():
            archive.writestr(f"metadata/{CLIP}/{name}.json", json.dumps(content))
            archive.writestr(f"metadata/{CLIP}/{name}.jpg", jpeg())
        archive.writestr(f"metadata/{CLIP}/00093.json", "{")
        archive.writestr("__MACOSX/._x", "")
    with zipfile.ZipFile(folder / "video.zip", "w") as archive:
        archive.writestr(f"video/video/{CLIP}.mp4", b"the clip")
    return folder


def test_the_authors_layout_imports_exactly(official: Path, tmp_path: Path) -> None:
    summary = import_release(official, tmp_path / "official")
    assert (summary.frames, summary.off_screen_frames, summary.instances) == (3, 1, 3)
    document = document_of(tmp_path / "official")
    assert document.info.imported_from == "AVATAR, the authors' layout"
    assert document.info.media
    assert (tmp_path / f"official/video/{CLIP}.mp4").read_bytes() == b"the clip"
    violin, dog, box = document.annotations
    expected = np.zeros((48, 64), dtype=bool)
    expected[4:24, 4:24] = True
    expected[10:16, 10:16] = False
    np.testing.assert_array_equal(rle.decode(violin.segmentation), expected)
    assert (violin.scenario, violin.audio_visual_category) == ("Mixed-sound", "violin")
    assert (dog.scenario, dog.bbox, dog.area) == ("Multi-entity", [40, 4, 18, 8], 128)
    assert (box.scenario, box.mask_source, box.audio_visual_category) == (None, "box", "unknown")
    assert (box.annotated_bbox, box.bbox) == ([1.5, 2.0, 3.0, 4.0], [1, 2, 4, 4])
    off = next(image for image in document.images if image.off_screen)
    assert (off.frame_index, off.off_screen_category, off.width) == (50, "cat", 64)
    assert (off.clip_id, off.file_name) == ("l_7B1wnTNtA_00020000", f"metadata/{CLIP}/00050.jpg")
    place = f"metadata/metadata/{CLIP}/"
    assert left_out(tmp_path / "official") == {
        f"{place}00010.json": "off_screen_beside_visible",
        f"{place}00060.json#0": "unknown_task_kept_without_scenario",
        f"{place}00070.json#0": "no_geometry",
        f"{place}00070.json": "no_usable_annotation",
        f"{place}00080.json": "no_usable_annotation",
        f"{place}00090.json": "no_size",
        f"{place}00091.json": "no_size",
        f"{place}00092.json#0": "bad_polygons",
        f"{place}00092.json": "no_usable_annotation",
        f"{place}00093.json": "not_json",
    }


def test_import_export_import_gives_the_same_bytes(official: Path, tmp_path: Path) -> None:
    import_release(official, tmp_path / "a" / "v1")
    first = tmp_path / "a/v1"
    import_release(first, tmp_path / "b" / "v1")  # as a release of ours
    assert digest(first) == digest(tmp_path / "b/v1")
    bare = tmp_path / "bare"
    for part in ("metadata", "video"):
        shutil.copytree(first / part, bare / part)
    import_release(bare, tmp_path / "c" / "v1")  # through the authors' layout alone
    for part in ("metadata", "video"):
        assert digest(first / part) == digest(tmp_path / "c/v1" / part)


def test_our_own_release_survives_export_import_export(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "ws")
    rows = tables()
    rows = draw_media(storage, rows)
    release(storage, rows, unverified=True, media=True)
    ours = storage.path("releases/1.0")
    import_release(ours, tmp_path / "again" / "1.0")
    assert digest(ours) == digest(tmp_path / "again/1.0")
    import_release(ours, tmp_path / "foreign" / "1.0", "avatar")
    theirs, mine = document_of(tmp_path / "foreign/1.0"), document_of(ours)
    assert [row.segmentation for row in theirs.annotations] == [
        row.segmentation for row in mine.annotations
    ]


def test_vggss_boxes_are_clipped_or_dropped_by_name(tmp_path: Path) -> None:
    source = tmp_path / "vggss"
    source.mkdir()
    rows = [
        {"file": f"{DOG}_000020", "class": "dog barking", "bbox": [[0.25, 0.5, 0.75, 1.0]]},
        {"file": "a1234567890_000001", "class": "x", "bbox": [[-0.1, 0.0, 0.5, 0.5], [0, 0, 0, 1]]},
        {"file": "b1234567890_000001", "class": "y", "bbox": [[-2.9e16, 0, 1, 1]]},
        {"file": "c1234567890_000001", "class": "y", "bbox": [[0.5, 0.5, 0.4, 0.9]]},
        {"file": f"{DOG}_000020", "class": "dog barking", "bbox": [[0, 0, 1, 1]]},
        {"class": "y"},
    ]
    (source / "vggss.json").write_text(json.dumps(rows))
    import_release(source, tmp_path / "vggss-1")
    document = document_of(tmp_path / "vggss-1")
    assert not document.info.media
    assert [image.video_id for image in document.images] == ["a1234567890", DOG]
    clipped, dog = document.annotations
    assert (dog.bbox, dog.scenario, dog.audio_visual_category) == (
        [56, 112, 112, 112],
        None,
        "dog barking",
    )
    assert clipped.bbox == [0, 0, 112, 112]
    assert document.images[1].frame_index == 125
    assert left_out(tmp_path / "vggss-1") == {
        "a1234567890_000001#0": "clipped_to_the_frame",
        "a1234567890_000001#1": "box_without_area",
        "b1234567890_000001#0": "absurd_box",
        "b1234567890_000001": "no_usable_box",
        "c1234567890_000001#0": "box_without_area",
        "c1234567890_000001": "no_usable_box",
        "vggss.json#4": "twice",
        "vggss.json#5": "no_video_id",
    }


def test_the_votes_of_flickr_soundnet_can_be_counted(shared: Path, tmp_path: Path) -> None:
    parity = shared / "parity/metrics"
    if not parity.is_dir():
        pytest.skip("no parity data")
    import_release(parity / "flickr_xml", tmp_path / "flickr-1")
    document = document_of(tmp_path / "flickr-1")
    truth = np.load(parity / "data.npz")["gt_flickr_x2"]
    for number, image in enumerate(document.images):
        votes = sum(
            rle.decode(row.segmentation).astype(int)
            for row in document.annotations
            if row.image_id == image.id
        )
        np.testing.assert_array_equal(np.minimum(votes, 2), truth[number])


def test_hostile_xml_is_dropped_unread(tmp_path: Path) -> None:
    source = tmp_path / "flickr"
    source.mkdir()
    box = "<bbox><id>0</id><xmin>8</xmin><ymin>28</ymin><xmax>76</xmax><ymax>202</ymax></bbox>"
    (source / "good.xml").write_text(f"<annotation><annotator>{box}</annotator></annotation>")
    (source / "bomb.xml").write_text('<!DOCTYPE a [<!ENTITY b "cccc">]><a>&b;</a>')
    import_release(source, tmp_path / "f1")
    assert left_out(tmp_path / "f1") == {"bomb.xml": "bad_xml"}


def test_avsbench_masks_are_read_and_empty_ones_named(tmp_path: Path) -> None:
    source = tmp_path / "avs"
    mask = np.zeros((24, 32), np.uint8)
    mask[4:10, 5:15] = 255
    empty = np.zeros((24, 32), np.uint8)
    for folder, picture in (("gt_masks", mask), ("visual_frames", np.full((24, 32), 9, np.uint8))):
        place = source / folder / "test/dog"
        place.mkdir(parents=True)
        cv2.imwrite(str(place / "vid one_1.png"), picture)
    cv2.imwrite(str(source / "gt_masks/test/dog/vid one_2.png"), empty)
    (source / "meta.csv").write_text("name,length,category,split\nvid one,5,dog,test\n")
    import_release(source, tmp_path / "avs-1")
    document = document_of(tmp_path / "avs-1")
    (row,) = document.annotations
    np.testing.assert_array_equal(rle.decode(row.segmentation), mask > 0)
    assert (row.audio_visual_category, document.videos[0].split) == ("dog", "test")
    assert (tmp_path / "avs-1" / document.images[0].file_name).is_file()
    name = "gt_masks/test/dog/vid one_2.png"
    assert left_out(tmp_path / "avs-1") == {name: "no_source_kept_as_off_screen"}
    assert [image.off_screen for image in document.images] == [False, True]
    assert verify_release(tmp_path / "avs-1") == []


def test_sounds_come_along_where_clips_do_not(tmp_path: Path) -> None:
    source = tmp_path / "vggss"
    source.mkdir()
    name = f"{DOG}_000020"
    row = {"file": name, "class": "dog barking", "bbox": [[0.1, 0.2, 0.3, 0.4]]}
    (source / "vggss.json").write_text(json.dumps([row]))
    (source / f"{name}.jpg").write_bytes(jpeg(320, 180))
    (source / f"{name}.wav").write_bytes(b"RIFF")
    import_release(source, tmp_path / "v1")
    assert (tmp_path / f"v1/audio/{DOG}_00020.wav").read_bytes() == b"RIFF"
    assert verify_release(tmp_path / "v1") == []
    # Whole pixels on this frame, but the box as stated: another grid has other whole pixels.
    (annotation,) = document_of(tmp_path / "v1").annotations
    assert annotation.bbox == [32, 36, 64, 36]
    assert annotation.annotated_bbox == pytest.approx([32, 36, 64, 36])
    import_release(tmp_path / "v1", tmp_path / "again" / "v1")
    assert digest(tmp_path / "v1") == digest(tmp_path / "again/v1")


def test_of_two_files_of_one_name_the_one_that_was_not_taken_is_named(tmp_path: Path) -> None:
    source = tmp_path / "vggss"
    name = f"{DOG}_000020"
    row = {"file": name, "class": "dog barking", "bbox": [[0.1, 0.2, 0.3, 0.4]]}
    picture = jpeg(320, 180)
    for folder, data in (("a", picture), ("b", jpeg(320, 184)), ("c", picture)):
        (source / folder).mkdir(parents=True)
        (source / folder / f"{name}.jpg").write_bytes(data)
        (source / folder / f"{name}.wav").write_bytes(b"RIFF")
    (source / "vggss.json").write_text(json.dumps([row]))
    import_release(source, tmp_path / "v1")
    (image,) = document_of(tmp_path / "v1").images
    assert (tmp_path / "v1" / image.file_name).read_bytes() == picture
    # What is the same bytes twice, as the sounds here, is nothing to know.
    assert left_out(tmp_path / "v1") == {f"b/{name}.jpg": "another_of_its_name_was_taken"}


def test_the_extended_form_pairs_a_picture_with_anothers_sound(tmp_path: Path) -> None:
    source = tmp_path / "flickr"
    source.mkdir()
    box = "<bbox><id>0</id><xmin>8</xmin><ymin>28</ymin><xmax>76</xmax><ymax>202</ymax></bbox>"
    for number in (1, 2):
        text = f"<annotation><annotator>{box}</annotator></annotation>"
        (source / f"{number}.xml").write_text(text)
        (source / f"{number}.jpg").write_bytes(jpeg(256, 128))
        (source / f"{number}.wav").write_bytes(b"RIFF%d" % number)
    rows = "video,audio,label\n1,2,non-sounding\n2,,non-sounding\n"
    (source / "flickr_test_plus_silent.csv").write_text(rows)
    import_release(source, tmp_path / "f1")
    document = document_of(tmp_path / "f1")
    (pair,) = [image for image in document.images if image.off_screen]
    assert pair.video_id == "1--2"
    folder = tmp_path / "f1"
    assert (folder / pair.file_name).read_bytes() == (source / "1.jpg").read_bytes()
    assert (folder / "audio/1--2_00000.wav").read_bytes() == b"RIFF2"
    assert (folder / "audio/1_00000.wav").read_bytes() == b"RIFF1"
    # 8 / 256 of 256 pixels, 28 / 256 of 128.
    assert document.annotations[0].bbox == [8, 14, 68, 87]
    assert left_out(folder) == {"flickr_test_plus_silent.csv#1": "no_pair"}
    assert verify_release(folder) == []


def test_is3_has_an_entry_per_sound_and_masks_where_there_are_any(tmp_path: Path) -> None:
    source = tmp_path / "is3"
    for folder in ("images", "gt_segmentation"):
        (source / folder).mkdir(parents=True)
    (source / "images/dog_train_17.jpg").write_bytes(jpeg(224, 224))
    mask = np.zeros((224, 224), np.uint8)
    mask[10:20, 10:30] = 255
    rows = []
    for which, box in ((1, [0, 0, 112, 56]), (2, [112, 0, 224, 224])):
        name = f"dog_train_17_{which}"
        rows.append({"image": f"/their/own/{name}.jpg", "audio": f"{name}.wav", "gt_box": box})
    cv2.imwrite(str(source / "gt_segmentation/dog_train_17_2.png"), mask)
    (source / "IS3_annotation.json").write_text(json.dumps(rows))
    import_release(source, tmp_path / "is3-1")
    first, second = document_of(tmp_path / "is3-1").annotations
    assert (first.audio_visual_category, first.bbox) == ("dog", [0, 0, 112, 56])
    assert first.mask_source == "box"
    assert (second.audio_visual_category, second.area) == ("train", 200)
    assert second.mask_source == "annotator"
    # Scored by mask and by box: both are kept.
    assert (second.bbox, second.annotated_bbox) == ([10, 10, 20, 10], [112, 0, 112, 224])
    videos = document_of(tmp_path / "is3-1").videos
    assert [video.label for video in videos] == ["dog_train_17", "dog_train_17"]


def test_an_unknown_folder_is_one_line_that_says_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(UsageError, match="No layout recognised"):
        import_release(tmp_path / "x", tmp_path / "y")
    with pytest.raises(UsageError, match="--format 'coco'"):
        import_release(tmp_path / "x", tmp_path / "y", "coco")
    with pytest.raises(UsageError, match="no such folder"):
        import_release(tmp_path / "none", tmp_path / "y")
    (tmp_path / "x/vggss.json").write_text("[]")
    with pytest.raises(AvatarBuildError, match="no frame can be used"):
        import_release(tmp_path / "x", tmp_path / "y")
    with pytest.raises(UsageError, match="never changes"):
        import_release(tmp_path / "x", tmp_path / "x")
    assert not (tmp_path / "y").exists()
