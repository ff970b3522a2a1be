"""Frames sent to annotators, what these answer, and what comes back of it."""

from __future__ import annotations

from typing import Any

from labeling.label_studio import brush
from labeling.label_studio.client import LabelStudio
from labeling.projects.pages import frames_of
from labeling.projects.project_kind import ProjectKind
from labeling.sync import pull as pulling
from labeling.sync import push as pushing
from labeling.sync.pull import Pulled
from labeling.sync.push import Pushed
from pipeline.flow import PROJECTS
from pipeline.workspace.workspace import Workspace
from tests.labeling.fake_label_studio import FakeLabelStudio
from tests.labeling.labelled_workspace import VOCABULARY, name, pixels


def project_kind(name: str) -> ProjectKind:
    """The kind of project of that name."""
    found: ProjectKind = PROJECTS[name].load_project()
    return found


def push(
    workspace: Workspace, server: LabelStudio, kind: str = "boxes", **settings: object
) -> Pushed:
    """As ``label push`` does; under these settings of ``label`` instead of the workspace's."""
    if settings:
        words = [f"label.{key}={value}" for key, value in settings.items()]
        workspace = Workspace(workspace.storage.url, words)
    return pushing.push(workspace, server, project_kind(kind), VOCABULARY)


def pull(workspace: Workspace, server: LabelStudio, kind: str = "boxes") -> Pulled:
    """As ``label pull`` does, less opening the boxes that the masks sent back."""
    return pulling.pull(workspace, server, project_kind(kind), VOCABULARY)


def frame_of(task: dict[str, Any]) -> str:
    """The only frame a task shows."""
    (name,) = frames_of(task)
    return name


def submit(
    server: LabelStudio, task: dict[str, Any], result: list[Any], **more: Any
) -> dict[str, Any]:
    """Answer a task as the owner of the token."""
    body = {"result": result, "lead_time": 3.5, **more}
    return dict(server.call("POST", f"/api/tasks/{task['id']}/annotations/", body))


def accepted(task: dict[str, Any]) -> list[dict[str, Any]]:
    """What an annotator finds on the page and leaves as it is: the prediction."""
    (prediction,) = task["predictions"]
    return [{**item, "origin": "prediction"} for item in prediction["result"]]


def choice(control: str, *values: str, region: str = "x", key: str = "choices") -> Any:
    """What was chosen, or typed under the key ``text``, with one control."""
    return {"id": region, "from_name": control, "type": key, "value": {key: list(values)}}


def scenario(region: str = "p_1", value: str = "Single-sound") -> Any:
    """How a box sounds."""
    return choice("scenario", value, region=region)


VISIBLE = choice("status", "Visible")


def rectangle(
    region: str,
    place: dict[str, float],
    label: str = "dog",
    origin: str = "prediction",
    **changes: Any,
) -> Any:
    """A box in a frame of 320x180; the place is in percent."""
    return {
        "id": region,
        "from_name": "category",
        "to_name": "frame",
        "type": "rectanglelabels",
        "original_width": 320,
        "original_height": 180,
        "origin": origin,
        "value": {**place, "rotation": 0, "rectanglelabels": [label], **changes},
    }


def kept(index: int = 10, label: str = "dog") -> list[Any]:
    """A frame of the labelled workspace whose one proposal was kept."""
    region = f"p_{index}"
    place = {"x": 3.125, "y": 100 / 9, "width": 31.25, "height": 400 / 9}
    return [VISIBLE, rectangle(region, place, label), scenario(region)]


MASKS = 2
"""The project's number: boxes come first."""


def painted(task: dict[str, Any], left: int = 90) -> list[Any]:
    mask, status = accepted(task)
    return [{**mask, "value": {**mask["value"], "rle": brush.encode(pixels(left))}}, status]


def differ(workspace: Workspace, server: LabelStudio, fake: FakeLabelStudio) -> dict[str, Any]:
    """Two people answer two frames, and differ on the first; the second one's annotation."""
    push(workspace, server)
    fake.annotate(fake.of_frame(name(10)), kept(10), completed_by=1)
    second = fake.annotate(fake.of_frame(name(10)), kept(10, "cat"), completed_by=2)
    for person in (1, 2):
        fake.annotate(fake.of_frame(name(11)), kept(11), completed_by=person)
    pull(workspace, server)
    return second
