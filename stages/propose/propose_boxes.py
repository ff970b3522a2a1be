"""Draw boxes around what may sound in each frame, guided by what is heard (paper 3.1.3).

Reads ``frames``, writes ``proposals``. A box is audible when one of its categories is active in
the clip's sounds. A box that is not is kept and marked, so that an annotator can bring it back.
Boxes of one thing in a clip's frames get one track (``linking``). It follows from the whole clip,
so a frame's row is the same whichever others are done with it: those of its clip that are not are
looked at, too, and one of them that cannot be is as if it had no box.

What the detector answers is kept beside the frames (``stages.propose.model_outputs``): after a
change of any threshold the stage runs again, but the detector does not. Each detector's answers are
kept apart, so one that joins is the only one that looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pipeline.config import ProposeConfig
from pipeline.errors import InputError
from pipeline.records.schema import Frame, Proposal, Sounds, Video
from pipeline.run.stage import Drop, Fail, Ok, Outcome, Stage, StageSpec, WorkerContext
from pipeline.workspace.recorded import frame_bytes, video_file
from pipeline.workspace.storage import Storage
from stages.backends.device import ahead
from stages.backends.frame_image import decode_frame_image
from stages.backends.interfaces import DETECTORS, Detection, Detector, FrameInput, make_backend
from stages.propose.filtering import AudioFilter, check_min_scores, rounded
from stages.propose.linking.linkers import Linker, make_linker
from stages.propose.model_outputs import Answers
from stages.taxonomy import load_taxonomy

_DECODED_AHEAD = 16
"""Frames decoded while the detector looks at earlier ones."""

_REMEMBERED_BYTES = 300_000_000
"""What a model that links boxes remembers of a clip's, on a CPU: 50 of 4 MB, and room."""

_OF_LINKER = "link."
"""The beginning of the names of a linker's digests."""


@dataclass(frozen=True)
class _Asked:
    """A frame whose boxes are wanted."""

    frame: Frame
    video: Video
    sounds: Sounds
    data: bytes
    """The image file."""
    others: list[Frame]
    """The clip's other frames."""

    def of(self, detector: Detector) -> str:
        """Return the digest of all a detector may look at."""
        seen = self.data + self.video.sha256.encode()
        if detector.vocabulary == "none":
            seen += "".join(f" {other.time_s}" for other in self.others).encode()
        return hashlib.sha256(seen).hexdigest()


class ProposeBoxes(Stage[ProposeConfig]):
    """Propose boxes for people to judge."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="propose",
        version=3,
        reads="frames",
        joins=("sounds", "videos"),
        writes=("proposals",),
        rows_per_unit=256,
        rows_worth_a_worker=10,
        batch_size=64,
        row_timeout_s=900,  # a large prompted detector takes minutes for a frame on a busy core
    )

    def __init__(self, config: ProposeConfig) -> None:
        self.config = config
        self.detectors = make_detectors(config)
        self.linker = make_linker(config)

    def fingerprint(self) -> Mapping[str, str]:
        """Return the models' digests, and the taxonomy's where classes go through it."""
        found: dict[str, str] = {}
        for one in self.detectors:
            prefix = _prefix(self.config, one.name)
            found |= {f"{prefix}{key}": digest for key, digest in one.fingerprint().items()}
        taxonomy = load_taxonomy(self.config.taxonomy)
        check_min_scores(self.config, taxonomy)
        named = [one.vocabulary for one in self.detectors if one.vocabulary != "none"]
        for vocabulary in named:
            taxonomy.of_seen(vocabulary)  # a list without its columns stops the run here
        if named:
            found["taxonomy"] = taxonomy.digest
        if self.linker:
            own = self.linker.fingerprint().items()
            found |= {f"{_OF_LINKER}{key}": digest for key, digest in own}
        return found

    def device(self) -> str:
        """Return the settings' device where a detector or the linker is a model."""
        backends = [*self.detectors, *([self.linker] if self.linker else [])]
        return self.config.device if any(one.has_weights for one in backends) else "cpu"

    def memory_bytes(self) -> int:
        """Return the memory a worker takes of a cluster, bytes; 0 asks for none."""
        remembers = self.linker is not None and self.linker.has_weights
        return super().memory_bytes() + (_REMEMBERED_BYTES if remembers else 0)

    def open(self, ctx: WorkerContext) -> None:
        """Load OpenCV, the detectors and the linker."""
        import cv2

        from stages.propose.linking.tracks import linked

        cv2.setNumThreads(1)  # processes fill the machine, not threads
        self._ctx = ctx
        self._linked = linked
        self._videos = ctx.lookup("videos", "video_id")
        self._sounds = ctx.lookup("sounds", "clip_id")
        self._frames = ctx.lookup("frames", "clip_id")
        taxonomy = load_taxonomy(self.config.taxonomy)
        self._filter = AudioFilter(self.detectors, taxonomy, self.config)
        fingerprint = self.fingerprint()
        self._answers = {
            one.name: kept_answers(ctx.storage, self.config, fingerprint, one.name)
            for one in self.detectors
        }
        self._last_tracks: tuple[tuple[str, ...], dict[str, int]] = (), {}
        for one in self.detectors:
            one.open(ctx.storage)
        if self.linker:
            self.linker.open(ctx.storage)

    def process(self, rows: Sequence[Frame]) -> Iterator[Outcome]:
        """Yield each frame's boxes; drop a frame without one, or without a target sound."""
        asked: list[_Asked] = []
        for frame in rows:
            outcome = self._ask(frame)
            if isinstance(outcome, _Asked):
                asked.append(outcome)
            else:
                yield outcome
        found = self._found(asked)
        for clip in dict.fromkeys(one.frame.clip_id for one in asked):
            yield from self._outcomes([one for one in asked if one.frame.clip_id == clip], found)

    def _found(self, asked: Sequence[_Asked]) -> dict[str, list[Proposal]]:
        """Return the boxes by frame; where boxes are linked, of all frames of the clips.

        A detector that reads the video passes over a clip once for frames it is asked for at once.
        """
        if not self.linker:
            return self._proposals(asked)
        whole: list[_Asked] = []
        for clip in dict.fromkeys(one.frame.clip_id for one in asked):
            own = [one for one in asked if one.frame.clip_id == clip]
            here = {one.frame.frame_id for one in own}
            beside = [self._ask(one) for one in own[0].others if one.frame_id not in here]
            whole += own + [one for one in beside if isinstance(one, _Asked)]
        try:
            return self._proposals(whole)
        except InputError:  # of a frame beside these, perhaps, which its own row tells
            return self._proposals(asked)

    def _outcomes(
        self, asked: Sequence[_Asked], found: Mapping[str, list[Proposal]]
    ) -> Iterator[Outcome]:
        """Yield the boxes of frames of one clip, with their tracks."""
        try:
            tracks = self._tracks(asked, found, self.linker) if self.linker else {}
        except InputError as error:
            fault: InputError | None = error
        else:
            fault = None
        for one in asked:
            frame_id = one.frame.frame_id
            proposals = found[frame_id]
            if not proposals:
                yield Drop(frame_id, self.detectors[0].nothing)
            elif fault:
                yield Fail(frame_id, fault.kind, fault.detail, fault.retryable)
            else:
                yield Ok(frame_id, [_in_track(row, tracks) for row in proposals])

    def _tracks(
        self, asked: Sequence[_Asked], found: Mapping[str, list[Proposal]], linker: Linker
    ) -> dict[str, int]:
        """Return the track of each box of a clip, by ``proposal_id``.

        Raises:
            InputError: its video is lost, or cannot be decoded.
        """
        one = asked[0]
        boxes = {
            frame.frame_id: found[frame.frame_id]
            if frame.frame_id in found
            else self._proposals_beside(frame)
            for frame in [one.frame, *one.others]
        }
        key = tuple(row.proposal_id for _, rows in sorted(boxes.items()) for row in rows)
        if self._last_tracks[0] != key:  # a clip's frames come one by one where one is at fault
            frames = [one.frame, *one.others]
            video = video_file(self._ctx.storage, one.video)
            least, beat = self.config.link_iou, self._ctx.heartbeat
            self._last_tracks = key, self._linked(boxes, frames, video, linker, least, beat)
        return self._last_tracks[1]

    def _proposals_beside(self, frame: Frame) -> list[Proposal]:
        """Return the boxes of a frame whose row is none of this batch's; none of one at fault."""
        try:
            asked = self._ask(frame)
            return self._proposals([asked])[frame.frame_id] if isinstance(asked, _Asked) else []
        except InputError:  # which its own row tells
            return []

    def _proposals(self, asked: Sequence[_Asked]) -> dict[str, list[Proposal]]:
        """Return the boxes by frame, as rows without a track."""
        found: dict[str, dict[str, list[Detection]]] = {one.frame.frame_id: {} for one in asked}
        for detector in sorted(self.detectors, key=lambda one: one.vocabulary == "none"):
            wanted = [
                one
                for one in asked
                if self._filter.wants(
                    detector.name, one.frame, found[one.frame.frame_id], one.sounds
                )
            ]
            for frame_id, boxes in self._detections(detector, wanted).items():
                found[frame_id][detector.name] = boxes
        return {
            one.frame.frame_id: self._filter.proposals(
                one.frame, found[one.frame.frame_id], one.sounds
            )
            for one in asked
        }

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
        of_clip = self._frames.rows(frame.clip_id)
        others = [other for other in of_clip if other.frame_id != frame.frame_id]
        return _Asked(frame, video, sounds, data, others)

    def _detections(
        self, detector: Detector, asked: Sequence[_Asked]
    ) -> dict[str, list[Detection]]:
        """Return the boxes by frame: kept ones, and for the rest what the detector says now."""
        answers = self._answers[detector.name]
        found: dict[str, list[Detection]] = {}
        new = []
        for one in asked:
            answer = answers.get(one.frame.frame_id, one.of(detector))
            if answer is None:
                new.append(one)
            else:
                found[one.frame.frame_id] = from_answer(answer)
        if not new:
            return found
        inputs = ahead(new, partial(_frame_input, detector), _DECODED_AHEAD)
        for one, boxes in zip(new, detector.detect(inputs), strict=True):
            kept = rounded(boxes, one.frame)
            answer = [[*d.bbox, d.score, d.name] for d in kept]
            answers.put(one.frame.frame_id, one.of(detector), answer, self._ctx.scratch)
            found[one.frame.frame_id] = kept
            self._ctx.heartbeat()
        return found


def make_detectors(config: ProposeConfig) -> list[Detector]:
    """Make the detectors of the settings, in their order."""
    return [make_backend(DETECTORS, name, config.of(name)) for name in config.detectors]


def kept_answers(
    storage: Storage, config: ProposeConfig, fingerprint: Mapping[str, str], detector: str
) -> Answers:
    """Return a detector's answers under these settings; which others there are plays no part.

    Args:
        storage: the workspace.
        config: its settings of inference count.
        fingerprint: of the stage; the taxonomy and the linker in it play no part.
        detector: its name.
    """
    settings = {key: getattr(config, key) for key in config.inference - {"detectors"}}
    prefix = _prefix(config, detector)
    digests = {
        key.removeprefix(prefix): digest
        for key, digest in fingerprint.items()
        if key != "taxonomy" and key.startswith(prefix) and not key.startswith(_OF_LINKER)
    }
    decided_by = settings | {"detector": detector} | digests
    version = ProposeBoxes.spec.version
    return Answers(storage, "detections", decided_by | {"version": version})


def _prefix(config: ProposeConfig, detector: str) -> str:
    """Return what stands before the names of a detector's digests where there are several."""
    return f"{detector}." if len(config.detectors) > 1 else ""


def _in_track(row: Proposal, tracks: Mapping[str, int]) -> Proposal:
    return row.model_copy(update={"track_id": tracks.get(row.proposal_id)})


def from_answer(answer: Sequence[Sequence[Any]]) -> list[Detection]:
    """Make boxes of what was kept: x, y, w, h, score, class."""
    return [Detection([x, y, w, h], name, score) for x, y, w, h, score, name in answer]


def _frame_input(detector: Detector, one: _Asked) -> FrameInput:
    decode = partial(decode_frame_image, one.data, one.frame)
    made = FrameInput(one.frame, decode, one.video, one.others)
    # One without a vocabulary looks at the video, and here only a file no digest vouches for.
    if detector.vocabulary != "none" or not one.frame.sha256:
        _ = made.image
    return made


def sounds_of(frame: Frame, rows: Sequence[Sounds]) -> Sounds | None:
    """Return the tags of the frame's own neighbourhood if there are any, else its clip's."""
    own = [row for row in rows if row.frame_id == frame.frame_id]
    whole = [row for row in rows if row.frame_id is None]
    return next(iter(own + whole), None)
