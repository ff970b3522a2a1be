"""A world with known answers, as a benchmark: clips, and exact masks of what sounds in them.

The things, voices and backgrounds are the demo's. Here they are put together at random, in
the proportions of the AVATAR paper. Things move when they sound; a look-alike of what sounds moves
too, in a rhythm of its own, and other things may; the camera pans. So neither looks nor movement
alone tell what sounds: the category does where there is one of it, the rhythm where there are more.

A clip follows from the seed and its number alone, whatever else is made, and by whom.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np

from pipeline.errors import UsageError
from pipeline.records.schema import Scenario
from pipeline.synthetic.drawing import silhouettes
from pipeline.synthetic.scene import CATEGORIES, Actor, Background, Camera, Scene, Sound
from pipeline.synthetic.scenery import DRAWN_HEIGHT
from tavlo.evaluation.evaluation_set import Pixels

Kind = Literal["single", "multi", "mixed", "off"]

FRAMES_OF_KIND: dict[Kind, float] = {
    "single": 15_372,
    "multi": 9_322,
    # A third of them has one of two sources in view, the others both.
    "mixed": 3_822 / (5 / 3),
    "off": 670,
}
"""Labelled frames of each kind in the paper (supplement, Table A, by its instances)."""
CHANGING = 450 / 5_000
"""The fraction of videos whose sounding thing changes: the cross-event subset."""

_MAX_FRAMES = 5
_APART_S = 0.7
"""Labelled frames of a clip (paper 3.1.2)."""
_PEAK_S = 0.1
"""A stroke's movement is largest so long after it began."""
_IDLY = 0.4
"""How often a thing that is no look-alike moves without a sound."""
_LATER_S = (0.15, 0.45)
"""So much after the sound begins what moves without one."""
_TURN_S = 3.0
"""About how long one source sounds where sources change."""
MIN_FRACTION = 0.005
"""The fraction of the picture of which less of a source is not called visible."""
Looks = Literal["usual", "unseen"]
_BACKGROUNDS: tuple[Background, ...] = ("meadow", "room", "street", "stage")
_UNSEEN_BACKGROUNDS: tuple[Background, ...] = ("beach", "forest", "night")
_SLIM_STOUT = (0.7, 1.4)
"""Width over height of a thing with unseen looks, of what its drawing has."""
_STEPS = (0.7548776662466927, 0.5698402909980532)
"""Steps of Roberts' R2 sequence: any run of clips has the proportions, not only a long one."""


@dataclass(frozen=True)
class WorldConfig:
    """The settings that every clip has in common."""

    seed: int = 0
    """The seed of everything drawn."""
    seconds: float = 10.0
    """Length of a clip."""
    fps: int = 25
    """Frames per second."""
    height: int = DRAWN_HEIGHT
    """Rows; the picture is 16:9, its width rounded to even."""
    looks: Looks = "usual"
    """usual: each category in its own colour, before one of four backgrounds. unseen: in any colour
    and slimmer or stouter, before three backgrounds that no usual clip has; to ask what a model
    that was trained on usual ones makes of things it never saw. The rest of a clip is the same."""

    def __post_init__(self) -> None:
        for name, least in {"seed": 0, "seconds": 2, "fps": 4, "height": 36}.items():
            if (value := getattr(self, name)) < least:
                raise UsageError(f"--{name} {value}: it must be at least {least}.")
        if self.looks not in get_args(Looks):
            raise UsageError(f"--looks {self.looks}: it must be {' or '.join(get_args(Looks))}.")
        if self.height % 2:
            raise UsageError(f"--height {self.height}: H.264 needs an even number of rows.")

    @property
    def width(self) -> int:
        """Columns."""
        return 2 * round(self.height * 8 / 9)


@dataclass(frozen=True)
class SoundingObject:
    """A sounding thing in view."""

    scenario: Scenario
    category: str
    mask: Pixels
    """The pixels that can be seen, ``(y, x)``."""


@dataclass(frozen=True)
class KnownFrame:
    """A labelled frame."""

    index: int
    """The number of the frame in its clip, from 0."""
    instances: tuple[SoundingObject, ...]
    """The sounding things in view; empty when what sounds is off screen."""
    off_screen_category: str | None
    """The category that sounds in a frame without instances."""


def kind_of(config: WorldConfig, number: int) -> tuple[Kind, bool]:
    """Return what a clip shows, and whether its sounding thing changes."""
    offset = np.random.default_rng([config.seed, 1]).random(2)
    first, second = ((offset + (number + 1) * np.array(_STEPS)) % 1).tolist()
    fractions = np.cumsum(list(FRAMES_OF_KIND.values())) / sum(FRAMES_OF_KIND.values())
    place = min(int(np.searchsorted(fractions, first, side="right")), len(fractions) - 1)
    return list(FRAMES_OF_KIND)[place], second < CHANGING


def scene_of(config: WorldConfig, number: int) -> Scene:
    """Draw at random what clip ``number`` consists of."""
    kind, changes = kind_of(config, number)
    rng = np.random.default_rng([config.seed, 2, number])
    categories, turns = _cast(kind, changes, rng)
    unit = config.height / DRAWN_HEIGHT
    actors = _actors(categories, unit, rng)
    sounds = [
        sound
        for start_s, end_s, sources in _spans(config.seconds, turns, rng)
        for sound in _sounds(start_s, end_s, sources, actors, rng)
    ]
    scene = Scene(
        video_id=f"synth{config.seed}-{number:06d}",
        label=CATEGORIES[turns[0][0][1]][0],
        split="train",
        duration_s=config.seconds,
        fps=config.fps,
        gop_s=1.0,
        background=_BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))],
        seed=int(rng.integers(2**31)),
        camera=Camera(
            swing_px=float(rng.uniform(10, 40)) * unit,
            period_s=float(rng.uniform(8, 20)),
            phase=float(rng.uniform(0, 2 * math.pi)),
            drift_px_s=float(rng.choice([0.0, 6.0])) * unit,
        ),
        actors=actors,
        sounds=tuple(sounds),
        width=config.width,
        height=config.height,
    )
    if config.looks == "usual":
        return scene
    return _disguised(scene, np.random.default_rng([config.seed, 4, number]))


def _disguised(scene: Scene, rng: np.random.Generator) -> Scene:
    """Give a scene's things and its background looks that no usual scene has."""
    # Things of one category stay alike: their looks must not tell which of them sounds.
    looks = {}
    for category in sorted({actor.category for actor in scene.actors}):
        rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.45, 0.95))
        colour = "#" + bytes(round(255 * part) for part in rgb).hex()
        looks[category] = {"colour": colour, "width": float(rng.uniform(*_SLIM_STOUT))}
    actors = tuple(actor.model_copy(update=looks[actor.category]) for actor in scene.actors)
    background = _UNSEEN_BACKGROUNDS[int(rng.integers(len(_UNSEEN_BACKGROUNDS)))]
    return scene.model_copy(update={"actors": actors, "background": background})


def labelled_frames(scene: Scene) -> tuple[KnownFrame, ...]:
    """Choose frames at audible strokes, up to five, and say what sounds in them.

    Frames in which a source in view is hidden are passed over, so every source has a mask.
    """
    rng = np.random.default_rng([scene.seed, 3])
    onsets = {onset for sound in scene.sounds if not sound.muted for onset in sound.onsets}
    times = rng.permutation(sorted(onsets)).tolist()
    frames: dict[int, KnownFrame] = {}
    for time_s in times:
        index = round((time_s + _PEAK_S) * scene.fps)
        near = any(abs(index - other) < _APART_S * scene.fps for other in frames)
        if near or index >= scene.num_frames or len(frames) == _MAX_FRAMES:
            continue
        if known := known_frame(scene, index):
            frames[index] = known
    return tuple(frames[index] for index in sorted(frames))


def known_frame(scene: Scene, index: int) -> KnownFrame | None:
    """Return what sounds in a frame; None when nothing does, or when it is hidden."""
    time_s = index / scene.fps
    audible = [s for s in scene.sounds if not s.muted and s.start_s <= time_s < s.end_s]
    if not audible:
        return None
    masks = silhouettes(scene, index)
    kinds = [actor.category for actor in scene.actors]
    found = []
    for sound in audible:
        if sound.actor is None:
            continue
        mask = masks[sound.actor]
        if mask.mean() < MIN_FRACTION:
            return None
        # Multi-entity wins over Mixed-sound (paper 3.1.3).
        scenario: Scenario = "Mixed-sound" if len(audible) > 1 else "Single-sound"
        if kinds.count(sound.category) > 1:
            scenario = "Multi-entity"
        found.append(SoundingObject(scenario, sound.category, mask))
    return KnownFrame(index, tuple(found), None if found else audible[0].category)


Source = tuple[str | None, str]
"""An actor's name, none when it is off screen, and the category."""


def _cast(
    kind: Kind, changes: bool, rng: np.random.Generator
) -> tuple[list[str], list[list[Source]]]:
    """Draw the categories of the things in view, by actor; and what sounds, turn by turn."""
    names = [str(name) for name in rng.permutation(list(CATEGORIES))]
    many = int(rng.integers(2, 4))
    if kind == "multi":
        # The first of two or three look-alikes sounds; something else may be there too.
        others = [names[1]] if changes or (many == 2 and rng.random() < 0.5) else []
        categories = [names[0]] * many + others
    else:
        categories = names[: max(many, 3 if kind == "mixed" and changes else 2)]
    last = len(categories) - 1
    sources: list[Source] = [("0", categories[0])]
    if kind == "mixed":
        hidden = rng.random() < 1 / 3
        sources.append((None, names[5]) if hidden else ("1", categories[1]))
    if kind == "off":
        sources = [(None, names[5])]
    turns = [sources]
    if changes:
        turns.append([(str(last), categories[last]), *sources[1:]])
    return categories, turns


def _spans(
    seconds: float, turns: list[list[Source]], rng: np.random.Generator
) -> list[tuple[float, float, list[Source]]]:
    """Draw when each turn sounds: about equal parts of the clip, the turns again and again."""
    start_s = float(rng.uniform(0, 0.6))
    count = 1 if len(turns) == 1 else max(2, round(seconds / _TURN_S))
    cuts = [start_s]
    for number in range(1, count):
        cuts.append((number + float(rng.uniform(-0.15, 0.15))) * seconds / count)
    cuts.append(seconds)
    return [(round(cuts[n], 3), round(cuts[n + 1], 3), turns[n % len(turns)]) for n in range(count)]


def _sounds(
    start_s: float,
    end_s: float,
    sources: Sequence[Source],
    actors: Sequence[Actor],
    rng: np.random.Generator,
) -> Iterator[Sound]:
    """Let the sources sound, and other things in view move without a sound."""
    stroke = partial(_strokes, end_s=end_s, rng=rng)
    for name, category in sources:
        yield Sound(actor=name, category=category, onsets=stroke(start_s), end_s=end_s)
    names, categories = zip(*sources, strict=True)
    for actor in actors:
        if actor.name in names:
            continue
        # A look-alike always moves, anything else now and then.
        if actor.category in categories or rng.random() < _IDLY:
            # Not with the sound's first stroke, or nothing would tell them apart there.
            later_s = start_s + float(rng.uniform(*_LATER_S))
            yield Sound(
                actor=actor.name,
                category=actor.category,
                onsets=stroke(later_s),
                end_s=end_s,
                muted=True,
            )


def _strokes(start_s: float, end_s: float, rng: np.random.Generator) -> tuple[float, ...]:
    """Draw strokes at uneven distances, so that two rhythms never agree for long."""
    onsets = [start_s]
    while (later := onsets[-1] + float(rng.uniform(0.6, 1.3))) < end_s - 0.4:
        onsets.append(round(later, 3))
    return tuple(onsets)


def _actors(categories: Sequence[str], unit: float, rng: np.random.Generator) -> tuple[Actor, ...]:
    """Put the things side by side, in any order, nearer or farther."""
    count = len(categories)
    places = rng.permutation(np.linspace(110, 530, count) + rng.uniform(-35, 35, count))
    return tuple(
        Actor(
            name=str(number),
            category=category,
            x=float(place) * unit,
            y=float(rng.uniform(230, 350)) * unit,
            size=float(rng.uniform(140, 210)) * unit,
            flip=bool(rng.random() < 0.5),
        )
        for number, (category, place) in enumerate(zip(categories, places, strict=True))
    )
