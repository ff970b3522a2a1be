"""The restoring of an ids-only release's media, with a ledger of what is gone.

Each frame is cut from the video as it is today and held against its fingerprint: the file's own
digest, or, where libraries encode differently, how it looks. A video with a frame that looks
otherwise is another video by now; none of its media is kept. ``attrition.csv`` says what became of
every video, and when.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from exports.release.clip_checks import NOT_AS_MEASURED, make_measured, sampling
from exports.verify.checks import compare_image
from pipeline.config import SampleConfig
from pipeline.errors import MediaError, UsageError
from pipeline.files import replacing, sha256_of, write_whole
from pipeline.media import Media, frames_between
from pipeline.release.document import ImageRow, VideoRow
from pipeline.release.layout import ATTRITION
from pipeline.release.read import read_document

_REACH_S = 0.02
"""How far from its stated time a frame is looked for: half a frame at 25 frames a second."""


class Attrition(BaseModel):
    """The end of one video's restoring."""

    model_config = ConfigDict(frozen=True)

    video_id: str
    status: str
    """``restored``, ``changed``, or why it cannot be had: ``private``, ``removed``, ..."""
    date: str
    """The day of the latest attempt, ISO 8601."""
    frames: int
    exact: int
    """Frames whose files are the released ones byte for byte."""
    alike: int
    """Frames that look alike; the encode differs."""
    unchecked: int
    """Frames the release has no fingerprint of."""
    same_source: bool
    """The video's file is the one the release was made from."""
    detail: str


Answers = Iterable[tuple[str, Path | None, str, str]]
"""The id of each video, its file or none, and the kind and detail of why there is none."""


def fetch_media(
    folder: Path, fetch: Callable[[Sequence[VideoRow]], Answers], *, today: date
) -> Iterator[Attrition]:
    """Restore what is missing, video by video; the ledger is written after each.

    Args:
        folder: an ids-only release.
        fetch: gets videos again, in any order.
        today: goes into the ledger.

    Raises:
        UsageError: no release, or one that ships its media.
    """
    document = read_document(folder)
    if document.info.media:
        raise UsageError(f"{folder} ships its media: there is nothing to fetch.")
    images: dict[str, list[ImageRow]] = {}
    for image in document.images:
        images.setdefault(image.video_id, []).append(image)
    videos = {video.id: video for video in document.videos}
    ledger = read_ledger(folder)
    missing = [videos[name] for name, rows in images.items() if not _is_whole(folder, rows)]
    config = sampling(document.info.provenance)
    for video_id, file, kind, detail in fetch(missing):
        # The file is not kept: only what was cut from it, and only if all of it looks the same.
        if file is None:
            counts: Counter[str] = Counter()
            status, same = kind, False
        else:
            same = sha256_of(file) == videos[video_id].sha256
            status, counts, detail = _restore(folder, file, images[video_id], config, same=same)
            file.unlink()
        row = Attrition(
            video_id=video_id,
            status=status,
            date=today.isoformat(),
            frames=len(images[video_id]),
            **{state: counts[state] for state in ("exact", "alike", "unchecked")},
            same_source=same,
            detail=" ".join(detail.split())[:300],
        )
        ledger[video_id] = row
        text = io.StringIO()
        writer = csv.DictWriter(text, list(Attrition.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(ledger[name].model_dump() for name in sorted(ledger))
        write_whole(folder / ATTRITION, text.getvalue())
        yield row


def read_ledger(folder: Path) -> dict[str, Attrition]:
    """Return the ledger of earlier attempts, by video; empty when there was none.

    Raises:
        UsageError: the file is not a ledger.
    """
    path = folder / ATTRITION
    if not path.is_file():
        return {}
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    if any(list(row) != list(Attrition.model_fields) for row in rows):
        raise UsageError(f"{path} is not a ledger of fetch-media. Move it away and run again.")
    return {row["video_id"]: Attrition.model_validate(row) for row in rows}


def _restore(
    folder: Path, video: Path, images: Sequence[ImageRow], config: SampleConfig, *, same: bool
) -> tuple[str, Counter[str], str]:
    """Cut the frames and clips of one video: all of them, or none."""
    counts: Counter[str] = Counter()
    pictures: dict[str, bytes | None] = {}
    try:
        with ExitStack() as whole:  # ends with all files in their places, or with none of them
            for image in images:
                data = pictures[image.frame_id] = _frame(video, image, config.jpeg_quality)
                state = compare_image(data, image)
                if state == "other":
                    raise MediaError("changed", f"frame {image.frame_id} looks otherwise")
                counts[state] += 1
                whole.enter_context(replacing(folder / image.file_name)).write_bytes(data)
            for name in dict.fromkeys(image.clip_file for image in images):
                rows = [image for image in images if image.clip_file == name]
                clip = whole.enter_context(replacing(folder / name))
                make_measured(Media(video), clip, rows, pictures, config, other_source=not same)
    except MediaError as error:
        gone = error.kind in ("empty_span", "no_such_frame", NOT_AS_MEASURED)
        return "changed" if gone else error.kind, Counter(), error.detail
    return "restored", counts, ""


def _frame(video: Path, image: ImageRow, jpeg_quality: int) -> bytes:
    """Return the frame shown nearest to the stated time, encoded as the sample stage does."""
    near = frames_between(video, max(0.0, image.time_s - _REACH_S), image.time_s + _REACH_S)
    pictures = sorted(near, key=lambda picture: abs(float(picture.time) - image.time_s))
    if not pictures:
        raise MediaError("no_such_frame", f"no frame at {image.time_s:g} s")
    picture = pictures[0]
    if picture.size != (image.width, image.height):
        detail = f"{picture.size[0]}x{picture.size[1]}, not {image.width}x{image.height}"
        raise MediaError("no_such_frame", detail)
    return picture.encode(image.file_name.rpartition(".")[2], jpeg_quality)


def _is_whole(folder: Path, images: Sequence[ImageRow]) -> bool:
    names = {name for image in images for name in (image.file_name, image.clip_file)}
    return all((folder / name).is_file() for name in names)
