"""Which clips are asked about first, and that a release says so."""

from __future__ import annotations

import pytest

from exports.from_workspace import provenance
from labeling.label_studio.client import LabelStudio
from labeling.projects.pages import frames_of
from labeling.review.order import Order, in_order
from pipeline.records.schema import Frame, Proposal
from pipeline.workspace.asking import ASKED
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import push
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import fill_clips, propose
from tests.rows import frame, proposal


def of(clip: str, index: int) -> Frame:
    return frame(index, clip_id=clip, frame_id=f"{clip}_{index:04d}")


FRAMES = [of(clip, index) for clip in ("sure", "unsure", "bare") for index in (1, 2)]


def boxes(**more: list[tuple[float, list[str]]]) -> dict[str, list[Proposal]]:
    """Boxes of both frames of each clip: score and categories."""
    return {
        name: [
            proposal(frame_id=name, detector_score=score, categories=categories)
            for score, categories in found
        ]
        for clip, found in more.items()
        for name in (f"{clip}_0001", f"{clip}_0002")
    }


def clips(found: list[Frame]) -> list[str]:
    return list(dict.fromkeys(row.clip_id for row in found))


def test_the_least_sure_come_first_and_a_frame_without_a_box_before_them() -> None:
    shown = boxes(sure=[(0.95, ["dog"])], unsure=[(0.95, ["dog"]), (0.55, ["cat"])])
    found = in_order(FRAMES, shown, "uncertain", 0)
    assert clips(found) == ["bare", "unsure", "sure"]
    assert [row.frame_index for row in found] == [1, 2] * 3, "a clip's frames stay together"


def test_a_box_that_may_be_several_things_is_less_sure() -> None:
    shown = boxes(sure=[(0.9, ["dog"])], unsure=[(0.9, ["dog", "cat"])], bare=[(1.0, ["dog"])])
    assert clips(in_order(FRAMES, shown, "uncertain", 0)) == ["unsure", "sure", "bare"]


def test_the_clip_of_the_rarest_category_comes_first_and_one_without_any_last() -> None:
    shown = boxes(sure=[(0.9, ["dog"])], unsure=[(0.9, ["dog"]), (0.4, ["lion"])])
    shown |= boxes(elsewhere=[(0.9, ["dog"])])
    assert clips(in_order(FRAMES, shown, "rare", 0)) == ["unsure", "sure", "bare"]


def test_what_cannot_be_heard_plays_no_part() -> None:
    shown = boxes(sure=[(0.9, ["dog"])], unsure=[(0.9, ["dog"])], bare=[(0.9, ["dog"])])
    shown["sure_0001"].append(
        proposal(frame_id="sure_0001", detector_score=0.5, categories=["lion"], audible=False)
    )
    drawn: list[Order] = ["uncertain", "rare"]
    for order in drawn:
        same = {tuple(clips(in_order(FRAMES, shown, order, seed))) for seed in range(40)}
        assert len(same) == 6, "all are equal, and each seed draws an order of its own"
    backwards = in_order(FRAMES[::-1], shown, "rare", 3)
    assert clips(backwards) == clips(in_order(FRAMES, shown, "rare", 3)), "and no order of rows"


def test_as_they_come_is_as_they_come() -> None:
    assert in_order(FRAMES, {}, "given", 0) == FRAMES


@pytest.mark.parametrize("task", ["frame", "clip"])
def test_a_push_sends_in_that_order_and_a_release_says_which(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio, task: str
) -> None:
    fill_clips(workspace, 3, frames=2)
    names = list(dict.fromkeys(row.clip_id for row in workspace.rows(Frame)))
    scores = dict(zip(names, (0.9, 0.5, 0.7), strict=True))
    propose(
        workspace,
        [
            row.model_copy(update={"detector_score": scores[row.frame_id.rpartition("_")[0]]})
            for row in workspace.rows(Proposal)
        ],
    )
    push(workspace, server, task=task, order="uncertain")
    sent = [name.rpartition("_")[0] for one in fake.tasks.values() for name in frames_of(one)]
    assert list(dict.fromkeys(sent)) == sorted(scores, key=scores.__getitem__)
    assert provenance(workspace)[ASKED] == {
        "config": {"orders": [{"order": "uncertain", "seed": 0}]}
    }


def test_a_push_as_they_come_leaves_nothing_to_say(
    workspace: Workspace, server: LabelStudio
) -> None:
    fill_clips(workspace, 2, frames=1)
    push(workspace, server)
    assert ASKED not in provenance(workspace)
