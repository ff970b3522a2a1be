from __future__ import annotations

import itertools
from typing import Any

from labeling.review.instances import deciding_reviews, derive_instances
from pipeline.records.schema import Review, ReviewedInstance


def reviewed(x: float = 1.0, category: str = "dog") -> ReviewedInstance:
    return ReviewedInstance(
        bbox=[x, 2.0, 3.0, 4.0],
        category=category,
        scenario="Single-sound",
        origin="kept",
        proposal_id="p_1",
    )


def review(name: str, **changes: Any) -> Review:
    values: dict[str, Any] = {
        "review_id": name,
        "frame_id": "f",
        "kind": "boxes",
        "annotator": "rule:accept",
        "annotation_id": "",
        "updated_at": "",
        "lead_time_s": None,
        "decision": "labelled",
        "reject_reasons": [],
        "off_screen_category": None,
        "instances": [reviewed()],
        "verified": False,
    }
    return Review(**(values | changes))


def test_a_verified_review_beats_a_newer_unverified_one() -> None:
    person = review("r_a", annotator="7", verified=True, updated_at="2026-01-01T00:00:00Z")
    rule = review("r_b", updated_at="2026-02-01T00:00:00Z")
    assert deciding_reviews([person, rule]) == {"f": person}


def test_the_newest_review_decides_and_the_greater_id_breaks_ties() -> None:
    old = review("r_c", updated_at="2026-01-01T00:00:00Z")
    new = review("r_a", updated_at="2026-01-02T00:00:00Z")
    tied = review("r_b", updated_at="2026-01-02T00:00:00Z")
    for order in itertools.permutations([old, new, tied]):
        assert deciding_reviews(order) == {"f": tied}


def test_reviews_of_masks_decide_nothing_about_boxes() -> None:
    boxes = review("r_a")
    masks = review("r_z", kind="masks", decision="back_to_boxes", updated_at="2026-01-01T00:00:00Z")
    assert deciding_reviews([boxes, masks]) == {"f": boxes}


def test_a_frame_whose_deciding_review_is_not_labelled_has_no_instances() -> None:
    off = review("r_a", decision="off_screen", off_screen_category="dog", instances=[])
    rejected = review("r_b", frame_id="g", decision="rejected")
    assert derive_instances([off, rejected]) == []


def test_an_instance_says_what_its_review_said() -> None:
    (instance,) = derive_instances([review("r_a", verified=True)])
    assert instance.frame_id == "f"
    assert instance.bbox == [1.0, 2.0, 3.0, 4.0]
    assert instance.audio_visual_category == "dog"
    assert instance.scenario == "Single-sound"
    assert instance.review_ids == ["r_a"]
    assert instance.proposal_id == "p_1"
    assert instance.verified


def test_ids_come_from_content_and_not_from_order_or_review() -> None:
    first = review("r_a", instances=[reviewed(1), reviewed(9)])
    second = review("r_b", instances=[reviewed(9), reviewed(1)])
    ids = [{i.instance_id for i in derive_instances([r])} for r in (first, second)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 2


def test_a_box_listed_twice_is_one_instance() -> None:
    assert len(derive_instances([review("r_a", instances=[reviewed(), reviewed()])])) == 1


def test_an_instance_is_of_its_boxs_track_which_is_no_part_of_its_id() -> None:
    linked = reviewed().model_copy(update={"track_id": 0})
    (with_track,) = derive_instances([review("r_a", instances=[linked])])
    (without,) = derive_instances([review("r_a")])
    assert (with_track.track_id, without.track_id) == (0, None)
    assert with_track.instance_id == without.instance_id


def test_of_two_instances_made_from_one_box_the_nearest_stays_in_its_track() -> None:
    far, near, drawn = (
        reviewed(x).model_copy(update={"track_id": track, "proposal_iou": overlap})
        for x, track, overlap in ((1.0, 0, 0.3), (2.0, 0, 0.9), (3.0, None, None))
    )
    for order in itertools.permutations([far, near, drawn]):
        found = derive_instances([review("r_a", instances=[*order])])
        assert {one.bbox[0]: one.track_id for one in found} == {1.0: None, 2.0: 0, 3.0: None}
