"""Thresholds from reviews: laws over random judgements, and the command over a workspace's rows."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import HearConfig, ProposeConfig, load_config
from pipeline.errors import ConfigError, UsageError
from pipeline.records.schema import Frame, Proposal, Review, SoundClass, Sounds
from pipeline.workspace.commit import Generation
from pipeline.workspace.workspace import Workspace
from stages.backends.interfaces import Detection
from stages.propose.again import Perceived, tag_again
from stages.propose.calibration import HEAR, calibrate, settings_of
from stages.propose.filtering import AudioFilter, check_min_scores
from stages.propose.judged import Judged, judge, passes, seconds_per_removal, tally
from stages.propose.propose_boxes import kept_answers, make_detectors
from stages.taxonomy import load_taxonomy
from tests.labeling.labelled_workspace import commit
from tests.pipeline.shell import Shell
from tests.rows import frame, said, sounds

TAXONOMY = load_taxonomy()
HEARING = HearConfig(tagger="efficientat-mn04-as")
MOTION = ProposeConfig()
BOTH = ProposeConfig(detectors=["yolov8n-oiv7", "motion"], motion="no-box", stand_ins=True)
NAMED = {"Bark": "dog", "Meow": "cat", "Clarinet": "clarinet"}
OLD = "motion"
CLASSES = {"motion": ["moving region"], "yolov8n-oiv7": ["Dog", "Cat", "Cake"]}
"""The classes that detectors draw in random worlds."""


def heard(name: str, video_id: str, scores: dict[str, float]) -> Sounds:
    row = sounds(
        video_id,
        frame_id=name,
        tagger=HEARING.tagger,
        classes=[SoundClass(name=one, score=score) for one, score in scores.items()],
    )
    return tag_again(row, TAXONOMY, HEARING)


def random_world(
    seed: int, videos: int = 24, propose: ProposeConfig = MOTION, least_loud: float = 0.0
) -> tuple[Perceived, list[Review]]:
    """Boxes of detectors, and people who mostly keep the surer ones of what is louder."""
    rng = random.Random(seed)
    frames: list[Frame] = []
    rows: list[Sounds] = []
    found: dict[str, dict[str, list[Detection]]] = {}
    for number in range(videos):
        video_id = f"v{number:010d}"
        scores = {name: round(rng.random() ** 2, 3) for name in rng.sample(sorted(NAMED), 2)}
        for index in range(2):
            one = frame(index, video_id, width=1000, height=1000)
            frames.append(one)
            rows.append(heard(one.frame_id, video_id, scores))
            found[one.frame_id] = {
                detector: [
                    Detection(
                        [200.0 * place, 100.0 * index + 300 * order, 90.0, 90.0],
                        rng.choice(CLASSES[detector]),
                        round(rng.uniform(0.06, 1), 3),
                    )
                    for place in range(rng.randrange(1, 5))
                ]
                for order, detector in enumerate(propose.detectors)
            }
    detectors = make_detectors(propose)
    proposals = Perceived(detectors, TAXONOMY, frames, rows, [], found)
    shown = proposals.propose(proposals.heard(HEARING), propose)
    known = Perceived(detectors, TAXONOMY, frames, rows, shown, found)
    loud = [row for row in shown if row.audio_score >= least_loud]
    return known, [review_of(one, shown, loud, rng) for one in frames]


def review_of(
    one: Frame, proposals: Sequence[Proposal], loud: Sequence[Proposal], rng: random.Random
) -> Review:
    mine = [row for row in proposals if row.frame_id == one.frame_id and row.audible]
    likely = [row for row in mine if rng.random() < row.detector_score * (0.3 + row.audio_score)]
    stays = [row for row in likely if row in loud]
    return said(
        "7",
        1,
        one.frame_id,
        frame_id=one.frame_id,
        decision="labelled" if stays else "off_screen",
        off_screen_category=None if stays else "dog",
        shown=[row.proposal_id for row in mine],
        instances=[instance(row) for row in stays],
    )


def instance(row: Proposal, **changes: Any) -> dict[str, Any]:
    values = {
        "bbox": row.bbox,
        "category": row.categories[0],
        "scenario": "Single-sound",
        "origin": "kept",
        "proposal_id": row.proposal_id,
    }
    return values | changes


def judged(known: Perceived, reviews: Sequence[Review]) -> Judged:
    return judge(known, reviews, HEARING, MOTION)


# Laws


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_loss", [0.0, 0.1])
@pytest.mark.parametrize("propose", [MOTION, BOTH], ids=["motion", "both"])
def test_no_more_kept_boxes_are_lost_than_allowed_and_fewer_are_removed(
    seed: int, max_loss: float, propose: ProposeConfig
) -> None:
    known, reviews = random_world(seed, propose=propose)
    frames = judge(known, reviews, HEARING, propose).frames
    before = tally(known, frames, HEARING, propose)
    assert before.kept == sum(len(one.instances) for one in reviews) > 20
    assert before.removed == sum(
        len(set(one.shown or ()) - {i.proposal_id for i in one.instances}) for one in reviews
    )
    found = calibrate(known, frames, HEARING, propose, max_loss=max_loss)
    after = tally(known, frames, *settings_of(found.thresholds, TAXONOMY, HEARING, propose))
    assert before.kept - after.kept <= max_loss * before.kept
    assert after.removed < before.removed


@pytest.mark.parametrize("seed", range(4))
def test_each_threshold_is_needed_and_lies_below_all_that_was_kept(seed: int) -> None:
    known, reviews = random_world(seed)
    frames = judged(known, reviews).frames
    found = calibrate(known, frames, HEARING, MOTION)
    whole = tally(known, frames, *settings_of(found.thresholds, TAXONOMY, HEARING, MOTION))
    assert found.thresholds
    for by, category in found.thresholds:
        rest = {key: value for key, value in found.thresholds.items() if key != (by, category)}
        without = tally(known, frames, *settings_of(rest, TAXONOMY, HEARING, MOTION))
        assert without.removed > whole.removed
        kept = [
            box.score
            if by
            else next(c.score for c in one.sounds.categories if c.category == category)
            for one in frames
            for box in one.boxes
            if box.kept and box.category == category and by in (HEAR, box.detector)
        ]
        assert found.thresholds[by, category] <= min(kept)


def test_where_what_is_faint_is_never_kept_the_threshold_is_one_of_hearing() -> None:
    known, reviews = random_world(0, videos=60, least_loud=0.4)
    frames = judged(known, reviews).frames
    found = calibrate(known, frames, HEARING, MOTION)
    heard = {category: value for (by, category), value in found.thresholds.items() if by == HEAR}
    assert heard.keys() == set(NAMED.values())
    assert all(0.2 < value <= 0.6 for value in heard.values())
    hear, propose = settings_of(found.thresholds, TAXONOMY, HEARING, MOTION)
    assert hear.active_scores["Bark"] == heard["dog"]
    before, after = tally(known, frames, HEARING, MOTION), tally(known, frames, hear, propose)
    assert after.kept == before.kept
    assert after.removed < 0.7 * before.removed


def test_more_may_be_lost_more_is_spared() -> None:
    known, reviews = random_world(5, videos=40)
    frames = judged(known, reviews).frames
    removed = []
    for max_loss in (0.0, 0.05, 0.2, 1.0):
        found = calibrate(known, frames, HEARING, MOTION, max_loss=max_loss)
        after = tally(known, frames, *settings_of(found.thresholds, TAXONOMY, HEARING, MOTION))
        removed.append(after.removed)
    assert removed == sorted(removed, reverse=True)
    assert removed[0] > removed[2]


def test_a_category_kept_in_too_few_videos_is_left_and_named() -> None:
    known, reviews = random_world(0)
    frames = judged(known, reviews).frames
    found = calibrate(known, frames, HEARING, MOTION, min_videos=1000)
    assert found.thresholds == {}
    assert {category for _, category in found.too_few()} == set(NAMED.values())


def test_a_category_never_kept_is_raised_above_all_that_was_removed_in_its_name() -> None:
    known, reviews = random_world(0)

    def without_cats(review: Review) -> Review:
        rest = [one for one in review.instances if one.category != "cat"]
        decision = "labelled" if rest else "off_screen"
        off_screen = None if rest else "dog"
        changes = {"instances": rest, "decision": decision, "off_screen_category": off_screen}
        return review.model_copy(update=changes)

    frames = judged(known, [without_cats(review) for review in reviews]).frames
    found = calibrate(known, frames, HEARING, MOTION)
    hear, propose = settings_of(found.thresholds, TAXONOMY, HEARING, MOTION)
    before, after = tally(known, frames, HEARING, MOTION), tally(known, frames, hear, propose)
    assert after.kept == before.kept > 0
    assert after.removed < before.removed
    cats = [key for key in found.thresholds if key[1] == "cat"]
    assert cats
    assert all(found.evidence[key].kept == 0 for key in cats)
    for one in frames:
        again = tag_again(one.sounds, TAXONOMY, hear)
        active = {one.category for one in again.categories if one.active}
        for box in one.boxes:
            if box.categories == ["cat"]:
                assert not passes(box.detector, box.score, box.categories, active, propose)
    few = calibrate(known, frames, HEARING, MOTION, min_videos=24)
    assert not [key for key in few.thresholds if key[1] == "cat"]


def test_a_class_of_several_categories_has_a_threshold_only_when_all_of_them_have_one() -> None:
    both = {(HEAR, "dog"): 0.4, (HEAR, "cat"): 0.3}
    hear, _ = settings_of(both, TAXONOMY, HEARING, MOTION)
    assert hear.active_scores["Bark"] == 0.4
    assert hear.active_scores["Hiss" if "Hiss" in hear.active_scores else "Meow"] == 0.3
    assert "Growling" not in hear.active_scores, "lion has none"
    every, _ = settings_of(both | {(HEAR, "lion"): 0.2}, TAXONOMY, HEARING, MOTION)
    assert every.active_scores["Growling"] == 0.2


# What counts as judged


def test_rules_gold_and_rejected_frames_teach_nothing_and_people_outrank_simulations() -> None:
    known, reviews = random_world(1)
    rule = [one.model_copy(update={"annotator": "rule:accept"}) for one in reviews]
    assert judged(known, rule).frames == []
    gold = [one.model_copy(update={"purpose": "gold"}) for one in reviews]
    assert judged(known, gold).frames == []
    rejected = [one.model_copy(update={"decision": "rejected"}) for one in reviews]
    assert judged(known, rejected).frames == []
    told = {"annotator": "simulated:ground-truth", "verified": False, "instances": []}
    simulated = [one.model_copy(update=told) for one in reviews]
    assert judged(known, simulated).annotators == ["simulated:ground-truth"]
    assert judged(known, [*simulated, *reviews]) == judged(known, reviews)


def test_a_box_nobody_was_shown_is_neither_kept_nor_removed() -> None:
    known, reviews = random_world(2)
    part = [
        one.model_copy(update={"shown": (one.shown or [])[:1], "instances": []}) for one in reviews
    ]
    frames = judged(known, part).frames
    after = tally(known, frames, HEARING, MOTION)
    assert after.removed == sum(len(one.shown or []) for one in part)
    assert sum(len(one.unseen) for one in frames) > 20


def test_a_box_at_the_place_of_a_drawn_one_is_none_to_remove() -> None:
    known, reviews = random_world(3)
    (one,) = reviews[:1]
    quiet = HEARING.model_copy(update={"active_scores": dict.fromkeys(NAMED, 1.0)})
    boxes = [d.bbox for d in known.found[one.frame_id][OLD]]
    drawn = [
        {
            "bbox": b,
            "category": "dog",
            "scenario": "Single-sound",
            "origin": "added",
            "proposal_id": None,
        }
        for b in boxes
    ]
    values = one.model_dump() | {"decision": "labelled", "instances": drawn, "shown": []}
    answer = Review.model_validate(values)
    frames = judge(known, [answer], quiet, MOTION).frames
    assert tally(known, frames, quiet, MOTION) == tally(known, [], HEARING, MOTION)
    loud = HEARING.model_copy(update={"active_floor": 0.0, "active_top_k": 2})
    open_to_all = MOTION.model_copy(update={"min_score": 0.0})
    assert tally(known, frames, loud, open_to_all).drawn == len(boxes)


def test_seconds_of_a_removal_are_found_in_sums_of_lead_times() -> None:
    rng = random.Random(0)
    reviews = []
    for day in range(200):
        removed, added = rng.randrange(6), rng.randrange(3)
        drawn = [
            {
                "bbox": [0, 0, 9, 9],
                "category": "dog",
                "scenario": "Single-sound",
                "origin": "added",
                "proposal_id": None,
            }
        ] * added
        seconds = 4.0 + 1.5 * removed + 8.0 * added + rng.uniform(-1, 1)
        seconds = 3000.0 if day % 50 == 0 else seconds  # a cup of coffee
        shown = [f"p_{place}" for place in range(removed)]
        reviews.append(said("7", 1, str(day), instances=drawn, shown=shown, lead_time_s=seconds))
    assert seconds_per_removal(reviews) == pytest.approx(1.5, abs=0.4)
    assert seconds_per_removal(reviews[:5]) is None
    assert (
        seconds_per_removal([one.model_copy(update={"lead_time_s": None}) for one in reviews])
        is None
    )


# The settings


def proposed(config: ProposeConfig, score: float, categories: dict[str, bool]) -> list[Proposal]:
    rows = [
        {"category": name, "score": 0.5, "active": active} for name, active in categories.items()
    ]
    box = {OLD: [Detection([10.0, 10.0, 60.0, 60.0], "moving region", score)]}
    rules = AudioFilter(make_detectors(config), TAXONOMY, config)
    return rules.proposals(frame(), box, sounds(categories=rows))


def test_a_box_not_sure_enough_for_one_category_may_still_be_another() -> None:
    config = ProposeConfig(min_scores={"motion": {"dog": 0.4}, "yolov8n-oiv7": {"cat": 1.0}})
    (sure,) = proposed(config, 0.4, {"dog": True, "cat": True})
    assert sure.categories == ["dog", "cat"]
    (cat,) = proposed(config, 0.39, {"dog": True, "cat": True})
    assert (cat.categories, cat.audible) == (["cat"], True)
    (neither,) = proposed(config, 0.39, {"dog": True, "cat": False})
    assert not neither.audible
    for box in (0.39, 0.4):
        for active in ({"dog"}, {"cat"}, {"dog", "cat"}):
            rows = proposed(config, box, {name: name in active for name in ("dog", "cat")})
            assert [row.audible for row in rows] == [
                passes("motion", box, ["dog", "cat"], active, config)
            ]


def test_min_scores_of_no_detector_or_category_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_scores: .*'yolo' is no detector"):
        load_config("", ['propose.min_scores={"yolo" = {"dog" = 0.3}}'])
    with pytest.raises(ConfigError, match="min_scores"):
        load_config("", ['propose.min_scores={"motion" = {"dog" = 1.3}}'])
    with pytest.raises(UsageError, match=r"propose\.min_scores: motion: 'hound' is no category"):
        check_min_scores(ProposeConfig(min_scores={"motion": {"hound": 0.3}}), TAXONOMY)


# The command


def workspace_of(workspace: Workspace, known: Perceived, reviews: Sequence[Review]) -> str:
    """The rows of a random world as the stages leave them."""
    workspace.ledger("propose").begin(Generation("propose", 3, MOTION.deciding(), {}, {}))
    commit(workspace, "sample", Frame, known.frames)
    commit(workspace, "hear", Sounds, known.sounds)
    if reviews:
        commit(workspace, "pull", Review, reviews)
    keep = kept_answers(workspace.storage, MOTION, {}, OLD)
    for name, boxes in known.found.items():
        answer = [[*d.bbox, d.score, d.name] for d in boxes[OLD]]
        keep.put(name, "", answer, Path(workspace.storage.url))
    return workspace.storage.url


def test_the_command_writes_a_settings_file_that_spares_what_it_says_and_changes_nothing(
    workspace: Workspace, shell: Shell, tmp_path: Path
) -> None:
    known, reviews = random_world(6, videos=40)
    place = workspace_of(workspace, known, reviews)
    before = workspace.storage.read("avatar.toml")
    out = tmp_path / "tuned.toml"
    done = shell("tune", place, "--out", out, "--json")
    done.check()
    found = json.loads(done.out)["result"]
    assert workspace.storage.read("avatar.toml") == before
    tuned = load_config(out.read_text())
    frames = judged(known, reviews).frames
    after = tally(known, frames, tuned.hear, tuned.propose)
    assert after._asdict() == found["after"]
    assert after.kept == found["before"]["kept"] == tally(known, frames, HEARING, MOTION).kept
    assert after.removed < found["before"]["removed"]
    assert found["held_out"]["removed"] < found["before"]["removed"]
    assert tuned.hear.active_scores or tuned.propose.min_scores
    assert "already there" in shell("tune", place, "--out", out).one_line()
    below_a_file = shell("tune", place, "--out", out / "tuned.toml")
    assert "cannot be written" in below_a_file.one_line()
    shy = shell("tune", place, "--min-videos", "1000", "--out", tmp_path / "shy.toml")
    shy.check()
    assert "judged in fewer than 1000 videos" in shy.out
    assert not (tmp_path / "shy.toml").exists()
    said_to_people = shell("tune", place).out
    assert "Held out" in said_to_people
    assert "0 of" in said_to_people


def test_what_nothing_can_be_learnt_from_is_said_in_one_line(
    workspace: Workspace, shell: Shell
) -> None:
    known, reviews = random_world(7, videos=6)
    assert "has not run" in shell("tune", workspace.storage.url).one_line()
    place = workspace_of(workspace, known, [])
    assert "there are none yet" in shell("tune", place).one_line()
    rule = [
        one.model_copy(update={"annotator": "rule:accept", "verified": False}) for one in reviews
    ]
    commit(workspace, "accept", Review, rule)
    assert "only those of a rule" in shell("tune", place).one_line()


def test_reviews_of_another_detectors_boxes_are_left_out_and_counted(
    workspace: Workspace, shell: Shell
) -> None:
    known, reviews = random_world(8, videos=6)
    foreign = [
        one.model_copy(
            update={
                "shown": [f"p_{place}" for place, _ in enumerate(one.shown or ())],
                "instances": [
                    each.model_copy(update={"proposal_id": f"p_{place}"})
                    for place, each in enumerate(one.instances)
                ],
            }
        )
        for one in reviews
    ]
    place = workspace_of(workspace, known, foreign)
    said = shell("tune", place).one_line()
    assert "about boxes that motion did not give" in said
    assert "label push boxes" in said
    some = judged(known, [*foreign[:4], *reviews[4:]])
    assert len(some.frames) + some.foreign == len([one for one in reviews if one.shown])


def test_frames_whose_kept_answers_are_gone_are_left_out_and_counted(
    workspace: Workspace, shell: Shell
) -> None:
    known, reviews = random_world(9, videos=6)
    place = workspace_of(workspace, known, reviews)
    shutil.rmtree(Path(place) / "media" / "cache")
    assert "no longer in media/cache" in shell("tune", place).one_line()
