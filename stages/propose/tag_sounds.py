"""Say what each clip sounds like, in the tagger's classes and in target categories (paper 3.1.3).

Reads ``clips``, writes ``sounds``: one row for the clip, or one for each of its frames. A clip
without any target category keeps its row: it was listened to, and that is the answer. Its frames
are dropped by ``propose``. What a model hears is kept (``stages.propose.model_outputs``): after a
change of a threshold or of the taxonomy the stage runs again, but the model does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.config import HearConfig
from pipeline.errors import InputError
from pipeline.records.schema import Clip, Frame, SoundCategory, SoundClass, Sounds, digest_of
from pipeline.run.stage import Drop, Fail, Ok, Outcome, Stage, StageSpec, WorkerContext
from stages.backends.interfaces import TAGGERS, AudioQuery, Tagger, make_backend
from stages.propose.activity import active_categories, check_active_scores
from stages.propose.model_outputs import Answers
from stages.taxonomy import load_taxonomy

_NOTHING_TO_HEAR = "no_audio"


@dataclass(frozen=True)
class _Asked:
    """A clip whose sounds are wanted."""

    query: AudioQuery
    frames: Sequence[Frame | None]
    """The frame whose window each span is; none for the whole clip."""
    of: str
    """Digest of all the tagger may listen to."""


class TagSounds(Stage[HearConfig]):
    """Tag clips with what sounds in them."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="hear",
        version=2,
        reads="clips",
        joins=("videos", "frames"),
        writes=("sounds",),
        rows_per_unit=256,
        batch_size=64,
        row_timeout_s=120,
    )

    def __init__(self, config: HearConfig) -> None:
        self.config = config
        self.tagger: Tagger = make_backend(TAGGERS, config.tagger, config)

    def fingerprint(self) -> Mapping[str, str]:
        """Return the tagger's digests and the taxonomy's, checking it before the run begins."""
        check_active_scores(self.config)
        taxonomy = load_taxonomy(self.config.taxonomy)
        return {**self.tagger.fingerprint(), "taxonomy": taxonomy.digest}

    def device(self) -> str:
        """Return the settings' device where the tagger is a model."""
        return self.config.device if self.tagger.has_weights else "cpu"

    def is_rule(self) -> bool:
        """Say whether nothing listens: the list's labels are taken."""
        return not self.tagger.has_weights

    def open(self, ctx: WorkerContext) -> None:
        """Load the tagger."""
        self._ctx = ctx
        self._videos = ctx.lookup("videos", "video_id")
        if self.config.scope == "frame":
            self._frames = ctx.lookup("frames", "clip_id")
        self._taxonomy = load_taxonomy(self.config.taxonomy)
        decided_by = {key: getattr(self.config, key) for key in sorted(self.config.inference)}
        own = {**self.tagger.fingerprint(), "version": self.spec.version}
        self._answers = Answers(ctx.storage, "sounds", decided_by | own)
        self.tagger.open(ctx.storage)

    def process(self, rows: Sequence[Clip]) -> Iterator[Outcome]:
        """Yield each clip's sounds; drop a clip without sound."""
        new: list[_Asked] = []
        for clip in rows:
            asked = self._ask(clip)
            if asked is None:
                yield Fail(clip.clip_id, "missing_video", f"no video {clip.video_id}", True)
            elif (kept := self._kept(asked)) is not None:
                yield self._answered(asked, kept)
            else:
                new.append(asked)
        for asked, tags in zip(new, self.tagger.tag(one.query for one in new), strict=True):
            clip_id = asked.query.clip.clip_id
            if not isinstance(tags, InputError):
                self._keep(asked, tags)
                yield self._answered(asked, tags)
            elif tags.kind == _NOTHING_TO_HEAR:
                yield Drop(clip_id, tags.kind, tags.detail)
            else:
                yield Fail(clip_id, tags.kind, tags.detail, tags.retryable)
            self._ctx.heartbeat()

    def _ask(self, clip: Clip) -> _Asked | None:
        video = self._videos.one(clip.video_id)
        if video is None:
            return None
        frames: list[Frame | None] = [None]
        spans = [(clip.start_s, clip.end_s)]
        if self.config.scope == "frame":
            found = sorted(self._frames.rows(clip.clip_id), key=lambda frame: frame.frame_index)
            frames = list(found)
            spans = [window(frame, clip, self.config.window_s) for frame in found]
        of = digest_of([video.sha256, video.label, spans])
        return _Asked(AudioQuery(clip, video, spans), frames, of)

    def _answered(self, asked: _Asked, tags: Sequence[Sequence[SoundClass]]) -> Ok:
        clip_id = asked.query.clip.clip_id
        return Ok(
            clip_id,
            [
                Sounds(
                    clip_id=clip_id,
                    frame_id=frame.frame_id if frame else None,
                    tagger=self.tagger.name,
                    classes=list(classes),
                    categories=self._categories(classes),
                )
                for frame, classes in zip(asked.frames, tags, strict=True)
            ],
        )

    def _categories(self, classes: Sequence[SoundClass]) -> list[SoundCategory]:
        if self.tagger.vocabulary == "audioset":
            return active_categories(classes, self._taxonomy, self.config)
        return [
            SoundCategory(category=category, score=found.score, active=True)
            for found in classes
            for category in self._taxonomy.of_vggsound(found.name)
        ]

    def _kept(self, asked: _Asked) -> list[list[SoundClass]] | None:
        answer = self._answers.get(asked.query.clip.clip_id, asked.of)
        if answer is None:
            return None
        return [[SoundClass(name=name, score=score) for name, score in row] for row in answer]

    def _keep(self, asked: _Asked, tags: Sequence[Sequence[SoundClass]]) -> None:
        if self.tagger.vocabulary != "audioset":
            return  # a label costs less than a file
        answer = [[[found.name, found.score] for found in row] for row in tags]
        self._answers.put(asked.query.clip.clip_id, asked.of, answer, self._ctx.scratch)


def window(frame: Frame, clip: Clip, length_s: float) -> tuple[float, float]:
    """Return the span around a frame's sound event, cut at the clip's edges, never moved."""
    start = max(clip.start_s, frame.event_time_s - length_s / 2)
    return round(start, 6), round(min(clip.end_s, frame.event_time_s + length_s / 2), 6)
