"""A kind of project is one object; pushing and pulling know no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from labeling.label_studio.client import LabelStudio
from labeling.projects.box_project import BOXES, BoxQuestions
from labeling.projects.project_kind import ProjectKind, project_kinds
from labeling.sync.pull import pull
from labeling.sync.push import push
from pipeline.records.schema import Frame, Instance, Review
from pipeline.run.stage import StageSpec
from pipeline.workspace.workspace import Workspace
from tests.labeling.exchange import kept
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import VOCABULARY, name

pytestmark = pytest.mark.usefixtures("filled")


class FirstFrame(BoxQuestions):
    """Asks about one frame alone, and says so."""

    def frames(self) -> list[Frame]:
        return super().frames()[:1]

    def notes(self) -> list[str]:
        return ["One frame is enough."]


def first_frame(workspace: Workspace, vocabulary: Sequence[str]) -> FirstFrame:
    return FirstFrame(workspace, vocabulary)


FIRST = replace(
    BOXES,
    name="first",
    description="Look at the first frame.",
    step=StageSpec(name="pull-first", version=1, reads="", writes=("reviews",)),
    questions=first_frame,
)


def test_a_new_kind_is_pushed_and_pulled_like_ours(
    workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio
) -> None:
    pushed = push(workspace, server, FIRST, VOCABULARY)
    assert (pushed.new, pushed.notes) == (1, ["One frame is enough."])
    assert pushed.project.title.endswith(" first")
    fake.annotate(fake.of_frame(name(10)), kept(10))
    assert pull(workspace, server, FIRST, VOCABULARY).new == 1
    assert [row.frame_id for row in workspace.rows(Review)] == [name(10)]
    assert [row.frame_id for row in workspace.rows(Instance)] == [name(10)], "derived at once"
    assert len(workspace.ledger("pull-first").commits()) == 1
    assert push(workspace, server, FIRST, VOCABULARY).frames == 1, "the next one"


@pytest.mark.parametrize("trait", ["name", "description", "step"])
def test_no_two_kinds_share_what_tells_them_apart(trait: str) -> None:
    kinds: list[ProjectKind] = project_kinds()
    found: list[Any] = [getattr(kind, trait) for kind in kinds]
    assert len({str(value) for value in found}) == len(kinds)
