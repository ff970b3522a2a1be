"""Models that take one picture and one sound: each labelled frame with the sound around it.

The AVATAR paper gives them 10 s of sound and, in supplement D.1, 5, 2 and 1 s. It does not say what
becomes of a window that leaves the clip; here it is moved inside (ours), the only rule by which the
10 s of every frame of a 10 s clip are the whole clip.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError
from pipeline.media import FileSound, Media, Timeline, decode_pictures, read_sound, read_timeline
from pipeline.versions import code_revision
from tavlo.baselines.frontends import window_around
from tavlo.baselines.interface import ImageModel, Picture, Sound
from tavlo.baselines.localiser import in_threads
from tavlo.evaluation.evaluation_set import EvaluationSet, LabelledFrame
from tavlo.evaluation.predictions import Answer, Notes

Maps = NDArray[np.float32]

_TOGETHER = 64
"""Frames whose pictures and sounds are in memory at once."""


@dataclass
class SoundCounts:
    """Counts of the sounds that were read, for the log and the results."""

    rates_hz: Counter[int] = field(default_factory=Counter)
    """Sample rates of the sounds read."""
    channels: Counter[int] = field(default_factory=Counter)
    shortest_s: float = float("inf")

    def add(self, sound: FileSound, rate_hz: int) -> None:
        """Count a sound that was read at a rate."""
        self.rates_hz[sound.rate_hz] += 1
        self.channels[sound.channels] += 1
        self.shortest_s = min(self.shortest_s, len(sound.wave) / rate_hz)

    def sentences(self, model: ImageModel, windows: Sequence[float | None] = (None,)) -> list[str]:
        """Say what was done to sounds that are not as the model takes them."""
        said = [
            f"{count} sounds at {rate} Hz were resampled to {model.sample_rate_hz}."
            for rate, count in sorted(self.rates_hz.items())
            if rate != model.sample_rate_hz
        ]
        said += [
            f"{count} sounds have {number} channels; the {model.channels} of them is heard."
            for number, count in sorted(self.channels.items())
            if number > 1
        ]
        shortest = min(self.shortest_s, *(window or float("inf") for window in windows))
        if self.rates_hz and shortest < model.window_s:
            said.append(
                f"{model.name} hears {model.window_s:g} s; sounds down to {shortest:g} s are"
                " repeated up to that, as its authors do."
            )
        return said


@dataclass(frozen=True)
class Pair:
    """The picture and sound by which a model is asked about one frame."""

    frame: LabelledFrame
    picture: Picture
    sound: Sound
    """The whole sound, at the model's rate."""
    time_s: float
    """The time the frame is shown, seconds from the clip's first one."""


def read_pairs(
    data: EvaluationSet,
    frames: Sequence[LabelledFrame],
    model: ImageModel,
    notes: Notes,
    counts: SoundCounts,
    every_frame_of: Collection[str] = (),
) -> Iterator[Pair]:
    """Read pictures and sounds; what cannot be read is noted, never replaced.

    Args:
        data: the release.
        frames: those wanted; the ones of a clip follow one another.
        model: says at what rate it takes sounds, and which channel.
        notes: told of frames without picture or sound.
        counts: told of the sounds.
        every_frame_of: clips whose other frames are read too, from the clip.

    Raises:
        AvatarBuildError: more frames lack theirs than may.
    """
    lacking = {}
    for frame in frames:
        if data.sound_path(frame) is None:
            lacking[frame.frame_id] = "no sound in the release"
        elif not (data.folder / frame.row.file_name).is_file() and data.clip_path(frame) is None:
            lacking[frame.frame_id] = "no picture in the release"
    notes.miss(lacking)
    there = [frame for frame in frames if frame.frame_id not in lacking]
    groups = [list(group) for _, group in itertools.groupby(there, lambda f: data.sound_path(f))]
    read = in_threads(lambda group: _read(data, group, model, every_frame_of), groups)
    for pairs, failed, sound in read:
        notes.miss(failed)
        if sound is not None:
            counts.add(sound, model.sample_rate_hz)
        yield from pairs


def _read(
    data: EvaluationSet,
    frames: Sequence[LabelledFrame],
    model: ImageModel,
    every_frame_of: Collection[str],
) -> tuple[list[Pair], dict[str, str], FileSound | None]:
    """Read the frames of one sound; return those that cannot be read with why, and the sound."""
    path, clip = data.sound_path(frames[0]), data.clip_path(frames[0])
    assert path is not None
    try:
        data.check_released(path)
        if clip is not None and clip != path:
            data.check_released(clip)
        sound = read_sound(path, model.sample_rate_hz, model.channels)
        timeline = read_timeline(Media(clip)) if clip is not None else None
    except AvatarBuildError as error:
        return [], {frame.frame_id: str(error) for frame in frames}, None
    pairs, failed = [], {}
    for frame in frames:
        time_s = frame.time_in_clip_s
        if timeline is not None and frame.frame_index < len(timeline.pts):
            # Imported releases state times as if every clip had 25 frames a second.
            time_s = float(timeline.time(frame.frame_index))
        try:
            pairs.append(Pair(frame, data.picture(frame), sound.wave, time_s))
        except AvatarBuildError as error:
            failed[frame.frame_id] = str(error)
    if clip is not None and timeline is not None and frames[0].clip_id in every_frame_of:
        pairs += _others(frames, Media(clip), timeline, sound.wave)
    return pairs, failed, sound


def _others(
    frames: Sequence[LabelledFrame], clip: Media, timeline: Timeline, sound: Sound
) -> Iterator[Pair]:
    """Decode the frames of a clip that are not labelled."""
    labelled = {frame.frame_index for frame in frames}
    for shown in decode_pictures(clip, timeline, [range(len(timeline.pts))]):
        if shown.index not in labelled:
            row = frames[0].row.model_copy(update={"frame_id": "", "frame_index": shown.index})
            frame = replace(frames[0], row=row)
            yield Pair(frame, shown.rgb(), sound, float(timeline.time(shown.index)))


@dataclass(frozen=True)
class ImagePredictor:
    """A model of one picture and one sound that is asked about a release's images."""

    of_images: ClassVar[bool] = True

    model: ImageModel
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Facts that tell its results from another's, for ``model.json``."""

    @property
    def about(self) -> dict[str, Any]:
        """Return what it is and all that decides its heatmaps."""
        return {
            "name": self.model.name,
            **self.origin,
            "post": asdict(self.model.post),
            "preparation": "the release's images, and the sound around each",
            "precision": "float32",
            "predicted_by": code_revision(),
        }

    def answers(
        self,
        data: EvaluationSet,
        windows: Sequence[float | None],
        every_frame_of: Collection[str],
        notes: Notes,
        sounds_of: Mapping[str, str] | None = None,
    ) -> Iterator[Answer]:
        """See ``Predictor``; pictures and sounds are read once for all windows."""
        counts = SoundCounts()
        frames = sorted(data.frames, key=lambda frame: (frame.clip_id, frame.frame_index))
        found = read_pairs(data, frames, self.model, notes, counts, every_frame_of)
        for pairs in _clips_together(found):
            pictures = [pair.picture for pair in pairs]
            heatmaps = {
                window: self.model.heatmaps(
                    pictures, [_heard(pair, window, self.model.sample_rate_hz) for pair in pairs]
                )
                for window in windows
            }
            clips: dict[str, list[int]] = {}
            for number, pair in enumerate(pairs):
                clips.setdefault(pair.frame.clip_id, []).append(number)
            for clip_id, numbers in clips.items():
                index = [pairs[number].frame.frame_index for number in numbers]
                own = [pairs[number] for number in numbers]
                exchanged = self._exchanged(data, own, windows, (sounds_of or {}).get(clip_id))
                maps = {at: maps[numbers] for at, maps in heatmaps.items()}
                yield Answer(clip_id, index, maps, exchanged)
        notes.said += counts.sentences(self.model, windows)

    def _exchanged(
        self,
        data: EvaluationSet,
        pairs: Sequence[Pair],
        windows: Sequence[float | None],
        other: str | None,
    ) -> dict[float | None, tuple[Maps, Maps]] | None:
        """Ask about a clip's frames with their own sound and with another clip's, in equal batches.

        Of batches of other sizes a network's sums round otherwise, and a deaf one would not be so
        exactly.
        """
        path = None if other is None else data.sound_path(data.frames_of(other)[0])
        if path is None:
            return None
        model = self.model
        try:
            data.check_released(path)
            sound = read_sound(path, model.sample_rate_hz, model.channels).wave
        except AvatarBuildError:
            return None
        pictures = [pair.picture for pair in pairs]
        asked = (pairs, [replace(pair, sound=sound) for pair in pairs])

        def maps(given: Sequence[Pair], window: float | None) -> Maps:
            rate_hz = model.sample_rate_hz
            return model.heatmaps(pictures, [_heard(pair, window, rate_hz) for pair in given])

        return {at: (maps(asked[0], at), maps(asked[1], at)) for at in windows}


def _heard(pair: Pair, window: float | None, rate_hz: int) -> Sound:
    if window is None:
        return pair.sound
    # Sound is cut at its codec's blocks and may outlast the clip by some milliseconds.
    length = round(pair.frame.clip_s * rate_hz) or len(pair.sound)
    return window_around(pair.sound[:length], pair.time_s, window)


def _clips_together(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    """Gather whole clips, some at a time; the pairs of a clip follow one another."""
    held: list[Pair] = []
    for pair in pairs:
        if len(held) >= _TOGETHER and pair.frame.clip_id != held[-1].frame.clip_id:
            yield held
            held = []
        held.append(pair)
    if held:
        yield held
