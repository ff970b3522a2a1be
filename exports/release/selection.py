"""The choice of what goes into a release: frames, instances, and why the others do not.

Nothing is lost in silence: every frame, instance and mask of the tables is either selected or named
in ``left_out`` with its reason. Tables that contradict each other are refused. Media that is gone
or another one by now takes out what was made of it; the release is where a wrong file would be
passed on, so here a video is hashed whatever its file looks like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import AvatarBuildError, InputError, MediaError
from pipeline.records import rle
from pipeline.records.reviews import by_frame, counting_reviews
from pipeline.records.schema import (
    Clip,
    Frame,
    Instance,
    Mask,
    Record,
    Review,
    Video,
    check_video_id,
)
from pipeline.release.document import AnnotationRow, ImageRow
from pipeline.release.scenario_rules import contradiction
from pipeline.words import counted
from pipeline.workspace.recorded import MISSING, frame_bytes, video_file
from pipeline.workspace.storage import Storage

RecordT = TypeVar("RecordT", bound=Record)

_OF_VIDEOS = ("videos", "clips", "frames")
"""Tables whose rows name their video; those of the others name their frame."""


@dataclass(frozen=True)
class ReleaseTables:
    """The rows a release is made of, in any order."""

    videos: Sequence[Video] = ()
    clips: Sequence[Clip] = ()
    frames: Sequence[Frame] = ()
    reviews: Sequence[Review] = ()
    instances: Sequence[Instance] = ()
    masks: Sequence[Mask] = ()


@dataclass(frozen=True)
class LeftOut:
    """A row of the tables that the release does not have, and why."""

    kind: str
    """``video``, ``frame``, ``instance`` or ``mask``."""
    id: str
    frame_id: str
    reason: str
    detail: str = ""
    """The sentence for people, where the reason alone does not tell enough."""


@dataclass(frozen=True)
class SelectedInstance:
    """An instance with its mask."""

    instance: Instance
    mask: Mask

    @property
    def verified(self) -> bool:
        """True where a person decided both the box and the mask."""
        return self.instance.verified and self.mask.verified


@dataclass(frozen=True)
class SelectedFrame:
    """A labelled frame: with instances, or off-screen with none."""

    frame: Frame
    clip: Clip
    video: Video
    instances: tuple[SelectedInstance, ...]
    review_ids: tuple[str, ...]
    off_screen: bool
    off_screen_category: str | None
    verified: bool
    missing_instances: int
    """Instances of this frame that were left out: its ground truth lacks them."""


@dataclass(frozen=True)
class Selection:
    """A release's content, sorted by video, time and id."""

    frames: tuple[SelectedFrame, ...]
    left_out: tuple[LeftOut, ...]


def tally(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """Count the rows that were left out, by ``kind reason``."""
    return dict(sorted(Counter(f"{item.kind} {item.reason}" for item in left_out).items()))


def reasons_of(tallied: Mapping[str, int]) -> str:
    """Return what was left out, for people.

    >>> reasons_of({"frame no_instance_released": 2, "video taken_down": 1})
    '2 frames (no_instance_released), 1 video (taken_down)'
    """
    parts = []
    for name, rows in tallied.items():
        kind, _, reason = name.partition(" ")
        parts.append(f"{counted(rows, kind)} ({reason})")
    return ", ".join(parts)


@dataclass
class _Index:
    """The tables by id, checked against each other."""

    videos: dict[str, Video]
    clips: dict[str, Clip]
    frames: dict[str, Frame]
    masks: dict[str, Mask]
    reviews: dict[str, list[Review]]
    instances: dict[str, list[Instance]]


def select(
    tables: ReleaseTables, *, unverified: bool, taken_down: Collection[str] = ()
) -> Selection:
    """Choose the frames and instances of a release.

    An instance is verified when a person decided its box and its mask; an off-screen frame when a
    person said so. Which reviews of a frame count: ``pipeline.records.reviews``.

    Args:
        tables: all rows, in any order.
        unverified: take what no person has decided too.
        taken_down: videos that are left out with all their rows, as if they had never been there.

    Raises:
        AvatarBuildError: naming the row that contradicts another table.
    """
    left_out = [
        LeftOut("video", video.video_id, "", "taken_down")
        for video in tables.videos
        if video.video_id in taken_down
    ]
    tables = _without(tables, {item.id for item in left_out})
    index = _index(tables)
    frames: list[SelectedFrame] = []
    known = {instance.instance_id for instance in tables.instances}
    for mask in tables.masks:
        if mask.instance_id not in known:
            left_out.append(LeftOut("mask", mask.instance_id, mask.frame_id, "no_instance"))
    for frame in index.frames.values():
        selected, reasons = _select_frame(frame, index, unverified=unverified)
        left_out += reasons
        if selected is not None:
            frames.append(selected)
    frames.sort(key=lambda item: (item.video.video_id, item.frame.time_s, item.frame.frame_id))
    return Selection(tuple(frames), in_order(left_out))


def without_lost(
    selection: Selection, storage: Storage, *, media: bool
) -> tuple[Selection, list[str]]:
    """Return the selection less the frames whose image or video is not the recorded one.

    Args:
        selection: of the tables.
        storage: the workspace.
        media: whether media is shipped; if not, videos are not needed, and images may be missing.

    Returns:
        What is left, and a line about each file that is lost.
    """
    videos: dict[str, MediaError] = {}
    frames: dict[str, MediaError] = {}
    rows = {item.video.video_id: item.video for item in selection.frames} if media else {}
    for video_id, video in rows.items():
        try:
            with video_file(storage, video, always_hash=True):
                pass
        except MediaError as error:
            videos[video_id] = error
    for item in selection.frames:
        try:
            if item.video.video_id not in videos:
                frame_bytes(storage, item.frame)
        except MediaError as error:
            if error.kind != MISSING or media:
                frames[item.frame.frame_id] = error
    said = [error.detail for error in (*videos.values(), *frames.values())]
    return leave_out(selection, videos, frames), said


def leave_out(
    selection: Selection, videos: Mapping[str, MediaError], frames: Mapping[str, MediaError]
) -> Selection:
    """Return the selection less some videos with all their frames, and some frames, by ids."""
    left_out = [*selection.left_out, *_lost_videos(videos)]
    kept = []
    for item in selection.frames:
        name = item.frame.frame_id
        lost_video = videos.get(item.video.video_id)
        why = _with_video(lost_video) if lost_video else frames.get(name)
        if why is None:
            kept.append(item)
        else:
            things = [chosen.instance.instance_id for chosen in item.instances]
            left_out += _lost_frame(name, things, why)
    return Selection(tuple(kept), in_order(left_out))


def unfit_rows(
    images: Iterable[tuple[ImageRow, Sequence[AnnotationRow]]], videos: Mapping[str, MediaError]
) -> list[LeftOut]:
    """Return what some videos take along that turned out unfit after all was selected."""
    left_out = list(_lost_videos(videos))
    for image, rows in images if videos else ():
        if why := videos.get(image.video_id):
            things = [row.instance_id for row in rows]
            left_out += _lost_frame(image.frame_id, things, _with_video(why))
    return left_out


def _lost_videos(videos: Mapping[str, MediaError]) -> Iterator[LeftOut]:
    for name, why in videos.items():
        yield LeftOut("video", name, "", why.kind, why.detail)


def _with_video(why: MediaError) -> MediaError:
    return MediaError(f"video_{why.kind}", "")  # the video's own row tells more


def _lost_frame(name: str, things: Iterable[str], why: MediaError) -> Iterator[LeftOut]:
    yield LeftOut("frame", name, name, why.kind, why.detail)
    for thing in things:
        yield LeftOut("instance", thing, name, why.kind)


def in_order(left_out: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """Return what was left out, by frame, kind and id."""
    return tuple(sorted(left_out, key=lambda row: (row.frame_id, row.kind, row.id)))


def _without(tables: ReleaseTables, videos: set[str]) -> ReleaseTables:
    """Return the tables less some videos and all that came from them."""
    if not videos:
        return tables
    gone = {frame.frame_id for frame in tables.frames if frame.video_id in videos}
    kept = {}
    for name, rows in vars(tables).items():
        column, left_out = ("video_id", videos) if name in _OF_VIDEOS else ("frame_id", gone)
        kept[name] = [row for row in rows if getattr(row, column) not in left_out]
    return ReleaseTables(**kept)


def _select_frame(
    frame: Frame, index: _Index, *, unverified: bool
) -> tuple[SelectedFrame | None, list[LeftOut]]:
    instances = index.instances.get(frame.frame_id, [])
    reviews = index.reviews.get(frame.frame_id, [])
    boxes, masks = counting_reviews(reviews, "boxes"), counting_reviews(reviews, "masks")
    reason = _frame_reason(boxes, masks, instances)
    off_screen = reason is None and bool(boxes) and boxes[0].decision == "off_screen"
    verified = all(review.verified for review in boxes)
    if off_screen and not verified and not unverified:
        reason = "not_verified"
    chosen: list[SelectedInstance] = []
    left_out: list[LeftOut] = []
    for instance in instances:
        mask = index.masks.get(instance.instance_id)
        why = reason or ("frame_off_screen" if off_screen else None)
        why = why or _instance_reason(instance, mask, boxes, unverified=unverified)
        if why is not None:
            left_out.append(LeftOut("instance", instance.instance_id, frame.frame_id, why))
        else:
            assert mask is not None
            _check_mask(mask, frame)
            chosen.append(SelectedInstance(instance, mask))
    # A frame of which nothing is left would call its sound silent.
    if not off_screen and not chosen:
        reason = reason or "no_instance_released"
    sounding = [
        (item.instance.audio_visual_category, item.instance.scenario, item.mask.area)
        for item in chosen
    ]
    if contradiction(sounding, frame.width * frame.height) is not None:
        reason = "scenarios_contradict"
        left_out += [
            LeftOut("instance", item.instance.instance_id, frame.frame_id, reason)
            for item in chosen
        ]
    if reason is not None:
        return None, [LeftOut("frame", frame.frame_id, frame.frame_id, reason), *left_out]
    chosen.sort(key=lambda item: item.instance.instance_id)
    # What a later review replaced, or an off-screen frame denies, the ground truth does not lack.
    missing = sum(item.reason not in ("superseded", "frame_off_screen") for item in left_out)
    clip = index.clips[frame.clip_id]
    selected = SelectedFrame(
        frame=frame,
        clip=clip,
        video=index.videos[clip.video_id],
        instances=tuple(chosen),
        review_ids=tuple(sorted(review.review_id for review in (*boxes, *masks))),
        off_screen=off_screen,
        off_screen_category=boxes[0].off_screen_category if off_screen else None,
        verified=verified if off_screen else all(item.verified for item in chosen),
        missing_instances=missing,
    )
    return selected, left_out


def _frame_reason(
    boxes: list[Review], masks: list[Review], instances: list[Instance]
) -> str | None:
    """Return why a frame as a whole is left out, or none."""
    if not boxes and not instances:
        return "not_labelled"
    decisions = {
        (review.decision, (review.off_screen_category or "").casefold()) for review in boxes
    }
    if len(decisions) > 1 or len({review.decision for review in masks}) > 1:
        return "reviews_disagree"
    if boxes and boxes[0].decision in ("rejected", "back_to_boxes"):
        return boxes[0].decision
    if masks and masks[0].decision != "labelled":
        return f"masks_{masks[0].decision}"
    return None


def _instance_reason(
    instance: Instance, mask: Mask | None, boxes: list[Review], *, unverified: bool
) -> str | None:
    current = {review.review_id for review in boxes}
    if current and instance.review_ids and current.isdisjoint(instance.review_ids):
        return "superseded"
    if not unverified and not instance.verified:
        return "not_verified"
    if mask is None:
        return "no_mask"
    if not unverified and not mask.verified:
        return "mask_not_verified"
    return None


def _index(tables: ReleaseTables) -> _Index:
    index = _Index(
        videos=_by_id(tables.videos),
        clips=_by_id(tables.clips),
        frames=_by_id(tables.frames),
        masks=_by_id(tables.masks),
        reviews=by_frame(_by_id(tables.reviews).values()),
        instances=by_frame(_by_id(tables.instances).values()),
    )
    for video in index.videos:
        check_video_id(video)
    for clip in index.clips.values():
        _known(clip, "video_id", index.videos)
    for frame in index.frames.values():
        _known(frame, "clip_id", index.clips)
        if index.clips[frame.clip_id].video_id != frame.video_id:
            raise _contradiction(frame, f"video_id {frame.video_id} is not its clip's")
    for instance in tables.instances:
        _known(instance, "frame_id", index.frames)
        mask = index.masks.get(instance.instance_id)
        if mask is not None and mask.frame_id != instance.frame_id:
            raise _contradiction(mask, f"frame_id {mask.frame_id} is not its instance's")
    for review in tables.reviews:
        _known(review, "frame_id", index.frames)
    return index


def _by_id(rows: Iterable[RecordT]) -> dict[str, RecordT]:
    found: dict[str, RecordT] = {}
    for row in rows:
        if row.id in found:
            raise _contradiction(row, "is there twice")
        found[row.id] = row
    return found


def _known(row: Record, column: str, known: dict[str, RecordT]) -> None:
    value = getattr(row, column)
    if value not in known:
        raise _contradiction(row, f"{column} {value} is in no table")


def _check_mask(mask: Mask, frame: Frame) -> None:
    height, width = mask.rle.size
    if (height, width) != (frame.height, frame.width):
        raise _contradiction(
            mask, f"is {width}x{height}, its frame is {frame.width}x{frame.height}"
        )
    try:
        area, bbox = rle.measure(mask.rle)
    except InputError as error:
        raise _contradiction(mask, f"cannot be decoded ({error.detail})") from error
    if (mask.area, list(mask.bbox)) != (area, bbox):
        raise _contradiction(mask, "has an area or bbox that is not its RLE's")


def _contradiction(row: Record, what: str) -> AvatarBuildError:
    return AvatarBuildError(
        f"tables/{row.table}: {row.key} {row.id[:80]!r} {what}. The tables come from different "
        "runs; 'avatar-build status' shows which stage to run again."
    )
