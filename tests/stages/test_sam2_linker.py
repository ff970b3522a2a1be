"""Boxes linked by a memory of pictures: what holds of any weights, with simple networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import ProposeConfig
from pipeline.errors import InputError, UsageError
from pipeline.models.register import add
from pipeline.records.schema import Clip, Frame, Proposal, Sounds, Video
from pipeline.run.runner import RunOptions, run_stage
from pipeline.run.stage import Fail
from pipeline.run.unit import process_batch
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from stages.backends.sam2_video import Sam2Memory
from stages.propose.linking.linkers import Linker, make_linker
from stages.propose.linking.tracks import linked
from stages.propose.propose_boxes import ProposeBoxes, kept_answers
from tests.labeling.labelled_workspace import commit
from tests.rows import clip, frame, sounds, video
from tests.stages.backends.tiny_sam import Answers, write_sam2
from tests.stages.drawn_things import (
    AT,
    FRAMES,
    WAYS,
    actor,
    boxes_of,
    film_of_what_stands,
    filmed,
    opened,
    painted,
    rows,
    scene,
    things_by_track,
)
from tests.stages.recorded_detector import Recorded

NAME = "sam2.1-hiera-tiny"
WHOLE = [8.0, 4.0, 300.0, 170.0]
"""A box that a mask of the whole picture links."""
CONFIG = ProposeConfig(link="sam2", device="cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[Answers, Path]:
    folder = tmp_path_factory.mktemp("weights")
    kinds: list[Answers] = ["random", "everywhere", "nowhere"]
    return {kind: write_sam2(folder / kind, kind, side=64) for kind in kinds}


@pytest.fixture
def registered(weights: dict[Answers, Path], models_folder: Path) -> dict[Answers, Path]:
    add(NAME, weights["everywhere"])
    return weights


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dogs and a cat that stand."""
    drawn = scene(actor("dog", "dog", 90), actor("other", "dog", 150), actor("cat", "cat", 250))
    return filmed(tmp_path_factory.mktemp("still") / "v.mp4", painted(drawn))


def linker(folder: Path, **settings: Any) -> Linker:
    made = make_linker(CONFIG.model_copy(update=settings))
    assert made is not None
    made.open(Storage(folder))
    return made


def link(
    path: Path, boxes: Mapping[str, Sequence[Proposal]], by: Linker, at: Sequence[int] = AT
) -> dict[str, int]:
    return linked(boxes, [frame(index) for index in at], nullcontext(path), by, CONFIG.link_iou)


def whole(at: Sequence[int] = AT) -> dict[str, list[Proposal]]:
    return rows({index: {"it": WHOLE} for index in at}, {"it": "dog"})


def test_what_is_found_again_is_one_track_and_what_is_not_none(
    registered: dict[Answers, Path], still: Path, tmp_path: Path
) -> None:
    assert len(set(link(still, whole(), linker(tmp_path)).values())) == 1
    add(NAME, registered["nowhere"])
    assert len(set(link(still, whole(), linker(tmp_path)).values())) == 5


def test_a_mask_that_does_not_overlap_enough_or_of_another_category_links_nothing(
    registered: dict[Answers, Path], still: Path, tmp_path: Path
) -> None:
    by = linker(tmp_path)
    small = rows({index: {"it": [10.0, 10.0, 200.0, 100.0]} for index in AT}, {"it": "dog"})
    assert len(set(link(still, small, by).values())) == 5  # a third of the mask
    names = {"it": "dog", "other": "cat"}
    two = {AT[0]: {"it": WHOLE}, AT[1]: {"other": WHOLE}, AT[2]: {"it": WHOLE}}
    found = link(still, rows(two, names), by)
    assert sorted(map(sorted, things_by_track(found))) == [["it"], ["other"]]
    assert found["it@4"] == found["it@60"], "a track goes on where its thing was not found"


def test_two_boxes_of_a_frame_never_share_a_track_and_the_better_one_is_linked(
    registered: dict[Answers, Path], still: Path, tmp_path: Path
) -> None:
    wide = {"it": WHOLE, "less": [8.0, 4.0, 250.0, 150.0]}
    boxes = rows({AT[0]: {"it": WHOLE}, AT[1]: wide}, {"it": "dog", "less": "dog"})
    found = link(still, boxes, linker(tmp_path), AT[:2])
    assert found["it@4"] == found["it@34"] != found["less@34"]


@pytest.mark.parametrize("kind", ["random", "everywhere"])
def test_tracks_are_the_same_in_any_order_of_rows(
    kind: Answers, registered: dict[Answers, Path], still: Path, tmp_path: Path
) -> None:
    add(NAME, registered[kind])
    things = {"left": [60.0, 90.0, 70.0, 80.0], "it": WHOLE, "right": [200.0, 90.0, 90.0, 80.0]}
    boxes = rows({index: things for index in AT[:3]}, dict.fromkeys(things, "dog"))
    by = linker(tmp_path, link_iou=0.05)
    found = linked(boxes, [frame(index) for index in AT[:3]], nullcontext(still), by, 0.05)
    turned = dict(reversed(boxes.items()))
    frames = [frame(index) for index in AT[2::-1]]
    assert linked(turned, frames, nullcontext(still), by, 0.05) == found
    assert len(set(found.values())) < len(found), "something is linked"
    for of_frame in boxes.values():
        assert len({found[row.proposal_id] for row in of_frame}) == len(of_frame)


def test_a_cut_breaks_every_track_though_all_is_found_again_behind_it(
    registered: dict[Answers, Path], tmp_path: Path
) -> None:
    before = painted(scene(actor("one", "dog", 90), actor("cat", "cat", 230)))
    after = painted(
        scene(actor("two", "dog", 90), actor("cat", "cat", 230), background="stage", seed=8)
    )

    def picture(index: int) -> NDArray[np.uint8]:
        return before(index) if index < 70 else after(index)

    found = link(filmed(tmp_path / "v.mp4", picture), whole(), linker(tmp_path))
    assert found["it@4"] == found["it@34"] == found["it@60"]
    assert found["it@90"] == found["it@120"] != found["it@60"]


@pytest.mark.parametrize("dark", [0, 128])
def test_nothing_is_carried_through_pictures_that_show_nothing(
    dark: int, registered: dict[Answers, Path], tmp_path: Path
) -> None:
    drawn = painted(scene(actor("dog", "dog", 120)))

    def picture(index: int) -> NDArray[np.uint8]:
        return np.full_like(drawn(0), dark) if 45 <= index < 55 else drawn(index)

    found = link(filmed(tmp_path / "v.mp4", picture), whole((34, 60)), linker(tmp_path), (34, 60))
    assert len(set(found.values())) == 2


def test_boxes_of_one_frame_need_neither_the_video_nor_the_model(models_folder: Path) -> None:
    by = make_linker(CONFIG)  # not opened: there are no weights
    assert by is not None
    boxes = rows({4: {"a": (1, 2, 30, 40), "b": (9, 9, 9, 9)}}, {"a": "dog", "b": "dog"})
    found = link(Path("none.mp4"), boxes, by, (4, 9))
    assert len(set(found.values())) == 2


def test_a_frame_that_is_not_in_the_video_is_said(
    registered: dict[Answers, Path], tmp_path: Path
) -> None:
    path = filmed(tmp_path / "v.mp4", painted(scene(actor("dog", "dog", 120))), 50)
    with pytest.raises(InputError, match="frame_not_in_source"):
        link(path, whole((4, 90)), linker(tmp_path), (4, 90))


def test_a_box_that_is_linked_is_carried_no_further_and_pictures_are_a_sixth_of_a_second_apart(
    registered: dict[Answers, Path],
    still: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[int] = []
    carried: list[int] = []
    show = Sam2Memory.show

    def counted(memory: Sam2Memory, image: Any) -> None:
        shown.append(1)
        carried.append(len(memory._sessions))
        show(memory, image)

    monkeypatch.setattr(Sam2Memory, "show", counted)
    link(still, whole(), linker(tmp_path))
    assert 28 <= len(shown) <= 34, "4.64 s"
    assert set(carried[1:]) == {1}
    shown.clear()
    carried.clear()
    add(NAME, registered["nowhere"])
    link(still, whole(), linker(tmp_path))
    assert max(carried) == 4, "what may be found again is carried on"


def test_every_picture_that_is_looked_at_is_a_sign_of_life(
    registered: dict[Answers, Path], still: Path, tmp_path: Path
) -> None:
    beats: list[int] = []
    frames = [frame(index) for index in AT]
    by = linker(tmp_path)
    linked(whole(), frames, nullcontext(still), by, 0.4, lambda: beats.append(1))
    assert len(beats) > 50


# --- settings, keys, the stage ---


def test_settings_of_the_memory_are_no_part_of_other_ways_keys() -> None:
    flow = ProposeConfig().deciding()
    assert ProposeConfig(link_model="sam2.1-hiera-large").deciding() == flow
    assert "link_model" not in flow
    assert {*flow} - {*ProposeConfig(link="none").deciding()} == {"link", "link_iou"}
    one, other = CONFIG, ProposeConfig(link="sam2", link_model="sam2.1-hiera-small")
    assert one.deciding() != other.deciding()
    assert {*one.deciding()} - {*flow} == {"link_model"}
    assert one.backends() == ["motion", NAME]
    assert ProposeConfig().backends() == ["motion"]


def test_the_weights_and_the_method_are_part_of_the_key_of_boxes_and_not_of_detectors_answers(
    registered: dict[Answers, Path], tmp_path: Path
) -> None:
    none, flow = (ProposeBoxes(ProposeConfig(link=way)).fingerprint() for way in ("none", "flow"))
    assert none == flow
    ours = ProposeBoxes(CONFIG).fingerprint()
    assert {*ours} - {*flow} == {"link.weights", "link.sam2"}
    add(NAME, registered["random"])
    other = ProposeBoxes(CONFIG).fingerprint()
    assert other != ours
    storage = Storage(tmp_path)
    (tmp_path / "scratch").mkdir()
    kept_answers(storage, ProposeConfig(), flow, "motion").put("f", "d", [], tmp_path / "scratch")
    for known in (ours, other):
        assert kept_answers(storage, CONFIG, known, "motion").get("f", "d") == []


def test_without_its_weights_a_run_ends_before_it_begins(models_folder: Path) -> None:
    with pytest.raises(UsageError, match=r"models fetch sam2\.1-hiera-tiny"):
        ProposeBoxes(CONFIG).fingerprint()


def test_without_its_packages_it_says_what_brings_them(
    registered: dict[Answers, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.extras.missing", lambda names: ["transformers"])
    with pytest.raises(UsageError, match=r"transformers: not installed.*avatar-build\[light\]"):
        ProposeBoxes(CONFIG).fingerprint()


def test_it_takes_a_device_and_memory_like_a_model() -> None:
    gpu = ProposeConfig(link="sam2", device="cuda:0")
    assert ProposeBoxes(gpu).device() == "cuda:0"
    assert ProposeBoxes(gpu.model_copy(update={"link": "flow"})).device() == "cpu"
    assert ProposeBoxes(gpu).memory_bytes() > 2e9
    assert ProposeBoxes(gpu.model_copy(update={"link": "flow"})).memory_bytes() == 0


def test_a_model_of_nan_fails_every_frame_of_its_clips_by_name(
    registered: dict[Answers, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = film_of_what_stands(tmp_path / "film")
    stage = opened(film, tmp_path, WAYS["sam2"])
    take_up = Sam2Memory.take_up

    def spoiled(memory: Sam2Memory, *given: Any) -> None:
        take_up(memory, *given)
        memory._model.network.mask_decoder.iou_token.weight.fill_(float("nan"))

    monkeypatch.setattr(Sam2Memory, "take_up", spoiled)
    outcomes = process_batch(stage, FRAMES)
    assert {one.kind for one in outcomes if isinstance(one, Fail)} == {"not_a_number"}
    assert len(outcomes) == 10
    assert not boxes_of(outcomes)


def test_another_way_of_linking_asks_no_detector_again(
    registered: dict[Answers, Path], tmp_path: Path
) -> None:
    film = film_of_what_stands(tmp_path / "film")
    flow = opened(film, tmp_path, WAYS["sam2"], link="flow")
    first = boxes_of(flow.process(FRAMES))
    stage = opened(film, tmp_path, WAYS["sam2"])
    again = boxes_of(stage.process(FRAMES))
    shown = [one.shown for one in stage.detectors if isinstance(one, Recorded)]
    assert shown == [[]]
    bare = [
        {
            name: [row.model_copy(update={"track_id": None}) for row in of_frame]
            for name, of_frame in found.items()
        }
        for found in (first, again)
    ]
    assert bare[0] == bare[1]


@pytest.mark.slow
def test_a_run_answers_for_every_frame_and_other_weights_link_anew(
    registered: dict[Answers, Path], tmp_path: Path
) -> None:
    Workspace.create(tmp_path / "ws", "offline")
    film_of_what_stands(tmp_path / "ws")
    settings = ["propose.link=sam2", "propose.device=cpu", "propose.max_boxes=2"]
    workspace = Workspace(tmp_path / "ws", settings)
    frames = FRAMES[:5]
    commit(workspace, "download", Video, [video()])
    commit(workspace, "sample", Clip, [clip()])
    commit(workspace, "sample", Frame, frames)
    commit(workspace, "hear", Sounds, [sounds()])
    add(NAME, registered["random"])
    run_stage(workspace, "propose", RunOptions(workers=1))
    ledger = workspace.ledger("propose")
    boxes, generation = workspace.rows(Proposal), ledger.generation()
    dropped = {row.input_id for row in ledger.drops()}
    assert not list(ledger.failures())
    assert {row.frame_id for row in boxes} | dropped == {row.frame_id for row in frames}
    assert boxes
    assert all(row.track_id is not None for row in boxes)
    assert run_stage(workspace, "propose", RunOptions(workers=1)).counts["input"] == 0
    assert generation is not None
    assert generation.config["link_model"] == NAME
    add(NAME, registered["nowhere"])
    run_stage(workspace, "propose", RunOptions(workers=1, redo=True))
    assert workspace.ledger("propose").generation() != generation
    again = workspace.rows(Proposal)
    assert {row.proposal_id for row in again} == {row.proposal_id for row in boxes}
    assert len({row.track_id for row in again}) == len(again), "nothing is found again"
