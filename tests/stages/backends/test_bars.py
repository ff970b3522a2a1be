from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from stages.backends.motion.bars import picture_inside
from stages.backends.motion.evidence import Grey

Frames = list[Grey]
SIZE = 320, 180


def world(width: int, height: int, seed: int = 1) -> Grey:
    """Shapes of many sizes and levels: fine detail everywhere, and things to recognise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 120, np.uint8)
    for _ in range(400):
        x, y, size = (int(rng.integers(*span)) for span in ((0, width), (0, height), (3, 40)))
        cv2.rectangle(image, (x, y), (x + size, y + size), int(rng.integers(20, 236)), -1)
    return image


def film(width: int, height: int, seed: int = 1) -> Frames:
    """Three pictures in time: the camera pans by a pixel each."""
    wide = world(width + 8, height, seed)
    return [np.ascontiguousarray(wide[:, at : at + width]) for at in range(3)]


def in_frame(pictures: Frames, behind: Sequence[Grey]) -> Frames:
    framed = []
    for picture, back in zip(pictures, behind, strict=True):
        frame = back.copy()
        (height, width), (rows, columns) = picture.shape, frame.shape
        y, x = (rows - height) // 2, (columns - width) // 2
        frame[y : y + height, x : x + width] = picture
        framed.append(frame)
    return framed


def plain(pictures: Frames, level: int = 16) -> Frames:
    return in_frame(pictures, [np.full(SIZE[::-1], level, np.uint8)] * 3)


def blurred(pictures: Frames) -> Frames:
    """Zoomed until the frame is full, cut and blurred: what phones' pictures are put before."""
    behind = []
    for picture in pictures:
        height, width = picture.shape
        scale = max(SIZE[0] / width, SIZE[1] / height)
        full = cv2.resize(picture, None, fx=scale, fy=scale)
        y, x = (full.shape[0] - SIZE[1]) // 2, (full.shape[1] - SIZE[0]) // 2
        cut = np.ascontiguousarray(full[y : y + SIZE[1], x : x + SIZE[0]], np.uint8)
        behind.append(cv2.GaussianBlur(cut, (0, 0), 8).astype(np.uint8))
    return in_frame(pictures, behind)


@pytest.mark.parametrize("bars", [plain, blurred, lambda p: plain(p, 90)])
@pytest.mark.parametrize("size", [(200, 180), (102, 180), (320, 120)])
def test_bars_are_left_out_to_the_pixel_or_two(
    bars: Callable[[Frames], Frames], size: tuple[int, int]
) -> None:
    width, height = size
    found = np.array(picture_inside(bars(film(width, height))))
    wanted = np.array([(320 - width) // 2, (180 - height) // 2, width, height])
    assert np.abs(found - wanted).max() <= 4


def test_letters_on_a_plain_bar_do_not_hide_it() -> None:
    pictures = plain(film(320, 120))
    for picture in pictures:
        cv2.putText(picture, "what he says", (90, 170), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 235, 1)
    assert picture_inside(pictures) == (0, 30, 320, 120)


def test_a_bar_on_one_side_is_a_bar() -> None:
    pictures = [np.hstack([np.full((180, 60), 16, np.uint8), p]) for p in film(260, 180)]
    assert picture_inside(pictures) == (60, 0, 260, 180)


def test_a_picture_without_bars_is_left_whole() -> None:
    assert picture_inside(film(*SIZE)) == (0, 0, *SIZE)
    blank = [np.full(SIZE[::-1], 90, np.uint8)] * 3
    assert picture_inside(blank) == (0, 0, *SIZE)


def test_a_soft_background_beside_a_sharp_thing_is_no_bar() -> None:
    # Shallow focus: soft on both sides, even with straight edges, and yet no copy of the middle.
    for seed in range(2, 8):
        behind = [
            np.ascontiguousarray(cv2.GaussianBlur(p, (0, 0), 8), np.uint8)
            for p in film(*SIZE, seed=seed)
        ]
        assert picture_inside(in_frame(film(200, 180), behind)) == (0, 0, *SIZE)
