from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pydantic import ValidationError

from exports import load_release
from exports.release.selection import ReleaseTables, select
from exports.verify.verify_release import verify_release
from pipeline.config import ExportConfig
from pipeline.records import rle
from pipeline.release.document import from_json, to_json
from pipeline.workspace.storage import Storage
from tests.exports.drawn import (
    CAT,
    DOG,
    HEIGHT,
    TRAIN,
    WIDTH,
    Shot,
    Thing,
    blob,
    release,
    tables,
)


def open_coco(path: Path) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.fixture
def document(tmp_path: Path) -> Path:
    release(Storage(tmp_path))
    return tmp_path / "releases/1.0/annotations/instances.json"


# pycocotools' own decode does not yet speak numpy 2's __array__.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_sees_our_masks_pixel_by_pixel(document: Path) -> None:
    coco = open_coco(document)
    drawn = {thing.instance_id: thing for thing in tables().instances}
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == 4
    for annotation in annotations:
        box = [int(value) for value in drawn[annotation["instance_id"]].bbox]
        np.testing.assert_array_equal(coco.annToMask(annotation), blob(box))
        x, y, w, h = annotation["bbox"]
        mask = coco.annToMask(annotation)
        assert mask[int(y) : int(y + h), int(x) : int(x + w)].sum() == mask.sum()
        assert annotation["area"] == mask.sum()


def test_the_ground_truth_scores_one_against_itself(document: Path) -> None:
    coco = open_coco(document)
    results = [
        {key: row[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 1.0}
        for row in coco.dataset["annotations"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_an_off_screen_frame_is_an_image_without_annotations(document: Path) -> None:
    coco = open_coco(document)
    images = coco.loadImgs(coco.getImgIds())
    off_screen = [row for row in images if row["off_screen"]]
    assert [(row["video_id"], row["off_screen_category"]) for row in off_screen] == [
        (CAT, "cat meowing")
    ]
    assert coco.getAnnIds(imgIds=[off_screen[0]["id"]]) == []


def test_rows_carry_what_the_contract_names(document: Path) -> None:
    content = json.loads(document.read_bytes())
    row = next(row for row in content["annotations"] if row["video_id"] == DOG)
    expected = {
        "iscrowd": 0,
        "audio_visual_category": "dog barking",
        "scenario": "Single-sound",
        "frame_index": 5,
        "time_s": 1.2,
        "verified": True,
        "instance_id": f"i_{DOG}_00001000_0005_0",
        "proposal_id": f"p_i_{DOG}_00001000_0005_0",
        "review_ids": [f"r_{DOG}_00001000_0005"],
        "mask_source": "grabcut",
    }
    assert {key: row[key] for key in expected} == expected
    assert [row["id"] for row in content["images"]] == [1, 2, 3, 4]
    assert [row["name"] for row in content["licenses"]] == [
        "Creative Commons Attribution license (reuse allowed)"
    ]
    assert {row["file_name"] for row in content["images"]} == {
        "metadata/-cat_cat-ca_00001/00012.jpg",
        "metadata/-cat_cat-ca_00001/00030.jpg",
        "metadata/dog0dog0dog_00001/00005.jpg",
        "metadata/dog0dog0dog_00001/00040.jpg",
    }


def test_a_thing_has_one_track_in_all_its_frames_in_every_form_of_the_release(
    document: Path,
) -> None:
    expected = {one.instance_id: one.track_id for one in tables().instances}
    coco = open_coco(document)
    found = {row["instance_id"]: row["track_id"] for row in coco.dataset["annotations"]}
    assert found == {name: expected[name] for name in found}
    dogs = [row for row in coco.dataset["annotations"] if row["video_id"] == DOG]
    assert len({row["image_id"] for row in dogs}) == 2
    assert len({row["track_id"] for row in dogs if row["instance_id"].endswith("_0")}) == 1
    copy = parquet.read_table(document.with_suffix(".parquet"), columns=["instance_id", "track_id"])
    assert dict(zip(*copy.to_pydict().values(), strict=True)) == found
    read = load_release(document.parent.parent)
    assert {one.instance_id: one.track_id for frame in read for one in frame.instances} == found


def test_category_ids_follow_the_taxonomy_and_free_text_comes_after(tmp_path: Path) -> None:
    free = ExportConfig(free_categories=True)
    release(Storage(tmp_path), taxonomy=["dog barking", "zither", "bird"], config=free)
    content = json.loads((tmp_path / "releases/1.0/annotations/instances.json").read_bytes())
    assert content["categories"] == [
        {"id": 1, "name": "bird"},
        {"id": 2, "name": "dog barking"},
        {"id": 3, "name": "zither"},
        {"id": 4, "name": "cat meowing"},
    ]


def test_a_document_reads_back_as_itself(document: Path) -> None:
    data = document.read_bytes()
    assert to_json(from_json(data)) == data


def test_reading_is_strict(document: Path) -> None:
    with pytest.raises(ValidationError, match="area"):
        from_json(document.read_bytes().replace(b'"area": ', b'"area": 1.5, "x": '))


THINGS = st.builds(
    Thing,
    category=st.text(min_size=1, max_size=6).filter(lambda text: bool(text.strip())),
    scenario=st.sampled_from(["Single-sound", "Mixed-sound", "Multi-entity"]),
    box=st.tuples(
        st.integers(0, WIDTH - 22),
        st.integers(0, HEIGHT - 22),
        st.integers(3, 22),
        st.integers(3, 22),
    ),
    verified=st.booleans(),
)
SHOTS = st.builds(
    Shot,
    video_id=st.sampled_from([DOG, CAT, TRAIN]),
    index=st.integers(0, 300),
    things=st.lists(THINGS, max_size=3),
    off_screen=st.none() | st.text(max_size=6),
    verified=st.booleans(),
    start_s=st.sampled_from([0, 7, 12345]),
)


@settings(max_examples=40, deadline=None)
@given(
    shots=st.lists(
        SHOTS, min_size=1, max_size=8, unique_by=lambda s: (s.video_id, s.start_s, s.index)
    ),
    lost=st.sets(st.integers(0, 20), max_size=3),
)
def test_no_tables_give_a_release_that_fails_its_own_check(
    tmp_path_factory: pytest.TempPathFactory, shots: list[Shot], lost: set[int]
) -> None:
    rows = tables(shots)
    kept = [mask for number, mask in enumerate(rows.masks) if number not in lost]
    rows = ReleaseTables(**{**vars(rows), "masks": kept})
    folder = tmp_path_factory.mktemp("ws")
    if not select(rows, unverified=True).frames:
        return
    release(Storage(folder), rows, unverified=True)
    assert verify_release(folder / "releases/1.0") == []
    for name in folder.glob("releases/1.0/metadata/*/*.json"):
        for annotation in json.loads(name.read_bytes())["annotations"]:
            if "segmentation" in annotation:
                filled = rle.from_polygons(annotation["segmentation"], HEIGHT, WIDTH)
                assert rle.bbox(filled) == annotation["bbox"]
