from __future__ import annotations

import random
from typing import Any

import pytest

from pipeline.config import HearConfig
from pipeline.errors import ConfigError, UsageError
from pipeline.records.schema import SoundClass
from stages.propose.activity import active_categories, check_active_scores
from stages.taxonomy import audioset_classes, load_taxonomy

TAXONOMY = load_taxonomy()
ABSOLUTE = {"active_relative": 0.0, "active_top_k": 0}


def active(heard: dict[str, float], **settings: Any) -> list[str]:
    classes = [SoundClass(name=name, score=score) for name, score in heard.items()]
    found = active_categories(classes, TAXONOMY, HearConfig(**settings))
    return [row.category for row in found if row.active]


def test_growling_activates_three_categories() -> None:
    assert sorted(active({"Growling": 0.9})) == ["cat", "dog", "lion"]


@pytest.mark.parametrize("name", ["Music", "Speech", "Siren", "Vehicle", "Animal"])
def test_a_generic_class_alone_activates_nothing(name: str) -> None:
    assert active({name: 0.99}, active_top_k=5) == []


def test_a_police_siren_is_a_police_car_and_no_car() -> None:
    assert active({"Siren": 0.9, "Police car (siren)": 0.8}) == ["police car"]


def test_a_loud_parent_does_not_silence_the_specific_class() -> None:
    heard = {"Music": 0.95, "Clarinet": 0.12}
    assert active(heard, active_relative=0.5) == ["clarinet"]
    assert active(heard, active_relative=0.0) == []


def test_a_class_may_have_a_threshold_of_its_own() -> None:
    heard = {"Growling": 0.3, "Clarinet": 0.3}
    without = active(heard, active_score=0.25, **ABSOLUTE)
    assert sorted(without) == ["cat", "clarinet", "dog", "lion"]
    only = active(heard, active_score=0.25, active_scores={"Growling": 0.4}, **ABSOLUTE)
    assert only == ["clarinet"]


def test_a_threshold_is_inclusive() -> None:
    assert active({"Clarinet": 0.2}, active_score=0.2, **ABSOLUTE) == ["clarinet"]
    assert active({"Clarinet": 0.199}, active_score=0.2, **ABSOLUTE) == []


def test_the_top_k_are_counted_among_target_classes() -> None:
    heard = {"Music": 0.9, "Clarinet": 0.15, "Harp": 0.1, "Gong": 0.08}
    assert active(heard, active_relative=0.0, active_top_k=2) == ["clarinet", "harp"]


def test_silence_activates_nothing_by_comparison() -> None:
    heard = {"Clarinet": 0.01, "Harp": 0.009}
    assert active(heard, active_relative=0.5, active_top_k=2, active_floor=0.05) == []


def test_every_category_heard_is_listed_loudest_first_active_or_not() -> None:
    classes = [SoundClass(name="Harp", score=0.01), SoundClass(name="Clarinet", score=0.9)]
    found = active_categories(classes, TAXONOMY, HearConfig(**ABSOLUTE))
    assert [(row.category, row.score, row.active) for row in found] == [
        ("clarinet", 0.9, True),
        ("harp", 0.01, False),
    ]


def test_activity_equals_a_count_class_by_class() -> None:
    dice = random.Random(3)
    for _ in range(200):
        heard = {name: dice.random() ** 3 for name in dice.sample(audioset_classes(), 20)}
        config = HearConfig(
            active_score=dice.random(),
            active_relative=dice.choice([0.0, dice.random()]),
            active_top_k=dice.randrange(4),
            active_floor=dice.random() / 3,
        )
        target = [n for n in heard if TAXONOMY.of_audioset(n)]
        expected = set()
        for name in target:
            louder = sum(heard[other] > heard[name] for other in target)
            by_rank = louder < config.active_top_k
            by_share = config.active_relative and all(
                heard[name] >= config.active_relative * heard[other] for other in target
            )
            by_comparison = (by_rank or by_share) and heard[name] >= config.active_floor
            if heard[name] >= config.active_score or by_comparison:
                expected |= set(TAXONOMY.of_audioset(name))
        assert set(active(heard, **config.model_dump())) == expected


def test_a_threshold_of_no_class_is_an_error() -> None:
    check_active_scores(HearConfig(active_scores={"Growling": 0.3}))
    with pytest.raises(UsageError, match=r"hear\.active_scores: 'growl' is not one of AudioSet's"):
        check_active_scores(HearConfig(active_scores={"growl": 0.3}))


def test_thresholds_of_classes_are_typed_as_a_table() -> None:
    from pipeline.config import load_config

    config = load_config("", ['hear.active_scores={"Growling" = 0.4}'])
    assert config.hear.active_scores == {"Growling": 0.4}
    with pytest.raises(ConfigError, match="active_scores"):
        load_config("", ['hear.active_scores={"Growling" = 1.4}'])
