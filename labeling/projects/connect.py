"""Connect to a Label Studio, and find our projects there or make them; refuse other people's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from labeling.label_studio.client import TOKEN_VARIABLE, LabelStudio, read_token
from labeling.projects.labeling_config import PREDICTED, canonical, keys_html, layout
from labeling.projects.project_kind import Project, ProjectKind
from pipeline.errors import UsageError
from pipeline.records.schema import digest_of
from pipeline.words import command_line
from pipeline.workspace.workspace import Workspace

FOLDER = "label-studio"
"""The folder of the server we run for a workspace: its address, token and data."""

_UNREAD = {"asked", "pages", "proposals", "reviews", "things"}
_NAMES = {"clip_id", "frame_id", "frame_ids"}
"""Parts of our tasks' data that no labeling config shows: what a pull reads, and names."""


def connect(workspace: Workspace) -> LabelStudio:
    """Connect to the server of the settings, else the one ``label serve`` runs for the workspace.

    Raises:
        UsageError: there is none, its address is wrong or its token refused.
    """
    config = workspace.config.label
    home = workspace.storage.local_path(FOLDER)
    url = config.url
    if home is None and not (url and (config.token_file or os.environ.get(TOKEN_VARIABLE))):
        raise UsageError(
            f"{workspace.storage.url}: no Label Studio is run for a workspace on an object store."
            f" Name yours with --url, and its token with --token-file or in {TOKEN_VARIABLE}."
        )
    home = home or Path(FOLDER)
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


def find_project(
    server: LabelStudio, prefix: str, kind: ProjectKind, by_clip: bool = False
) -> Project | None:
    """Find the project of a kind; none when it is not there.

    Args:
        server: connected.
        prefix: of the titles of our projects.
        kind: of project.
        by_clip: the one whose tasks are clips.

    Raises:
        UsageError: its labeling config is not ours, or two projects have the title.
    """
    title = f"{prefix} {kind.title(by_clip)}"
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
    config = layout(kind.layout_name(by_clip)).xml
    if canonical(project["label_config"]) != canonical(config):
        raise UsageError(
            f"{server.url}: project {project['id']} {title!r} has another labeling config than this"
            " version of avatar-build. Start a new one with --set label.project=NAME."
        )
    return _project(project, kind, by_clip)


def find_projects(server: LabelStudio, prefix: str, kind: ProjectKind) -> list[Project]:
    """Find the projects of a kind that are there, the one by frame before the one by clip.

    Raises:
        UsageError: as ``find_project`` does.
    """
    found = [find_project(server, prefix, kind, by_clip) for by_clip in (False, True)]
    return [project for project in found if project is not None]


def open_project(
    server: LabelStudio, prefix: str, kind: ProjectKind, by_clip: bool = False
) -> Project:
    """Find the project of a kind, or make it."""
    found = find_project(server, prefix, kind, by_clip)
    if found is not None:
        return found
    made = server.create_project(
        title=f"{prefix} {kind.title(by_clip)}",
        description=kind.description,
        label_config=layout(kind.layout_name(by_clip)).xml,
        expert_instruction=keys_html(kind.layout_name(by_clip)),
        # Whoever starts on clips sees their keys; of frames they are behind a button.
        show_instruction=by_clip,
        show_collab_predictions=True,  # a task opens with its proposals
        model_version=PREDICTED,
        show_skip_button=True,
        sampling="Sequential sampling",
        maximum_annotations=1,
    )
    project = _project(made, kind, by_clip)
    unread = layout(kind.layout_name(by_clip)).variables - {"image"}
    server.hide_columns(project.number, unread | _UNREAD, _NAMES)
    return project


def _project(raw: dict[str, Any], kind: ProjectKind, by_clip: bool) -> Project:
    key = digest_of([raw["id"], raw["created_at"]])[:8]
    of_several = by_clip or kind.asks_beside
    return Project(int(raw["id"]), str(raw["title"]), key, by_clip, of_several)
