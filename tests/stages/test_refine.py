"""One person at one frame: embedded once, asked again and again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.config import SegmentConfig
from pipeline.errors import InputError, UsageError
from pipeline.records.schema import Frame
from pipeline.workspace.storage import Storage
from stages.backends.grabcut.cutting import GrabCut
from stages.backends.interfaces import Hint, Prompt
from stages.segment.refine import FrameRefiner
from tests.rows import frame

BOX = [40.0, 30.0, 60.0, 80.0]


def scene() -> Any:
    """A red thing with a green top on grass, and a second red thing beside it."""
    drawn = np.random.default_rng(0)
    picture = np.full((180, 320, 3), (40, 90, 40), dtype=np.uint8)
    picture[40:100, 50:90] = (200, 30, 30)
    picture[30:40, 60:80] = (30, 30, 220)
    picture[40:100, 150:190] = (200, 30, 30)
    noisy = picture + drawn.integers(-8, 8, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def saved(root: Path, index: int) -> Frame:
    row = frame(index)
    path = root / row.path
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(scene(), cv2.COLOR_RGB2BGR))
    return row


def test_without_points_grabcut_answers_as_the_stage_does() -> None:
    segmenter = GrabCut(SegmentConfig())
    ((expected,),) = segmenter.segment([Prompt(scene(), [BOX])])
    found = segmenter.refine(segmenter.embed(scene()), Hint(BOX))
    assert expected.mask.any()
    assert (found.mask == expected.mask).all()


def test_a_point_inside_is_in_the_mask_and_one_outside_is_not() -> None:
    segmenter = GrabCut(SegmentConfig())
    embedding = segmenter.embed(scene())
    plain = segmenter.refine(embedding, Hint(BOX)).mask
    for x, y in ((45, 35), (70, 70), (70, 34), (98, 108)):
        for inside in (True, False):
            found = segmenter.refine(embedding, Hint(BOX, [(x, y, inside)])).mask
            assert found[y, x] == inside
    away = segmenter.refine(embedding, Hint(BOX, [(300.0, 170.0, False)])).mask
    assert (away == plain).all()


def test_a_point_on_something_beyond_the_box_brings_it_in() -> None:
    segmenter = GrabCut(SegmentConfig())
    found = segmenter.refine(segmenter.embed(scene()), Hint(BOX, [(185.0, 95.0, True)])).mask
    assert found[70, 170]
    assert found[70, 70]


class Counting(GrabCut):
    """Counts the frames it embedded."""

    embedded = 0

    def embed(self, image: Any) -> Any:
        type(self).embedded += 1
        return super().embed(image)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setattr(Counting, "embedded", 0)
    monkeypatch.setattr("stages.backends.grabcut.cutting.GrabCut", Counting)
    return Counting


def test_a_frame_is_embedded_once_until_others_crowd_it_out(
    tmp_path: Path, counted: type[Counting]
) -> None:
    first, second, third = (saved(tmp_path, index) for index in (1, 2, 3))
    refiner = FrameRefiner(Storage(tmp_path), SegmentConfig(), kept=2)
    for row in (first, first, second, first, second):
        assert refiner.refine(row, BOX, []).mask.any()
    assert counted.embedded == 2
    refiner.refine(third, BOX, [])
    refiner.refine(second, BOX, [])
    assert counted.embedded == 3, "the first was unused longest"
    refiner.refine(first, BOX, [])
    assert counted.embedded == 4


def test_many_threads_get_the_answers_of_one(tmp_path: Path, counted: type[Counting]) -> None:
    row = saved(tmp_path, 1)
    refiner = FrameRefiner(Storage(tmp_path), SegmentConfig(), kept=2)
    alone = refiner.refine(row, BOX, [(70.0, 34.0, True)]).mask
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: refiner.refine(row, BOX, [(70.0, 34.0, True)]).mask, range(8))
        assert all((mask == alone).all() for mask in found)
    assert counted.embedded == 1


def test_a_frame_whose_picture_is_gone_is_named(tmp_path: Path) -> None:
    refiner = FrameRefiner(Storage(tmp_path), SegmentConfig(), kept=2)
    with pytest.raises(InputError, match="no such file"):
        refiner.refine(frame(), BOX, [])


def test_weights_that_are_missing_are_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="models fetch sam-vit-h"):
        FrameRefiner(Storage(tmp_path), SegmentConfig(segmenter="sam-vit-h"), kept=2)
