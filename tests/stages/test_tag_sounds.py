from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.config import HearConfig
from pipeline.errors import InputError, UsageError
from pipeline.records.schema import Frame, SoundClass, Sounds
from pipeline.run.stage import Drop, Fail, Ok
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import AudioQuery
from stages.propose.propose_boxes import sounds_of
from stages.propose.tag_sounds import TagSounds, window
from tests.rows import clip, context, frame, video


def heard(folder: Path, label: str) -> Sounds:
    stage = TagSounds(HearConfig())
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
    stage = TagSounds(HearConfig())
    stage.open(context(tmp_path, videos=[video()]))
    lost, found = clip("lostlostlos"), clip()
    outcomes = {outcome.id: outcome for outcome in stage.process([lost, found])}
    assert outcomes[lost.id] == Fail(lost.id, "missing_video", "no video lostlostlos", True)
    assert isinstance(outcomes[found.id], Ok)


def test_a_batch_of_one_equals_a_batch_of_many(tmp_path: Path) -> None:
    labels = ["dog barking", "playing harp", "waterfall burbling"]
    videos = [video(f"{n}" * 11, label=label) for n, label in enumerate(labels)]
    clips = [clip(row.video_id) for row in videos]
    stage = TagSounds(HearConfig())
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
    shipped = TagSounds(HearConfig()).fingerprint()
    assert TagSounds(HearConfig(taxonomy=str(mine))).fingerprint() != shipped
    with pytest.raises(UsageError, match="row 2: vggsound_classes: 'dog singing'"):
        TagSounds(HearConfig(taxonomy=str(bad))).fingerprint()


class Fake:
    """A tagger of AudioSet's classes that says what it is told and counts what it is asked."""

    name = "fake"
    has_weights = False
    vocabulary: Literal["audioset", "vggsound"] = "audioset"

    def __init__(self, **answers: InputError | dict[str, float]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def fingerprint(self) -> dict[str, str]:
        return {}

    def open(self, storage: Storage) -> None:
        pass

    def tag(self, asked: Iterable[AudioQuery]) -> Iterator[list[list[SoundClass]] | InputError]:
        for one in asked:
            self.asked.append(one.clip.video_id)
            said = self.answers[one.clip.video_id]
            if isinstance(said, InputError):
                yield said
            else:
                classes = [SoundClass(name=name, score=score) for name, score in said.items()]
                yield [classes for _ in one.spans]


def hearing(folder: Path, tagger: Fake, frames: Sequence[Frame] = (), **values: Any) -> TagSounds:
    stage = TagSounds(HearConfig(**values))
    stage.tagger = tagger
    videos = [video(name) for name in tagger.answers]
    stage.open(context(folder, videos=videos, frames=frames))
    return stage


def test_nothing_to_hear_is_a_drop_and_any_other_trouble_a_failure(tmp_path: Path) -> None:
    tagger = Fake(
        aaaaaaaaaaa=InputError("no_audio", "a.mp4: no audio stream"),
        bbbbbbbbbbb=InputError("not_a_number", "fake computed no number"),
        ccccccccccc={"Bark": 0.9},
    )
    rows = [clip(name) for name in tagger.answers]
    outcomes = list(hearing(tmp_path, tagger).process(rows))
    assert outcomes[0] == Drop(rows[0].id, "no_audio", "a.mp4: no audio stream")
    assert outcomes[1] == Fail(rows[1].id, "not_a_number", "fake computed no number", False)
    assert isinstance(outcomes[2], Ok)


def test_another_threshold_is_another_answer_without_hearing_again(tmp_path: Path) -> None:
    tagger = Fake(vvvvvvvvvvv={"Music": 0.9, "Bark": 0.3, "Harp": 0.1})
    active = {}
    for score in (0.2, 0.4):
        stage = hearing(tmp_path, tagger, active_score=score, active_relative=0)
        (outcome,) = stage.process([clip()])
        assert isinstance(outcome, Ok)
        (row,) = outcome.rows
        assert isinstance(row, Sounds)
        assert [heard.name for heard in row.classes] == ["Music", "Bark", "Harp"]
        active[score] = {found.category: found.active for found in row.categories}
    assert active == {0.2: {"dog": True, "harp": False}, 0.4: {"dog": False, "harp": False}}
    assert tagger.asked == ["vvvvvvvvvvv"]
    # Other windows are another question.
    list(hearing(tmp_path, tagger, [frame()], scope="frame").process([clip()]))
    assert len(tagger.asked) == 2


def test_another_video_under_the_same_id_is_heard_anew(tmp_path: Path) -> None:
    tagger = Fake(vvvvvvvvvvv={"Bark": 0.3})
    list(hearing(tmp_path, tagger).process([clip()]))
    stage = TagSounds(HearConfig())
    stage.tagger = tagger
    stage.open(context(tmp_path, videos=[video(sha256="1" * 64)]))
    list(stage.process([clip()]))
    assert len(tagger.asked) == 2


def test_with_scope_frame_each_frame_of_a_clip_has_a_row_of_its_own_id(tmp_path: Path) -> None:
    frames = [frame(10), frame(90)]
    stage = hearing(tmp_path, Fake(vvvvvvvvvvv={"Bark": 0.9}), frames, scope="frame")
    (outcome,) = stage.process([clip()])
    assert isinstance(outcome, Ok)
    assert [row.id for row in outcome.rows] == [row.frame_id for row in frames]
    rows = [row for row in outcome.rows if isinstance(row, Sounds)]
    assert {row.clip_id for row in rows} == {clip().clip_id}
    assert sounds_of(frames[1], rows) == rows[1]


@pytest.mark.parametrize(
    ("event_s", "span"), [(5.0, (4.0, 6.0)), (0.3, (0.0, 1.3)), (9.9, (8.9, 10.0))]
)
def test_a_window_is_cut_at_the_clips_edges_and_never_moved(
    event_s: float, span: tuple[float, float]
) -> None:
    assert window(frame(event_time_s=event_s), clip(), 2.0) == span


def test_a_threshold_of_no_class_stops_before_the_run() -> None:
    config = HearConfig(active_scores={"Barking": 0.3})
    with pytest.raises(UsageError, match="'Barking' is not one of AudioSet's 527"):
        TagSounds(config).fingerprint()
