"""Draw the clip of one video and choose its frames: by the sound, then by the pictures.

First the loudness of the whole sound and the clips it allows, then the events of each clip, then
the sharpest whole picture near each of the strongest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SampleConfig
from pipeline.errors import MediaError
from pipeline.media import (
    Media,
    Picture,
    SoundEnergy,
    SoundTrack,
    Timeline,
    decode_pictures,
    exact,
    read_timeline,
)
from pipeline.records.schema import Clip, Frame, Video, clip_id, frame_id
from pipeline.run.stage import Drop, Ok, Outcome, WorkerContext
from stages.sample.suspect import Look, look_at, suspicion


@dataclass(frozen=True)
class Event:
    """A peak of the short-time RMS inside a clip."""

    time: Fraction
    """Centre of the peak's RMS window, seconds in the source."""
    rms: float


@dataclass(frozen=True)
class Choice:
    """The frame that stands for an event."""

    event: Event
    picture: Picture
    sharpness: float
    suspect: str | None = None
    """The reason for which it may be broken in the source (``suspect``)."""


class Sampler:
    """Draw clips with enough sound; keep the sharpest frame of each of their strongest events."""

    def __init__(self, config: SampleConfig) -> None:
        self.config = config
        self.hops_per_s = round(1 / config.rms_hop_s)
        self.window_hops = round(config.rms_window_s / config.rms_hop_s)

    def outcome(self, video: Video, path: Path, ctx: WorkerContext) -> Outcome:
        """Write the images of a video's frames, and return its clips and frames.

        Args:
            video: the row.
            path: its file.
            ctx: the workspace the images are written to.

        Returns:
            ``Drop`` with the reason where it has none.

        Raises:
            MediaError: the file cannot be decoded.
        """
        media = Media(path, self.config.decode_timeout_s, size=(video.width, video.height))
        timeline = read_timeline(media)
        track = SoundTrack.of_video(media, timeline, self.hops_per_s)
        clips = self.draw_clips(video.video_id, track)
        if not clips:
            detail = f"{track.seconds} s, no {self.config.clip_s} s of it are active enough"
            return Drop(video.video_id, "no_active_window", detail)
        found = [(clip, find_events(sound, self.window_hops)) for clip, sound in clips]
        try:
            chosen = [
                (clip, self.choose_frames(clip, events, media, timeline)) for clip, events in found
            ]
        except MediaError as error:
            if error.kind == "size_changes":
                return Drop(video.video_id, "resolution", error.detail)
            raise
        rows: list[Clip | Frame] = []
        for clip, choices in chosen:
            first = timeline.between(*_span(clip)).start
            frames = [
                self._keep(clip, rank, choice, choice.picture.index - first, ctx)
                for rank, choice in enumerate(choices)
            ]
            rows += [clip, *frames] if frames else []
        if not rows:
            heard = sum(len(events) for _, events in found)
            reason = "no_undamaged_frame" if heard else "no_event"
            return Drop(video.video_id, reason, f"{heard} events in {len(clips)} clips")
        return Ok(video.video_id, rows)

    def draw_clips(self, video_id: str, track: SoundTrack) -> list[tuple[Clip, SoundEnergy]]:
        """Return the clips of a video, in the order drawn, with their sound.

        Full and lazy walk the same seeded order of all windows and take the first that qualify: a
        uniform draw among the candidates. Full decodes all sound first, so that it is exact and
        the candidates can be counted.
        """
        config = self.config
        windows = range(track.seconds - config.clip_s + 1)
        candidates = 1
        if config.draw == "full":
            active = track.span(0, track.seconds).rms_per_second() >= config.active_rms
            candidates = len(candidate_windows(active, config.clip_s, config.min_active_s))
            if not candidates:
                return []
        drawn: list[tuple[Clip, SoundEnergy]] = []
        for start_s in seeded_order(windows, config.seed, video_id):
            if any(abs(start_s - clip.start_s) < config.clip_s for clip, _ in drawn):
                continue
            sound = track.span(start_s, start_s + config.clip_s)
            rms = sound.rms_per_second()
            active_seconds = int(np.count_nonzero(rms >= config.active_rms))
            if active_seconds < config.min_active_s:
                continue
            clip = Clip(
                clip_id=clip_id(video_id, start_s),
                video_id=video_id,
                start_s=start_s,
                end_s=start_s + config.clip_s,
                active_seconds=active_seconds,
                rms_per_second=[float(value) for value in rms],
                candidates=candidates,
            )
            drawn.append((clip, sound))
            if len(drawn) == config.clips_per_video:
                break
        return drawn

    def choose_frames(
        self, clip: Clip, events: Sequence[Event], media: Media, timeline: Timeline
    ) -> list[Choice]:
        """Choose a frame per event, strongest first; an event without a whole frame gives way.

        Whether a picture is broken shows against the clip's others, so all are seen once before
        any is passed over.
        """
        looks: dict[int, Look] = {}
        chosen = self._choose(clip, events, media, timeline, looks, passed_over=frozenset())

        def reasons(places: Iterable[int]) -> dict[int, str | None]:
            return {at: suspicion(looks[at], list(looks.values())) for at in places}

        found = reasons([one.picture.index for one in chosen])
        if self.config.pass_suspect and any(found.values()):
            found |= reasons(looks.keys() - found.keys())
            passed_over = frozenset(at for at, reason in found.items() if reason)
            chosen = self._choose(clip, events, media, timeline, looks, passed_over)
            found |= reasons(looks.keys() - found.keys())
        return [replace(one, suspect=found[one.picture.index]) for one in chosen]

    def _choose(
        self,
        clip: Clip,
        events: Sequence[Event],
        media: Media,
        timeline: Timeline,
        looks: dict[int, Look],
        passed_over: frozenset[int],
    ) -> list[Choice]:
        half = exact(self.config.event_half_s)
        best: dict[Event, Choice | None] = {}
        while True:
            standing = [event for event in events if best.get(event, event) is not None]
            picked = pick_events(standing, self.config.max_frames, exact(self.config.min_gap_s))
            new = sorted((event for event in picked if event not in best), key=lambda e: e.time)
            if not new:
                return [choice for event in picked if (choice := best[event])]
            best |= sharpest_frames(new, half, _span(clip), media, timeline, looks, passed_over)

    def _keep(
        self, clip: Clip, rank: int, choice: Choice, frame_index: int, ctx: WorkerContext
    ) -> Frame:
        """Write the image; the row that names it."""
        config, picture = self.config, choice.picture
        name = frame_id(clip.clip_id, frame_index)
        path = f"media/frames/{clip.video_id}/{name}.{config.image_format}"
        file = ctx.scratch / f"{name}.{config.image_format}"
        data = picture.encode(config.image_format, config.jpeg_quality)
        file.write_bytes(data)
        ctx.storage.publish(file, path)
        width, height = picture.size
        return Frame(
            frame_id=name,
            clip_id=clip.clip_id,
            video_id=clip.video_id,
            frame_index=frame_index,
            time_s=float(picture.time),
            event_time_s=float(choice.event.time),
            event_rms=choice.event.rms,
            event_rank=rank,
            sharpness=choice.sharpness,
            path=path,
            width=width,
            height=height,
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            suspect=choice.suspect,
        )


def _span(clip: Clip) -> tuple[Fraction, Fraction]:
    return exact(clip.start_s), exact(clip.end_s)


def candidate_windows(active: NDArray[np.bool_], clip_s: int, min_active_s: int) -> list[int]:
    """Return the whole seconds at which a window begins that holds enough active seconds.

    >>> candidate_windows(np.array([0, 0, 1, 1, 0], bool), clip_s=3, min_active_s=2)
    [1, 2]
    >>> candidate_windows(np.array([1, 1], bool), clip_s=3, min_active_s=1)
    []
    """
    if len(active) < clip_s:
        return []
    counts = np.lib.stride_tricks.sliding_window_view(active, clip_s).sum(axis=1)
    return [int(start) for start in np.flatnonzero(counts >= min_active_s)]


def seeded_order(windows: range, seed: int, video_id: str) -> list[int]:
    """Return a random order of ``windows`` that depends on nothing but its arguments.

    Each window is ranked by a hash of its own, so the order among some of them does not depend on
    the others, nor on a library's random generator.

    >>> seeded_order(range(5), 0, "-1pRmoJIGQc"), seeded_order(range(5), 1, "-1pRmoJIGQc")
    ([4, 2, 0, 3, 1], [2, 0, 3, 4, 1])
    """

    def rank(start_s: int) -> bytes:
        return hashlib.sha256(f"{seed}:{video_id}:{start_s}".encode()).digest()

    return sorted(windows, key=rank)


def find_events(sound: SoundEnergy, window_hops: int) -> list[Event]:
    """Return the local maxima of the short-time RMS, strongest first, ties to the earlier.

    Windows lie wholly inside the span; an event's time is its window's centre.

    >>> energy = np.array([0, 0, 9, 0, 0, 9, 0, 25, 0, 0], float)
    >>> sound = SoundEnergy(3, 10, energy, np.ones(10, int))
    >>> [(float(event.time), event.rms) for event in find_events(sound, window_hops=1)]
    [(3.75, 5.0), (3.25, 3.0), (3.55, 3.0)]
    """
    rms = sound.short_time_rms(window_hops)
    events = [
        Event(
            sound.start_s + Fraction(2 * int(i) + window_hops, 2 * sound.hops_per_s), float(rms[i])
        )
        for i in _peaks(rms)
    ]
    return sorted(events, key=lambda event: (-event.rms, event.time))


def _peaks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the local maxima, of a level one its middle; what touches an end is none.

    These are those of ``scipy.signal.find_peaks``, whose import takes longer than a small run.

    >>> _peaks(np.array([3, 1, 2, 2, 2, 2, 0, 5, 4, 6.0]))
    array([3, 7])
    """
    starts = np.flatnonzero(np.diff(values, prepend=np.nan))
    stops = np.append(starts[1:], len(values))
    level = values[starts]
    rises = np.diff(level) > 0
    top = np.flatnonzero(rises[:-1] & ~rises[1:]) + 1
    middle: NDArray[np.int64] = (starts[top] + stops[top] - 1) // 2
    return middle


def pick_events(events: Sequence[Event], most: int, gap: Fraction) -> list[Event]:
    """Take events in order, passing over those within ``gap`` seconds of one taken.

    >>> at = [Event(Fraction(t, 10), 1.0) for t in (20, 27, 28, 5)]
    >>> [float(event.time) for event in pick_events(at, 5, Fraction(7, 10))]
    [2.0, 2.8, 0.5]
    """
    picked: list[Event] = []
    for event in events:
        if len(picked) == most:
            break
        if all(abs(event.time - other.time) > gap for other in picked):
            picked.append(event)
    return picked


def sharpest_frames(
    events: Sequence[Event],
    half: Fraction,
    span: tuple[Fraction, Fraction],
    media: Media,
    timeline: Timeline,
    looks: dict[int, Look],
    passed_over: frozenset[int] = frozenset(),
) -> dict[Event, Choice | None]:
    """Return each event's sharpest undamaged frame within ``half`` seconds, ties to the earliest.

    Args:
        events: in the order of time, more than twice ``half`` apart.
        half: seconds before and after the event, both ends included.
        span: the clip's start and end in the source; its end is not part of it.
        media: the source.
        timeline: the source's.
        looks: what is remembered of each picture seen, by its index; added to.
        passed_over: indices of pictures not to take.

    Returns:
        None for an event without a frame it could take.
    """
    start, stop = span
    wanted = {}
    for event in events:
        near = timeline.between(event.time - half, event.time + half, closed=True)
        inside = timeline.between(start, stop)
        wanted[event] = range(max(near.start, inside.start), min(near.stop, inside.stop))
    best: dict[Event, Choice | None] = dict.fromkeys(events)
    of_frame = {index: event for event, indices in wanted.items() for index in indices}
    for picture in decode_pictures(media, timeline, wanted.values()):
        if picture.damaged:
            continue
        if picture.index not in looks:
            looks[picture.index] = look_at(picture.luma(), float(picture.time))
        if picture.index in passed_over:
            continue
        event, sharpness = of_frame[picture.index], picture.sharpness()
        standing = best[event]
        if standing is None or sharpness > standing.sharpness:
            best[event] = Choice(event, picture, sharpness)
    return best
