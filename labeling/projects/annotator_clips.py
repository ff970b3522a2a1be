"""Make what an annotator watches beside a frame: a silent loop, and the moment with its sound.

Both are made once and kept in ``media/clips``; their names hold what decides them.
"""

from __future__ import annotations

import html
import tempfile
from datetime import UTC, datetime, timedelta
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
        video, clip = self._videos.get(frame.video_id), self._clips.get(frame.clip_id)
        if video is None or clip is None:
            return f"its video or clip is gone; run 'avatar-build status' ({frame.clip_id})"
        try:
            frame_bytes(self._storage, frame)
            loop, context = make_clips(self._storage, frame, clip, video, self._config)
        except MediaError as error:
            return str(error)
        shown = clips_html(self._address(loop), self._address(context))
        return self._address(frame.path), shown

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
    loop = _name(frame, video, "loop", config.loop_half_s)
    context = _name(frame, video, "context", config.context_half_s)
    first = max(clip.start_s, frame.time_s - config.context_half_s)
    last = min(clip.end_s, frame.time_s + config.context_half_s)

    def make_loop(source: Path, target: Path) -> None:
        half = config.loop_half_s
        shown = frames_between(source, max(0.0, frame.time_s - half), frame.time_s + half)
        encode(shown, video.fps, target)

    def make_context(source: Path, target: Path) -> None:
        make_clip(Media(source), first, last, target, codecs=BROWSER)

    storage.make_folder(FOLDER)
    for name, make in ((loop, make_loop), (context, make_context)):
        if is_as_made(storage, name):
            continue
        with (
            tempfile.TemporaryDirectory(
                prefix=".making-", dir=storage.local_path(FOLDER)
            ) as folder,
            video_file(storage, video) as source,
        ):
            made = Path(folder) / "made.mp4"
            make(source, made)
            digest = sha256_of(made)
            storage.publish(made, name)
            note_file(storage, name, digest)
    return loop, context


def clips_html(loop: str, context: str) -> str:
    """Write both clips for the annotator's page, from their addresses."""
    loop, context = html.escape(loop), html.escape(context)
    return (
        f'<b>The moment</b> (silent)<video src="{loop}" autoplay loop muted></video>'
        f'<b>Around it</b> (with sound)<video src="{context}" controls></video>'
    )


def _name(frame: Frame, video: Video, kind: str, half_s: float) -> str:
    of = video.sha256[:12]
    return f"{FOLDER}/{frame.frame_id}_{kind}_{round(half_s * 1000):04d}ms_{of}.mp4"
