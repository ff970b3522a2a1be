from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.schema import Proposal, SoundCategory
from pipeline.stage import Drop, Fail, Ok
from pipeline.storage import Storage
from stages.backends.interfaces import Detection, Shot
from stages.propose import ProposeBoxes, chosen, guided, sounds_of
from tests.rows import context, frame, sounds, video

HEARD = sounds(
    categories=[
        SoundCategory(category="dog", score=0.9, active=True),
        SoundCategory(category="cat", score=0.2, active=False),
        SoundCategory(category="singing", score=0.6, active=True),
    ]
)


@pytest.mark.parametrize(
    ("categories", "kept", "audible", "score"),
    [
        (None, ["dog", "singing"], True, 0.9),
        (("dog",), ["dog"], True, 0.9),
        (("male speech", "singing", "whistling"), ["singing"], True, 0.6),
        (("singing", "dog"), ["dog", "singing"], True, 0.9),
        (("cat",), ["cat"], False, 0.2),
        (("harp",), ["harp"], False, 0.0),
        ((), [], False, 0.0),
    ],
)
def test_what_is_heard_decides_what_a_box_may_be(
    categories: tuple[str, ...] | None, kept: list[str], audible: bool, score: float
) -> None:
    expected = {"categories": kept, "audible": audible, "audio_score": score}
    assert guided(categories, HEARD) == expected


def test_a_classless_box_is_inaudible_where_nothing_is_active() -> None:
    quiet = sounds(categories=[SoundCategory(category="dog", score=0.1, active=False)])
    assert guided(None, quiet) == {"categories": [], "audible": False, "audio_score": 0.0}


def test_tags_of_the_frames_own_neighbourhood_come_before_those_of_its_clip() -> None:
    whole = sounds()
    own = sounds(frame_id=frame(10).frame_id)
    other = sounds(frame_id=frame(11).frame_id)
    assert sounds_of(frame(10), [whole, other, own]) == own
    assert sounds_of(frame(10), [other, whole]) == whole
    assert sounds_of(frame(10), [other]) is None


def detection(*bbox: float, score: float = 0.5) -> Detection:
    return Detection(list(bbox), "moving region", score, None)


def test_boxes_are_cut_to_the_frame_before_their_size_is_judged() -> None:
    found = [detection(-300, 0, 330, 180), detection(0, 0, 1, 1), detection(0, 0, 320, 179)]
    kept = chosen(found, frame(), ProposeConfig(min_area=0.01, max_area=0.9))
    assert [d.bbox for d in kept] == [[0, 0, 30, 180]]


def test_the_best_boxes_that_do_not_repeat_each_other_are_kept() -> None:
    found = [
        detection(0, 0, 50, 50, score=0.3),
        detection(0, 0, 50, 48, score=0.9),
        detection(100, 0, 50, 50, score=0.5),
        detection(200, 0, 50, 50, score=0.4),
    ]
    kept = chosen(found, frame(), ProposeConfig(max_boxes=2, nms_iou=0.5))
    assert [d.score for d in kept] == [0.9, 0.5]


class Recorded:
    """A detector that answers from a table, and remembers what it was shown."""

    name = "recorded"
    nothing = "nothing_here"

    def __init__(self, answers: Mapping[str, list[Detection]]) -> None:
        self.answers = answers
        self.shown: list[Shot] = []

    def fingerprint(self) -> Mapping[str, str]:
        return {}

    def open(self, storage: Storage) -> None:
        self.storage = storage

    def detect(self, shots: Sequence[Shot]) -> list[list[Detection]]:
        self.shown += shots
        return [self.answers.get(shot.frame.frame_id, []) for shot in shots]


def stage_over(folder: Path, frames: Sequence[Any], **tables: Any) -> ProposeBoxes:
    (folder / "media" / "frames").mkdir(parents=True)
    for number, row in enumerate(frames):
        cv2.imwrite(str(folder / row.path), np.full((180, 320, 3), (number, 0, 250), np.uint8))
    stage = ProposeBoxes(ProposeConfig())
    answers = {row.frame_id: [detection(10 + n, 10, 40, 40)] for n, row in enumerate(frames)}
    stage.detector = Recorded(answers)
    known: dict[str, Any] = {"videos": [video()], "sounds": [sounds()]}
    stage.open(context(folder, **(known | tables)))
    return stage


def test_a_frames_boxes_become_rows(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, [frame(3)])
    (outcome,) = stage.process([frame(3)])
    assert isinstance(outcome, Ok)
    (row,) = outcome.rows
    assert isinstance(row, Proposal)
    assert row.model_dump(exclude={"proposal_id"}) == {
        "frame_id": frame(3).frame_id,
        "bbox": [10.0, 10.0, 40.0, 40.0],
        "detector": "recorded",
        "detector_class": "moving region",
        "detector_score": 0.5,
        "categories": ["dog"],
        "audible": True,
        "audio_score": 1.0,
    }


def test_the_detector_sees_the_saved_frame_in_rgb(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, [frame(3), frame(4)])
    list(stage.process([frame(4)]))
    assert isinstance(stage.detector, Recorded)
    (shot,) = stage.detector.shown
    assert shot.image.shape == (180, 320, 3)
    assert (shot.image == (250, 0, 1)).all()


def test_a_batch_of_one_equals_a_batch_of_many(tmp_path: Path) -> None:
    frames = [frame(n) for n in (3, 9, 12)]
    stage = stage_over(tmp_path, frames)
    assert list(stage.process(frames)) == [o for row in frames for o in stage.process([row])]


def test_ids_of_proposals_differ_by_frame_and_box(tmp_path: Path) -> None:
    frames = [frame(n) for n in (3, 9, 12)]
    stage = stage_over(tmp_path, frames)
    assert isinstance(stage.detector, Recorded)
    stage.detector.answers = {
        row.frame_id: [detection(0, 0, 40, 40), detection(90, 0, 40, 40)] for row in frames
    }
    ids = [row.id for o in stage.process(frames) if isinstance(o, Ok) for row in o.rows]
    assert len(ids) == len(set(ids)) == 6


def test_a_frame_without_a_box_is_dropped_with_the_detectors_reason(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, [frame(3)])
    stage.detector = Recorded({})
    assert list(stage.process([frame(3)])) == [Drop(frame(3).id, "nothing_here")]


def test_a_frame_whose_clip_has_no_target_sound_is_dropped_with_the_sound(tmp_path: Path) -> None:
    heard = sounds(classes=[{"name": "waterfall burbling", "score": 1.0}], categories=[])
    stage = stage_over(tmp_path, [frame(3)], sounds=[heard])
    (outcome,) = stage.process([frame(3)])
    assert outcome == Drop(frame(3).id, "no_target_category", "waterfall burbling")


def test_a_frame_whose_clip_nobody_heard_fails_and_may_pass_later(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, [frame(3)], sounds=[])
    (outcome,) = stage.process([frame(3)])
    assert isinstance(outcome, Fail)
    assert (outcome.kind, outcome.retryable) == ("missing_sounds", True)


def test_a_frame_without_its_video_fails_and_may_pass_later(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, [frame(3)], videos=[])
    (outcome,) = stage.process([frame(3)])
    assert isinstance(outcome, Fail)
    assert (outcome.kind, outcome.retryable) == ("missing_video", True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", r"not an image \(0 bytes\)"),
        (b"<html></html>", r"not an image \(13 bytes\)"),
        ("small", "64x36, but the frame is 320x180"),
    ],
)
def test_a_frame_file_that_is_not_the_frame_is_unreadable(
    tmp_path: Path, content: bytes | str | None, message: str
) -> None:
    stage = stage_over(tmp_path, [frame(3)])
    path = tmp_path / frame(3).path
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        cv2.imwrite(str(path), np.zeros((36, 64, 3), np.uint8))
    with pytest.raises(InputError, match=f"unreadable_frame: .*{message}"):
        list(stage.process([frame(3)]))
