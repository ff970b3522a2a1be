"""Masks of a share of the frames are verified by two people, and compared pixel by pixel."""

from __future__ import annotations

import pytest

from labeling.agreement import agreement
from labeling.push import push_boxes, push_masks
from pipeline.schema import Mask, Review
from pipeline.workspace import Workspace
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.label_server import label_server
from tests.labeling.labelled_workspace import VOCABULARY, fill
from tests.labeling.test_masks_push_pull import (
    MASKS,
    accepted,
    api,
    boxes,
    name,
    painted,
    pull,
    segment,
)
from tests.labeling.test_push_pull import kept


def test_two_people_verify_the_masks_of_a_frame(workspace: Workspace) -> None:
    studio = FakeLabelStudio()
    with label_server(studio.answer) as server:
        fill(workspace)
        push_boxes(workspace, api(server), VOCABULARY)
        for index in (10, 11, 12):
            studio.annotate(studio.of_frame(name(index)), kept(index))
        boxes(workspace, server)
        segment(workspace)
        twice = Workspace(workspace.storage.url, ["label.overlap=2", "label.share=1"])
        assert push_masks(twice, api(server)).opened == 3
        assert push_masks(twice, api(server)).opened == 0
        task = studio.of_frame(name(), MASKS)
        studio.annotate(task, accepted(task), completed_by=1)
        pull(workspace, server)
        assert push_masks(twice, api(server)).renewed == 0
        assert task["overlap"] == 2, "still open for the second person"
        studio.annotate(task, painted(task, 20), completed_by=2)
        assert pull(workspace, server).new == 1
    found = agreement(workspace.rows(Review), 0.5).as_dict()["by_pair"]["1 / 2"]["masks"]
    assert found["compared"] == 1
    assert found["mean_iou"] == pytest.approx(30 / 50), "40 columns, moved by 10"
    assert found["status"] == {"n": 1, "agreed": 1, "kappa": None}
    (mask,) = [row for row in workspace.rows(Mask) if row.verified]
    assert mask.bbox == [20.0, 20.0, 40.0, 40.0], "the newest one stands"
