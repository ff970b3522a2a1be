"""Instances follow the reviews, and what did not change is not made again."""

from __future__ import annotations

import random

import pytest

from labeling.review import standing
from labeling.review.instances import bring_instances_up_to_date, deciding_reviews
from labeling.review.standing import Standing
from pipeline.records.reviews import DELETED, KINDS
from pipeline.records.schema import Instance, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.labelled_workspace import add_reviews, categories, review, sample
from tests.pipeline.counting import counting


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    """One with the frames these tests speak of."""
    sample(workspace, "f1", "f2")
    return workspace


def test_a_newer_review_supersedes_the_older_one_in_another_file(workspace: Workspace) -> None:
    add_reviews(workspace, review("f1", "dog", 1), review("f2", "cat", 1))
    assert bring_instances_up_to_date(workspace) == 1
    assert categories(workspace) == {"f1": "dog", "f2": "cat"}
    add_reviews(workspace, review("f1", "lion", 2))
    assert bring_instances_up_to_date(workspace) == 2, (
        "the old file lost a deciding review, the new one is new"
    )
    assert categories(workspace) == {"f1": "lion", "f2": "cat"}
    drops = {row.input_id: row.reason for row in workspace.ledger("settle").drops()}
    assert drops == {"r_f1_1": "superseded"}


def test_files_whose_reviews_still_decide_keep_their_instances(workspace: Workspace) -> None:
    add_reviews(workspace, review("f1", "dog", 1))
    bring_instances_up_to_date(workspace)
    before = workspace.files("instances")
    add_reviews(workspace, review("f2", "cat", 1))
    assert bring_instances_up_to_date(workspace) == 1
    assert set(before) < set(workspace.files("instances"))
    assert bring_instances_up_to_date(workspace) == 0


def test_where_nothing_changed_no_table_is_read_and_what_is_lost_is_made_again(
    workspace: Workspace,
) -> None:
    add_reviews(workspace, review("f1", "dog", 1))
    bring_instances_up_to_date(workspace)
    before = workspace.digest("instances")
    opened, reads = counting(workspace)
    assert bring_instances_up_to_date(opened) == 0
    assert not [name for name in reads if name.startswith("tables/")]
    ledger = workspace.ledger("settle")
    ledger.retire(ledger.commits(), "damaged")
    assert bring_instances_up_to_date(workspace) == 1
    assert workspace.digest("instances") == before


@pytest.mark.parametrize("decision", ["rejected", "back_to_boxes", "off_screen"])
def test_only_a_labelled_frame_has_instances(workspace: Workspace, decision: str) -> None:
    add_reviews(workspace, review("f1", "dog", 1))
    bring_instances_up_to_date(workspace)
    add_reviews(workspace, review("f1", "dog", 2, decision=decision, instances=[]))
    bring_instances_up_to_date(workspace)
    assert categories(workspace) == {}


def test_taking_the_newer_review_back_brings_the_older_one_into_force(workspace: Workspace) -> None:
    add_reviews(workspace, review("f1", "dog", 1))
    bring_instances_up_to_date(workspace)
    first = {row.id for row in workspace.rows(Instance)}
    add_reviews(workspace, review("f1", "lion", 2))
    bring_instances_up_to_date(workspace)
    ledger = workspace.ledger("pull")
    ledger.retire(ledger.commits()[1:], "taken back")
    bring_instances_up_to_date(workspace)
    assert {row.id for row in workspace.rows(Instance)} == first


def test_a_review_outlives_its_frame_and_counts_again_when_it_comes_back(
    workspace: Workspace,
) -> None:
    add_reviews(workspace, review("f1", "dog", 1), review("f2", "cat", 1))
    bring_instances_up_to_date(workspace)
    ledger = workspace.ledger("sample")
    ledger.retire(ledger.commits(), "resampled")
    sample(workspace, "f2", "f3")
    bring_instances_up_to_date(workspace)
    assert categories(workspace) == {"f2": "cat"}
    drops = {row.input_id: row.reason for row in workspace.ledger("settle").drops()}
    assert drops == {"r_f1_1": "frame_gone"}
    ledger.retire(ledger.commits(), "resampled again")
    sample(workspace, "f1", "f2")
    bring_instances_up_to_date(workspace)
    assert categories(workspace) == {"f1": "dog", "f2": "cat"}


@pytest.mark.parametrize("seed", range(6))
def test_what_columns_say_decides_is_what_whole_reviews_say(
    workspace: Workspace, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "_TOGETHER", 3)
    rng = random.Random(seed)
    for _ in range(3):  # files
        rows = [
            review(
                rng.choice(["f1", "f2", "gone"]),
                "dog",
                number,
                review_id=f"r_{rng.randrange(10**9)}",
                kind=rng.choice(KINDS),
                annotator=rng.choice(["1", "2", "rule:accept"]),
                verified=rng.random() < 0.6,
                purpose=rng.choice(["label", "label", "adjudicate", "gold"]),
                decision=rng.choice(["labelled", "off_screen", "rejected", "back_to_boxes"]),
                reject_reasons=rng.choice([[], [], [DELETED]]),
                instances=[],
            )
            for number in range(rng.randrange(1, 9))
        ]
        add_reviews(workspace, *rows)
    files = workspace.files("reviews")
    every = workspace.rows(Review)
    for kind in KINDS:
        found = Standing(workspace, files, workspace.files("frames"), kind)
        names = found.names(0, len(every))
        decisive = {row.id for row in deciding_reviews(every, kind).values()}
        assert sorted(names) == sorted(
            row.id for row in every if row.id in decisive and row.frame_id != "gone"
        )
        assert found.gone.sum() == sum(row.frame_id == "gone" for row in every)
