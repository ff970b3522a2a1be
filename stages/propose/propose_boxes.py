"""Draw boxes around what may sound in each frame, guided by what is heard (paper 3.1.3).

Reads ``frames``, writes ``proposals``. A box is audible when one of its categories is active in
the clip's sounds. A box that is not is kept and marked, so that an annotator can bring it back.
What the detector answers is kept beside the frames (``stages.propose.model_outputs``): after a
change of any threshold the stage runs again, but the detector does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.records.schema import Frame, Sounds, Video
from pipeline.run.stage import Drop, Fail, Ok, Outcome, Stage, StageSpec, WorkerContext
from pipeline.workspace.recorded import frame_bytes
from pipeline.workspace.storage import Storage
from stages.backends.device import ahead
from stages.backends.frame_image import decode_frame_image
from stages.backends.interfaces import DETECTORS, Detection, Detector, FrameInput, make_backend
from stages.propose.filtering import categories_of, proposals_of, rounded
from stages.propose.model_outputs import Answers
from stages.taxonomy import load_taxonomy

_DECODED_AHEAD = 16
"""Frames decoded while the detector looks at earlier ones."""


@dataclass(frozen=True)
class _Asked:
    """A frame whose boxes are wanted."""

    frame: Frame
    video: Video
    sounds: Sounds
    data: bytes
    """The image file."""
    of: str
    """Digest of all the detector may look at."""


class ProposeBoxes(Stage[ProposeConfig]):
    """Propose boxes for people to judge."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="propose",
        version=3,
        reads="frames",
        joins=("sounds", "videos"),
        writes=("proposals",),
        rows_per_unit=256,
        batch_size=64,
        row_timeout_s=900,  # a large prompted detector takes minutes for a frame on a busy core
    )

    def __init__(self, config: ProposeConfig) -> None:
        self.config = config
        self.detector: Detector = make_backend(DETECTORS, config.detector, config)

    def fingerprint(self) -> Mapping[str, str]:
        """Return the detector's digests, and the taxonomy's where classes go through it."""
        own = dict(self.detector.fingerprint())
        if self.detector.vocabulary == "none":
            return own
        return own | {"taxonomy": load_taxonomy(self.config.taxonomy).digest}

    def device(self) -> str:
        """Return the settings' device where the detector is a model."""
        return self.config.device if self.detector.has_weights else "cpu"

    def open(self, ctx: WorkerContext) -> None:
        """Load the detector."""
        cv2.setNumThreads(1)  # processes fill the machine, not threads
        self._ctx = ctx
        self._videos = ctx.lookup("videos", "video_id")
        self._sounds = ctx.lookup("sounds", "clip_id")
        taxonomy = load_taxonomy(self.config.taxonomy)
        self._categories = categories_of(self.detector.vocabulary, taxonomy, self.config)
        self._answers = kept_answers(ctx.storage, self.config, self.fingerprint())
        self.detector.open(ctx.storage)

    def process(self, rows: Sequence[Frame]) -> Iterator[Outcome]:
        """Yield each frame's boxes; drop a frame without one, or without a target sound."""
        asked: list[_Asked] = []
        for frame in rows:
            outcome = self._ask(frame)
            if isinstance(outcome, _Asked):
                asked.append(outcome)
            else:
                yield outcome
        found = self._detections(asked)
        for one in asked:
            proposals = proposals_of(
                one.frame,
                found[one.frame.frame_id],
                one.sounds,
                self.detector.name,
                self._categories,
                self.config,
            )
            if proposals:
                yield Ok(one.frame.frame_id, proposals)
            else:
                yield Drop(one.frame.frame_id, self.detector.nothing)

    def _ask(self, frame: Frame) -> _Asked | Outcome:
        video = self._videos.one(frame.video_id)
        sounds = sounds_of(frame, self._sounds.rows(frame.clip_id))
        if video is None:
            return Fail(frame.frame_id, "missing_video", f"no video {frame.video_id}", True)
        if sounds is None:
            detail = f"nobody listened to clip {frame.clip_id}; see the failures of 'hear'"
            return Fail(frame.frame_id, "missing_sounds", detail, True)
        if not sounds.categories:
            names = ", ".join(found.name for found in sounds.classes)
            return Drop(frame.frame_id, "no_target_category", names)
        try:
            data = frame_bytes(self._ctx.storage, frame)
        except InputError as error:
            return Fail(frame.frame_id, error.kind, error.detail, error.retryable)
        of = hashlib.sha256(data + video.sha256.encode()).hexdigest()
        return _Asked(frame, video, sounds, data, of)

    def _detections(self, asked: Sequence[_Asked]) -> dict[str, list[Detection]]:
        """Return the boxes by frame: kept ones, and for the rest what the detector says now."""
        found: dict[str, list[Detection]] = {}
        new = []
        for one in asked:
            answer = self._answers.get(one.frame.frame_id, one.of)
            if answer is None:
                new.append(one)
            else:
                found[one.frame.frame_id] = from_answer(answer)
        if not new:
            return found
        inputs = ahead(new, _frame_input, _DECODED_AHEAD)
        for one, boxes in zip(new, self.detector.detect(inputs), strict=True):
            kept = rounded(boxes, one.frame)
            answer = [[*d.bbox, d.score, d.name] for d in kept]
            self._answers.put(one.frame.frame_id, one.of, answer, self._ctx.scratch)
            found[one.frame.frame_id] = kept
            self._ctx.heartbeat()
        return found


def kept_answers(
    storage: Storage, config: ProposeConfig, fingerprint: Mapping[str, str]
) -> Answers:
    """Return the detector's answers under these settings.

    Args:
        storage: the workspace.
        config: its settings of inference count.
        fingerprint: of the stage; the taxonomy in it plays no part.
    """
    decided_by = {key: getattr(config, key) for key in sorted(config.inference)}
    weights = {key: value for key, value in fingerprint.items() if key != "taxonomy"}
    version = ProposeBoxes.spec.version
    return Answers(storage, "detections", decided_by | weights | {"version": version})


def from_answer(answer: Sequence[Sequence[Any]]) -> list[Detection]:
    """Make boxes of what was kept: x, y, w, h, score, class."""
    return [Detection([x, y, w, h], name, score) for x, y, w, h, score, name in answer]


def _frame_input(one: _Asked) -> FrameInput:
    return FrameInput(one.frame, decode_frame_image(one.data, one.frame), one.video)


def sounds_of(frame: Frame, rows: Sequence[Sounds]) -> Sounds | None:
    """Return the tags of the frame's own neighbourhood if there are any, else its clip's."""
    own = [row for row in rows if row.frame_id == frame.frame_id]
    whole = [row for row in rows if row.frame_id is None]
    return next(iter(own + whole), None)
