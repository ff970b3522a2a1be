from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.records.schema import Proposal, SoundCategory
from pipeline.run.stage import Drop, Fail, Ok
from pipeline.run.unit import process_batch
from stages.backends.interfaces import Detection
from stages.propose.propose_boxes import ProposeBoxes, sounds_of
from tests.rows import context, frame, sounds, video
from tests.stages.recorded_detector import Recorded


def detection(*bbox: float, score: float = 0.5, name: str = "moving region") -> Detection:
    return Detection(list(bbox), name, score)


def test_tags_of_the_frames_own_neighbourhood_come_before_those_of_its_clip() -> None:
    whole = sounds()
    own = sounds(frame_id=frame(10).frame_id)
    other = sounds(frame_id=frame(11).frame_id)
    assert sounds_of(frame(10), [whole, other, own]) == own
    assert sounds_of(frame(10), [other, whole]) == whole
    assert sounds_of(frame(10), [other]) is None


def stage_over(folder: Path, frames: Sequence[Any], **tables: Any) -> ProposeBoxes:
    (folder / "media" / "frames").mkdir(parents=True)
    for number, row in enumerate(frames):
        cv2.imwrite(str(folder / row.path), np.full((180, 320, 3), (number, 0, 250), np.uint8))
    answers = {row.frame_id: [detection(10 + n, 10, 40, 40)] for n, row in enumerate(frames)}
    return opened(folder, answers, **tables)


def opened(
    folder: Path,
    answers: Mapping[str, list[Detection]],
    config: ProposeConfig | None = None,
    **tables: Any,
) -> ProposeBoxes:
    stage = ProposeBoxes(config or ProposeConfig(link="none"))
    stage.detectors = [Recorded(answers)]
    known: dict[str, Any] = {"videos": [video()], "sounds": [sounds()]}
    stage.open(context(folder, **(known | tables)))
    return stage


def recorded(stage: ProposeBoxes) -> Recorded:
    (only,) = stage.detectors
    assert isinstance(only, Recorded)
    return only


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
        "track_id": None,
    }


def test_the_detector_sees_the_saved_frame_in_rgb(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, [frame(3), frame(4)])
    list(stage.process([frame(4)]))
    (item,) = recorded(stage).shown
    assert item.image.shape == (180, 320, 3)
    assert (item.image == (250, 0, 1)).all()


def test_a_batch_of_one_equals_a_batch_of_many(tmp_path: Path) -> None:
    frames = [frame(n) for n in (3, 9, 12)]
    stage = stage_over(tmp_path, frames)
    assert list(stage.process(frames)) == [o for row in frames for o in stage.process([row])]


def test_ids_of_proposals_differ_by_frame_and_box(tmp_path: Path) -> None:
    frames = [frame(n) for n in (3, 9, 12)]
    stage = stage_over(tmp_path, frames)
    recorded(stage).answers = {
        row.frame_id: [detection(0, 0, 40, 40), detection(90, 0, 40, 40)] for row in frames
    }
    ids = [row.id for o in stage.process(frames) if isinstance(o, Ok) for row in o.rows]
    assert len(ids) == len(set(ids)) == 6


def test_another_threshold_asks_the_detector_nothing(tmp_path: Path) -> None:
    frames = [frame(n) for n in (3, 9, 12)]
    (first,) = [list(stage_over(tmp_path, frames).process(frames))]
    again = opened(tmp_path, {})
    assert list(again.process(frames)) == first
    stricter = opened(tmp_path, {}, ProposeConfig(min_score=0.6, link="none"))
    assert list(stricter.process(frames)) == [Drop(row.id, "nothing_here") for row in frames]
    assert recorded(again).shown == recorded(stricter).shown == []


def test_another_frame_or_setting_of_the_detector_asks_again(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, [frame(3)])
    list(stage.process([frame(3)]))
    cv2.imwrite(str(tmp_path / frame(3).path), np.full((180, 320, 3), 77, np.uint8))
    changed = opened(tmp_path, {})
    list(changed.process([frame(3)]))
    other = opened(tmp_path, {}, ProposeConfig(motion_window_s=0.3, link="none"))
    list(other.process([frame(3)]))
    refetched = opened(tmp_path, {}, videos=[video(sha256="1" * 64)])
    list(refetched.process([frame(3)]))
    assert len(recorded(changed).shown) == len(recorded(other).shown) == 1
    assert len(recorded(refetched).shown) == 1


def test_an_answer_a_crash_cut_short_is_asked_for_again(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, [frame(3)])
    before = list(stage.process([frame(3)]))
    (kept,) = (tmp_path / "media" / "cache").rglob("*.json")
    kept.write_bytes(kept.read_bytes()[:20])
    assert list(stage.process([frame(3)])) == before
    assert len(recorded(stage).shown) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        detection(0, 0, float("nan"), 5),
        detection(0, float("inf"), 5, 5),
        detection(0, 0, -4, 5),
        detection(0, 0, 1e9, 5),
        detection(0, 0, 5, 5, score=float("nan")),
        detection(0, 0, 5, 5, score=1.2),
    ],
)
def test_a_box_that_is_none_fails_its_frame_alone(tmp_path: Path, wrong: Detection) -> None:
    frames = [frame(n) for n in (3, 9, 12)]
    stage = stage_over(tmp_path, frames)
    recorded(stage).answers = {
        row.frame_id: [detection(0, 0, 40, 40), *([wrong] if row.frame_index == 9 else [])]
        for row in frames
    }
    first, bad, last = process_batch(stage, frames)
    assert isinstance(bad, Fail)
    assert (bad.id, bad.kind, bad.retryable) == (frames[1].id, "absurd_box", False)
    assert isinstance(first, Ok)
    assert isinstance(last, Ok)


def test_a_frame_without_a_box_is_dropped_with_the_detectors_reason(tmp_path: Path) -> None:
    stage = stage_over(tmp_path, [frame(3)])
    recorded(stage).answers = {}
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
        (b"", r"not an image \(0 bytes\)"),
        (b"<html></html>", r"not an image \(13 bytes\)"),
        ("small", "64x36, but the frame is 320x180"),
    ],
)
def test_a_frame_file_that_is_not_the_frame_is_unreadable(
    tmp_path: Path, content: bytes | str, message: str
) -> None:
    stage = stage_over(tmp_path, [frame(3)])
    path = tmp_path / frame(3).path
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        cv2.imwrite(str(path), np.zeros((36, 64, 3), np.uint8))
    with pytest.raises(InputError, match=f"unreadable_frame: .*{message}"):
        list(stage.process([frame(3)]))


def several(folder: Path, *detectors: Recorded, **tables: Any) -> ProposeBoxes:
    stage = ProposeBoxes(ProposeConfig(detectors=["yolov8n-oiv7", "motion"], link="none"))
    stage.detectors = list(detectors)
    known: dict[str, Any] = {"videos": [video()], "sounds": [sounds()]}
    stage.open(context(folder, **(known | tables)))
    return stage


def test_a_detector_that_joins_is_the_only_one_that_looks(tmp_path: Path) -> None:
    frames = [frame(n) for n in (3, 9, 12)]
    first = list(stage_over(tmp_path, frames).process(frames))
    old, new = Recorded({}), Recorded({}, "other")
    assert list(several(tmp_path, old, new).process(frames)) == first
    assert (len(old.shown), len(new.shown)) == (0, 3)
    again = Recorded({}, "other")
    assert list(several(tmp_path, Recorded({}), again).process(frames)) == first
    assert again.shown == []


def test_each_row_keeps_the_detector_that_drew_it(tmp_path: Path) -> None:
    stage_over(tmp_path, [frame(3)])
    dog = Recorded({frame(3).id: [detection(200, 9, 40, 40, name="Dog")]}, "named", "openimages")
    drum = sounds(categories=[heard("dog"), heard("sitar")])
    other = Recorded({frame(3).id: [detection(9, 9, 40, 40), detection(200, 9, 40, 39)]}, "free")
    (outcome,) = several(tmp_path, dog, other, sounds=[drum]).process([frame(3)])
    assert isinstance(outcome, Ok)
    rows = [row for row in outcome.rows if isinstance(row, Proposal)]
    assert [(row.detector, row.categories) for row in rows] == [
        ("named", ["dog"]),
        ("free", ["sitar"]),
        ("free", ["sitar"]),
    ]


def heard(category: str) -> SoundCategory:
    return SoundCategory(category=category, score=0.5, active=True)


def test_motion_looks_only_where_a_category_is_heard_that_has_no_class(tmp_path: Path) -> None:
    frames = [frame(3), frame(9, "wwwwwwwwwww")]
    stage_over(tmp_path, frames)
    clips = [sounds(), sounds("wwwwwwwwwww", categories=[heard("sitar")])]
    videos = [video(), video("wwwwwwwwwww")]
    named, free = Recorded({}, "named", "openimages"), Recorded({}, "free")
    list(several(tmp_path, named, free, sounds=clips, videos=videos).process(frames))
    assert [item.frame for item in named.shown] == frames
    assert [item.frame for item in free.shown] == frames[1:]


def test_motion_may_look_too_where_the_others_found_nothing(tmp_path: Path) -> None:
    frames = [frame(3), frame(9)]
    stage_over(tmp_path, frames)
    dog = [detection(9, 9, 40, 40, name="Dog")]
    named, free = Recorded({frame(3).id: dog}, "named", "openimages"), Recorded({}, "free")
    stage = ProposeBoxes(
        ProposeConfig(detectors=["yolov8n-oiv7", "motion"], motion="no-box", link="none")
    )
    stage.detectors = [free, named]
    stage.open(context(tmp_path, videos=[video()], sounds=[sounds()]))
    list(stage.process(frames))
    assert [item.frame for item in named.shown] == frames
    assert [item.frame for item in free.shown] == frames[1:], "the named look first"
