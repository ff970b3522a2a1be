"""The synthetic world says exactly what is in it, whoever draws it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.errors import UsageError
from pipeline.media import Media, read_timeline
from pipeline.release.scenario_rules import contradiction
from pipeline.synthetic.drawing import Painter, box_of, silhouettes
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.voices import RATE_HZ, soundtrack
from tavlo.evaluation.evaluation_set import read_release
from tavlo.synthetic.drawn_clips import (
    CHANGING,
    FRAMES_OF_KIND,
    KnownFrame,
    WorldConfig,
    kind_of,
    known_frame,
    labelled_frames,
    scene_of,
)
from tavlo.synthetic.write_world import write_world
from tavlo.training.training_clips import read_clips

WORLD = WorldConfig(seed=3, seconds=4, fps=8, height=72)


@lru_cache
def drawn(clips: int = 150) -> list[tuple[Scene, tuple[KnownFrame, ...]]]:
    scenes = [scene_of(WORLD, number) for number in range(clips)]
    return [(scene, labelled_frames(scene)) for scene in scenes]


def changes_category(frames: Sequence[KnownFrame]) -> bool:
    """Say whether a later frame brings a category that none before had (supplement, Alg. 1)."""
    seen: set[str] = set()
    for number, frame in enumerate(frames):
        here = {instance.category for instance in frame.instances}
        if frame.off_screen_category is not None:
            here.add(frame.off_screen_category)
        if number and here - seen:
            return True
        seen |= here
    return False


def test_any_run_of_clips_has_the_papers_proportions() -> None:
    kinds = [kind_of(WORLD, number) for number in range(1000, 2000)]
    total = sum(FRAMES_OF_KIND.values())
    for kind, frames in FRAMES_OF_KIND.items():
        share = sum(found == kind for found, _ in kinds) / 1000
        assert share == pytest.approx(frames / total, abs=0.01)
    assert sum(changes for _, changes in kinds) / 1000 == pytest.approx(CHANGING, abs=0.01)


def test_labels_have_the_papers_proportions() -> None:
    instances = Counter(i.scenario for _, frames in drawn() for f in frames for i in f.instances)
    total = sum(instances.values())
    shares = {name: number / total for name, number in instances.items()}
    assert shares["Single-sound"] == pytest.approx(15_372 / 28_516, abs=0.05)
    assert shares["Multi-entity"] == pytest.approx(9_322 / 28_516, abs=0.05)
    assert shares["Mixed-sound"] == pytest.approx(3_822 / 28_516, abs=0.05)
    changing = sum(changes_category(frames) for _, frames in drawn()) / len(drawn())
    assert changing == pytest.approx(CHANGING, abs=0.03)
    assert any(not frame.instances for _, frames in drawn() for frame in frames)
    assert all(1 <= len(frames) <= 5 for _, frames in drawn())


def test_scenarios_never_contradict_one_another() -> None:
    for _, frames in drawn():
        for frame in frames:
            found = [(i.category, i.scenario, int(i.mask.sum())) for i in frame.instances]
            assert contradiction(found, WORLD.width * WORLD.height) is None


def test_a_mask_is_what_disappears_with_its_thing() -> None:
    scene, frames = next(d for d in drawn() if len(d[0].actors) > 1 and d[1][0].instances)
    frame = frames[0]
    time_s = frame.index / scene.fps
    sounding = next(s.actor for s in scene.sounds if not s.muted and s.stroke(time_s) is not None)
    gone = scene.model_copy(
        update={
            "actors": tuple(a for a in scene.actors if a.name != sounding),
            "sounds": tuple(s for s in scene.sounds if s.actor != sounding),
        }
    )
    before = Painter(scene).frame(frame.index).astype(int)
    after = Painter(gone).frame(frame.index).astype(int)
    changed = np.abs(before - after).max(-1)
    mask = frame.instances[0].mask
    assert (changed[mask] > 0).mean() > 0.97
    # A shadow darkens the ground by a third at most; nothing else changes beyond the soft rim.
    near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert changed[~near].max() <= 0.35 * 255 + 1


def test_a_look_alike_moves_and_is_not_heard() -> None:
    scene = next(s for s, f in drawn() if f[0].instances and f[0].instances[0].scenario == _MULTI)
    heard = [sound for sound in scene.sounds if not sound.muted]
    muted = [s for s in scene.sounds if s.muted and s.category == heard[0].category]
    assert muted
    first = min(sound.start_s for sound in heard)
    assert all(s.start_s - first > 0.1 for s in muted), "not even the first stroke is shared"
    twin = next(a for a in scene.actors if a.name == muted[0].actor)
    assert scene.pose(twin, muted[0].onsets[0] + 0.1) != scene.pose(twin, scene.duration_s)
    alone = scene.model_copy(update={"sounds": tuple(heard)})
    # Voices draw noise by their place in the list; loudness over time tells just as well.
    ours, theirs = (
        np.abs(soundtrack(s)).reshape(2, -1, RATE_HZ // 20).max(-1) for s in (scene, alone)
    )
    np.testing.assert_allclose(ours, theirs, atol=0.15)


_MULTI = "Multi-entity"


def test_an_off_screen_sound_has_no_thing_in_view() -> None:
    found = 0
    for scene, frames in drawn():
        for frame in frames:
            if frame.instances:
                continue
            found += 1
            assert frame.off_screen_category not in {a.category for a in scene.actors}
    assert found


def test_sources_take_turns_where_the_category_changes() -> None:
    for number in range(60):
        kind, changes = kind_of(WORLD, number)
        if not changes or kind != "single":
            continue
        scene = scene_of(WORLD, number)
        heard = sorted((s for s in scene.sounds if not s.muted), key=lambda s: s.start_s)
        assert len({sound.category for sound in heard}) == 2
        for one, other in pairwise(heard):
            assert one.end_s == other.start_s
            assert one.category != other.category


def test_unseen_looks_change_nothing_but_looks() -> None:
    other = replace(WORLD, looks="unseen")
    backgrounds, colours = set(), set()
    for number, (scene, _) in enumerate(drawn(60)):
        unseen = scene_of(other, number)
        assert unseen.sounds == scene.sounds
        assert unseen.camera == scene.camera
        as_usual = [a.model_copy(update={"colour": "", "width": 1.0}) for a in unseen.actors]
        assert tuple(as_usual) == scene.actors
        looks: dict[str, set[tuple[str, float]]] = {}
        for actor in unseen.actors:
            looks.setdefault(actor.category, set()).add((actor.colour, actor.width))
            colours.add(actor.colour)
        assert all(len(alike) == 1 for alike in looks.values()), "looks must not tell which sounds"
        backgrounds.add(unseen.background)
    assert backgrounds == {"beach", "forest", "night"}
    assert not backgrounds & {scene.background for scene, _ in drawn(60)}
    assert len(colours) > 100


def test_a_slimmer_thing_has_a_narrower_silhouette_as_high_as_before() -> None:
    scene = next(scene for scene, _ in drawn() if all(s.start_s > 0 for s in scene.sounds))
    actor = scene.actors[0]
    slim = scene.model_copy(update={"actors": (actor.model_copy(update={"width": 0.5}),)})
    alone = scene.model_copy(update={"actors": (actor,)})
    masks = [silhouettes(one, 0)[actor.name] for one in (alone, slim)]  # at rest
    (_, y, w, h), (_, slim_y, slim_w, slim_h) = [box_of(mask) or [] for mask in masks]
    assert slim_w == pytest.approx(w / 2, abs=2)
    assert (slim_y, slim_h) == pytest.approx((y, h), abs=1)


def test_what_is_silent_or_hidden_is_no_labelled_frame() -> None:
    scene = drawn()[0][0]
    assert known_frame(scene.model_copy(update={"sounds": ()}), 3) is None
    far = tuple(a.model_copy(update={"x": -1e4}) for a in scene.actors)
    index = drawn()[0][1][0].index
    assert known_frame(scene.model_copy(update={"actors": far}), index) is None


def test_a_clip_is_the_same_whoever_draws_it_and_however_many_there_are(tmp_path: Path) -> None:
    small = WorldConfig(seed=5, seconds=2, fps=5, height=36)
    alone = write_world(tmp_path / "alone", small, 3)
    many = write_world(tmp_path / "many", small, 5, processes=2)
    for part in ("images", "annotations"):
        assert getattr(many, part)[: len(getattr(alone, part))] == getattr(alone, part)
    for name in ("annotations/instances.json", "subsets/cross_event.txt", "scenes.json"):
        assert (tmp_path / "many" / name).exists()
    for picture in (tmp_path / "alone").rglob("*.png"):
        same = tmp_path / "many" / picture.relative_to(tmp_path / "alone")
        assert picture.read_bytes() == same.read_bytes()
    assert scene_of(WorldConfig(seed=6, seconds=2, fps=5, height=36), 0) != scene_of(small, 0)


def test_evaluation_training_and_pycocotools_read_the_folder(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    folder = tmp_path / "world"
    document = write_world(folder, WORLD, 4)
    data = read_release(folder)
    assert len(data.frames) == len(document.images)
    known = {
        f"{scene.video_id}_00000_{frame.index:05d}": frame
        for scene, frames in drawn()[:4]
        for frame in frames
    }
    for frame in data.frames:
        truth = frame.truth((WORLD.height, WORLD.width))
        exact = [instance.mask for instance in known[frame.frame_id].instances]
        assert np.array_equal(truth, np.any(exact, 0))
    for clip in read_clips(folder):
        media = Media(clip.path)
        timeline = read_timeline(media)
        assert len(timeline.pts) == WORLD.fps * WORLD.seconds
    coco = COCO(str(folder / "annotations" / "instances.json"))
    assert len(coco.getAnnIds()) == len(document.annotations)


def test_the_command_says_what_it_drew(tmp_path: Path) -> None:
    words = ["synth", str(tmp_path / "w"), "--clips", "2", "--seconds", "2", "--fps", "5"]
    words += ["--height", "36", "--workers", "1", "--json"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert json.loads(done.output)["result"]["clips"] == 2
    with pytest.raises(UsageError, match="exists"):
        CliRunner().invoke(cli, words, catch_exceptions=False)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"seconds": 1}, "--seconds 1"),
        ({"fps": 2}, "--fps 2"),
        ({"height": 37}, "--height 37"),
        ({"looks": "odd"}, "--looks odd"),
    ],
)
def test_a_world_that_cannot_be_is_refused(bad: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        WorldConfig(**bad)
    with pytest.raises(UsageError, match="--clips 0"):
        write_world(Path("nowhere"), WORLD, 0)
