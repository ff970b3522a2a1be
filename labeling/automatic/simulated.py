"""An annotator that knows the ground truth of a rendered world, in place of people.

Reads ``frames``, writes ``reviews`` whose annotator is ``simulated:ground-truth`` and which are
never verified. It decides in the order of the paper (supplement B.1): is the source visible; which
proposals are the source, which are missing; category and scenario of each instance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from labeling.automatic.accept import automatic_review, contents_of
from pipeline.config import Section
from pipeline.errors import InputError, UsageError
from pipeline.records.boxes import clip, iou_matrix
from pipeline.records.schema import (
    Decision,
    Frame,
    Proposal,
    Review,
    ReviewedInstance,
    Scenario,
)
from pipeline.run.stage import Ok, Outcome, Stage, StageSpec, WorkerContext

ANNOTATOR = "simulated:ground-truth"

_SAME_THING = 0.5
"""A proposal that overlaps a true box this much is about that thing."""

_EXACT = 0.9
"""From this overlap on a proposal is left as it is; below, it is moved to the true box."""


class SimulatedConfig(Section):
    """Settings of the simulated annotator."""

    truth: str
    """The rendered world's JSON file, see ``Truth``."""


class _Part(BaseModel):
    # What else stands in the file is for others, such as how to draw a silhouette again.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class TrueObject(_Part):
    """A thing that can be seen."""

    name: str
    category: str
    boxes: list[list[float] | None]
    """The box ``[x, y, w, h]`` per presented frame of the video; none where it cannot be seen."""


class TrueSound(_Part):
    """A stretch of sound, from ``start_s`` up to but not at ``end_s``."""

    object: str | None
    """The name of what makes it; null when that is never in the picture."""
    category: str
    start_s: float
    end_s: float


class TrueVideo(_Part):
    """A video of constant frame rate."""

    fps: float
    width: int
    height: int
    objects: list[TrueObject]
    sounds: list[TrueSound]


class Truth(_Part):
    """The truth about a rendered world, as its file has it."""

    videos: dict[str, TrueVideo]


@dataclass(frozen=True)
class Scene:
    """The truth about one frame."""

    boxes: dict[str, list[float]]
    """Everything visible: name to box inside the frame, in pixels."""
    categories: dict[str, str]
    """The category of everything visible, by name."""
    sounding: tuple[str, ...]
    """The names of what is visible and sounds."""
    off_screen: tuple[str, ...]
    """The categories of what sounds out of sight, in the file's order."""

    def scenario(self, name: str) -> Scenario:
        """Return how an instance sounds; Multi-entity wins over Mixed-sound (paper 3.1.3)."""
        silent = self.boxes.keys() - set(self.sounding)
        if self.categories[name] in {self.categories[other] for other in silent}:
            return "Multi-entity"
        at_once = len(self.sounding) + len(self.off_screen)
        return "Mixed-sound" if at_once > 1 else "Single-sound"


class SimulatedAnnotator(Stage[SimulatedConfig]):
    """Correct the proposals of each frame to what is true of it."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="simulate",
        version=1,
        reads="frames",
        joins=("proposals",),
        writes=("reviews",),
        rows_per_unit=4096,
        batch_size=64,
    )

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digest of the truth."""
        return {"truth": hashlib.sha256(_read(self.config.truth)).hexdigest()}

    def open(self, ctx: WorkerContext) -> None:
        """Read the truth."""
        try:
            self._truth = Truth.model_validate_json(_read(self.config.truth))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{self.config.truth}: {place}: {first['msg']}.") from error
        self._proposals = ctx.lookup("proposals", "frame_id")

    def process(self, rows: Sequence[Frame]) -> Iterator[Outcome]:
        """Yield one review per frame."""
        for frame in rows:
            video = self._truth.videos.get(frame.video_id)
            if video is None:
                raise InputError("no_truth", f"video {frame.video_id} is not in the truth")
            scene = scene_at(video, frame)
            yield Ok(frame.id, [_review(frame, scene, self._proposals.rows(frame.id))])


def scene_at(video: TrueVideo, frame: Frame) -> Scene:
    """Return the truth about the presented frame shown at the frame's time.

    Raises:
        InputError: ``truth_mismatch`` when the truth is of another picture.
    """
    if (video.width, video.height) != (frame.width, frame.height):
        raise InputError(
            "truth_mismatch",
            f"the truth is of {video.width}x{video.height}, not {frame.width}x{frame.height}",
        )
    number = round(frame.time_s * video.fps)
    boxes: dict[str, list[float]] = {}
    for thing in video.objects:
        if number >= len(thing.boxes):
            raise InputError("truth_mismatch", f"{thing.name} has no box for frame {number}")
        box = thing.boxes[number]
        inside = None if box is None else clip(box, frame.width, frame.height)
        if inside is not None:
            boxes[thing.name] = inside
    heard = [s for s in video.sounds if s.start_s <= frame.time_s < s.end_s]
    makers = {sound.object for sound in heard}
    return Scene(
        boxes=boxes,
        categories={t.name: t.category for t in video.objects if t.name in boxes},
        sounding=tuple(name for name in boxes if name in makers),
        off_screen=tuple(sound.category for sound in heard if sound.object not in boxes),
    )


def corrected(scene: Scene, proposals: Sequence[Proposal]) -> list[ReviewedInstance]:
    """Take each sounding thing from the proposal that fits it best; a proposal is used once."""
    boxes = [scene.boxes[name] for name in scene.sounding]
    overlaps = iou_matrix(boxes, [proposal.bbox for proposal in proposals])
    pairs = [
        (-overlaps[row, column], row, column)
        for row in range(len(boxes))
        for column in range(len(proposals))
        if overlaps[row, column] >= _SAME_THING
    ]
    source: dict[int, int] = {}
    for _, row, column in sorted(pairs):
        if row not in source and column not in source.values():
            source[row] = column
    found = []
    for row, name in enumerate(scene.sounding):
        proposal = proposals[source[row]] if row in source else None
        kept = proposal is not None and overlaps[row, source[row]] >= _EXACT
        found.append(
            ReviewedInstance(
                bbox=proposal.bbox if proposal is not None and kept else boxes[row],
                category=scene.categories[name],
                scenario=scene.scenario(name),
                origin="added" if proposal is None else "kept" if kept else "moved",
                proposal_id=None if proposal is None else proposal.proposal_id,
                track_id=None if proposal is None else proposal.track_id,
            )
        )
    return found


def _review(frame: Frame, scene: Scene, proposals: Sequence[Proposal]) -> Review:
    instances = corrected(scene, proposals)
    off_screen = None if instances else next(iter(scene.off_screen), None)
    decision: Decision = "labelled" if instances else "off_screen" if off_screen else "rejected"
    reasons = ["nothing sounds"] if decision == "rejected" else []
    content = [decision, off_screen, contents_of(instances)]
    said = decision, instances, content, off_screen, reasons
    return automatic_review(frame.frame_id, ANNOTATOR, *said)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot read the truth: {error.strerror}.") from error
