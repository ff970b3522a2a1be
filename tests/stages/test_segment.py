from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.config import SegmentConfig
from pipeline.media import frames_between
from pipeline.records import rle
from pipeline.records.boxes import iou
from pipeline.records.schema import Instance, Mask
from pipeline.run.stage import Fail, Ok, Outcome
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Image, Prompt, Segmented
from stages.segment.segment_instances import SegmentInstances
from tests.rows import context, frame

THING = [100.0, 40.0, 60.0, 50.0]


def instance(name: str = "i_1", index: int = 10, bbox: Sequence[float] = THING) -> Instance:
    return Instance(
        instance_id=name,
        frame_id=frame(index).frame_id,
        bbox=list(bbox),
        audio_visual_category="dog",
        scenario="Single-sound",
        review_ids=["r_1"],
        proposal_id=None,
        verified=True,
    )


def picture() -> Image:
    """A textured red box on a textured blue ground, BGR."""
    image = np.random.default_rng(1).integers(0, 40, (180, 320, 3)).astype(np.uint8)
    image[..., 0] += 150
    x, y, w, h = (int(side) for side in THING)
    image[y : y + h, x : x + w, 0] -= 150
    image[y : y + h, x : x + w, 2] += 180
    return image


def stage_over(folder: Path, *indices: int, **config: Any) -> SegmentInstances:
    frames = [frame(index) for index in indices or (10,)]
    (folder / "media" / "frames").mkdir(parents=True)
    for row in frames:
        cv2.imwrite(str(folder / row.path), picture())
    stage = SegmentInstances(SegmentConfig(**config))
    stage.open(context(folder, frames=frames))
    return stage


def only_mask(outcome: Outcome) -> Mask:
    assert isinstance(outcome, Ok)
    (row,) = outcome.rows
    assert isinstance(row, Mask)
    return row


def test_an_instance_gets_a_mask_that_agrees_with_its_own_numbers(tmp_path: Path) -> None:
    (outcome,) = stage_over(tmp_path).process([instance()])
    mask = only_mask(outcome)
    pixels = rle.decode(mask.rle)
    assert pixels.shape == (180, 320)
    assert mask.area == pixels.sum()
    assert mask.bbox == rle.bbox(mask.rle)
    assert iou(mask.bbox, THING) > 0.9
    assert (mask.instance_id, mask.frame_id) == ("i_1", frame(10).frame_id)
    assert (mask.source, mask.model_digest, mask.predicted_iou) == ("grabcut", "", None)
    assert not mask.verified  # though its box was


def test_a_batch_of_one_equals_a_batch_of_many(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, 10, 20)
    rows = [
        instance("i_1"),
        instance("i_2", bbox=[90, 30, 80, 70]),
        instance("i_3", 20),
        instance("i_4", 20, [300, 100, 0.5, 0.5]),
        instance("i_5", bbox=[95, 35, 70, 60]),
    ]
    together = list(stage.process(rows))
    assert together == [outcome for row in rows for outcome in stage.process([row])]
    assert [outcome.id for outcome in together] == [row.id for row in rows]


class Painted:
    """A segmenter that paints a given area and counts its looks."""

    name = "painted"
    has_weights = False
    digest = "d" * 64

    def __init__(self, area: tuple[int, int, int, int] = (0, 0, 0, 0), guess: float = 0.75) -> None:
        self.area, self.guess = area, guess
        self.looks = 0

    def fingerprint(self) -> Mapping[str, str]:
        return {"painted": self.digest}

    def open(self, storage: Storage) -> None:
        pass

    def segment(self, prompts: Iterable[Prompt]) -> Iterator[list[Segmented]]:
        for prompt in prompts:
            self.looks += 1
            mask = np.zeros(prompt.image.shape[:2], dtype=bool)
            x0, y0, x1, y1 = self.area
            mask[y0:y1, x0:x1] = True
            yield [Segmented(mask, self.guess, 0.5) for _ in prompt.boxes]


def test_a_frame_is_looked_at_once_for_all_of_its_boxes(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, 10, 20)
    painted = stage.segmenter = Painted((100, 40, 160, 90))
    rows = [instance("i_1"), instance("i_2"), instance("i_3", 20)]
    masks = [only_mask(outcome) for outcome in stage.process(rows)]
    assert painted.looks == 2
    kept = {(mask.model_digest, mask.predicted_iou, mask.stability) for mask in masks}
    assert kept == {("d" * 64, 0.75, 0.5)}


@pytest.mark.parametrize(
    ("area", "kind"),
    [
        ((0, 0, 0, 0), "empty_mask"),
        ((0, 0, 20, 20), "empty_mask"),  # elsewhere
        ((100, 40, 105, 50), "empty_mask"),  # 50 of 3000 pixels
        ((100, 40, 320, 90), "mask_off_box"),
    ],
)
def test_an_empty_or_absurd_mask_is_a_failure_and_not_a_row(
    tmp_path: Path, area: tuple[int, int, int, int], kind: str
) -> None:
    stage = stage_over(tmp_path, min_mask_area=0.02)
    stage.segmenter = Painted(area)
    (outcome,) = stage.process([instance()])
    assert isinstance(outcome, Fail)
    assert (outcome.kind, outcome.retryable) == (kind, False)


def test_a_box_outside_of_its_frame_is_a_failure(tmp_path: Path) -> None:
    (outcome,) = stage_over(tmp_path).process([instance(bbox=[400, 10, 20, 20])])
    assert isinstance(outcome, Fail)
    assert outcome.kind == "box_outside_frame"


def test_a_failure_is_of_the_kind_the_segmenter_names(tmp_path: Path) -> None:
    ground = [200.0, 100.0, 80.0, 60.0]
    (outcome,) = stage_over(tmp_path).process([instance(bbox=ground)])
    assert isinstance(outcome, Fail)
    assert (outcome.kind, outcome.retryable) == ("colours_alike", False)


def test_a_mask_that_took_something_for_granted_says_so_in_its_source(tmp_path: Path) -> None:
    (outcome,) = stage_over(tmp_path).process([instance(bbox=[0, 0, 320, 180])])
    mask = only_mask(outcome)
    assert mask.source == "grabcut-rim"
    assert iou(mask.bbox, THING) > 0.9


def test_instances_of_a_missing_frame_fail_and_may_pass_later(tmp_path: Path) -> None:
    rows = [instance("i_1", 99), instance("i_2", 99)]
    outcomes = list(stage_over(tmp_path).process(rows))
    assert [(o.id, o.kind, o.retryable) for o in outcomes if isinstance(o, Fail)] == [
        ("i_1", "missing_frame", True),
        ("i_2", "missing_frame", True),
    ]


@pytest.mark.parametrize("data", [b"\xff\xd8\xff", None], ids=["broken", "gone"])
def test_instances_of_an_unreadable_frame_fail_and_those_beside_them_do_not(
    tmp_path: Path, data: bytes | None
) -> None:
    stage = stage_over(tmp_path, 10, 20)
    path = tmp_path / frame(10).path
    path.write_bytes(data) if data else path.unlink()
    outcomes = {o.id: o for o in stage.process([instance("i_1"), instance("i_2", 20)])}
    bad = outcomes["i_1"]
    assert isinstance(bad, Fail)
    assert bad.kind == ("unreadable_frame" if data else "missing_file")
    assert only_mask(outcomes["i_2"]).area > 0


def test_a_model_that_computes_no_number_is_a_failure_and_not_a_mask(tmp_path: Path) -> None:
    stage = stage_over(tmp_path)
    stage.segmenter = Painted((100, 40, 160, 90), guess=float("nan"))
    (outcome,) = stage.process([instance()])
    assert isinstance(outcome, Fail)
    assert outcome.kind == "not_a_number"


def test_on_a_real_frame_the_dog_is_found_and_the_floor_is_not(
    tmp_path: Path, shared: Path
) -> None:
    source = shared / "data" / "raw_videos" / "3qesirWAGt4.mp4"
    shown = next(frames_between(source, 4.0, 5.0))
    width, height = shown.size
    row = frame(10, width=width, height=height, path="media/frames/dog.png")
    (tmp_path / "media" / "frames").mkdir(parents=True)
    (tmp_path / row.path).write_bytes(shown.encode("png", 95))
    stage = SegmentInstances(SegmentConfig())
    stage.open(context(tmp_path, frames=[row]))
    red = shown.rgb().astype(int)
    # The dog is orange, the floor grey.
    dog = (red[..., 0] - red[..., 2]) > 40
    x, y, w, h = cv2.boundingRect(
        cv2.morphologyEx(dog.astype(np.uint8), cv2.MORPH_OPEN, np.ones((25, 25), np.uint8))
    )
    (outcome,) = stage.process([instance(bbox=[x, y, w, h])])
    mask = rle.decode(only_mask(outcome).rle)
    inside = np.zeros_like(mask)
    inside[y : y + h, x : x + w] = True
    assert mask[dog & inside].mean() > 0.8
    assert mask[~dog & inside].mean() < 0.5
