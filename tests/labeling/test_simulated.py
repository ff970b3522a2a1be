from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labeling.automatic.simulated import (
    Scene,
    SimulatedAnnotator,
    SimulatedConfig,
    TrueVideo,
    corrected,
    scene_at,
)
from pipeline.errors import InputError, UsageError
from pipeline.records.schema import Review
from pipeline.run.stage import Ok
from tests.rows import context, frame, proposal

DOG, DOG_2, CAT = [10.0, 10.0, 40.0, 40.0], [100.0, 10.0, 40.0, 40.0], [200.0, 50.0, 60.0, 60.0]


def world(
    sounds: Sequence[tuple[str | None, str]], seen: Sequence[str] = ("dog", "dog2", "cat")
) -> TrueVideo:
    """Two dogs and a cat; ``sounds`` are (who, category) from 0.2 s to 0.6 s."""
    places = {"dog": DOG, "dog2": DOG_2, "cat": CAT}
    return TrueVideo.model_validate(
        {
            "fps": 25,
            "width": 320,
            "height": 180,
            "objects": [
                {
                    "name": name,
                    "category": name.rstrip("2"),
                    "boxes": [box if name in seen else None] * 25,
                    "masks": "somebody else's",
                }
                for name, box in places.items()
            ],
            "sounds": [
                {"object": who, "category": what, "start_s": 0.2, "end_s": 0.6}
                for who, what in sounds
            ],
        }
    )


def scene(*sounds: tuple[str | None, str], seen: Sequence[str] = ("dog", "dog2", "cat")) -> Scene:
    return scene_at(world(sounds, seen), frame(10))


def scenario_of(found: Scene) -> dict[str, str]:
    return {name: found.scenario(name) for name in found.sounding}


@pytest.mark.parametrize(
    ("sounds", "seen", "expected"),
    [
        ([("cat", "cat")], ["dog", "cat"], {"cat": "Single-sound"}),
        ([("dog", "dog")], ["dog", "cat"], {"dog": "Single-sound"}),
        ([("dog", "dog")], ["dog", "dog2"], {"dog": "Multi-entity"}),
        (
            [("dog", "dog"), ("dog2", "dog")],
            ["dog", "dog2"],
            {"dog": "Mixed-sound", "dog2": "Mixed-sound"},
        ),
        (
            [("dog", "dog"), ("cat", "cat")],
            ["dog", "cat"],
            {"dog": "Mixed-sound", "cat": "Mixed-sound"},
        ),
        (
            [("dog", "dog"), ("cat", "cat")],
            ["dog", "dog2", "cat"],
            {"dog": "Multi-entity", "cat": "Mixed-sound"},
        ),
        ([("cat", "cat"), (None, "car")], ["cat"], {"cat": "Mixed-sound"}),
        ([("cat", "cat"), ("dog", "dog")], ["cat"], {"cat": "Mixed-sound"}),
        ([("dog", "dog"), (None, "dog")], ["dog", "dog2"], {"dog": "Multi-entity"}),
    ],
)
def test_scenarios_are_those_of_the_paper(
    sounds: list[tuple[str | None, str]], seen: list[str], expected: dict[str, str]
) -> None:
    assert scenario_of(scene(*sounds, seen=seen)) == expected


def test_a_sound_is_heard_from_its_start_up_to_its_end() -> None:
    video = world([("dog", "dog")])
    heard = [n for n in range(25) if scene_at(video, frame(n)).sounding]
    assert heard == list(range(5, 15))


def test_what_is_true_is_looked_up_at_the_presented_frame() -> None:
    boxes = [[float(n), 0.0, 10.0, 10.0] for n in range(25)]
    video = world([("dog", "dog")]).model_dump()
    video["objects"][0]["boxes"] = boxes
    truth = TrueVideo.model_validate(video | {"fps": 30.0})
    for number in range(25):
        at = frame(0, time_s=round(number / 30, 6))
        assert scene_at(truth, at).boxes["dog"][0] == number


def test_a_thing_partly_out_of_the_frame_is_seen_as_far_as_it_is_inside() -> None:
    video = world([("dog", "dog"), ("cat", "cat")]).model_dump()
    video["objects"][0]["boxes"] = [[-10.0, 0.0, 30.0, 20.0]] * 25
    video["objects"][2]["boxes"] = [[320.0, 0.0, 30.0, 20.0]] * 25
    found = scene_at(TrueVideo.model_validate(video), frame(10))
    assert found.boxes["dog"] == [0.0, 0.0, 20.0, 20.0]
    assert found.off_screen == ("cat",)


def shifted(box: list[float], by: float) -> list[float]:
    return [box[0] + by, *box[1:]]


def test_a_proposal_is_kept_moved_or_replaced_by_how_well_it_fits() -> None:
    sounding = scene(("dog", "dog"), seen=["dog"])
    for by, origin, bbox in [
        (1.0, "kept", shifted(DOG, 1.0)),  # IoU 39 / 41
        (5.0, "moved", DOG),  # IoU 35 / 45
        (20.0, "added", DOG),  # IoU 20 / 60
    ]:
        (found,) = corrected(sounding, [proposal(bbox=shifted(DOG, by))])
        assert (found.origin, found.bbox) == (origin, bbox)
        assert found.proposal_id == (None if origin == "added" else "p_1")


def test_each_thing_takes_the_proposal_that_fits_best_and_none_is_used_twice() -> None:
    sounding = scene(("dog", "dog"), ("cat", "cat"))
    near, nearer = proposal("p_1", bbox=shifted(DOG, 4)), proposal("p_2", bbox=shifted(DOG, 2))
    stray = proposal("p_3", bbox=[250.0, 120.0, 20.0, 20.0])
    for order in itertools.permutations([near, nearer, stray]):
        found = {row.category: row for row in corrected(sounding, order)}
        assert (found["dog"].proposal_id, found["cat"].proposal_id) == ("p_2", None)


def test_without_proposals_every_sounding_thing_is_added() -> None:
    found = corrected(scene(("dog", "dog"), ("cat", "cat")), [])
    assert [(row.bbox, row.origin) for row in found] == [(DOG, "added"), (CAT, "added")]


def written(folder: Path, video: TrueVideo) -> str:
    path = folder / "truth.json"
    whole = {"videos": {frame().video_id: video.model_dump()}, "scenes": {"for": "others"}}
    path.write_text(json.dumps(whole))
    return str(path)


def reviewed(folder: Path, video: TrueVideo, **tables: Any) -> Review:
    stage = SimulatedAnnotator(SimulatedConfig(truth=written(folder, video)))
    stage.open(context(folder, **tables))
    (outcome,) = stage.process([frame()])
    assert isinstance(outcome, Ok)
    (row,) = outcome.rows
    assert isinstance(row, Review)
    return row


def test_a_review_says_that_nobody_verified_it(tmp_path: Path) -> None:
    row = reviewed(tmp_path, world([("cat", "cat")]), proposals=[proposal(bbox=CAT)])
    assert (row.annotator, row.verified, row.updated_at) == ("simulated:ground-truth", False, "")
    assert (row.kind, row.decision, row.off_screen_category) == ("boxes", "labelled", None)
    assert [(found.origin, found.proposal_id) for found in row.instances] == [("kept", "p_1")]


@pytest.mark.parametrize("who", [None, "cat"])
def test_a_frame_whose_source_is_out_of_sight_is_off_screen_with_its_category(
    tmp_path: Path, who: str | None
) -> None:
    row = reviewed(tmp_path, world([(who, "cat")], ["dog"]), proposals=[proposal(bbox=DOG)])
    assert (row.decision, row.off_screen_category, row.instances) == ("off_screen", "cat", [])


def test_a_frame_where_nothing_sounds_is_rejected_with_its_reason(tmp_path: Path) -> None:
    row = reviewed(tmp_path, world([]))
    assert (row.decision, row.reject_reasons) == ("rejected", ["nothing sounds"])


def test_another_truth_is_another_fingerprint(tmp_path: Path) -> None:
    digests = []
    for sounds in ([], [("cat", "cat")]):
        config = SimulatedConfig(truth=written(tmp_path, world(sounds)))
        digests.append(SimulatedAnnotator(config).fingerprint())
    assert digests[0] != digests[1]


def test_a_frame_the_truth_does_not_fit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="truth_mismatch: the truth is of 320x180, not 640x360"):
        scene_at(world([]), frame(10, width=640, height=360))
    with pytest.raises(InputError, match="truth_mismatch: dog has no box for frame 25"):
        scene_at(world([]), frame(25))
    stage = SimulatedAnnotator(SimulatedConfig(truth=written(tmp_path, world([]))))
    stage.open(context(tmp_path))
    with pytest.raises(InputError, match="no_truth: video lostlostlos"):
        list(stage.process([frame(10, "lostlostlos")]))


def test_a_missing_or_malformed_truth_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json: cannot read the truth"):
        SimulatedAnnotator(SimulatedConfig(truth=str(tmp_path / "none.json"))).fingerprint()
    bad = tmp_path / "bad.json"
    bad.write_text('{"videos": {"v": {"fps": "fast"}}}')
    with pytest.raises(UsageError, match=r"bad\.json: videos\.v\.fps: "):
        SimulatedAnnotator(SimulatedConfig(truth=str(bad))).open(context(tmp_path))
