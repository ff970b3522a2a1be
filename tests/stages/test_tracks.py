"""Boxes of one thing in a clip's frames get one track, and what is in doubt gets two."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.models.register import add
from pipeline.records.schema import Frame, Proposal, track_id
from pipeline.run.stage import Drop, Fail
from pipeline.run.unit import process_batch
from pipeline.synthetic.scene import Camera, Scene
from stages.propose.linking.carrying import carried_overlaps, flows
from stages.propose.linking.flow_linker import FlowLinker
from stages.propose.linking.linkers import Likeness
from stages.propose.linking.tracks import linked, matched, tracks
from tests.rows import frame, video
from tests.stages.drawn_things import (
    AT,
    FPS,
    FRAMES,
    STANDING,
    WAYS,
    Way,
    actor,
    boxes_of,
    film_of_what_stands,
    filmed,
    opened,
    painted,
    rows,
    scene,
    things_by_track,
    true_boxes,
)
from tests.stages.recorded_detector import Recorded

LEAST = ProposeConfig().link_iou
FLOW = FlowLinker(ProposeConfig())


def link(path: Path, drawn: Scene, at: Iterable[int] = AT) -> dict[str, int]:
    boxes = rows({index: true_boxes(drawn, index) for index in at}, _categories(drawn))
    return linked(boxes, [frame(index) for index in at], nullcontext(path), FLOW, LEAST)


def _categories(drawn: Scene) -> dict[str, str]:
    return {one.name: one.category for one in drawn.actors}


def test_in_a_still_scene_every_thing_is_one_track(tmp_path: Path) -> None:
    still = scene(
        actor("left", "dog", 60),
        actor("right", "dog", 160),
        actor("cat", "cat", 260),
        camera=Camera(swing_px=0, period_s=9, phase=0),
    )
    found = link(filmed(tmp_path / "v.mp4", painted(still)), still)
    assert len(found) == 15
    assert sorted(things_by_track(found), key=str) == [{"cat"}, {"left"}, {"right"}]


def test_what_walks_on_is_followed_where_its_boxes_no_longer_overlap(tmp_path: Path) -> None:
    walking = scene(actor("walker", "dog", 50, walk=45), actor("other", "dog", 270))
    found = link(filmed(tmp_path / "v.mp4", painted(walking)), walking, AT[:4])
    boxes = [true_boxes(walking, index)["walker"] for index in AT[:4]]
    assert boxes[1][0] > boxes[0][0] + boxes[0][2] / 2
    assert sorted(map(sorted, things_by_track(found))) == [["other"], ["walker"]]


def test_look_alikes_that_cross_are_never_taken_for_one_another(tmp_path: Path) -> None:
    for seed, speed in enumerate((30, 45, 60)):
        crossing = scene(
            actor("left", "dog", 160 - 2.5 * speed, walk=speed),
            actor("right", "dog", 160 + 2.5 * speed, walk=-speed),
            seed=seed,
        )
        found = link(filmed(tmp_path / f"{seed}.mp4", painted(crossing)), crossing)
        assert all(len(things) == 1 for things in things_by_track(found))
        assert len(set(found.values())) < len(found), "what is apart is linked"


def test_things_of_two_categories_that_cross_stay_what_they_are(tmp_path: Path) -> None:
    crossing = scene(actor("dog", "dog", 60, walk=40), actor("car", "car", 260, walk=-40, size=60))
    found = link(filmed(tmp_path / "v.mp4", painted(crossing)), crossing)
    assert all(len(things) == 1 for things in things_by_track(found))


def test_a_cut_breaks_every_track_though_a_look_alike_stands_in_its_place(tmp_path: Path) -> None:
    before = scene(actor("one", "dog", 90), actor("cat", "cat", 230))
    after = scene(actor("two", "dog", 90), actor("cat", "cat", 230), background="stage", seed=8)
    one, two = painted(before), painted(after)
    path = filmed(tmp_path / "v.mp4", lambda index: one(index) if index < 70 else two(index))
    drawn = {index: true_boxes(before if index < 70 else after, index) for index in AT}
    boxes = rows(drawn, {"one": "dog", "two": "dog", "cat": "cat"})
    found = linked(boxes, [frame(index) for index in AT], nullcontext(path), FLOW, LEAST)
    assert sorted(map(sorted, things_by_track(found))) == [["cat"], ["cat"], ["one"], ["two"]]


@pytest.mark.parametrize("dark", [0, 128])
def test_nothing_is_carried_through_pictures_that_show_nothing(tmp_path: Path, dark: int) -> None:
    still = scene(actor("dog", "dog", 120))
    picture = painted(still)

    def blacked(index: int) -> NDArray[np.uint8]:
        return np.full_like(picture(0), dark) if 45 <= index < 55 else picture(index)

    found = link(filmed(tmp_path / "v.mp4", blacked), still, (34, 60))
    assert len(set(found.values())) == 2


def test_a_track_goes_on_where_its_thing_was_not_found_in_between(tmp_path: Path) -> None:
    still = scene(actor("dog", "dog", 120), actor("cat", "cat", 250))
    path = filmed(tmp_path / "v.mp4", painted(still))
    drawn = {index: true_boxes(still, index) for index in AT}
    del drawn[AT[2]]["dog"]
    boxes = rows(drawn, _categories(still))
    found = linked(boxes, [frame(index) for index in AT], nullcontext(path), FLOW, LEAST)
    assert sorted(map(sorted, things_by_track(found))) == [["cat"], ["dog"]]


def test_tracks_are_the_same_in_any_order_of_rows_and_two_boxes_of_a_frame_never_share_one(
    tmp_path: Path,
) -> None:
    drawn = scene(actor("left", "dog", 60), actor("right", "dog", 110), actor("cat", "cat", 250))
    path = filmed(tmp_path / "v.mp4", painted(drawn))
    boxes = rows({index: true_boxes(drawn, index) for index in AT}, _categories(drawn))
    found = linked(boxes, [frame(index) for index in AT], nullcontext(path), FLOW, LEAST)
    turned = dict(reversed(boxes.items()))
    again = linked(turned, [frame(index) for index in AT[::-1]], nullcontext(path), FLOW, LEAST)
    assert again == found
    for of_frame in boxes.values():
        assert len({found[row.proposal_id] for row in of_frame}) == len(of_frame)
    assert track_id(boxes[frame(AT[0]).frame_id][0].proposal_id) in found.values()


def test_boxes_of_one_frame_are_tracks_of_their_own_and_no_video_is_opened() -> None:
    boxes = rows({4: {"a": (1, 2, 30, 40), "b": (9, 9, 9, 9)}}, {"a": "dog", "b": "dog"})
    found = linked(boxes, [frame(4), frame(9)], nullcontext(Path("none.mp4")), FLOW, LEAST)
    assert len(set(found.values())) == 2


def test_a_frame_that_is_not_in_the_video_is_said(tmp_path: Path) -> None:
    still = scene(actor("dog", "dog", 120))
    path = filmed(tmp_path / "v.mp4", painted(still), 50)
    with pytest.raises(InputError, match="frame_not_in_source"):
        link(path, still, (4, 90))


def test_a_tiny_and_an_empty_picture_are_no_fault(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (4, 20, 24), np.uint8)
    for pictures in (noise, np.zeros_like(noise)):
        boxes = {0: [[2.0, 2.0, 9.0, 9.0]], 3: [[2.0, 2.0, 9.0, 9.0]]}
        found = carried_overlaps(list(flows(iter(pictures))), boxes, lambda *_: False)
        assert found[0, 3].shape == (1, 1)


def test_a_shift_carries_a_box_exactly_as_far() -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (260, 420), np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 2.0).astype(np.uint8, copy=False)
    pictures = [np.ascontiguousarray(texture[n : n + 180, 2 * n : 2 * n + 320]) for n in range(9)]
    boxes = {0: [[150.0, 60.0, 60.0, 50.0]], 8: [[134.0, 52.0, 60.0, 50.0]]}
    found = carried_overlaps(list(flows(iter(pictures))), boxes, lambda *_: False)
    assert found[0, 8][0, 0] > 0.95


def best_pairs(likeness: NDArray[np.float64], least: float) -> float:
    """The largest sum of any one-to-one pairing, by trying all."""
    rows, columns = likeness.shape
    if rows > columns:
        return best_pairs(likeness.T, least)
    return max(
        sum(
            float(likeness[row, column])
            for row, column in enumerate(chosen)
            if likeness[row, column] >= least
        )
        for chosen in itertools.permutations(range(columns), rows)
    )


def test_no_other_pairing_is_worth_more() -> None:
    rng = np.random.default_rng(7)
    for _ in range(300):
        shape = rng.integers(0, 5, 2)
        likeness = np.where(rng.random(shape) < 0.5, rng.random(shape), 0.0)
        pairs = matched(likeness, 0.3)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert all(likeness[pair] >= 0.3 for pair in pairs)
        worth = sum(likeness[pair] for pair in pairs)
        assert worth == pytest.approx(best_pairs(likeness, 0.3))


def slow_tracks(
    counts: Sequence[int], overlaps: Mapping[tuple[int, int], NDArray[np.float64]], least: float
) -> list[list[int]]:
    """Tracks as lists of boxes, each frame's boxes paired by trying all pairings."""
    known: list[list[tuple[int, int]]] = []
    for place, count in enumerate(counts):
        choices = itertools.permutations([*range(len(known)), *[-1] * count], count)
        best, worth = (-1,) * count, 0.0
        for chosen in choices:
            likeness = [
                overlaps[known[track][-1][0], place][known[track][-1][1], box]
                for box, track in enumerate(chosen)
                if track >= 0
            ]
            if all(one >= least for one in likeness) and sum(likeness) > worth + 1e-12:
                best, worth = chosen, sum(likeness)
        for box, track in enumerate(best):
            if track < 0:
                known.append([(place, box)])
            else:
                known[track].append((place, box))
    found = [[-1] * count for count in counts]
    for number, places in enumerate(known):
        for place, box in places:
            found[place][box] = number
    return found


def test_tracks_are_those_of_the_slow_definition() -> None:
    rng = np.random.default_rng(11)
    for _ in range(40):
        counts = rng.integers(0, 4, 4).tolist()
        overlaps = {
            (i, j): np.where(
                rng.random((counts[i], counts[j])) < 0.6, rng.random((counts[i], counts[j])), 0.0
            )
            for i, j in itertools.combinations(range(4), 2)
        }
        assert tracks(counts, _table(overlaps), 0.4) == slow_tracks(counts, overlaps, 0.4)


def _table(overlaps: Mapping[tuple[int, int], NDArray[np.float64]]) -> Likeness:
    """A linker's answers, all known before."""
    return lambda frame, seen: np.array([overlaps[earlier, frame][box] for earlier, box in seen])


# --- the stage ---


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the video of two things that stand, and the sampled pictures."""
    return film_of_what_stands(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a SAM 2.1 that finds everything everywhere."""
    from tests.stages.backends.tiny_sam import write_sam2

    return write_sam2(tmp_path_factory.mktemp("weights") / "sam2", "everywhere", side=64)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, models_folder: Path) -> Way:
    """A way of linking; what it needs is registered."""
    if request.param == "sam2":
        add("sam2.1-hiera-tiny", request.getfixturevalue("everywhere"))
    return WAYS[request.param]


def test_a_clip_is_linked_alike_whole_in_parts_and_frame_by_frame(
    way: Way, film: Path, tmp_path: Path
) -> None:
    whole = boxes_of(opened(film, tmp_path / "a", way).process(FRAMES))
    assert len(whole) == 10
    for of_clip in (FRAMES[:5], FRAMES[5:]):
        found = {row.track_id for one in of_clip for row in whole[one.frame_id]}
        assert len(found) == len(way.boxes(0))
    every = {row.track_id for rows in whole.values() for row in rows}
    assert len(every) == 2 * len(way.boxes(0)), "no number is two clips'"
    for parts in ((FRAMES[:3], FRAMES[3:7], FRAMES[7:]), [[one] for one in FRAMES[::-1]]):
        stage = opened(film, tmp_path / str(len(parts)), way)
        again: dict[str, list[Proposal]] = {}
        for part in parts:
            again |= boxes_of(stage.process(part))
        assert again == whole


def test_a_detector_is_asked_once_for_a_clip_of_which_a_part_is_wanted(
    film: Path, tmp_path: Path
) -> None:
    stage = opened(film, tmp_path, WAYS["flow"])
    (detector,) = stage.detectors
    assert isinstance(detector, Recorded)
    assert len(boxes_of(stage.process(FRAMES[1:3]))) == 2
    assert {one.frame for one in detector.shown} == set(FRAMES[:5])
    assert (detector.times_asked, len(detector.shown)) == (1, 5)


def test_links_are_no_part_of_what_a_box_is(way: Way, film: Path, tmp_path: Path) -> None:
    with_tracks = boxes_of(opened(film, tmp_path, way).process(FRAMES))
    without = boxes_of(opened(film, tmp_path, way, link="none").process(FRAMES))
    assert {row.track_id for rows in without.values() for row in rows} == {None}
    bare = {
        name: [row.model_copy(update={"track_id": None}) for row in rows]
        for name, rows in with_tracks.items()
    }
    assert bare == without, "the ids by which reviews know boxes, too"


def test_a_lost_video_fails_the_frames_of_its_clip_alone(
    way: Way, film: Path, tmp_path: Path
) -> None:
    stage = opened(film, tmp_path, way)
    (tmp_path / "ws" / video("vvvvvvvvvvv").path).unlink()
    outcomes = process_batch(stage, FRAMES)
    failed = [one for one in outcomes if isinstance(one, Fail)]
    assert {one.id for one in failed} == {one.frame_id for one in FRAMES[:5]}
    assert {one.kind for one in failed} == {"missing_file"}
    assert boxes_of(outcomes) == boxes_of(opened(film, tmp_path / "b", way).process(FRAMES[5:]))
    no_links = boxes_of(opened(film, tmp_path, way, link="none").process(FRAMES))
    assert len(no_links) == 10, "the way out needs no video"


def test_a_video_that_cannot_be_decoded_fails_its_frames_by_name(
    way: Way, film: Path, tmp_path: Path
) -> None:
    stage = opened(film, tmp_path, way)
    (tmp_path / "ws" / video("vvvvvvvvvvv").path).write_bytes(b"<html>not a video</html>")
    outcomes = process_batch(stage, FRAMES)
    failed = {one.id: one.kind for one in outcomes if isinstance(one, Fail)}
    assert failed == {one.frame_id: "not_media" for one in FRAMES[:5]}
    assert len(boxes_of(outcomes)) == 5


@pytest.mark.parametrize("fault", ["gone", "broken"])
def test_a_frame_at_fault_fails_alone_and_the_others_are_linked_without_it(
    way: Way, film: Path, tmp_path: Path, fault: str
) -> None:
    bad = FRAMES[2]
    stage = opened(film, tmp_path, way)
    image = tmp_path / "ws" / bad.path
    if fault == "gone":
        image.unlink()
    else:
        image.write_bytes(b"no image")
    outcomes = process_batch(stage, FRAMES)
    failed = [one for one in outcomes if isinstance(one, Fail)]
    assert [one.id for one in failed] == [bad.frame_id]
    found = boxes_of(outcomes)
    assert len(found) == 9
    of_clip = {row.track_id for one in FRAMES[:5] for row in found.get(one.frame_id, [])}
    assert len(of_clip) == len(way.boxes(0))
    picture = painted(STANDING)(bad.frame_index)[:, :, ::-1]
    cv2.imwrite(str(image), picture)
    (retried,) = boxes_of(opened(film, tmp_path, way).process([bad])).values()
    assert {row.track_id for row in retried} == of_clip, "a retry joins the tracks there are"


def test_a_frame_without_boxes_is_dropped_and_the_tracks_go_on(
    way: Way, film: Path, tmp_path: Path
) -> None:
    stage = opened(film, tmp_path, way)
    (detector,) = stage.detectors
    assert isinstance(detector, Recorded)
    detector.answers = {**detector.answers, FRAMES[1].frame_id: []}
    outcomes = list(stage.process(FRAMES[:5]))
    assert [one.id for one in outcomes if isinstance(one, Drop)] == [FRAMES[1].frame_id]
    found = {row.track_id for rows in boxes_of(outcomes).values() for row in rows}
    assert len(found) == len(way.boxes(0))


def test_without_links_the_settings_are_those_of_before_there_were_any() -> None:
    before = ProposeConfig(link="none", link_iou=0.7).deciding()
    assert not before.keys() & ProposeConfig.links
    linked_ones = ProposeConfig().deciding()
    assert {key: value for key, value in linked_ones.items() if key in before} == before


def test_frames_of_the_clip_are_found_by_time_at_any_rate(tmp_path: Path) -> None:
    still = scene(actor("dog", "dog", 120))
    path = filmed(tmp_path / "v.mp4", painted(still))
    late: list[Frame] = [frame(index, time_s=round(index / FPS, 6)) for index in (4, 90)]
    boxes = rows({index: true_boxes(still, index) for index in (4, 90)}, {"dog": "dog"})
    found = linked(boxes, late, nullcontext(path), FLOW, LEAST)
    assert len(set(found.values())) == 1
