"""Masks of a share of the frames are verified by two people, and compared pixel by pixel."""

from __future__ import annotations

import pytest

from labeling.label_studio.client import LabelStudio
from labeling.quality.agreement import agreement
from pipeline.records.schema import Mask, Review
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import MASKS, accepted, painted, pull, push
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import name


@pytest.mark.usefixtures("segmented")
def test_two_people_verify_the_masks_of_a_frame(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    assert push(workspace, server, "masks", overlap=2, share=1).opened == 3
    assert push(workspace, server, "masks", overlap=2, share=1).opened == 0
    task = fake.of_frame(name(), MASKS)
    fake.annotate(task, accepted(task), completed_by=1)
    pull(workspace, server, "masks")
    assert push(workspace, server, "masks", overlap=2, share=1).renewed == 0
    assert task["overlap"] == 2, "still open for the second person"
    fake.annotate(task, painted(task, 20), completed_by=2)
    assert pull(workspace, server, "masks").new == 1
    found = agreement(workspace.rows(Review), 0.5).as_dict()["by_pair"]["1 / 2"]["masks"]
    assert found["compared"] == 1
    assert found["mean_iou"] == pytest.approx(30 / 50), "40 columns, moved by 10"
    assert found["status"] == {"n": 1, "agreed": 1, "kappa": None}
    (mask,) = [row for row in workspace.rows(Mask) if row.verified]
    assert mask.bbox == [20.0, 20.0, 40.0, 40.0], "the newest one stands"
