from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.config import HearConfig, ProposeConfig
from pipeline.errors import UsageError
from pipeline.records.schema import (
    Frame,
    Proposal,
    Review,
    ReviewedInstance,
    Scenario,
    SoundClass,
    Sounds,
)
from pipeline.workspace.commit import Generation
from pipeline.workspace.workspace import Workspace
from stages.backends.interfaces import Detection
from stages.propose.again import Found, propose_again, sounds_by_frame, tag_again, with_table
from stages.propose.filtering import AudioFilter
from stages.propose.preview import compare, preview_settings
from stages.propose.propose_boxes import make_detectors
from stages.taxonomy import load_taxonomy
from tests.rows import frame, proposal, sounds

TAXONOMY = load_taxonomy()
SINGLE: Scenario = "Single-sound"


def review(name: str, at: Frame, *proposals: str, person: bool = True, day: int = 1) -> Review:
    instances = [
        ReviewedInstance(
            bbox=[0, 0, 9, 9],
            category="dog",
            scenario=SINGLE,
            origin="kept",
            proposal_id=proposal_id,
        )
        for proposal_id in proposals
    ]
    return Review(
        review_id=name,
        frame_id=at.frame_id,
        kind="boxes",
        annotator="7" if person else "rule:accept",
        annotation_id="",
        updated_at=f"2026-01-{day:02d}T00:00:00Z",
        lead_time_s=None,
        decision="labelled",
        reject_reasons=[],
        off_screen_category=None,
        instances=instances,
        verified=person,
    )


def box(name: str, at: Frame, *, audible: bool = True, dog: str = "dog") -> Proposal:
    return proposal(name, frame_id=at.frame_id, categories=[dog], audible=audible)


def test_what_comes_and_goes_is_counted_by_category() -> None:
    a, b = frame(1), frame(2)
    now = [box("p1", a), box("p2", a, audible=False), box("p3", b, dog="cat")]
    then = [box("p1", a, dog="cat"), box("p2", a), box("p4", b, dog="lion")]
    found = compare(now, then, [], 2, 0)
    assert found.categories == {"cat": (1, 1), "dog": (1, 1), "lion": (1, 0)}
    assert (found.boxes, found.audible) == ((1, 1), (2, 1))


def test_only_what_people_made_from_an_audible_box_is_orphaned() -> None:
    a, b, c = frame(1), frame(2), frame(3)
    now = [box("p1", a), box("p2", a), box("p3", b), box("p4", c, audible=False)]
    then = [box("p1", a), box("p2", a, audible=False)]
    reviews = [
        review("kept", a, "p1"),
        review("lost", a, "p2").model_copy(update={"annotator": "8"}),
        review("emptied", b),
        review("never audible", c, "p4"),
        review("rule", b, "p3", person=False),
        review("older", c, "p3").model_copy(update={"updated_at": ""}),
    ]
    found = compare(now, then, reviews, 3, 0)
    assert (found.reviews, found.orphaned) == (4, 2)


def test_the_preview_equals_a_slow_recount() -> None:
    dice = random.Random(11)
    names = [
        "Growling",
        "Clarinet",
        "Bark",
        "Meow",
        "Music",
        "Singing",
        "Male speech, man speaking",
    ]
    classes = ["Dog", "Cat", "Man", "Woman", "Lion", "Musical instrument", "Tree"]
    frames = [frame(n) for n in range(40)]
    heard = [
        sounds(
            frame_id=row.frame_id,
            tagger="cav-mae-as-46.6",
            classes=[SoundClass(name=name, score=dice.random()) for name in dice.sample(names, 4)],
        )
        for row in frames
    ]
    found: Found = {
        row.frame_id: {
            "yolov8n-oiv7": [
                Detection([dice.uniform(0, 250), 5, 60, 60], dice.choice(classes), dice.random())
                for _ in range(6)
            ]
        }
        for row in frames
    }

    def rows(hear: HearConfig, propose: ProposeConfig) -> list[Proposal]:
        again = sounds_by_frame(frames, [tag_again(row, TAXONOMY, hear) for row in heard])
        rules = AudioFilter(make_detectors(propose), TAXONOMY, propose)
        return propose_again(frames, again, found, rules)

    now = rows(
        HearConfig(active_score=0.5), ProposeConfig(detectors=["yolov8n-oiv7"], min_score=0.3)
    )
    then = rows(
        HearConfig(active_score=0.7, active_relative=0.0),
        ProposeConfig(detectors=["yolov8n-oiv7"], min_score=0.2, classes="generic"),
    )
    reviews = [
        review(f"r{n}", row, *[p.proposal_id for p in now if p.frame_id == row.frame_id][:1])
        for n, row in enumerate(frames)
    ]
    said = compare(now, then, reviews, len(frames), 0)
    for name, (added, removed) in said.categories.items():
        before = {p.proposal_id for p in now if p.audible and name in p.categories}
        after = {p.proposal_id for p in then if p.audible and name in p.categories}
        assert (added, removed) == (len(after - before), len(before - after))
    assert sum(added for added, _ in said.categories.values()) > 0
    assert sum(removed for _, removed in said.categories.values()) > 0
    orphaned = 0
    for one in reviews:
        mine = {p.proposal_id for p in now if p.audible and p.frame_id == one.frame_id}
        left = {p.proposal_id for p in then if p.audible and p.frame_id == one.frame_id}
        made_from = {i.proposal_id for i in one.instances} & mine
        orphaned += bool(made_from - left or (mine and not left))
    assert said.orphaned == orphaned
    assert 0 < orphaned < len(reviews) == said.reviews


def test_the_label_of_a_list_has_no_threshold() -> None:
    row = sounds(classes=[SoundClass(name="dog barking", score=1.0)])
    assert tag_again(row, TAXONOMY, HearConfig(active_score=1.0)) == row


def test_a_frame_without_a_kept_answer_has_what_the_table_has() -> None:
    a, b = frame(1), frame(2)
    answer = [Detection([1, 2, 3, 4], "Dog", 0.5)]
    kept: Found = {a.frame_id: {"motion": answer}, b.frame_id: {}}
    found = with_table(kept, [box("p1", a), box("p2", b)])
    assert found[a.frame_id]["motion"] == answer
    assert found[b.frame_id]["motion"] == [Detection([10, 10, 40, 40], "moving region", 0.8)]


@pytest.mark.parametrize(
    "setting",
    [
        "propose.raw_score=0.2",
        "propose.detector=motion",
        "propose.detectors=[]",
        "sample.seed=2",
        "hear.active_score=0.3",
    ],
)
def test_only_thresholds_can_be_previewed(workspace: Workspace, setting: str) -> None:
    with pytest.raises(UsageError, match=r"only thresholds can be previewed.*propose\.min_score"):
        preview_settings(workspace, [setting])


def test_a_preview_before_any_run_is_an_error(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="has not run in this workspace"):
        preview_settings(workspace, ["propose.min_score=0.2"])


def test_the_command_prints_lines_or_json(workspace: Workspace) -> None:
    config = workspace.config.propose.deciding()
    workspace.ledger("propose").begin(Generation("propose", 2, config, {}, {}))
    place = ["--workspace", str(Path(workspace.storage.url))]
    words = ["--preview", "propose.min_score=0.5", "propose.max_boxes=2"]
    said = CliRunner().invoke(cli, ["propose", *place, *words])
    assert said.exit_code == 0, said.output
    assert "No category would gain or lose an audible box." in said.output
    answer = CliRunner().invoke(cli, ["propose", *place, "--json", *words])
    assert json.loads(answer.output)["result"]["reviews"] == {"human": 0, "orphaned": 0}
    lost = CliRunner().invoke(cli, ["propose", *place, "propose.min_score=0.5"])
    assert lost.exit_code == 2


def test_sounds_of_a_frame_are_heard_again_for_that_frame(workspace: Workspace) -> None:
    row = sounds(
        frame_id=frame(1).frame_id,
        tagger="cav-mae-as-46.6",
        classes=[SoundClass(name="Growling", score=0.3)],
    )
    quiet = tag_again(row, TAXONOMY, HearConfig(active_score=0.4, active_relative=0))
    assert isinstance(quiet, Sounds)
    assert [c.active for c in quiet.categories] == [False] * 3
    assert quiet.frame_id == row.frame_id
