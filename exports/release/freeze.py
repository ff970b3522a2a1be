"""The freezing of tables into a release: gather, write into a staged folder, publish it.

The folder appears whole or not at all. On an object store, which cannot rename a folder, the
checksums are put last, and a folder without them is no release.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from exports.release.authors_layout import frame_files
from exports.release.build_document import Draft
from exports.release.card import render_card
from exports.release.clip_checks import make_measured, sampling
from exports.release.figures import bar_chart
from exports.release.image_bytes import fingerprint
from exports.release.leak_audit import audit
from exports.release.parquet import write_copies
from exports.release.selection import (
    LeftOut,
    ReleaseTables,
    in_order,
    reasons_of,
    select,
    tally,
    unfit_rows,
    without_lost,
)
from exports.release.statistics import TABLE_A, count
from pipeline.config import ExportConfig, SampleConfig
from pipeline.errors import AvatarBuildError, MediaError, UsageError
from pipeline.files import sha256_of
from pipeline.media import MadeClip, Media
from pipeline.records.schema import Frame
from pipeline.release import layout
from pipeline.release.document import UNVERIFIED_MARK, Document, ImageRow, Info, write_document
from pipeline.release.video_lists import read_list
from pipeline.words import counted
from pipeline.workspace.recorded import MISSING, frame_bytes, video_file
from pipeline.workspace.storage import Storage

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_ABANDONED_S = 24 * 3600
_SHOWN = 10
"""Lost files named on a terminal."""


@dataclass(frozen=True)
class ReleaseSummary:
    """A summary of the release that was written."""

    version: str
    path: str
    """Relative to the workspace."""
    verified: bool
    videos: int
    clips: int
    frames: int
    off_screen_frames: int
    instances: int
    left_out: dict[str, int]
    """Rows of the tables that are not in it, by ``kind reason``."""
    unrecorded: int
    """Frames whose tables had no digest to hold their files against."""
    lost: list[str]
    """Media files that are gone or another one by now, and what to do."""

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` tells."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the summary for people."""
        note = "" if self.verified else ", UNVERIFIED"
        text = (
            f"{self.path}{note}: {counted(self.videos, 'video')}, {counted(self.frames, 'frame')} "
            f"({self.off_screen_frames} off-screen), {counted(self.instances, 'instance')}."
        )
        if self.left_out:
            reasons = reasons_of(self.left_out)
            text += f" Left out: {reasons} (statistics.json names them)."
        if self.unrecorded:
            old = counted(self.unrecorded, "frame")
            text += f" Not compared, for want of a recorded digest: {old}."
        shown = [*self.lost[:_SHOWN], *(["..."] if len(self.lost) > _SHOWN else [])]
        return "\n".join([text, *(f"  left out: {line}" for line in shown)])


def write_release(
    tables: ReleaseTables | Iterable[ReleaseTables],
    storage: Storage,
    version: str,
    *,
    unverified: bool,
    media: bool,
    config: ExportConfig,
    provenance: Mapping[str, Mapping[str, Any]],
    taxonomy: Sequence[str] = (),
    takedowns: Sequence[str] = (),
    leak_lists: Sequence[Path] = (),
) -> ReleaseSummary:
    """Write ``releases/<version>/``. The same inputs give the same bytes.

    Args:
        tables: all rows, in any order; or parts of them, each with all rows of its videos, in the
            order of the videos. Of a large workspace only one part is in memory at a time.
        storage: the workspace; media is read from it, the release written to it.
        version: the release's name; letters, digits and ``. _ + -``.
        unverified: take in what no person decided, and say so everywhere.
        media: ship clips and frames.
        config: title and polygon tolerance.
        provenance: per stage what made its rows, as plain JSON; the card shows ``config`` and
            ``code_revisions``.
        taxonomy: category names whose ids stay the same from release to release.
        takedowns: videos that were taken down: left out, and named in the head and the card.
        leak_lists: training lists the release is held against; see ``exports.release.leak_audit``.

    Raises:
        UsageError: the version is no name for a folder, or there already; a list names no id.
        AvatarBuildError: nothing to release, tables that contradict each other, a category that is
            not in the taxonomy, media missing, or media without a licence in a release that calls
            itself verified.
    """
    target = f"releases/{check_version(version)}"
    if storage.exists(target):
        raise _taken(target)
    for path in leak_lists:
        read_list(path)  # an unreadable one is said before clips are made
    parts = [tables] if isinstance(tables, ReleaseTables) else tables
    left_out: list[LeftOut] = []
    lost: list[str] = []
    labelled = False
    with new_release(storage, target) as folder, closing(Draft(folder.parent / "rows")) as draft:
        for part in parts:
            labelled |= bool(part.instances or part.reviews)
            selection = select(part, unverified=unverified, taken_down=takedowns)
            selection, gone = without_lost(selection, storage, media=media)
            draft.add(selection)
            left_out += selection.left_out
            lost += gone

        # What is wrong with the tables is said before clips are made.
        if not len(draft):
            raise _nothing(labelled, left_out, unverified, lost)
        if taxonomy and not config.free_categories:
            _need_known(draft, set(taxonomy))
        if media and draft.verified and not config.unlicensed:
            _need_licenses(draft.unlicensed)

        # A clip that cannot be made as it was measured takes its video out, so clips come first.
        made: dict[str, MadeClip] | None = None
        unfit: dict[str, MediaError] = {}
        if media:
            made, unfit = _make_clips(draft, sampling(provenance), storage, folder)
            lost += [error.detail for error in unfit.values()]
            left_out += unfit_rows(draft.things(), unfit)
        # Only now is it known which files there are, and what they hold.
        info = Info(
            description=config.title,
            version=version,
            verified=False,
            media=media,
            polygon_tolerance_px=config.polygon_tolerance_px,
            provenance={stage: dict(facts) for stage, facts in sorted(provenance.items())},
            takedowns=sorted(takedowns),
        )
        document = draft.document(
            info, taxonomy, unfit, lambda frame, image: _marks(frame, image, storage, folder, made)
        )
        if not len(document.images):
            raise _nothing(labelled, left_out, unverified, lost)
        info = document.info
        if media and info.verified and not config.unlicensed:
            _need_licenses([video.video_id for video in document.videos if not video.license])
        update: dict[str, Any] = {"leaks": [audit(document, path) for path in leak_lists]}
        if not info.verified:
            update["version"] = unverified_version(version)
        document = document.model_copy(update={"info": info.model_copy(update=update)})
        summary = write_annotations(document, in_order(left_out), folder, target)
    return replace(summary, lost=lost)


def check_version(version: str) -> str:
    """Return ``version`` if it can name a folder.

    Raises:
        UsageError: otherwise.

    >>> check_version("1.0-rc1")
    '1.0-rc1'
    """
    if not _VERSION.fullmatch(version):
        raise UsageError(
            f"--version {version[:80]!r}: begin with a letter or digit, then letters, digits and "
            "'. _ + -', 64 at most, such as 1.0."
        )
    return version


def unverified_version(version: str) -> str:
    """Return a version that says itself that people have not checked everything.

    >>> unverified_version("0.1"), unverified_version("1.0+lab")
    ('0.1+unverified', '1.0+lab.unverified')
    """
    if version.endswith(UNVERIFIED_MARK):
        return version
    return f"{version}{'.' if '+' in version else '+'}{UNVERIFIED_MARK}"


def write_checksums(folder: Path) -> None:
    """Write ``CHECKSUMS.sha256`` over every other file, for ``sha256sum -c``."""
    files = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in files if name != layout.CHECKSUMS]
    (folder / layout.CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _taken(target: str) -> UsageError:
    return UsageError(f"{target} exists, and a release never changes. Choose another --version.")


def _nothing(
    labelled: bool, left_out: Sequence[LeftOut], unverified: bool, lost: Sequence[str]
) -> AvatarBuildError:
    if not labelled:
        return AvatarBuildError(
            "Nothing to release: no frame is labelled. Label frames first ('avatar-build label "
            "push', or 'label accept' without people)."
        )
    reasons = reasons_of(tally(left_out))
    if lost:
        return AvatarBuildError(f"Nothing to release: {reasons}. {lost[0]}")
    hint = (
        "'avatar-build why ID' shows one of them."
        if unverified
        else "Have people verify boxes and masks ('avatar-build label push'), or pass --unverified."
    )
    what = "Nothing" if unverified else "Nothing verified"
    return AvatarBuildError(f"{what} to release ({reasons}). {hint}")


def _need_known(draft: Draft, taxonomy: set[str]) -> None:
    """Refuse categories outside the taxonomy: names people typed are most often misspelt."""
    for category, instance_id in draft.categories.items():
        if category not in taxonomy:
            raise AvatarBuildError(
                f"tables/instances: instance_id {instance_id!r}: category "
                f"{category[:80]!r} is not in the taxonomy. Correct the label, add it to the "
                "file hear.taxonomy names, or take free text with "
                "--set export.free_categories=true."
            )


def _need_licenses(bare: Sequence[str]) -> None:
    if bare:
        raise AvatarBuildError(
            f"tables/videos: video_id {bare[0]!r} states no licence ({len(bare)} such videos), and "
            "media may not be passed on without. Release --ids-only, drop them at the download "
            "with --require-license, or answer for it yourself with --set export.unlicensed=true."
        )


def write_annotations(
    document: Document, left_out: Sequence[LeftOut], folder: Path, path: str
) -> ReleaseSummary:
    """Write everything that follows from the document, checksums and media apart.

    Args:
        document: the release.
        left_out: what it does not have.
        folder: where it is made.
        path: where it will be.
    """
    counts = count(document)
    write_document(document, folder)
    write_copies(document, folder)
    for name, data in frame_files(document):
        write_file(folder / name, data)
    statistics = {**counts, "left_out": [asdict(item) for item in left_out]}
    text = json.dumps(statistics, indent=1, ensure_ascii=False)
    write_file(folder / layout.STATISTICS, f"{text}\n".encode())
    reasons = tally(left_out)
    card = render_card(document, counts, reasons)
    write_file(folder / layout.CARD, card.encode())
    found = [(row["category"], row["instances"]) for row in counts["per_category"]]
    scenarios = [(name, counts["instances"][name]) for name in TABLE_A]
    scenarios.append(("Off-screen (frames)", counts["frames"]["off_screen"]))
    charts = {
        "categories": bar_chart("Instances per category", [bar for bar in found if bar[1]]),
        "scenarios": bar_chart("Instances per scenario", scenarios),
    }
    for name, chart in charts.items():
        write_file(folder / layout.FIGURES[name], chart.encode())
    return ReleaseSummary(
        version=document.info.version,
        path=path,
        verified=document.info.verified,
        videos=counts["videos"],
        clips=counts["clips"],
        frames=counts["frames"]["total"],
        off_screen_frames=counts["frames"]["off_screen"],
        instances=counts["instances"]["total"],
        left_out=reasons,
        unrecorded=sum(not image.recorded_sha256 for image in document.images),
        lost=[],
    )


def _marks(
    frame: Frame,
    image: ImageRow,
    storage: Storage,
    folder: Path,
    made: Mapping[str, MadeClip] | None,
) -> dict[str, Any]:
    """Return what is known of an image's files; copy the image, if media is shipped."""
    marks: dict[str, Any] = {}
    if made is not None:
        clip = made[image.clip_id]
        marks = {
            "clip_made": clip.made,
            "clip_first_s": clip.first_s,
            "clip_frames": clip.frames,
        }
    try:
        data = frame_bytes(storage, frame)
    except MediaError as error:
        if made is not None or error.kind != MISSING:
            raise
        return marks
    if made is not None:
        write_file(folder / image.file_name, data)
    return marks | fingerprint(data)


def _make_clips(
    draft: Draft, config: SampleConfig, storage: Storage, folder: Path
) -> tuple[dict[str, MadeClip], dict[str, MediaError]]:
    """Make each clip once; return the made ones by clip, and why there is none by video."""
    made: dict[str, MadeClip] = {}
    unfit: dict[str, MediaError] = {}
    for video, pairs in draft.by_video():
        clips: dict[str, list[tuple[Frame, ImageRow]]] = {}
        for frame, image in pairs:
            clips.setdefault(image.clip_file, []).append((frame, image))
        try:
            for name, own in clips.items():
                rows = [image for _, image in own]
                saved = {image.frame_id: frame_bytes(storage, frame) for frame, image in own}
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with video_file(storage, video) as source:
                    media = Media(source, config.decode_timeout_s)
                    made[rows[0].clip_id] = make_measured(
                        media, folder / name, rows, saved, config, other_source=False
                    )
        except MediaError as error:
            why = error.detail.removeprefix(f"{Path(video.path).name}: ")
            unfit[video.video_id] = MediaError(error.kind, f"{video.path}: {why}")
            for name in clips:
                (folder / name).unlink(missing_ok=True)
    return made, unfit


def write_file(path: Path, data: bytes) -> None:
    """Write a file of a release that is being made."""
    try:
        path.write_bytes(data)
    except FileNotFoundError:  # the first of its folder
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@contextlib.contextmanager
def new_release(storage: Storage, target: str) -> Iterator[Path]:
    """Yield a folder to build in; when the ``with`` ends well it is ``target``, with checksums.

    The folder lies on the release's disk and takes its place whole; on an object store the
    checksums come last. It is gone afterwards whatever happened.
    """
    place = storage.local_path(target)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        for old in place.parent.glob(".*.partial"):
            # A killed export leaves its folder; a day later nobody is writing to it.
            if time.time() - old.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(old, ignore_errors=True)
    name = PurePosixPath(target).name
    with tempfile.TemporaryDirectory(
        prefix=f".{name}.",
        suffix=".partial",
        dir=None if place is None else place.parent,
        ignore_cleanup_errors=True,
    ) as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        yield folder
        write_checksums(folder)
        if place is None:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            files.sort(key=lambda path: path.name == layout.CHECKSUMS)
            for path in files:
                storage.publish(path, f"{target}/{path.relative_to(folder).as_posix()}")
            return
        try:
            folder.rename(place)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another export was faster
                raise _taken(target) from error
            raise
