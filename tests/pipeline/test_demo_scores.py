"""Scores against the demo's truth, held against slow definitions on a drawn scene."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.cli.demo.scores import mask_ious, proposal_recall
from pipeline.records import rle
from pipeline.records.schema import Frame, Instance, Mask, Proposal
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.truth import Truth, truth_mask, truth_of
from pipeline.synthetic.world import scenes

VIDEO = "dogAndDrums"


@pytest.fixture(scope="module")
def truth() -> Truth:
    scene = next(s for s in scenes() if s.video_id == VIDEO)
    short: Scene = scene.model_copy(update={"duration_s": 3.0})
    drawn = Truth(videos={VIDEO: truth_of(short)}, scenes={VIDEO: short.model_dump(mode="json")})
    loaded: Truth = json.loads(json.dumps(drawn))
    return loaded


def frame(index: int) -> Frame:
    return Frame(
        frame_id=f"f{index}",
        clip_id="c",
        video_id=VIDEO,
        frame_index=index,
        time_s=index / 25,
        event_time_s=index / 25,
        event_rms=0.1,
        event_rank=0,
        sharpness=1.0,
        path="f.jpg",
        width=640,
        height=360,
    )


def proposal(number: int, frame_id: str, bbox: list[float], *, audible: bool = True) -> Proposal:
    return Proposal(
        proposal_id=f"p{number}",
        frame_id=frame_id,
        bbox=bbox,
        detector="motion",
        detector_class="moving",
        detector_score=0.5,
        categories=["dog"],
        audible=audible,
        audio_score=1.0,
    )


def instance(name: str, frame_id: str, bbox: list[float]) -> Instance:
    return Instance(
        instance_id=name,
        frame_id=frame_id,
        bbox=bbox,
        audio_visual_category="dog",
        scenario="Mixed-sound",
        review_ids=["r"],
        proposal_id=None,
        verified=False,
    )


def mask_of(
    name: str, frame_id: str, pixels: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
) -> Mask:
    runs = rle.encode(pixels)
    return Mask(
        instance_id=name,
        frame_id=frame_id,
        rle=runs,
        area=int(pixels.sum()),
        bbox=rle.bbox(runs),
        source="test",
        model_digest="",
        predicted_iou=None,
        verified=False,
    )


def box(truth: Truth, name: str, index: int) -> list[float]:
    [entry] = [o for o in truth["videos"][VIDEO]["objects"] if o["name"] == name]
    found = entry["boxes"][index]
    assert found is not None
    return [float(value) for value in found]


def pixel_iou(a: list[float], b: list[float]) -> float:
    """The definition, pixel by pixel, for boxes of whole pixels."""
    painted = np.zeros((2, 400, 700), bool)
    for layer, (x, y, w, h) in zip(painted, np.array([a, b], int), strict=True):
        layer[y : y + h, x : x + w] = True
    both, either = painted.all(axis=0).sum(), painted.any(axis=0).sum()
    return float(both / either)


def test_recall_counts_each_sounding_object_of_each_frame_once(truth: Truth) -> None:
    # Frame 5: silence; 20: the drums; 40: drums and dog.
    frames = [frame(5), frame(20), frame(40)]
    drums, dog = box(truth, "drum kit", 40), box(truth, "dog", 40)
    exact = [proposal(1, "f40", drums), proposal(2, "f40", drums), proposal(3, "f40", dog)]
    assert proposal_recall(truth, frames, []) == (0, 3)
    assert proposal_recall(truth, frames, exact) == (2, 3)
    still_dog = proposal(4, "f20", box(truth, "dog", 20))
    assert proposal_recall(truth, frames, [*exact, still_dog]) == (2, 3)


def test_a_frame_just_before_the_first_stroke_belongs_to_that_stroke(truth: Truth) -> None:
    # The drums begin at 0.5 s, frame 12.5.
    early = frame(11).model_copy(update={"event_time_s": 0.54})
    drums = proposal(1, "f11", box(truth, "drum kit", 11))
    assert proposal_recall(truth, [frame(11)], [drums]) == (0, 0)
    assert proposal_recall(truth, [early], [drums]) == (1, 1)


def test_recall_leaves_out_inaudible_boxes_and_boxes_of_other_frames(truth: Truth) -> None:
    dog = box(truth, "dog", 40)
    others = [proposal(1, "f40", dog, audible=False), proposal(2, "f20", dog)]
    assert proposal_recall(truth, [frame(40)], others) == (0, 2)


def test_recall_agrees_with_the_slow_definition_at_every_bound(truth: Truth) -> None:
    draw = np.random.default_rng(0)
    frames = [frame(index) for index in range(30, 75, 5)]
    proposals: list[Proposal] = []
    for shown in frames:
        for name in ("dog", "drum kit"):
            shift = draw.integers(-40, 41, 4)
            moved = [float(v) for v in np.maximum(box(truth, name, shown.frame_index) + shift, 1)]
            proposals.append(proposal(len(proposals), shown.frame_id, moved))
    for bound in (0.3, 0.5, 0.7):
        slow = sum(
            any(
                pixel_iou(p.bbox, box(truth, name, shown.frame_index)) >= bound
                for p in proposals
                if p.frame_id == shown.frame_id
            )
            for shown in frames
            for name in ("dog", "drum kit")
        )
        assert 0 < slow < 18
        assert proposal_recall(truth, frames, proposals, bound) == (slow, 18)


def test_a_mask_is_held_against_the_sounding_object_its_box_fits_best(truth: Truth) -> None:
    exact = truth_mask(truth, VIDEO, "dog", 40 / 25)
    half = exact.copy()
    half[:, : int(np.median(np.nonzero(exact)[1]))] = False
    instances = [instance(name, "f40", box(truth, "dog", 40)) for name in ("exact", "half")]
    masks = [mask_of("exact", "f40", exact), mask_of("half", "f40", half)]
    slow = len(set(np.flatnonzero(half)) & set(np.flatnonzero(exact))) / exact.sum()
    assert 0.3 < slow < 0.7
    assert mask_ious(truth, [frame(40)], instances, masks) == {"exact": 1.0, "half": slow}


def test_a_mask_on_a_silent_object_scores_nothing(truth: Truth) -> None:
    # At frame 20 only the drums sound; the dog keeps still at the other side of the stage.
    dog = truth_mask(truth, VIDEO, "dog", 20 / 25)
    instances = [instance("i", "f20", box(truth, "dog", 20))]
    assert mask_ious(truth, [frame(20)], instances, [mask_of("i", "f20", dog)]) == {"i": 0.0}
    nobody = [instance("i", "f5", box(truth, "dog", 5))]
    assert mask_ious(truth, [frame(5)], nobody, [mask_of("i", "f5", dog)]) == {"i": 0.0}
