from __future__ import annotations

import random
from typing import Any

import pytest

from pipeline.config import ProposeConfig, load_config
from pipeline.errors import ConfigError
from pipeline.records.boxes import iou
from pipeline.records.schema import Proposal, SoundCategory, Sounds
from stages.backends.interfaces import Detection
from stages.propose.filtering import AudioFilter, AudioGuidance, audio_guidance
from stages.propose.propose_boxes import make_detectors
from stages.taxonomy import load_taxonomy
from tests.rows import frame, sounds

TAXONOMY = load_taxonomy()


def heard(**active: bool) -> Sounds:
    """Categories by name (an underscore is a space), ever less loud."""
    return sounds(
        categories=[
            SoundCategory(category=name.replace("_", " "), score=0.9 - place / 10, active=on)
            for place, (name, on) in enumerate(active.items())
        ]
    )


HEARD = heard(dog=True, cat=False, singing=True)


@pytest.mark.parametrize(
    ("categories", "kept", "audible", "score"),
    [
        (None, ["dog", "singing"], True, 0.9),
        (["dog"], ["dog"], True, 0.9),
        (["male speech", "singing", "whistling"], ["singing"], True, 0.7),
        (["singing", "dog"], ["dog", "singing"], True, 0.9),
        (["cat"], ["cat"], False, 0.8),
        (["harp"], ["harp"], False, 0.0),
        ([], [], False, 0.0),
    ],
)
def test_what_is_heard_decides_what_a_box_may_be(
    categories: list[str] | None, kept: list[str], audible: bool, score: float
) -> None:
    found = audio_guidance(categories, HEARD)
    assert (found.categories, found.audible) == (kept, audible)
    assert found.audio_score == pytest.approx(score)


def test_a_classless_box_is_inaudible_where_nothing_is_active() -> None:
    assert audio_guidance(None, heard(dog=False)) == AudioGuidance([], False, 0.0)


def proposed(found: list[Detection], sound: Sounds = HEARD, **settings: Any) -> list[Proposal]:
    return together({"yolov8n-oiv7": found}, sound, **settings)


def moving(found: list[Detection], **settings: Any) -> list[Proposal]:
    return together({"motion": found}, **settings)


def together(
    found: dict[str, list[Detection]], sound: Sounds = HEARD, **settings: Any
) -> list[Proposal]:
    """The rows of several detectors, or of one."""
    config = ProposeConfig(detectors=list(found), **settings)
    return AudioFilter(make_detectors(config), TAXONOMY, config).proposals(frame(), found, sound)


def box(*bbox: float, score: float = 0.5, name: str = "Dog") -> Detection:
    return Detection(list(bbox), name, score)


def test_a_man_may_be_three_categories_and_stays_ambiguous_between_the_active_ones() -> None:
    man = [box(0, 0, 50, 90, name="Man")]
    (one,) = proposed(man, heard(male_speech=True, whistling=False, singing=True))
    assert (one.categories, one.audible) == (["male speech", "singing"], True)
    (silent,) = proposed(man, heard(dog=True))
    assert sorted(silent.categories) == ["male speech", "singing", "whistling"]
    assert not silent.audible


def test_a_car_is_a_police_car_where_its_siren_is_heard() -> None:
    (one,) = proposed([box(0, 0, 50, 90, name="Car")], heard(police_car=True, car=False))
    assert one.categories == ["police car"]


def test_a_box_that_is_no_categorys_is_left_out_and_an_inaudible_one_is_kept() -> None:
    found = [box(0, 0, 50, 50, name="Tree", score=0.9), box(0, 0, 50, 50, name="Cat", score=0.3)]
    assert [(p.detector_class, p.audible) for p in proposed(found)] == [("Cat", False)]


def test_generic_classes_are_proposed_only_when_asked_for() -> None:
    found = [box(0, 0, 50, 50, name="Musical instrument")]
    sound = heard(clarinet=True)
    assert proposed(found, sound) == []
    (one,) = proposed(found, sound, classes="generic")
    assert one.categories == ["clarinet"]


def test_boxes_are_cut_to_the_frame_before_their_size_is_judged() -> None:
    found = [box(-300, 0, 330, 180), box(0, 0, 1, 1), box(0, 0, 320, 179)]
    kept = moving(found, min_area=0.01, max_area=0.9)
    assert [p.bbox for p in kept] == [[0, 0, 30, 180]]


def test_the_best_boxes_that_do_not_repeat_each_other_are_kept() -> None:
    found = [
        box(0, 0, 50, 50, score=0.3),
        box(0, 0, 50, 48, score=0.9),
        box(100, 0, 50, 50, score=0.5),
        box(200, 0, 50, 50, score=0.4),
    ]
    kept = moving(found, max_boxes=2, nms_iou=0.5)
    assert [p.detector_score for p in kept] == [0.9, 0.5]


def test_audible_boxes_come_before_better_inaudible_ones() -> None:
    found = [
        box(0, 0, 50, 50, score=0.9, name="Cat"),
        box(60, 0, 50, 50, score=0.2, name="Dog"),
        box(120, 0, 50, 50, score=0.8, name="Cat"),
    ]
    kept = proposed(found, max_boxes=2)
    assert [(p.detector_class, p.detector_score) for p in kept] == [("Dog", 0.2), ("Cat", 0.9)]


def test_boxes_of_different_things_at_one_place_stay() -> None:
    same_place = {"Man": 0.5, "Dog": 0.6}
    found = [box(0, 0, 50, 50, score=score, name=name) for name, score in same_place.items()]
    assert len(proposed(found, heard(male_speech=True, dog=True))) == 2


def test_two_classes_of_one_category_at_one_place_are_one_box() -> None:
    found = [box(0, 0, 50, 50, score=0.5, name="Man"), box(0, 0, 50, 50, score=0.6, name="Woman")]
    assert [p.detector_class for p in proposed(found, heard(singing=True))] == ["Woman"]
    both = heard(male_speech=True, female_speech=True)
    assert len(proposed(found, both)) == 2


def test_filtering_equals_a_slow_second_definition() -> None:
    dice = random.Random(5)
    names = ["Man", "Woman", "Dog", "Cat", "Car", "Drum", "Tree", "Musical instrument", "Person"]
    for _ in range(60):
        found = [
            box(
                *(dice.uniform(-20, 300), dice.uniform(-20, 150)),
                *(dice.uniform(1, 200), dice.uniform(1, 150)),
                score=dice.random(),
                name=dice.choice(names),
            )
            for _ in range(30)
        ]
        sound = heard(singing=dice.random() < 0.5, dog=dice.random() < 0.5, car=dice.random() < 0.5)
        generic = dice.random() < 0.5
        rows = proposed(
            found,
            sound,
            min_score=0.2,
            max_boxes=6,
            nms_iou=0.3,
            min_area=0.01,
            classes="generic" if generic else "exact",
        )
        assert rows == slow(found, sound, generic)


def slow(found: list[Detection], sound: Sounds, generic: bool) -> list[Proposal]:
    """The rules read aloud."""
    active = {c.category for c in sound.categories if c.active}
    every = proposed_singly(found, sound, generic)
    audible = [p for p in every if active & set(p.categories)]
    silent = [p for p in every if not active & set(p.categories)]
    kept: list[Proposal] = []
    for group in (audible, silent):
        for p in sorted(group, key=lambda p: -p.detector_score):
            rivals = [
                k
                for k in kept
                if iou(k.bbox, p.bbox) > 0.3
                and (k.detector_class == p.detector_class or set(k.categories) & set(p.categories))
            ]
            if not rivals:
                kept.append(p)
    return kept[:6]


def proposed_singly(found: list[Detection], sound: Sounds, generic: bool) -> list[Proposal]:
    """Each box on its own, so that none suppresses another."""
    choice = "generic" if generic else "exact"
    return [
        row
        for d in found
        for row in proposed([d], sound, min_score=0.2, min_area=0.01, classes=choice)
    ]


def test_a_score_under_which_nothing_is_kept_is_no_threshold() -> None:
    with pytest.raises(ConfigError, match=r"min_score 0\.01 is below raw_score 0\.05"):
        load_config("", ["propose.detector=yolov8n-oiv7", "propose.min_score=0.01"])
    load_config("", ["propose.min_score=0"])
    both = ["propose.min_score=0.01", "propose.raw_score=0.01"]
    load_config("", ["propose.detector=yolov8n-oiv7", *both])


def test_both_halves_of_propose_read_one_list_of_categories() -> None:
    with pytest.raises(ConfigError, match="name one file in both"):
        load_config("", ["propose.taxonomy=mine.csv"])
    load_config("", ["propose.taxonomy=mine.csv", "hear.taxonomy=mine.csv"])


def motion_box(*bbox: float, score: float = 0.5) -> Detection:
    return Detection(list(bbox), "moving region", score)


SITAR = heard(dog=True, sitar=True)
"""Open Images has a class of the first alone."""


def test_motion_serves_what_is_heard_and_has_no_class_beside_it() -> None:
    found = {"yolov8n-oiv7": [box(0, 0, 50, 50)], "motion": [motion_box(90, 0, 50, 50)]}
    rows = together(found, SITAR)
    assert [(p.detector, p.categories) for p in rows] == [
        ("yolov8n-oiv7", ["dog"]),
        ("motion", ["sitar"]),
    ]
    assert len(together(found, heard(dog=True))) == 1
    always = together(found, heard(dog=True), motion="always")
    assert [p.categories for p in always] == [["dog"], ["dog"]]
    assert [p.categories for p in together(found, SITAR, motion="always")][1] == ["dog", "sitar"]
    assert len(together({"motion": found["motion"]}, heard(dog=True))) == 1, "nothing else looks"


def test_a_region_gives_way_to_a_named_box_of_its_category_whatever_the_scores() -> None:
    dogs = [box(0, 0, 50, 50, score=0.1)]
    found = {"yolov8n-oiv7": dogs, "motion": [motion_box(0, 0, 50, 48, score=0.99)]}
    (only,) = together(found, heard(dog=True), motion="always")
    assert only.detector == "yolov8n-oiv7"
    assert len(together(found, SITAR)) == 2, "a dog is no sitar"


def test_where_room_is_short_named_boxes_and_regions_take_turns() -> None:
    dogs = [box(40 * n, 0, 30, 30, score=0.1 + n / 100) for n in range(5)]
    regions = [motion_box(40 * n, 60, 30, 30, score=0.9 + n / 100) for n in range(5)]
    for most in range(1, 11):
        rows = together({"motion": regions, "yolov8n-oiv7": dogs}, SITAR, max_boxes=most)
        assert len(rows) == most
        assert [p.detector == "motion" for p in rows] == [n % 2 == 1 for n in range(most)]
        for name in ("motion", "yolov8n-oiv7"):
            scores = [p.detector_score for p in rows if p.detector == name]
            assert scores == sorted(scores, reverse=True)
    one_dog = together({"motion": regions, "yolov8n-oiv7": dogs[:1]}, SITAR, max_boxes=4)
    assert [p.detector for p in one_dog] == ["yolov8n-oiv7", "motion", "motion", "motion"]


def test_motion_may_serve_too_where_no_box_of_what_is_heard_was_found() -> None:
    regions = {"motion": [motion_box(90, 0, 50, 50)]}
    for named, needed in (
        ([], ["dog"]),
        ([box(0, 0, 50, 50, score=0.04)], ["dog"]),
        ([box(0, 0, 50, 50)], []),
        ([box(0, 0, 50, 50, name="Cat")], ["dog"]),
    ):
        rows = together({"yolov8n-oiv7": named} | regions, heard(dog=True), motion="no-box")
        assert [p.categories for p in rows if p.detector == "motion"] == [[c] for c in needed]


def test_a_thing_found_under_another_name_may_stand_in_where_it_is_asked_for() -> None:
    found = {"yolov8n-oiv7": [box(0, 0, 50, 50), *(box(90, 0, 50, 50, name=n) for n in ("Cake",))]}
    assert [p.detector_class for p in together(found, SITAR)] == ["Dog"], "a cake is none of ours"
    dog, cake = together(found, SITAR, stand_ins=True)
    assert (dog.detector_class, dog.categories) == ("Dog", ["dog"]), "it is heard itself"
    assert (cake.detector_class, cake.categories, cake.audible) == ("Cake", ["sitar"], True)
    assert cake.detector_score == 0.5
    assert len(together(found, heard(dog=True), stand_ins=True)) == 1, "nothing is left out"
    cat = {"yolov8n-oiv7": [box(0, 0, 50, 50, name="Cat")]}
    assert [p.audible for p in together(cat, SITAR)] == [False]
    (only,) = together(cat, SITAR, stand_ins=True)
    assert (only.detector_class, only.categories, only.audible) == ("Cat", ["sitar"], True)


def test_each_kind_gives_way_to_the_ones_before_it_and_takes_its_turn() -> None:
    named = [box(0, 0, 40, 40, score=0.1), box(50, 0, 40, 40, score=0.2)]
    others = [box(0, 60, 40, 40, score=0.9, name="Cake"), box(50, 60, 40, 40, name="Cake")]
    regions = [motion_box(0, 60, 40, 39, score=0.99), motion_box(0, 120, 40, 40, score=0.7)]
    found = {"motion": regions, "yolov8n-oiv7": named + others}
    rows = together(found, SITAR, stand_ins=True)
    assert [(p.detector_class, p.detector_score) for p in rows] == [
        ("Dog", 0.2),
        ("Cake", 0.9),
        ("moving region", 0.7),
        ("Dog", 0.1),
        ("Cake", 0.5),
    ]


def test_two_detectors_that_name_classes_share_one_suppression() -> None:
    found = {
        "yolov8n-oiv7": [box(0, 0, 50, 50, score=0.5), box(90, 0, 50, 50, score=0.4, name="Cat")],
        "grounding-dino-tiny": [box(0, 0, 50, 48, score=0.6, name="dog")],
    }
    rows = together(found, heard(dog=True, cat=True))
    assert [(p.detector, p.detector_class) for p in rows] == [
        ("grounding-dino-tiny", "dog"),
        ("yolov8n-oiv7", "Cat"),
    ]


@pytest.mark.parametrize("stand_ins", [False, True])
def test_several_detectors_equal_the_rules_read_aloud_and_their_order_is_no_matter(
    stand_ins: bool,
) -> None:
    dice = random.Random(9)
    rules: dict[str, Any] = {"nms_iou": 0.3, "min_score": 0.1, "stand_ins": stand_ins}
    cakes = 0
    for _ in range(60):
        names = ["Man", "Woman", "Dog", "Cat", "Cake"]
        found = {
            detector: [
                box(
                    *(dice.uniform(0, 250), dice.uniform(0, 130), 60, 50),
                    score=dice.random(),
                    name="moving region" if detector == "motion" else dice.choice(names),
                )
                for _ in range(8)
            ]
            for detector in ("yolov8n-oiv7", "motion", "yolov8x-oiv7")
        }
        sound = heard(singing=dice.random() < 0.7, dog=dice.random() < 0.7, sitar=True)
        rows = together(found, sound, max_boxes=7, **rules)
        assert together(dict(reversed(found.items())), sound, max_boxes=7, **rules) == rows
        every = together(found, sound, max_boxes=1000, **rules)
        assert rows == every[:7]
        singly = [
            p
            for name, boxes in found.items()
            for d in boxes
            for p in together({"yolov8n-oiv7": []} | {name: [d]}, sound, **rules)
        ]

        def before(p: Proposal) -> tuple[bool, int, float]:
            kind = 2 if p.detector == "motion" else int(p.categories == ["sitar"])
            return (not p.audible, kind, -p.detector_score)

        kept: list[Proposal] = []
        for p in sorted(singly, key=before):
            rivals = [k for k in kept if iou(k.bbox, p.bbox) > 0.3]
            if not any(set(k.categories) & set(p.categories) for k in rivals):
                kept.append(p)
        assert sorted(every, key=before) == kept
        cakes += sum(p.detector_class == "Cake" for p in every)
    assert (cakes > 0) == stand_ins


def test_a_named_box_too_unsure_for_its_category_is_none_of_it() -> None:
    boxes = [box(10, 10, 60, 60, score=0.4), box(100, 10, 60, 60, score=0.39)]
    least = {"yolov8n-oiv7": {"dog": 0.4}}
    (sure,) = proposed(boxes, heard(dog=True), min_scores=least)
    assert sure.bbox == boxes[0].bbox
    of_others = {"motion": {"dog": 0.4}, "yolov8n-oiv7": {"cat": 0.4}}
    assert len(proposed(boxes, heard(dog=True), min_scores=of_others)) == 2
