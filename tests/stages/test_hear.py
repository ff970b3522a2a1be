from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import HearConfig
from pipeline.errors import UsageError
from pipeline.schema import Sounds
from pipeline.stage import Fail, Ok
from stages.hear import HearClips
from tests.rows import clip, context, video


def heard(folder: Path, label: str) -> Sounds:
    stage = HearClips(HearConfig())
    stage.open(context(folder, videos=[video(label=label)]))
    (outcome,) = stage.process([clip()])
    assert isinstance(outcome, Ok)
    (row,) = outcome.rows
    assert isinstance(row, Sounds)
    return row


def test_a_clip_sounds_like_the_label_of_its_video(tmp_path: Path) -> None:
    row = heard(tmp_path, "electric shaver, electric razor shaving")
    assert row.clip_id == clip().clip_id
    assert row.tagger == "vggsound-label"
    assert [(c.name, c.score) for c in row.classes] == [
        ("electric shaver, electric razor shaving", 1.0)
    ]
    assert [(c.category, c.score, c.active) for c in row.categories] == [
        ("electric shaver", 1.0, True)
    ]


def test_a_label_of_no_target_category_keeps_its_class_and_has_no_category(tmp_path: Path) -> None:
    row = heard(tmp_path, "waterfall burbling")
    assert [c.name for c in row.classes] == ["waterfall burbling"]
    assert row.categories == []


def test_a_clip_without_its_video_fails_and_the_rest_of_the_batch_does_not(tmp_path: Path) -> None:
    stage = HearClips(HearConfig())
    stage.open(context(tmp_path, videos=[video()]))
    lost, found = clip("lostlostlos"), clip()
    outcomes = {outcome.id: outcome for outcome in stage.process([lost, found])}
    assert outcomes[lost.id] == Fail(lost.id, "missing_video", "no video lostlostlos", True)
    assert isinstance(outcomes[found.id], Ok)


def test_a_batch_of_one_equals_a_batch_of_many(tmp_path: Path) -> None:
    labels = ["dog barking", "playing harp", "waterfall burbling"]
    videos = [video(f"{n}" * 11, label=label) for n, label in enumerate(labels)]
    clips = [clip(row.video_id) for row in videos]
    stage = HearClips(HearConfig())
    stage.open(context(tmp_path, videos=videos))
    assert list(stage.process(clips)) == [o for row in clips for o in stage.process([row])]


def test_another_taxonomy_is_another_fingerprint_and_a_bad_one_stops_before_the_run(
    tmp_path: Path,
) -> None:
    header = (
        "category,group,openimages_classes,audioset_classes,vggsound_classes,notes,"
        "openimages_generic\n"
    )
    mine, bad = tmp_path / "mine.csv", tmp_path / "bad.csv"
    mine.write_text(header + "dog,animal,,,dog barking,,\n")
    bad.write_text(header + "dog,animal,,,dog singing,,\n")
    shipped = HearClips(HearConfig()).fingerprint()
    assert HearClips(HearConfig(taxonomy=str(mine))).fingerprint() != shipped
    with pytest.raises(UsageError, match="row 2: vggsound_classes: 'dog singing'"):
        HearClips(HearConfig(taxonomy=str(bad))).fingerprint()
