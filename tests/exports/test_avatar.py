from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.records import rle
from pipeline.workspace.storage import Storage
from tests.exports.drawn import CAT, DOG, HEIGHT, WIDTH, blob, release


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    release(Storage(tmp_path))
    return tmp_path / "releases/1.0/metadata"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def test_a_frame_has_the_keys_that_loaders_of_the_official_files_read(metadata: Path) -> None:
    content = read(metadata / f"{DOG}_00001/00040.json")
    assert (content["original_width"], content["original_height"]) == (WIDTH, HEIGHT)
    assert [(row["task"], row["audio_visual_category"]) for row in content["annotations"]] == [
        ("Mixed-sound", "dog barking"),
        ("Mixed-sound", "bird"),
    ]
    for row in content["annotations"]:
        assert set(row) == {"task", "bbox", "segmentation", "audio_visual_category"}


def test_polygons_give_back_the_mask_with_its_hole(metadata: Path) -> None:
    row = read(metadata / f"{DOG}_00001/00005.json")["annotations"][0]
    drawn = blob((8, 6, 20, 16))
    assert not drawn[14, 17]  # the hole
    filled = rle.decode(rle.from_polygons(row["segmentation"], HEIGHT, WIDTH))
    np.testing.assert_array_equal(filled, drawn)


def test_an_off_screen_frame_is_one_annotation_without_geometry(metadata: Path) -> None:
    assert read(metadata / f"{CAT}_00001/00012.json")["annotations"] == [
        {"task": "Off-Screen", "audio_visual_category": "cat meowing"}
    ]
