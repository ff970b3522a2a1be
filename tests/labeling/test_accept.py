from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest

from labeling.automatic import accept
from labeling.automatic.accept import AcceptProposals, accepted, scenarios
from pipeline.config import LabelConfig
from pipeline.records.schema import Proposal, Review
from pipeline.run.stage import Drop, Ok
from tests.rows import context, frame, proposal


def reviewed(folder: Path, *proposals: Proposal, **config: Any) -> Review:
    stage = AcceptProposals(LabelConfig(**config))
    stage.open(context(folder, proposals=proposals))
    (outcome,) = stage.process([frame()])
    assert isinstance(outcome, Ok)
    (row,) = outcome.rows
    assert isinstance(row, Review)
    return row


def test_the_examples_in_the_docstrings_hold() -> None:
    found = doctest.testmod(accept)
    assert found.attempted > 0
    assert found.failed == 0


def test_a_proposal_is_taken_from_the_bound_on_and_only_when_audible() -> None:
    at, below = proposal("p_1", detector_score=0.5), proposal("p_2", detector_score=0.499)
    silent = proposal("p_3", detector_score=0.9, audible=False)
    assert accepted([at, below, silent], LabelConfig(accept_score=0.5)) == [at]


def test_the_best_are_taken_and_equal_scores_go_by_id() -> None:
    found = [proposal(f"p_{n}", detector_score=score) for n, score in enumerate([0.6, 0.9, 0.6])]
    taken = accepted(found[::-1], LabelConfig(accept_max=2))
    assert [row.proposal_id for row in taken] == ["p_1", "p_0"]


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        (["dog"], ["Single-sound"]),
        (["dog", "dog"], ["Multi-entity"] * 2),
        (["dog", "cat"], ["Mixed-sound"] * 2),
        (["cat", "dog", "dog"], ["Mixed-sound", "Multi-entity", "Multi-entity"]),
    ],
)
def test_the_scenario_is_guessed_from_the_categories(
    categories: list[str], expected: list[str]
) -> None:
    assert scenarios(categories) == expected


def test_a_review_by_the_rule_is_never_verified_and_keeps_the_boxes(tmp_path: Path) -> None:
    row = reviewed(tmp_path, proposal(categories=["cat", "dog"]))
    assert (row.annotator, row.verified, row.updated_at) == ("rule:accept", False, "")
    assert (row.kind, row.decision, row.lead_time_s) == ("boxes", "labelled", None)
    (found,) = row.instances
    assert (found.origin, found.proposal_id, found.category) == ("kept", "p_1", "cat")
    assert found.bbox == proposal().bbox


def test_a_frame_without_an_acceptable_proposal_is_dropped(tmp_path: Path) -> None:
    stage = AcceptProposals(LabelConfig())
    stage.open(context(tmp_path, proposals=[proposal(detector_score=0.1)]))
    rows = [frame(10), frame(11)]
    assert list(stage.process(rows)) == [Drop(row.id, "no_proposal_accepted") for row in rows]


def test_the_review_depends_on_what_was_taken_and_on_nothing_else(tmp_path: Path) -> None:
    one, two = proposal("p_1"), proposal("p_2", detector_score=0.6)
    low = proposal("p_3", detector_score=0.1)
    first = reviewed(tmp_path, one, two)
    assert reviewed(tmp_path, low, two, one) == first
    assert reviewed(tmp_path, one, two, accept_max=1).review_id != first.review_id
