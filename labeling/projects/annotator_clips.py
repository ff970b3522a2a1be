"""Make what an annotator watches beside a frame: a silent loop, and the moment with its sound.

Beside a clip's frames it is a loop for each, and all of their moments as one clip with its sound.
All are made once and kept in ``media/clips``; their names hold what decides them.
"""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

from pipeline.config import LabelConfig
from pipeline.errors import MediaError
from pipeline.files import sha256_of
from pipeline.media import BROWSER, Media, encode, frames_between, make_clip
from pipeline.records.schema import Clip, Frame, Video
from pipeline.workspace.recorded import frame_bytes, is_as_made, note_file, video_file
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace

FOLDER = "media/clips"

SIGNED_S = 7 * 24 * 3600
"""The seconds a signed address opens a file on an object store: the most that S3 allows."""


class FrameMedia:
    """The pictures and clips annotators see."""

    def __init__(self, workspace: Workspace) -> None:
        self._storage = workspace.storage
        self._config = workspace.config.label
        self.open_until = ""
        """When the addresses end, as ISO 8601 in UTC; empty where they do not."""
        default = LabelConfig.model_fields["media_url"].default
        if self._storage.local is None and self._config.media_url == default:
            until = datetime.now(UTC) + timedelta(seconds=SIGNED_S)
            self.open_until = until.isoformat(timespec="seconds")
        self._videos = {row.video_id: row for row in workspace.rows(Video)}
        self._clips = {row.clip_id: row for row in workspace.rows(Clip)}

    def addresses(self, frame: Frame) -> tuple[str, str] | str:
        """Return the address of the frame's image, and its clips as HTML; or why there are none."""
        found = self._source(frame)
        if isinstance(found, str):
            return found
        video, clip = found
        try:
            frame_bytes(self._storage, frame)
            loop, context = make_clips(self._storage, frame, clip, video, self._config)
        except MediaError as error:
            return str(error)
        shown = clips_html(self._address(loop), self._address(context))
        return self._address(frame.path), shown

    def picture(self, frame: Frame) -> str:
        """Return the address of a frame's image.

        Raises:
            MediaError: the image is not there as made.
        """
        frame_bytes(self._storage, frame)
        return self._address(frame.path)

    def of_clip(self, frames: Sequence[Frame]) -> tuple[dict[str, tuple[str, str] | str], str]:
        """Return what is shown beside a clip's frames.

        Args:
            frames: of one clip.

        Returns:
            By frame, the address of its image and its loop as HTML, or why there are none; and all
            of their moments with sound, as HTML.
        """
        found = self._source(frames[0])
        if isinstance(found, str):
            return {frame.frame_id: found for frame in frames}, ""
        video, clip = found
        half, times = self._config.context_half_s, [frame.time_s for frame in frames]
        first, last = max(clip.start_s, min(times) - half), min(clip.end_s, max(times) + half)
        try:
            around = make_around(self._storage, clip.clip_id, video, first, last)
        except MediaError as error:
            return {frame.frame_id: str(error) for frame in frames}, ""
        pages = {frame.frame_id: self._page(frame, video, first) for frame in frames}
        return pages, context_html(self._address(around), "Around them")

    def _page(self, frame: Frame, video: Video, first_s: float) -> tuple[str, str] | str:
        try:
            frame_bytes(self._storage, frame)
            loop = make_loop(self._storage, frame, video, self._config)
        except MediaError as error:
            return str(error)
        at = f", at {max(0.0, frame.time_s - first_s):.1f} s below"
        return self._address(frame.path), loop_html(self._address(loop), at)

    def _source(self, frame: Frame) -> tuple[Video, Clip] | str:
        video, clip = self._videos.get(frame.video_id), self._clips.get(frame.clip_id)
        if video is None or clip is None:
            return f"its video or clip is gone; run 'avatar-build status' ({frame.clip_id})"
        return video, clip

    def _address(self, path: str) -> str:
        if self.open_until:
            return self._storage.signed(path, SIGNED_S)
        return f"{self._config.media_url}{quote(path)}"


def make_clips(
    storage: Storage, frame: Frame, clip: Clip, video: Video, config: LabelConfig
) -> tuple[str, str]:
    """Make a frame's loop and context clip where they are not there as made, and return the paths.

    Raises:
        MediaError: the video is gone or another one by now, or cannot be read or cut there.
    """
    context = _name(frame, video, "context", config.context_half_s)
    first = max(clip.start_s, frame.time_s - config.context_half_s)
    last = min(clip.end_s, frame.time_s + config.context_half_s)
    loop = make_loop(storage, frame, video, config)
    _make(storage, context, video, partial(_cut, first, last))
    return loop, context


def make_loop(storage: Storage, frame: Frame, video: Video, config: LabelConfig) -> str:
    """Make a frame's loop where it is not there as made, and return its path.

    Raises:
        MediaError: as ``make_clips`` does.
    """
    half = config.loop_half_s
    name = _name(frame, video, "loop", half)

    def make(source: Path, target: Path) -> None:
        shown = frames_between(source, max(0.0, frame.time_s - half), frame.time_s + half)
        encode(shown, video.fps, target)

    _make(storage, name, video, make)
    return name


def make_around(storage: Storage, clip_id: str, video: Video, first_s: float, last_s: float) -> str:
    """Make the part of a clip around its frames where it is not there as made; return its path.

    Raises:
        MediaError: as ``make_clips`` does.
    """
    span = f"{round(first_s * 1000):08d}_{round(last_s * 1000):08d}ms"
    name = f"{FOLDER}/{clip_id}_around_{span}_{video.sha256[:12]}.mp4"
    _make(storage, name, video, partial(_cut, first_s, last_s))
    return name


def _cut(first_s: float, last_s: float, source: Path, target: Path) -> None:
    make_clip(Media(source), first_s, last_s, target, codecs=BROWSER)


def _make(storage: Storage, name: str, video: Video, make: Callable[[Path, Path], object]) -> None:
    """Make a file from a video, unless it is there as made."""
    storage.make_folder(FOLDER)
    if is_as_made(storage, name):
        return
    with (
        tempfile.TemporaryDirectory(prefix=".making-", dir=storage.local_path(FOLDER)) as folder,
        video_file(storage, video) as source,
    ):
        made = Path(folder) / "made.mp4"
        make(source, made)
        digest = sha256_of(made)
        storage.publish(made, name)
        note_file(storage, name, digest)


def clips_html(loop: str, context: str) -> str:
    """Write both clips of a frame for the annotator's page, from their addresses."""
    return loop_html(loop) + context_html(context)


def loop_html(address: str, where: str = "") -> str:
    """Write a frame's loop for the annotator's page."""
    source = html.escape(address)
    return f'<b>The moment</b> (silent){where}<video src="{source}" autoplay loop muted></video>'


def context_html(address: str, title: str = "Around it") -> str:
    """Write a clip with sound for the annotator's page."""
    return f'<b>{title}</b> (with sound)<video src="{html.escape(address)}" controls></video>'


def _name(frame: Frame, video: Video, kind: str, half_s: float) -> str:
    of = video.sha256[:12]
    return f"{FOLDER}/{frame.frame_id}_{kind}_{round(half_s * 1000):04d}ms_{of}.mp4"
