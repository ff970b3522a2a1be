"""Our projects at a server: found by title, made when missing, refused when they are others'."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labeling.label_studio.client import LabelStudio, read_token
from labeling.label_studio.shapes import Named, read
from labeling.projects.box_tasks import PREDICTED
from labeling.projects.labeling_config import canonical, layout
from pipeline.errors import UsageError
from pipeline.records.schema import digest_of
from pipeline.words import command_line
from pipeline.workspace.workspace import Workspace

FOLDER = "label-studio"
"""Of the server we run for a workspace: its address, token and data."""

ProjectKind = Literal["boxes", "masks", "adjudication"]
"""What people are asked; each has a project of its own. An adjudicator's answer is one of boxes."""

_WHAT: dict[ProjectKind, str] = {
    "boxes": "Which boxes make the sound: keep, move, delete or draw them; then, how they sound.",
    "masks": "Which pixels are each thing's: accept, paint, or prompt with points and boxes.",
    "adjudication": "Settle what others differ on: their boxes are shown together. Yours decide.",
}


@dataclass(frozen=True)
class Project:
    """A project of ours."""

    number: int
    title: str
    key: str
    """Names it for good: numbers are used again after a server lost its data."""

    def name_of(self, annotation: object) -> str:
        """What a review says it came from.

        Numbers are used again after a deletion; the time they were made is not.

        Raises:
            InputError: ``unreadable_answer`` when it has no number or time.
        """
        named = read(Named, annotation, "an answer")
        return f"{self.key}/{named.id}@{named.created_at}"


def connect(workspace: Workspace) -> LabelStudio:
    """The server the settings name, else the one ``label serve`` runs for this workspace.

    Raises:
        UsageError: there is none, its address is wrong or its token refused.
    """
    config = workspace.config.label
    home = workspace.storage.path(FOLDER)
    url = config.url
    if not url:
        try:
            url = str(json.loads((home / "server.json").read_text(encoding="utf-8"))["url"])
        except FileNotFoundError as error:
            raise UsageError(
                "No Label Studio is known here. Name yours with --url, or start one in another"
                f" terminal: {command_line('label', 'serve', '--workspace', workspace.storage.url)}"
            ) from error
    token = read_token(Path(config.token_file) if config.token_file else home / "token")
    server = LabelStudio(url, token)
    server.check()
    return server


def find_project(server: LabelStudio, prefix: str, kind: ProjectKind) -> Project | None:
    """The project of this kind, if it is there.

    Raises:
        UsageError: its labeling config is not ours, or two projects have the title.
    """
    title = f"{prefix} {kind}"
    found = server.find_projects(title)
    if not found:
        return None
    if len(found) > 1:
        numbers = " and ".join(str(project["id"]) for project in found)
        raise UsageError(
            f"{server.url}: projects {numbers} are both called {title!r}. Rename one of them, or"
            " name others with --set label.project=NAME."
        )
    project = found[0]
    if canonical(project["label_config"]) != canonical(layout(kind).xml):
        raise UsageError(
            f"{server.url}: project {project['id']} {title!r} has another labeling config than this"
            " version of avatar-build. Start a new one with --set label.project=NAME."
        )
    return _project(project)


def open_project(server: LabelStudio, prefix: str, kind: ProjectKind) -> Project:
    """The project of this kind, made when it is missing."""
    found = find_project(server, prefix, kind)
    if found is not None:
        return found
    made = server.create_project(
        title=f"{prefix} {kind}",
        description=_WHAT[kind],
        label_config=layout(kind).xml,
        show_collab_predictions=True,  # a task opens with its proposals
        model_version=PREDICTED,
        show_skip_button=True,
        sampling="Sequential sampling",
        maximum_annotations=1,
    )
    return _project(made)


def _project(raw: dict[str, Any]) -> Project:
    key = digest_of([raw["id"], raw["created_at"]])[:8]
    return Project(int(raw["id"]), str(raw["title"]), key)
