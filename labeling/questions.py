"""What people are asked: which frames become tasks, and each frame's task from the tables.

One class per kind of project; ``push`` sends what they make.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from labeling.clips import clips_html, make_clips
from labeling.layouts import check_task
from labeling.projects import Kind, Project
from labeling.tasks import box_task
from pipeline.errors import MediaError
from pipeline.schema import Clip, Frame, Proposal, Sounds, Video
from pipeline.workspace import Workspace


class Questions(Protocol):
    """What ``push`` needs to know of a kind of project."""

    @property
    def kind(self) -> Kind:
        """Of the project the tasks go to."""
        ...

    def frames(self) -> list[Frame]:
        """Those that should have a task."""
        ...

    def task(self, frame: Frame) -> dict[str, Any] | str:
        """The frame's checked task, or why there is none."""
        ...

    def is_outdated(self, frame_id: str, task: dict[str, Any], project: Project) -> bool:
        """Whether a frame's task at the server is to be replaced, and nothing is lost by that."""
        ...


class BoxQuestions:
    """Every frame, with its proposals."""

    kind: Kind = "boxes"

    def __init__(self, workspace: Workspace, vocabulary: Sequence[str]) -> None:
        self._frames = workspace.rows(Frame)
        self._media = FrameMedia(workspace)
        self._vocabulary = list(vocabulary)
        self._sounds = {row.id: row for row in workspace.rows(Sounds)}
        self._proposals = _by_frame(workspace.rows(Proposal))

    def frames(self) -> list[Frame]:
        """All of them."""
        return self._frames

    def task(self, frame: Frame) -> dict[str, Any] | str:
        """The frame's checked task, or why there is none."""
        media = self._media.addresses(frame)
        if isinstance(media, str):
            return media
        task = box_task(
            frame,
            self._proposals.get(frame.frame_id, []),
            # What was heard around the frame, else in its whole clip.
            self._sounds.get(frame.frame_id) or self._sounds.get(frame.clip_id),
            self._vocabulary,
            *media,
        )
        check_task(task, self.kind)
        return task

    def is_outdated(self, frame_id: str, task: dict[str, Any], project: Project) -> bool:
        """Never: a frame is asked about once."""
        return False


class FrameMedia:
    """The pictures and clips annotators see."""

    def __init__(self, workspace: Workspace) -> None:
        self._storage = workspace.storage
        self._config = workspace.config.label
        self._videos = {row.video_id: row for row in workspace.rows(Video)}
        self._clips = {row.clip_id: row for row in workspace.rows(Clip)}

    def addresses(self, frame: Frame) -> tuple[str, str] | str:
        """Of the frame's image, and its clips as HTML; or why there are none."""
        video, clip = self._videos.get(frame.video_id), self._clips.get(frame.clip_id)
        if video is None or clip is None:
            return f"its video or clip is gone; run 'avatar-build status' ({frame.clip_id})"
        if not self._storage.exists(frame.path):
            return f"{frame.path} is gone; sample it again"
        try:
            loop, context = make_clips(self._storage, frame, clip, video, self._config)
        except MediaError as error:
            return str(error)
        except FileNotFoundError:
            return f"{video.path} is gone; download it again"
        shown = clips_html(self._address(loop), self._address(context))
        return self._address(frame.path), shown

    def _address(self, path: str) -> str:
        return f"{self._config.media_url}{quote(path)}"


def _by_frame(proposals: Iterable[Proposal]) -> dict[str, list[Proposal]]:
    found: dict[str, list[Proposal]] = {}
    for proposal in proposals:
        found.setdefault(proposal.frame_id, []).append(proposal)
    return found
