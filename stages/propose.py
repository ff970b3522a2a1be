"""Draw boxes around what may sound in each frame, guided by what is heard (paper 3.1.3).

Reads ``frames``, writes ``proposals``. A box is audible when one of its categories is active in
the clip's sounds. A box that is not is kept and marked, so that another threshold needs no new
inference and an annotator can bring it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import cv2

from pipeline.config import ProposeConfig
from pipeline.geometry import clip, nms
from pipeline.schema import Frame, Proposal, Sounds, content_id
from pipeline.stage import Drop, Fail, Ok, Outcome, Stage, StageSpec, WorkerContext
from stages.backends.interfaces import DETECTORS, Detection, Detector, Shot, make_backend
from stages.frame_image import read_frame_image


class ProposeBoxes(Stage[ProposeConfig]):
    """Propose boxes for people to judge."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="propose",
        version=1,
        reads="frames",
        joins=("sounds", "videos"),
        writes=("proposals",),
        rows_per_unit=256,
        batch_size=8,
    )

    def __init__(self, config: ProposeConfig) -> None:
        self.config = config
        self.detector: Detector = make_backend(DETECTORS, config.detector, config)

    def fingerprint(self) -> Mapping[str, str]:
        """The detector's."""
        return self.detector.fingerprint()

    def open(self, ctx: WorkerContext) -> None:
        """Load the detector."""
        cv2.setNumThreads(1)  # processes fill the machine, not threads
        self._storage = ctx.storage
        self._videos = ctx.lookup("videos", "video_id")
        self._sounds = ctx.lookup("sounds", "clip_id")
        self.detector.open(ctx.storage)

    def process(self, rows: Sequence[Frame]) -> Iterator[Outcome]:
        """Yield each frame's boxes; drop a frame without one, or without a target sound."""
        shots: list[Shot] = []
        heard: list[Sounds] = []
        for frame in rows:
            video = self._videos.one(frame.video_id)
            sounds = sounds_of(frame, self._sounds.rows(frame.clip_id))
            if video is None:
                yield Fail(frame.frame_id, "missing_video", f"no video {frame.video_id}", True)
            elif sounds is None:
                detail = f"nobody listened to clip {frame.clip_id}; see the failures of 'hear'"
                yield Fail(frame.frame_id, "missing_sounds", detail, True)
            elif not sounds.categories:
                names = ", ".join(found.name for found in sounds.classes)
                yield Drop(frame.frame_id, "no_target_category", names)
            else:
                shots.append(Shot(frame, read_frame_image(self._storage, frame), video))
                heard.append(sounds)
        for shot, sounds, found in zip(shots, heard, self.detector.detect(shots), strict=True):
            proposals = self._proposals(shot.frame, found, sounds)
            if proposals:
                yield Ok(shot.frame.frame_id, proposals)
            else:
                yield Drop(shot.frame.frame_id, self.detector.nothing)

    def _proposals(
        self, frame: Frame, found: Sequence[Detection], sounds: Sounds
    ) -> list[Proposal]:
        return [
            Proposal(
                proposal_id=content_id("p", frame.frame_id, self.detector.name, d.name, d.bbox),
                frame_id=frame.frame_id,
                bbox=d.bbox,
                detector=self.detector.name,
                detector_class=d.name,
                detector_score=round(d.score, 6),
                **guided(d.categories, sounds),
            )
            for d in chosen(found, frame, self.config)
        ]


def sounds_of(frame: Frame, rows: Sequence[Sounds]) -> Sounds | None:
    """The tags of the frame's own neighbourhood where there are any, else those of its clip."""
    own = [row for row in rows if row.frame_id == frame.frame_id]
    whole = [row for row in rows if row.frame_id is None]
    return next(iter(own + whole), None)


def chosen(found: Sequence[Detection], frame: Frame, config: ProposeConfig) -> list[Detection]:
    """Cut boxes to the frame, leave out too small and too large ones, suppress, best first."""
    inside = []
    for d in found:
        box = clip(d.bbox, frame.width, frame.height)
        share = box[2] * box[3] / (frame.width * frame.height) if box else 0.0
        if box and config.min_area <= share <= config.max_area:
            inside.append(Detection(box, d.name, d.score, d.categories))
    kept = nms([d.bbox for d in inside], [d.score for d in inside], config.nms_iou)
    return [inside[place] for place in kept[: config.max_boxes]]


def guided(categories: Sequence[str] | None, sounds: Sounds) -> dict[str, object]:
    """What the sounds say about a box: ``categories``, ``audible`` and ``audio_score``.

    Args:
        categories: what the box may be; none when it may be anything.
        sounds: what is heard.
    """
    score = {heard.category: heard.score for heard in sounds.categories}
    active = [heard.category for heard in sounds.categories if heard.active]
    possible = list(score) if categories is None else list(categories)
    audible = [category for category in active if category in possible]
    kept = audible or (list(categories) if categories is not None else [])
    return {
        "categories": kept,
        "audible": bool(audible),
        "audio_score": max((score.get(category, 0.0) for category in kept), default=0.0),
    }
