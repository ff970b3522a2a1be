from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import SegmentConfig
from pipeline.records.boxes import to_pixels
from stages.backends.grabcut import GrabCutSegmenter
from stages.backends.interfaces import Image, Prompt

ELLIPSE = [100.0, 40.0, 81.0, 61.0]


def scene() -> tuple[Image, NDArray[np.bool_]]:
    """A reddish ellipse on a greenish ground, both noisy, and its pixels."""
    draw = np.random.default_rng(0)
    inside = np.zeros((180, 320), np.uint8)
    cv2.ellipse(inside, (140, 70), (40, 30), 0, 0, 360, 1, -1)
    ground = np.array([60, 140, 70]) + draw.normal(0, 12, (180, 320, 3))
    thing = np.array([190, 70, 60]) + draw.normal(0, 12, (180, 320, 3))
    image = np.where(inside[..., None] > 0, thing, ground)
    return np.clip(image, 0, 255).astype(np.uint8), inside > 0


def cut(image: Image, box: list[float]) -> NDArray[np.bool_]:
    return next(GrabCutSegmenter(SegmentConfig()).segment([Prompt(image, [box])]))[0].mask


@pytest.mark.parametrize("grown", [0, 6])
def test_a_thing_is_cut_out_of_a_tight_or_loose_box(grown: int) -> None:
    image, truth = scene()
    x, y, w, h = ELLIPSE
    mask = cut(image, [x - grown, y - grown, w + 2 * grown, h + 2 * grown])
    assert (mask & truth).sum() / (mask | truth).sum() > 0.97


@pytest.mark.parametrize("box", [[98.4, 36.7, 90.1, 70.3], [80.0, -30.0, 120.0, 150.0], ELLIPSE])
def test_a_mask_never_leaves_the_whole_pixels_its_box_touches(box: list[float]) -> None:
    image, _ = scene()
    mask = cut(image, box)
    x0, y0, x1, y1 = to_pixels(box, 320, 180) or (0, 0, 0, 0)
    assert mask.any()
    mask[y0:y1, x0:x1] = False
    assert not mask.any()


def test_a_box_gives_the_same_mask_alone_again_and_among_others() -> None:
    image, _ = scene()
    segmenter = GrabCutSegmenter(SegmentConfig())
    other = [20.0, 90.0, 60.0, 60.0]
    (alone,) = next(segmenter.segment([Prompt(image, [ELLIPSE])]))
    cv2.setRNGSeed(99)
    _, together = next(segmenter.segment([Prompt(image, [other, ELLIPSE])]))
    np.testing.assert_array_equal(alone.mask, together.mask)
    assert alone.predicted_iou is None


@pytest.mark.parametrize(
    "box",
    [[0.0, 0.0, 320.0, 180.0], [400.0, 10.0, 20.0, 20.0], [10.0, 10.0, 2.0, 2.0]],
    ids=["the whole frame: no background", "outside", "fewer pixels than colour modes"],
)
def test_a_box_that_leaves_nothing_to_tell_apart_gives_an_empty_mask(box: list[float]) -> None:
    image, _ = scene()
    assert not cut(image, box).any()


def test_speckles_of_the_things_colour_are_left_out() -> None:
    image, truth = scene()
    image[96:99, 104:107] = (190, 70, 60)
    mask = cut(image, [96.0, 36.0, 90.0, 70.0])
    assert not mask[96:99, 104:107].any()
    assert (mask & truth).sum() / truth.sum() > 0.97


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_picture_of_one_colour_is_no_crash(grey: int) -> None:
    mask = cut(np.full((180, 320, 3), grey, np.uint8), ELLIPSE)
    assert mask.shape == (180, 320)
