"""Known answers stand in the tables once, and bad ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labeling.review.gold import set_gold
from labeling.review.instances import bring_instances_up_to_date
from pipeline.errors import UsageError
from pipeline.records.schema import Frame, Instance, Review
from pipeline.workspace.table import to_parquet
from pipeline.workspace.workspace import Workspace
from tests.labeling.labelled_workspace import add_reviews, commit, name, review
from tests.rows import frame

BOX = {"bbox": [10.0, 10.0, 40.0, 40.0], "category": "dog", "scenario": "Single-sound"}


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    """One with two frames."""
    commit(workspace, "sample", Frame, [frame(10), frame(11)])
    return workspace


def line(index: int = 10, **changes: Any) -> dict[str, Any]:
    return {"frame_id": name(index), "decision": "labelled", "instances": [BOX], **changes}


def written(workspace: Workspace, *lines: object) -> Path:
    path = workspace.storage.path("gold.jsonl")
    path.write_text("\n".join(json.dumps(one) for one in lines))
    return path


def gold(workspace: Workspace) -> list[Review]:
    return [row for row in workspace.rows(Review) if row.purpose == "gold"]


def test_known_answers_become_gold_reviews_that_decide(workspace: Workspace) -> None:
    off = line(11, decision="off_screen", off_screen_category="cat", instances=[])
    assert set_gold(workspace, written(workspace, line(), off)) == 2
    rows = {row.frame_id: row for row in gold(workspace)}
    assert [rows[name(index)].decision for index in (10, 11)] == ["labelled", "off_screen"]
    assert {(row.annotator, row.verified) for row in rows.values()} == {("gold", True)}
    bring_instances_up_to_date(workspace)
    assert [row.bbox for row in workspace.rows(Instance)] == [BOX["bbox"]]


def test_the_same_answers_again_change_nothing_and_others_take_their_place(
    workspace: Workspace,
) -> None:
    path = written(workspace, line(), line(11))
    set_gold(workspace, path)
    before = workspace.files("reviews")
    set_gold(workspace, written(workspace, line(11), line()))
    assert workspace.files("reviews") == before
    set_gold(workspace, written(workspace, line(11)))
    assert [row.frame_id for row in gold(workspace)] == [name(11)]


def test_a_table_of_reviews_gives_the_answer_that_decides_each_frame(workspace: Workspace) -> None:
    rows = [
        review(name(), "dog", 1),
        review(name(), "cat", 2),
        review(name(11), "lion", 1, verified=False, annotator="rule:accept"),
    ]
    folder = workspace.storage.path("expert")
    folder.mkdir()
    (folder / "part.parquet").write_bytes(to_parquet(Review, rows))
    assert set_gold(workspace, folder) == 2
    found = {row.frame_id: (row.instances[0].category, row.verified) for row in gold(workspace)}
    assert found == {name(): ("cat", True), name(11): ("lion", False)}
    assert set_gold(workspace, folder / "part.parquet") == 2


def test_the_workspaces_own_reviews_as_gold_leave_each_frame_its_one_instance(
    workspace: Workspace,
) -> None:
    add_reviews(workspace, review(name(), "dog", 1))
    bring_instances_up_to_date(workspace)
    before = [row.instance_id for row in workspace.rows(Instance)]
    own = workspace.storage.path("tables/reviews")
    for _ in range(2):
        assert set_gold(workspace, own) == 1
        bring_instances_up_to_date(workspace)
        assert [row.instance_id for row in workspace.rows(Instance)] == before


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([line(99)], "no such frame"),
        ([line(), line()], "line 2: .* twice"),
        ([line(decision="maybe")], "line 1: decision"),
        ([line(instances=[])], "needs boxes"),
        ([line(decision="off_screen", instances=[])], "a category but no box"),
        ([line(instances=[{**BOX, "bbox": [900.0, 0.0, 5.0, 5.0]}])], "inside the frame"),
        ([line(instances=[{**BOX, "bbox": [300.0, 0.0, 40.0, 5.0]}])], "inside the frame"),
        ([line(instances=[{**BOX, "bbox": [50.0, 50.0, -40.0, -40.0]}])], "inside the frame"),
        ([line(instances=[{**BOX, "bbox": [float("nan"), 0.0, 4.0, 5.0]}])], "finite"),
        ([line(instances=[{**BOX, "bbox": ["1", 0.0, 4.0, 5.0]}])], "valid number"),
        ([line(instances=[{**BOX, "category": "\ud800"}])], "half a character"),
        ([line(surprise=1)], "surprise"),
    ],
)
def test_a_bad_answer_is_refused_in_one_line(
    workspace: Workspace, lines: list[Any], text: str
) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        set_gold(workspace, written(workspace, *lines))
    assert "\n" not in str(caught.value)
    assert gold(workspace) == []


def test_a_missing_file_and_what_is_no_json_are_named(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="no such file"):
        set_gold(workspace, Path("/nowhere/gold.jsonl"))
    path = workspace.storage.path("gold.jsonl")
    path.write_text("{")
    with pytest.raises(UsageError, match="line 1: not JSON"):
        set_gold(workspace, path)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(UsageError, match="not UTF-8"):
        set_gold(workspace, path)
