"""The rows of a release on their way from the tables into its document.

The tables come part by part. What is selected of a part goes into files, with numbers that stand
for its categories and licences; when all is known, what is still wanted is numbered for good.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from exports.release.selection import SelectedFrame, Selection
from pipeline.errors import AvatarBuildError
from pipeline.records.schema import Frame, Record, Video
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
from pipeline.release.row_file import RowFile, RowT

Marks = Callable[[Frame, ImageRow], Mapping[str, Any]]
"""A function that tells what is known of an image's files, by column."""


class Draft:
    """The rows of a release that is being made; a few dozen bytes a frame are in memory.

    Args:
        folder: where its files go.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._files: list[RowFile[Any]] = []
        self._videos = self._rows(Video, "drawn-from")
        self._frames = self._rows(Frame, "frames")
        self._images = self._rows(ImageRow, "selected")
        self._annotations = self._rows(AnnotationRow, "things")
        self._video_of = array("L")
        """The place of each image's video."""
        self._things = array("L")
        """The number of annotations of each image."""
        self._last = ""
        self.categories: dict[str, str] = {}
        """An instance of each category."""
        self.unlicensed: list[str] = []
        """Videos without a licence."""
        self.verified = True
        """True where people decided all."""

    def __len__(self) -> int:
        return len(self._images)

    def _rows(self, record: type[RowT], name: str) -> RowFile[RowT]:
        rows = RowFile.new(record, self._folder / name)
        self._files.append(rows)
        return rows

    def close(self) -> None:
        """Close its files; the rows of its document are gone then."""
        for rows in self._files:
            rows.close()

    def add(self, selection: Selection) -> None:
        """Add what was selected of a part of the tables, in order.

        Raises:
            AvatarBuildError: two clips of a video start in the same second, so their names collide.
        """
        _check_clip_names(selection.frames)
        for item in selection.frames:
            if item.video.video_id != self._last:
                self._last = item.video.video_id
                self._videos.append(item.video)
                if not item.video.license:
                    self.unlicensed.append(self._last)
            self._video_of.append(len(self._videos) - 1)
            self._frames.append(item.frame)
            image = _image(len(self._images), item)
            self._images.append(image)
            self._things.append(len(item.instances))
            self.verified &= item.verified
            for row in _annotations(image, item):
                self._annotations.append(row)
                self.categories.setdefault(row.audio_visual_category, row.instance_id)

    def by_video(self) -> Iterator[tuple[Video, list[tuple[Frame, ImageRow]]]]:
        """Yield each video with its frames and their rows."""
        pairs = zip(self._video_of, self._frames, self._images, strict=True)
        videos = iter(self._videos)
        for _, group in groupby(pairs, lambda pair: pair[0]):
            yield next(videos), [(frame, image) for _, frame, image in group]

    def things(self) -> Iterator[tuple[ImageRow, list[AnnotationRow]]]:
        """Yield each image with what sounds in it."""
        rows = iter(self._annotations)
        for image, number in zip(self._images, self._things, strict=True):
            yield image, [next(rows) for _ in range(number)]

    def document(
        self, info: Info, taxonomy: Sequence[str], without: Collection[str], marks: Marks
    ) -> Document:
        """Make the document: number the rows and put them into COCO's shape.

        Args:
            info: the release's head.
            taxonomy: names that get the first category ids, whether they occur or not, so that ids
                stay the same from release to release. Others follow in alphabetical order.
            without: videos that are left out after all.
            marks: asked once of every image, in order.
        """
        used, names = set(self.categories), set()
        if without:
            used = {
                row.audio_visual_category
                for image, rows in self.things()
                if image.video_id not in without
                for row in rows
            }
        for video in self._videos:
            if video.video_id not in without:
                names.add(video.license)
        licenses = {name: number for number, name in enumerate(sorted(names), 1)}
        categories = _categories(used, taxonomy)
        videos = self._rows(VideoRow, "videos")
        for video in self._videos:
            if video.video_id not in without:
                shared = _shared(video, VideoRow)
                number = licenses[video.license]
                videos.append(VideoRow(id=video.video_id, license_id=number, **shared))
        images = self._rows(ImageRow, "images")
        annotations = self._rows(AnnotationRow, "annotations")
        frames = iter(self._frames)
        places = iter(self._video_of)
        last, number = -1, 0
        verified = True
        for image, rows in self.things():
            frame, place = next(frames), next(places)
            if place != last:
                last, number = place, licenses.get(self._videos[place].license, 0)
            if image.video_id in without:
                continue
            verified &= image.verified
            numbered = {"id": len(images) + 1, "license": number}
            images.append(image.model_copy(update=numbered | dict(marks(frame, image))))
            for row in rows:
                update = {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": categories[row.audio_visual_category],
                }
                annotations.append(row.model_copy(update=update))
        return Document.model_construct(
            info=info.model_copy(update={"verified": verified}),
            licenses=[LicenseRow(id=i, name=name, url="") for name, i in licenses.items()],
            videos=videos,
            images=images,
            categories=[CategoryRow(id=i, name=name) for name, i in categories.items()],
            annotations=annotations,
        )


def _categories(used: Collection[str], taxonomy: Sequence[str]) -> dict[str, int]:
    names = [*sorted(set(taxonomy)), *sorted(set(used) - set(taxonomy))]
    return {name: number for number, name in enumerate(names, 1)}


def _check_clip_names(frames: Sequence[SelectedFrame]) -> None:
    owner: dict[str, str] = {}
    for item in frames:
        name = clip_file(item.video.video_id, item.clip.start_s)
        if owner.setdefault(name, item.clip.clip_id) != item.clip.clip_id:
            raise AvatarBuildError(
                f"tables/clips: {owner[name]} and {item.clip.clip_id} would both be {name}: the "
                "authors' layout names clips by whole seconds. Sample with clips apart."
            )


def _image(image_id: int, item: SelectedFrame) -> ImageRow:
    frame, clip = item.frame, item.clip
    return ImageRow(
        id=image_id,
        file_name=image_file(frame.video_id, clip.start_s, frame.frame_index, frame.path),
        license=0,
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


def _annotations(image: ImageRow, item: SelectedFrame) -> Iterator[AnnotationRow]:
    for chosen in item.instances:
        instance, mask = chosen.instance, chosen.mask
        yield AnnotationRow.in_image(
            image,
            mask.rle,
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
