"""Image-wise models on a release: each labelled frame with the sound around it, as heatmap files.

The AVATAR paper gives them 10 s of sound and, in supplement D.1, 5, 2 and 1 s. It does not say what
becomes of a window that leaves the clip; here it is moved inside (ours), the only rule by which the
10 s of every frame of a 10 s clip are the whole clip.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AvatarBuildError
from pipeline.media import Heard, read_sound, read_timeline
from pipeline.media import Media as Clip
from pipeline.versions import code_revision
from tavlo.baselines.frontends import around
from tavlo.baselines.interface import ImageModel, Picture, Sound
from tavlo.evaluation.evaluation_set import EvaluationSet, LabelledFrame
from tavlo.evaluation.predictions import Predictions
from tavlo.evaluation.release_media import check_released, clip_path, picture, sound_path

Show = Callable[[int, str], None]
_TOGETHER = 64
"""Frames whose pictures and sounds are in memory at once."""
Given = TypeVar("Given")
Read = TypeVar("Read")
Window = TypeVar("Window", bound=float | None)
"""Seconds of sound around a frame; none is all of it."""


@dataclass
class Media:
    """What was found of the pictures and sounds, for the log and the results."""

    failed: dict[str, str] = field(default_factory=dict)
    """Frames without a picture or sound that can be read, with why."""
    rates_hz: Counter[int] = field(default_factory=Counter)
    """Sample rates of the sounds read."""
    channels: Counter[int] = field(default_factory=Counter)
    shortest_s: float = float("inf")

    def heard(self, sound: Heard, rate_hz: int) -> None:
        """Count a sound."""
        self.rates_hz[sound.rate_hz] += 1
        self.channels[sound.channels] += 1
        self.shortest_s = min(self.shortest_s, len(sound.wave) / rate_hz)

    def sentences(self, model: ImageModel, windows: Sequence[float | None] = (None,)) -> list[str]:
        """What was done to sounds that are not as the model takes them."""
        said = []
        for rate, count in sorted(self.rates_hz.items()):
            if rate != model.sample_rate_hz:
                said.append(
                    f"{count} sounds at {rate} Hz were resampled to {model.sample_rate_hz}."
                )
        for number, count in sorted(self.channels.items()):
            if number > 1:
                how = model.channels
                said.append(f"{count} sounds have {number} channels; the {how} of them is heard.")
        shortest = min(self.shortest_s, *(window or np.inf for window in windows))
        if self.rates_hz and shortest < model.window_s:
            said.append(
                f"{model.name} hears {model.window_s:g} s; sounds down to {shortest:g} s are"
                " repeated up to that, as its authors do."
            )
        return said


@dataclass(frozen=True)
class Pair:
    """What a model is asked about one frame."""

    frame: LabelledFrame
    picture: Picture
    sound: Sound
    """All of it, at the model's rate."""
    time_s: float
    """When the frame is shown, seconds from the clip's first one."""


def read_pairs(
    data: EvaluationSet,
    frames: Sequence[LabelledFrame],
    model: ImageModel,
    media: Media,
    max_failed: int,
) -> Iterator[Pair]:
    """Read pictures and sounds; what cannot be is noted in ``media``, never replaced.

    Raises:
        AvatarBuildError: more than ``max_failed`` frames lack theirs; names some.
    """
    for frame in frames:
        if sound_path(data, frame) is None:
            media.failed[frame.frame_id] = "no sound in the release"
        elif not (data.folder / frame.image_file).is_file() and clip_path(data, frame) is None:
            media.failed[frame.frame_id] = "no picture in the release"
    _bound(media, len(frames), max_failed)
    there = [frame for frame in frames if frame.frame_id not in media.failed]
    groups = [list(group) for _, group in itertools.groupby(there, lambda f: sound_path(data, f))]
    for pairs, failed, heard in _in_threads(lambda group: _read(data, group, model), groups):
        media.failed |= failed
        _bound(media, len(frames), max_failed)
        if heard is not None:
            media.heard(heard, model.sample_rate_hz)
        yield from pairs


def _read(
    data: EvaluationSet, frames: Sequence[LabelledFrame], model: ImageModel
) -> tuple[list[Pair], dict[str, str], Heard | None]:
    """Frames of one sound; those that cannot be read with why; the sound."""
    path, clip = sound_path(data, frames[0]), clip_path(data, frames[0])
    assert path is not None
    try:
        check_released(data, path)
        if clip is not None and clip != path:
            check_released(data, clip)
        sound = read_sound(path, model.sample_rate_hz, model.channels)
        timeline = read_timeline(Clip(clip)) if clip is not None else None
    except AvatarBuildError as error:
        return [], {frame.frame_id: str(error) for frame in frames}, None
    pairs, failed = [], {}
    for frame in frames:
        time_s = frame.time_s
        if timeline is not None and frame.frame_index < len(timeline.pts):
            # Imported releases state times as if every clip had 25 frames a second.
            time_s = float(timeline.time(frame.frame_index))
        try:
            pairs.append(Pair(frame, picture(data, frame), sound.wave, time_s))
        except AvatarBuildError as error:
            failed[frame.frame_id] = str(error)
    return pairs, failed, sound


def _in_threads(read: Callable[[Given], Read], items: Sequence[Given]) -> Iterator[Read]:
    """What ``read`` makes of each item, in order; decoders and resamplers let go of Python."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > 2 * threads:  # a few in memory, however many there are
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def predict_release(
    data: EvaluationSet,
    model: ImageModel,
    targets: Mapping[Window, Path],
    *,
    max_failed: int = 0,
    about: Mapping[str, Any] | None = None,
    show: Show = lambda _done, _note: None,
) -> tuple[dict[Window, Predictions], list[str]]:
    """Write the heatmaps of every labelled frame, for each window of sound.

    Args:
        data: the labelled frames.
        model: asked once per frame and window; pictures are read once.
        targets: the folder of each window.
        max_failed: frames that may lack picture or sound; they are named in ``model.json``.
        about: more for ``model.json``.
        show: told of frames done, and a note.

    Returns:
        The predictions by window, and what there is to say of the media.

    Raises:
        AvatarBuildError: more frames lack theirs.
    """
    media = Media()
    told = {
        window: {
            "name": model.name,
            **(about or {}),
            "window_s": window,
            "post": model.post.as_dict(),
            "predicted_by": code_revision(),
        }
        for window in targets
    }
    found = {window: Predictions.begin(targets[window], told[window]) for window in targets}
    frames = sorted(data.frames, key=lambda frame: (frame.clip_id, frame.frame_index))
    done = 0
    for pairs in _clips_together(read_pairs(data, frames, model, media, max_failed)):
        pictures = [pair.picture for pair in pairs]
        for window, predictions in found.items():
            sounds = [_heard(pair, window, model.sample_rate_hz) for pair in pairs]
            _save(predictions, pairs, model.heatmaps(pictures, sounds))
        done += len(pairs)
        show(done, f"{len(media.failed)} failed" if media.failed else "")
    said = media.sentences(model, list(targets))
    for window, predictions in found.items():
        predictions.describe(told[window] | {"failed": media.failed, "said": said})
    return found, said


def _heard(pair: Pair, window: float | None, rate_hz: int) -> Sound:
    if window is None:
        return pair.sound
    # Sound is cut at its codec's blocks and may outlast the clip by some milliseconds.
    length = round(pair.frame.clip_s * rate_hz) or len(pair.sound)
    return around(pair.sound[:length], pair.time_s, window)


def _clips_together(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    """Whole clips, some at a time; the pairs of a clip follow one another."""
    held: list[Pair] = []
    for pair in pairs:
        if len(held) >= _TOGETHER and pair.frame.clip_id != held[-1].frame.clip_id:
            yield held
            held = []
        held.append(pair)
    if held:
        yield held


def _save(predictions: Predictions, pairs: Sequence[Pair], heatmaps: NDArray[np.float32]) -> None:
    clips: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        clips.setdefault(pair.frame.clip_id, []).append(number)
    for clip_id, numbers in clips.items():
        index = [pairs[number].frame.frame_index for number in numbers]
        predictions.save(clip_id, index, heatmaps[numbers])


def _bound(media: Media, frames: int, max_failed: int) -> None:
    if len(media.failed) > max_failed:
        some = "; ".join(f"{name}: {why}" for name, why in list(media.failed.items())[:3])
        raise AvatarBuildError(
            f"{len(media.failed)} of {frames} frames lack picture or sound ({some}). Add them, or"
            f" score the others with --max-failed {len(media.failed)}."
        )
