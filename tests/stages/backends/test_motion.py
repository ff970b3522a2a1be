from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.media import frames_between
from pipeline.records.boxes import iou
from pipeline.records.schema import Frame
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Detection, FrameInput, Image
from stages.backends.motion.bars import _plain_depth, picture_inside
from stages.backends.motion.evidence import _length
from stages.backends.motion.motion_detector import MotionDetector
from stages.backends.motion.regions import _joined, _spots
from stages.backends.motion.video_motion import VideoMotion
from tests.rows import frame, video
from tests.video_factory import bursts, chained, make_video

SIZE = 48
Place = Callable[[int], tuple[float, float]]
"""Frame number to the upper left corner of the square."""


def texture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 2).astype(np.float64)
    contrast: NDArray[np.uint8] = np.clip(128 + 5 * (soft - 128), 0, 255).astype(np.uint8)
    return contrast


GROUND, SQUARE = texture(400, 700, seed=1), texture(SIZE, SIZE, seed=2)


def drawn(
    path: Path,
    squares: list[Place],
    pan: float = 0.0,
    cut_at: int = 1000,
    **recipe: Any,
) -> None:
    """Textured squares over a panning ground; from ``cut_at`` on over another ground."""

    def draw(number: int) -> NDArray[np.uint8]:
        shift = np.array([[1, 0, -20 - pan * number], [0, 1, -20 - pan / 3 * number]])
        ground = GROUND if number < cut_at else 255 - np.ascontiguousarray(GROUND[::-1])
        image = cv2.warpAffine(ground, shift, (320, 180))
        for place in squares:
            x, y = place(number)
            at = np.array([[1, 0, x], [0, 1, y]], dtype=float)
            cover = cv2.warpAffine(np.full((SIZE, SIZE), 255, np.uint8), at, (320, 180))
            image[cover > 127] = cv2.warpAffine(SQUARE, at, (320, 180))[cover > 127]
        return np.ascontiguousarray(image, np.uint8)

    path.parent.mkdir(parents=True, exist_ok=True)
    make_video(path, frames=25, draw=draw, **recipe)


def detector(folder: Path) -> MotionDetector:
    found = MotionDetector(ProposeConfig())
    found.open(Storage(folder))
    return found


def item(index: int, at: Frame | None = None) -> FrameInput:
    return FrameInput(at or frame(index), unseen, video())


def unseen() -> Image:
    raise AssertionError("the video is looked at, and not the frame's file")


def detected(folder: Path, index: int = 12) -> list[Detection]:
    (found,) = detector(folder).detect([item(index)])
    return sorted(found, key=lambda d: -d.score)


def with_others(*numbers: int) -> list[FrameInput]:
    every = [frame(n) for n in numbers]
    return [FrameInput(one, unseen, video(), [o for o in every if o != one]) for one in every]


def right(number: int) -> tuple[float, float]:
    return 60 + 3.0 * number, 70


def down(number: int) -> tuple[float, float]:
    return 200, 10 + 4.0 * number


def to_and_fro(number: int) -> tuple[float, float]:
    return 150 + 5 * math.sin(2 * math.pi * number / 8), 80


def starts_now(number: int) -> tuple[float, float]:
    return 100 + 4.0 * max(0, number - 12), 60


def still(number: int) -> tuple[float, float]:
    return 100, 60


SOURCE = video().path


@pytest.mark.parametrize("pan", [0.0, 2.5])
@pytest.mark.parametrize("place", [right, down, to_and_fro, starts_now])
def test_the_best_box_is_the_thing_that_moves_and_not_the_panning_ground(
    tmp_path: Path, place: Place, pan: float
) -> None:
    drawn(tmp_path / SOURCE, [place], pan)
    best = detected(tmp_path)[0]
    assert iou(best.bbox, [*place(12), SIZE, SIZE]) >= 0.5
    assert best.score >= 0.5  # what `label accept` takes by default


def test_boxes_lie_on_the_picture_as_displayed(tmp_path: Path) -> None:
    drawn(tmp_path / SOURCE, [right], pixel_aspect=Fraction(3, 2))
    displayed = frame(12, width=480)
    (found,) = detector(tmp_path).detect([item(12, displayed)])
    best = max(found, key=lambda d: d.score)
    x, y = right(12)
    assert iou(best.bbox, [1.5 * x, y, 1.5 * SIZE, SIZE]) >= 0.5


@pytest.mark.parametrize("index", [20, 23])
def test_neighbours_of_another_size_are_not_compared(tmp_path: Path, index: int) -> None:
    headers = {"x264-params": "repeat-headers=1"}
    drawn(tmp_path / "a.mp4", [right], options=headers)
    other = make_video(tmp_path / "b.mp4", frames=25, options=headers)
    heard = make_video(tmp_path / "heard.mp4", frames=2, sound=bursts(2, [1]))
    (tmp_path / SOURCE).parent.mkdir(parents=True)
    chained(tmp_path / SOURCE, [tmp_path / "a.mp4", other], heard)
    best = detected(tmp_path, index)[0]
    assert iou(best.bbox, [*right(index), SIZE, SIZE]) >= 0.5
    with pytest.raises(InputError, match="no whole picture of 320x180"):
        detected(tmp_path, 40)


def test_two_moving_things_are_two_boxes(tmp_path: Path) -> None:
    drawn(tmp_path / SOURCE, [right, down], pan=2.5)
    found = detected(tmp_path)
    for place in (right, down):
        assert max(iou(d.bbox, [*place(12), SIZE, SIZE]) for d in found) >= 0.5


def test_parts_of_one_thing_are_boxed_together_too_and_boxes_are_few(tmp_path: Path) -> None:
    def other(number: int) -> tuple[float, float]:
        x, y = to_and_fro(number)
        return x - 110, y

    drawn(tmp_path / SOURCE, [to_and_fro, other])
    found = detected(tmp_path)
    (x, y), (x2, _) = other(12), to_and_fro(12)
    assert max(iou(d.bbox, [x, y, x2 - x + SIZE, SIZE]) for d in found) >= 0.5
    assert len(found) <= 5


def test_of_two_things_only_the_one_that_moves_is_found(tmp_path: Path) -> None:
    def resting(number: int) -> tuple[float, float]:
        # At rest in the world: it goes along with the panning ground.
        return 230 - 2.5 * number, 100 - 2.5 / 3 * number

    drawn(tmp_path / SOURCE, [right, resting], pan=2.5)
    overlaps = [iou(d.bbox, [*resting(12), SIZE, SIZE]) for d in detected(tmp_path)]
    assert max(overlaps) < 0.2


@pytest.mark.parametrize("pan", [0.0, 2.5])
def test_where_only_the_camera_moves_nothing_is_found(tmp_path: Path, pan: float) -> None:
    drawn(tmp_path / SOURCE, [], pan)
    assert detected(tmp_path) == []


@pytest.mark.parametrize("cut_at", [11, 12, 13, 15])
def test_a_scene_cut_is_no_motion(tmp_path: Path, cut_at: int) -> None:
    drawn(tmp_path / SOURCE, [still], cut_at=cut_at)
    assert detected(tmp_path) == []


def test_a_blank_picture_has_no_motion(tmp_path: Path) -> None:
    path = tmp_path / SOURCE
    path.parent.mkdir(parents=True)
    make_video(path, frames=25, draw=lambda number: np.full((180, 320, 3), 90, np.uint8))
    assert detected(tmp_path) == []


def test_at_either_end_of_the_video_one_side_is_enough(tmp_path: Path) -> None:
    drawn(tmp_path / SOURCE, [right], pan=2.5)
    for index in (0, 24):
        best = detected(tmp_path, index)[0]
        assert iou(best.bbox, [*right(index), SIZE, SIZE]) >= 0.5


def rests_later(number: int) -> tuple[float, float]:
    return 60 + 3.0 * min(number, 12), 70


@pytest.mark.parametrize("pan", [0.0, 2.5])
def test_where_nothing_moves_what_moved_at_another_event_is_found_again(
    tmp_path: Path, pan: float
) -> None:
    def place(number: int) -> tuple[float, float]:
        # From 12 on at rest in the world, on a ground that may pan.
        x, y = rests_later(number)
        after = max(0, number - 12)
        return x - pan * after, y - pan / 3 * after

    drawn(tmp_path / SOURCE, [place], pan)
    assert detected(tmp_path, 22) == []
    found = next(iter(detector(tmp_path).detect(with_others(22, 6, 1))))
    best = max(found, key=lambda d: d.score)
    assert {d.name for d in found} == {"moving region of another event"}
    assert iou(best.bbox, [*place(22), SIZE, SIZE]) >= 0.5
    assert len(found) <= 5
    assert best.score <= 0.5  # `label accept` takes none of them by default


def test_a_clip_at_rest_has_no_box_at_any_event(tmp_path: Path) -> None:
    drawn(tmp_path / SOURCE, [still])
    assert list(detector(tmp_path).detect(with_others(4, 12, 20))) == [[], [], []]


def test_scores_are_in_range_and_the_same_frame_gives_the_same_boxes(tmp_path: Path) -> None:
    drawn(tmp_path / SOURCE, [right, down], pan=2.5)
    asked = with_others(8, 12, 16)
    alone = [found for one in asked for found in detector(tmp_path).detect([one])]
    together = list(detector(tmp_path).detect(asked))
    backwards = list(detector(tmp_path).detect(asked[::-1]))[::-1]
    assert alone == together == backwards
    assert all(0 <= d.score <= 1 for found in alone for d in found)


def test_the_events_of_a_clip_are_decoded_in_one_pass(tmp_path: Path) -> None:
    drawn(tmp_path / SOURCE, [right], gop=25)
    source = VideoMotion(tmp_path / SOURCE, ProposeConfig().motion_window_s)
    asked = with_others(8, 12, 22)
    found = [source.boxes(one) for one in asked]
    assert found == list(detector(tmp_path).detect(asked))
    assert source.media.counts.frames <= 25


def test_a_length_is_that_of_numpy_to_the_bit() -> None:
    draw = np.random.default_rng(0)
    sizes = 10.0 ** draw.integers(-30, 30, (2, 100_000))
    x, y = (draw.normal(0, 1, sizes.shape) * sizes).astype(np.float32)
    x[:100], y[50:150] = 0, 0
    np.testing.assert_array_equal(_length(x, y), np.hypot(x, y))


@pytest.mark.parametrize("seed", range(20))
def test_a_plain_bar_ends_where_its_level_does(seed: int) -> None:
    draw = np.random.default_rng(seed)
    depth, level = int(draw.integers(0, 30)), int(draw.choice([0, 3, 128, 252, 255]))
    stack = draw.integers(0, 256, (3, 60, 40))
    stack[:, :depth] = level + draw.integers(-5, 6, (3, depth, 40))
    pictures = np.clip(stack, 0, 255).astype(np.uint8)

    def plain(line: int) -> bool:
        middle = np.median(pictures[:, 0])
        near = abs(pictures[:, line].astype(float) - middle) <= 6
        return bool(near.mean(axis=1).min() >= 0.97)

    assert _plain_depth(pictures) == depth == sum(plain(line) for line in range(60))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("lines", [1, 2, 3, 8, 40, 45])
def test_a_picture_of_few_lines_has_no_bars(lines: int) -> None:
    draw = np.random.default_rng(lines)
    for size in ((lines, 320), (320, lines), (lines, lines)):
        pictures = [draw.integers(0, 256, size).astype(np.uint8) for _ in range(3)]
        assert picture_inside(pictures) == (0, 0, size[1], size[0])


def test_what_is_near_one_another_is_joined_as_scipy_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        noise = cv2.GaussianBlur(rng.normal(size=(45, 80)), (0, 0), rng.uniform(0.4, 3))
        hot = noise > rng.uniform(0, 0.1)
        distance = cv2.distanceTransform((~hot).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        for gap in (1, 2, 4, 8):
            near = distance <= gap
            labels, _ = ndimage.label(near, np.ones((3, 3)))
            boxes = [
                (x.start, y.start, x.stop - x.start, y.stop - y.start)
                for y, x in ndimage.find_objects(np.where(hot, labels, 0))
            ]
            assert sorted(_joined(*_spots(hot), near)) == sorted(boxes)


@pytest.mark.parametrize("changes", [{"width": 640, "height": 360}, {"time_s": 30.0}])
def test_a_frame_that_is_not_in_its_source_is_an_error(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    drawn(tmp_path / SOURCE, [right])
    with pytest.raises(InputError, match="frame_not_in_source"):
        list(detector(tmp_path).detect([item(12, frame(12, **changes))]))


def test_in_a_real_video_the_drummer_is_found_and_the_engine_at_rest_is_not(
    tmp_path: Path, shared: Path
) -> None:
    (tmp_path / "media" / "videos").mkdir(parents=True)
    found = {}
    for name in ("compDogDrum", "-1pRmoJIGQc"):
        source = shared / "data" / "raw_videos" / f"{name}.mp4"
        (tmp_path / "media" / "videos" / source.name).write_bytes(source.read_bytes())
        picture = next(frames_between(source, 12.0 if name == "compDogDrum" else 5.0, 13.0))
        width, height = picture.size
        at = frame(0, name, time_s=float(picture.time), width=width, height=height)
        source_row = video(name, width=width, height=height)
        (found[name],) = detector(tmp_path).detect([FrameInput(at, unseen, source_row)])
    best = max(found["compDogDrum"], key=lambda d: d.score)
    # By eye: the man with the sticks fills the left half of the picture.
    assert iou(best.bbox, [75, 10, 300, 345]) >= 0.5
    assert found["-1pRmoJIGQc"] == []


def test_a_picture_of_any_shape_has_evidence_and_kills_no_process() -> None:
    found = subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-500:]


SHAPES = """
import cv2, numpy as np
from stages.backends.motion.evidence import motion_evidence
for height in (4, 9, 20, 25, 40, 90, 180, 320):
    for width in (4, 16, 33, 100, 160, 320):
        noise = np.random.default_rng(0).integers(0, 255, (height, width), np.uint8)
        still = cv2.GaussianBlur(noise, (0, 0), 1)
        moved = np.roll(still, 2, 1)
        assert motion_evidence(still, [moved], [moved]).shape == (height, width)
"""
