"""The numbering of a selection's rows, and their way into the release's document."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from exports.release.selection import SelectedFrame, Selection
from pipeline.errors import AvatarBuildError
from pipeline.records.schema import Record
from pipeline.release.document import (
    AnnotationRow,
    CategoryRow,
    Document,
    ImageRow,
    Info,
    LicenseRow,
    Row,
    VideoRow,
)
from pipeline.release.layout import clip_file, image_file


def build_document(selection: Selection, info: Info, taxonomy: Sequence[str] = ()) -> Document:
    """Make the document of a selection: number its rows and put them into COCO's shape.

    Args:
        selection: sorted; the numbers follow its order.
        info: the release's head.
        taxonomy: names that get the first category ids, whether they occur or not, so that ids
            stay the same from release to release. Others follow in alphabetical order.

    Raises:
        AvatarBuildError: two clips of a video start in the same second, so their names collide.
    """
    videos = {item.video.video_id: item.video for item in selection.frames}
    licenses = {name: i for i, name in enumerate(sorted({v.license for v in videos.values()}), 1)}
    categories = _categories(selection, taxonomy)
    _check_clip_names(selection.frames)
    images: list[ImageRow] = []
    annotations: list[AnnotationRow] = []
    for image_id, item in enumerate(selection.frames, 1):
        images.append(_image(image_id, item, licenses[item.video.license]))
        annotations += _annotations(images[-1], item, categories, len(annotations) + 1)
    return Document(
        info=info,
        licenses=[LicenseRow(id=i, name=name, url="") for name, i in licenses.items()],
        videos=[
            VideoRow(id=name, license_id=licenses[video.license], **_shared(video, VideoRow))
            for name, video in sorted(videos.items())
        ],
        images=images,
        categories=[CategoryRow(id=i, name=name) for name, i in categories.items()],
        annotations=annotations,
    )


def _categories(selection: Selection, taxonomy: Sequence[str]) -> dict[str, int]:
    used = {
        chosen.instance.audio_visual_category
        for item in selection.frames
        for chosen in item.instances
    }
    names = [*sorted(set(taxonomy)), *sorted(used - set(taxonomy))]
    return {name: number for number, name in enumerate(names, 1)}


def _check_clip_names(frames: Iterable[SelectedFrame]) -> None:
    owner: dict[str, str] = {}
    for item in frames:
        name = clip_file(item.video.video_id, item.clip.start_s)
        if owner.setdefault(name, item.clip.clip_id) != item.clip.clip_id:
            raise AvatarBuildError(
                f"tables/clips: {owner[name]} and {item.clip.clip_id} would both be {name}: the "
                "authors' layout names clips by whole seconds. Sample with clips apart."
            )


def _image(image_id: int, item: SelectedFrame, license_id: int) -> ImageRow:
    frame, clip = item.frame, item.clip
    return ImageRow(
        id=image_id,
        file_name=image_file(frame.video_id, clip.start_s, frame.frame_index, frame.path),
        license=license_id,
        clip_start_s=clip.start_s,
        clip_end_s=clip.end_s,
        clip_file=clip_file(frame.video_id, clip.start_s),
        off_screen=item.off_screen,
        off_screen_category=item.off_screen_category,
        verified=item.verified,
        missing_instances=item.missing_instances,
        review_ids=list(item.review_ids),
        recorded_sha256=frame.sha256,
        clip_rms_per_second=list(clip.rms_per_second),
        **_shared(frame, ImageRow),
    )


def _annotations(
    image: ImageRow, item: SelectedFrame, categories: Mapping[str, int], first: int
) -> Iterator[AnnotationRow]:
    for number, chosen in enumerate(item.instances, first):
        instance, mask = chosen.instance, chosen.mask
        yield AnnotationRow.in_image(
            image,
            mask.rle,
            id=number,
            category_id=categories[instance.audio_visual_category],
            annotated_bbox=list(instance.bbox),
            mask_source=mask.source,
            mask_model_digest=mask.model_digest,
            mask_predicted_iou=mask.predicted_iou,
            **_shared(instance, AnnotationRow, but={"bbox"})
            | {"verified": chosen.verified, "review_ids": sorted(instance.review_ids)},
        )


def _shared(record: Record, row: type[Row], but: Collection[str] = ()) -> dict[str, Any]:
    """Return the columns that a row of the release has from a row of the tables as they are."""
    return record.model_dump(include=set(row.model_fields) - set(but))
