from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pipeline.config import SampleConfig
from pipeline.media import probe
from pipeline.records.schema import Frame, arrow_schema
from pipeline.run.stage import Ok, WorkerContext
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import to_records
from stages.sample.sample_frames import SampleFrames
from stages.sample.suspect import Look, look_at, suspicion
from tests.rows import frame, video
from tests.video_factory import bursts, make_video

Image = NDArray[np.uint8]
EVENTS = (1.0, 3.0, 5.0, 7.0, 9.0)
ROOM = cv2.GaussianBlur(
    np.random.default_rng(3).integers(0, 256, (184, 320, 3), np.uint8), (0, 0), 9
).astype(np.float32)


def room(number: int, pan: float = 0.0) -> Image:
    """A soft room with contrast, in which a ball flies; the camera may pan."""
    picture = np.clip(128 + 12 * (ROOM - 128), 0, 255).astype(np.uint8)
    picture = np.roll(picture, round(pan * number), axis=1)
    cv2.circle(picture, (40 + number % 250, 60), 14, (250, 240, 30), -1)
    return np.ascontiguousarray(picture)


def smashed(picture: Image, number: int) -> Image:
    """Replace two dozen blocks of 16x16 by ones of other places, as a lost decoder does."""
    rng = np.random.default_rng(number)
    broken = picture.copy()
    for row in range(4, 8):
        for column in range(6, 12):
            y, x = (int(rng.integers(0, limit)) for limit in (160, 300))
            block = picture[y : y + 16, x : x + 16]
            broken[16 * row : 16 * row + block.shape[0], 16 * column : 16 * column + 16][
                :, : block.shape[1]
            ] = block[:16]
    return broken


def film(path: Path, draw: Callable[[int], Image]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_video(
        path, frames=250, draw=draw, sound=bursts(10, EVENTS), gop=25, options={"crf": "20"}
    )


def no_lookup(table: str, column: str) -> Any:
    raise AssertionError(f"sample joins nothing, but asked for {table}.{column}")


def frames_of(root: Path, source: Path, **settings: Any) -> list[Frame]:
    facts = probe(source)
    row = video(source.stem, path=str(source.relative_to(root)), width=facts.width)
    row = row.model_copy(update={"height": facts.height})
    (root / "scratch").mkdir(exist_ok=True)
    stage = SampleFrames(SampleConfig(**settings))
    stage.open(WorkerContext(Storage(root), root / "scratch", no_lookup))
    (outcome,) = stage.process([row])
    assert isinstance(outcome, Ok), outcome
    frames = [one for one in outcome.rows if isinstance(one, Frame)]
    return sorted(frames, key=lambda one: one.time_s)


def test_the_broken_picture_is_the_sharpest_and_marked_and_passed_over_when_asked(
    tmp_path: Path,
) -> None:
    def draw(number: int) -> Image:
        picture = room(number)
        return smashed(picture, number) if number in (75, 76) else picture

    source = film(tmp_path / "media" / "videos" / "aaaaaaaaaaa.mp4", draw)
    marked = frames_of(tmp_path, source)
    assert [one.suspect for one in marked] == [None, "blocks", None, None, None]
    assert round(marked[1].time_s * 25) in (75, 76)
    passed = frames_of(tmp_path, source, pass_suspect=True)
    assert [one.suspect for one in passed] == [None] * 5
    assert round(passed[1].time_s * 25) not in (75, 76)
    assert [one.model_dump() for one in passed[2:]] == [one.model_dump() for one in marked[2:]]


def test_the_choice_is_the_same_whether_or_not_anybody_looks(tmp_path: Path) -> None:
    source = film(tmp_path / "media" / "videos" / "aaaaaaaaaaa.mp4", room)
    assert frames_of(tmp_path, source) == frames_of(tmp_path, source, pass_suspect=True)


def test_one_broken_picture_of_a_scene_without_others_is_a_jump(tmp_path: Path) -> None:
    def draw(number: int) -> Image:
        part = number // 50  # every event is in a scene of its own
        turned = np.ascontiguousarray(np.roll(np.rot90(room(number, 2.0), 2 * part), 70 * part, 1))
        return smashed(turned, number) if number == 75 else turned

    source = film(tmp_path / "media" / "videos" / "aaaaaaaaaaa.mp4", draw)
    assert [one.suspect for one in frames_of(tmp_path, source)] == [None, "jump", None, None, None]


def captioned(number: int) -> Image:
    """A caption, and a plate with all edges on the grid, that come at an event."""
    picture = room(number)
    if 74 < number < 100:
        picture[16:48, 16:64] = 20
        cv2.putText(
            picture, "HE SAYS HELLO", (40, 165), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255,) * 3, 2
        )
    return picture


def flashing(number: int) -> Image:
    picture = room(number)
    return np.clip(picture.astype(int) + 90, 0, 255).astype(np.uint8) if number == 75 else picture


def cutting(number: int) -> Image:
    picture = room(number)
    return picture if number < 75 else np.ascontiguousarray(255 - picture[::-1], np.uint8)


def fading(number: int) -> Image:
    share = min(max((number - 70) / 10, 0), 1)
    return cv2.addWeighted(
        room(number), 1 - share, np.ascontiguousarray(room(number)[::-1]), share, 0
    ).astype(np.uint8)


def waving(number: int) -> Image:
    """A hand as large as half the picture that crosses it in a fifth of a second."""
    picture = room(number)
    for finger in range(5):
        x = (number * 61) % 520 - 100 + 26 * finger
        cv2.line(picture, (x, 190), (x + 30, 40), (150, 170, 210), 18)
        cv2.line(picture, (x, 190), (x + 30, 40), (90, 110, 150), 2)
    return picture


@pytest.mark.parametrize(
    "draw", [captioned, flashing, cutting, fading, waving, lambda n: room(n, 6.0)]
)
def test_captions_flashes_cuts_fades_and_fast_motion_are_no_suspects(
    tmp_path: Path, draw: Callable[[int], Image]
) -> None:
    source = film(tmp_path / "media" / "videos" / "aaaaaaaaaaa.mp4", draw)
    assert [one.suspect for one in frames_of(tmp_path, source)] == [None] * 5


def look(picture: Image, time_s: float) -> Look:
    return look_at(np.ascontiguousarray(picture[:, :, 1]), time_s)


def test_what_is_in_every_picture_is_no_suspicion_and_nothing_is_judged_alone() -> None:
    every = [look(smashed(room(n), 1), n / 25) for n in (0, 50, 100, 150, 200)]
    assert [suspicion(one, every) for one in every] == [None] * 5
    clean = [look(room(n), n / 25) for n in (0, 50, 100, 150)]
    broken = look(smashed(room(200), 1), 8.0)
    assert suspicion(broken, clean) == "blocks"
    assert suspicion(broken, []) is None
    near = [look(room(n), n / 25) for n in (198, 199, 201, 202)]
    assert suspicion(broken, near) == "jump"
    alike = [look(smashed(room(n), 1), n / 25) for n in (198, 199, 201, 202)]
    assert suspicion(broken, alike) is None


@pytest.mark.parametrize("at", [0, 4])
def test_steps_are_those_of_a_slow_second_definition(at: int) -> None:
    rng = np.random.default_rng(at)
    luma = np.kron(rng.integers(0, 256, (6, 9)), np.ones((16, 16))).astype(np.uint8)
    luma = np.roll(luma, at, axis=(0, 1)) // 2 + rng.integers(0, 12, luma.shape, np.uint8)
    found = look_at(luma, 0.0)
    for past, steps in ((0, found.steps), (4, found.beside)):
        for way, levels in enumerate((luma.astype(int), luma.T.astype(int))):
            rows, columns = (side // 8 for side in levels.shape)
            expected = np.zeros((rows, columns), bool)
            for row, column in np.ndindex(rows, columns):
                x = 8 * (column + 1) + past
                if x < 8 * columns - 2:
                    part = levels[8 * row : 8 * row + 8]
                    sides = {d: np.abs(part[:, x + d] - part[:, x + d - 1]) for d in (-2, 0, 2)}
                    step, beside = sides[0].mean(), np.maximum(sides[-2], sides[2]).mean()
                    expected[row, column] = step > 14 and step > 2.5 * beside
            np.testing.assert_array_equal(steps[way] if way == 0 else steps[way].T, expected)
    assert found.steps.any() == (at == 0)
    assert found.beside.any() == (at == 4)


@pytest.mark.parametrize("shape", [(16, 640), (640, 16), (8, 8), (720, 1280)])
def test_pictures_of_any_shape_are_judged(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    looks = [look_at(rng.integers(0, 256, shape, np.uint8), n / 25) for n in range(3)]
    blocks = np.kron(rng.integers(0, 256, (shape[0] // 8, shape[1] // 8)), np.ones((8, 8)))
    looks.append(look_at(blocks.astype(np.uint8), 3 / 25))
    assert suspicion(looks[0], looks) is None
    assert suspicion(looks[3], looks) is None  # a cut


def test_pictures_of_another_size_are_not_compared() -> None:
    clean = [look(np.ascontiguousarray(room(n)[:160]), n / 25) for n in (0, 50, 100, 150)]
    assert suspicion(look(smashed(room(200), 1), 8.0), clean) is None


def test_rows_from_before_there_was_the_column_are_read_as_none(tmp_path: Path) -> None:
    schema = arrow_schema(Frame)
    assert schema.names[-1] == "suspect"
    assert schema.field("suspect").nullable
    older = pa.schema([field for field in schema if field.name != "suspect"])
    row = frame(3).model_dump(exclude={"suspect"})
    pq.write_table(pa.Table.from_pylist([row], schema=older), tmp_path / "part.parquet")
    rows = pq.read_table(tmp_path / "part.parquet").to_pylist()
    assert to_records(Frame, rows, "part.parquet") == [frame(3)]
