"""The demo's world: what is in it, its pixels, its sound, its files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import MediaError
from pipeline.media import probe
from pipeline.records.schema import check_video_id
from pipeline.synthetic.drawing import Painter, box_of, silhouettes
from pipeline.synthetic.render import World, encode, render_world
from pipeline.synthetic.scene import CATEGORIES, Pose, Scene
from pipeline.synthetic.sprites import DRAWINGS, sprite
from pipeline.synthetic.truth import Truth, sounding, truth_box, truth_mask, truth_of
from pipeline.synthetic.voices import RATE_HZ, VOICES, soundtrack
from pipeline.synthetic.world import (
    GONE_ID,
    HTML_ID,
    REJECTED_IDS,
    TRUNCATED_ID,
    scenes,
)

TAXONOMY = Path(__file__).parents[2] / "stages" / "data" / "target_categories.csv"

RENDERED = ("carHonk_st1", "babyOffBird", "threeFrogs1", "silentMeadw", TRUNCATED_ID)
ALL_RENDERED = (*RENDERED, *REJECTED_IDS, HTML_ID, GONE_ID)

SCENES = {scene.video_id: scene for scene in scenes()}
SOUND_IDS = [i for i in SCENES if i not in (*REJECTED_IDS, TRUNCATED_ID)]

Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def progress() -> list[tuple[int, int]]:
    """What rendering the world said of its progress."""
    return []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, progress: list[tuple[int, int]]) -> World:
    return render_world(
        tmp_path_factory.mktemp("world"),
        video_ids=ALL_RENDERED,
        progress=lambda *now: progress.append(now),
    )


@pytest.fixture(scope="module")
def truth(world: World) -> Truth:
    loaded: Truth = json.loads(world.truth.read_text(encoding="utf-8"))
    return loaded


def short_scene(seed: int = 0) -> Scene:
    """The first two seconds of a scene of one sound."""
    scene = next(s for s in scenes(seed) if s.video_id == "dogInMeadow")
    sound = scene.sounds[0]
    brief = sound.model_copy(update={"onsets": sound.onsets[:1], "end_s": 1.7})
    return scene.model_copy(update={"duration_s": 2.0, "sounds": (brief,)})


def silent_spans(scene: Scene, name: str) -> Iterator[float]:
    """Every tenth of a second at which the actor does not sound."""
    for time_s in np.arange(0, scene.duration_s, 0.1):
        if not any(s.actor == name and s.start_s <= time_s < s.end_s for s in scene.sounds):
            yield float(time_s)


# What is in it


def test_every_id_is_a_youtube_id_and_none_comes_twice() -> None:
    ids = [*SCENES, HTML_ID, GONE_ID]
    assert len(set(ids)) == len(ids) == len(scenes()) + 2
    assert [check_video_id(i) for i in ids] == ids
    assert any(i.startswith("-") for i in ids)


def test_every_label_maps_to_its_category_and_every_category_is_drawn_and_heard() -> None:
    with TAXONOMY.open(newline="", encoding="utf-8") as handle:
        labels = {r["category"]: r["vggsound_classes"].split(";") for r in csv.DictReader(handle)}
    for category, (label, _motion) in CATEGORIES.items():
        assert label in labels[category]
    assert CATEGORIES.keys() == DRAWINGS.keys() == VOICES.keys()


def test_at_least_twelve_videos_of_20_to_60_s_pass_the_filter() -> None:
    good = [SCENES[i] for i in SOUND_IDS]
    assert len(good) >= 12
    for scene in good:
        assert (scene.width, scene.height) == (640, 360)
        assert 20 <= scene.duration_s <= 60
        assert scene.fps in (25, 30)


def at_once(scene: Scene) -> set[frozenset[str | None]]:
    """The sets of sources that sound together at some moment."""
    times = np.arange(0, scene.duration_s, 0.05)
    return {frozenset(s.actor for s in scene.sounds if s.start_s <= t < s.end_s) for t in times} - {
        frozenset()
    }


def test_every_case_of_the_paper_is_there() -> None:
    good = [SCENES[i] for i in SOUND_IDS]
    groups = [group for scene in good for group in at_once(scene)]
    assert any(len(g) == 1 and None not in g for g in groups), "single"
    assert any(len(g) == 2 and None not in g for g in groups), "mixed, both in view"
    assert any(len(g) == 2 and None in g for g in groups), "mixed, one off screen"
    assert any(at_once(s) == {frozenset([None])} for s in good), "off screen"
    assert any(not s.sounds for s in good), "silence"
    look_alikes = [s for s in good if len({(a.category, a.colour) for a in s.actors}) == 1]
    assert any(len(s.actors) > 2 and len(at_once(s)) > 1 for s in look_alikes), "multi-entity"


def test_a_cross_event_video_brings_both_sounds_into_every_ten_seconds() -> None:
    for video_id in ("catThenBird", "clockBabyX1"):
        scene = SCENES[video_id]
        assert all(len(group) == 1 for group in at_once(scene))
        for start in range(int(scene.duration_s) - 9):
            heard = {
                s.category
                for s in scene.sounds
                if max(s.start_s, start) + 1 <= min(s.end_s, start + 10)
            }
            assert len(heard) == 2


@pytest.mark.parametrize("video_id", SCENES)
def test_a_thing_is_at_rest_exactly_while_it_is_silent(video_id: str) -> None:
    scene = SCENES[video_id]
    for actor in scene.actors:
        assert all(scene.pose(actor, t) == Pose() for t in silent_spans(scene, actor.name))
    for sound in scene.sounds:
        for actor in (a for a in scene.actors if a.name == sound.actor):
            for onset in sound.onsets:
                pose = scene.pose(actor, onset + 0.08)
                moved = abs(pose.dy) + abs(pose.dx) + actor.size * np.radians(abs(pose.turn))
                assert moved > 0.05 * actor.size
                assert pose.loud


def test_another_seed_draws_another_world_of_the_same_videos() -> None:
    assert scenes(1) == scenes(1)
    assert [s.video_id for s in scenes(1)] == [s.video_id for s in scenes(0)]
    assert all(a.camera != b.camera for a, b in zip(scenes(0), scenes(1), strict=True))


# Pixels


def test_a_drawing_differs_when_it_sounds_and_flips_without_a_change() -> None:
    for category in DRAWINGS:
        quiet = sprite(category, "", 160, flip=False, loud=False)
        assert (quiet != sprite(category, "", 160, flip=False, loud=True)).any()
        flipped = sprite(category, "", 160, flip=True, loud=False)[:, ::-1].astype(int)
        assert np.abs(quiet - flipped).max() <= 1
        assert (quiet[..., :3] <= quiet[..., 3:]).all(), "colours are multiplied by alpha"
        for edge in (quiet[0], quiet[:, 0], quiet[:, -1]):
            assert edge[:, 3].mean() < 60, "nothing is cut off by the square"


@pytest.mark.parametrize("video_id", ["carHonk_st1", "babyOffBird", "threeFrogs1"])
def test_truth_boxes_are_the_boxes_of_the_masks(truth: Truth, video_id: str) -> None:
    video = truth["videos"][video_id]
    scene = SCENES[video_id]
    for entry in video["objects"]:
        assert len(entry["boxes"]) == scene.num_frames
        for index in range(0, scene.num_frames, 37):
            time_s = index / scene.fps
            mask = truth_mask(truth, video_id, entry["name"], time_s)
            assert mask.shape == (360, 640)
            ys, xs = np.nonzero(mask)
            slow = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
            assert (
                truth_box(truth, video_id, entry["name"], time_s) == slow == entry["boxes"][index]
            )


def test_an_actor_out_of_the_picture_has_no_box() -> None:
    scene = short_scene()
    gone = scene.actors[0].model_copy(update={"x": 2000.0})
    away = truth_of(scene.model_copy(update={"actors": (gone, scene.actors[1])}))
    assert away["objects"][0]["boxes"] == [None] * 50
    assert None not in away["objects"][1]["boxes"]
    assert box_of(np.zeros((3, 4), np.bool_)) is None


def test_what_stands_in_front_takes_pixels_from_what_is_behind() -> None:
    scene = SCENES["threeFrogs1"]
    alone = scene.model_copy(update={"actors": scene.actors[:1]})
    both, single = silhouettes(scene, 0), silhouettes(alone, 0)
    behind, front = both["frog behind"], both["frog front"]
    hidden = single["frog behind"] & ~behind
    assert not (behind & front).any()
    assert hidden.sum() > 300
    assert (hidden <= front).all()


def test_a_time_rounded_to_milliseconds_names_the_same_frame(truth: Truth) -> None:
    for index in range(0, 600, 7):
        exact = truth_box(truth, "threeFrogs1", "frog right", index / 30)
        assert truth_box(truth, "threeFrogs1", "frog right", round(index / 30, 3)) == exact
        boxes = truth["videos"]["threeFrogs1"]["objects"][2]["boxes"]
        assert exact == boxes[index]


def decoded(path: Path, indices: list[int]) -> dict[int, NDArray[np.uint8]]:
    """Frames of a file in blue, green, red, by their place in a sequential decode."""
    with av.open(str(path)) as container:
        frames = enumerate(container.decode(video=0))
        return {k: np.asarray(f.to_ndarray(format="bgr24")) for k, f in frames if k in indices}


def test_the_encoded_video_shows_the_car_where_and_when_the_truth_says(
    world: World, truth: Truth
) -> None:
    indices = [40, 67, 70, 160, 300, 460]
    pictures = decoded(world.videos / "carHonk_st1.mp4", indices)
    for index in indices:
        blue, green, red = np.moveaxis(pictures[index].astype(int), 2, 0)
        body = (red > 190) & (green < 110) & (blue < 110)
        mask = truth_mask(truth, "carHonk_st1", "car", index / 30)
        # Colour is coded at half the resolution: it bleeds over an edge by a pixel or two.
        near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert body.sum() > 0.2 * mask.sum()
        collar = truth_mask(truth, "carHonk_st1", "dog", index / 30)
        assert (body & ~near & ~collar).sum() == 0


def test_frame_k_of_the_file_is_frame_k_of_the_scene(world: World) -> None:
    scene = SCENES["babyOffBird"]
    painter = Painter(scene)
    struck = [round(onset * scene.fps) + 2 for onset in scene.sounds[0].onsets[:6]]
    for index, picture in decoded(world.videos / "babyOffBird.mp4", struck).items():
        errors = {
            k: np.abs(painter.frame(k).astype(int) - picture).mean()
            for k in range(index - 2, index + 3)
        }
        assert min(errors, key=errors.__getitem__) == index
        assert errors[index] < 8


# Sound


def mono(path: Path) -> NDArray[np.float32]:
    with av.open(str(path)) as container:
        blocks = [f.to_ndarray().mean(axis=0) for f in container.decode(audio=0)]
    return np.concatenate(blocks)


def rms(wave: NDArray[np.float32], start_s: float, end_s: float) -> float:
    part = wave[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)].astype(float)
    return float(np.sqrt(np.mean(part**2)))


@pytest.mark.parametrize("video_id", ["carHonk_st1", "babyOffBird", "threeFrogs1", "silentMeadw"])
def test_the_decoded_sound_is_active_exactly_while_something_sounds(
    world: World, truth: Truth, video_id: str
) -> None:
    wave = mono(world.videos / f"{video_id}.mp4")
    spans = [(s["start_s"], s["end_s"]) for s in truth["videos"][video_id]["sounds"]]
    checked = {True: 0, False: 0}
    for tenth in range(200):
        start = tenth / 10
        inside = any(a <= start and start + 0.1 <= b for a, b in spans)
        # The codec smears an edge over two of its blocks, 46 ms.
        outside = all(start + 0.1 < a - 0.05 or start > b + 0.05 for a, b in spans)
        level = rms(wave, start, start + 0.1)
        assert not inside or level > 0.01, (start, level)
        assert not outside or level < 0.0005, (start, level)
        checked[inside] += inside or outside
    assert checked[True] > 100 or not spans
    assert checked[False] >= 3


@pytest.mark.parametrize("video_id", SCENES)
def test_every_stroke_is_a_peak_of_energy_and_silence_is_exactly_zero(video_id: str) -> None:
    scene = SCENES[video_id]
    stereo = soundtrack(scene)
    assert stereo.shape == (2, round(scene.duration_s * RATE_HZ))
    assert np.abs(stereo).max(initial=0) < 1
    wave = stereo.mean(axis=0)
    heard = np.zeros(wave.size, bool)
    for sound in scene.sounds:
        heard[round(sound.start_s * RATE_HZ) : round(sound.end_s * RATE_HZ)] = True
    assert not wave[~heard].any()
    if any(len(group) > 1 for group in at_once(scene)):
        return
    for onset in (onset for sound in scene.sounds for onset in sound.onsets):
        struck = max(rms(wave, onset + d, onset + d + 0.05) for d in (0.0, 0.03, 0.06))
        before = rms(wave, onset - 0.06, onset - 0.01) if onset else 0.0
        assert struck > 0.08
        assert struck > 2 * before


def test_every_category_has_a_voice_of_its_own() -> None:
    time, draw = np.arange(RATE_HZ // 2) / RATE_HZ, np.random.default_rng(0)
    spectra = {}
    for category, voice in VOICES.items():
        power = np.abs(np.fft.rfft(voice(time, 0, draw))) ** 2
        bands = np.add.reduceat(power, np.geomspace(20, len(power) - 1, 40).astype(int))
        spectra[category] = bands / np.linalg.norm(bands)
    names = list(spectra)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert spectra[name] @ spectra[other] < 0.9, (name, other)


# Files


def test_the_files_are_what_the_filter_looks_for(world: World) -> None:
    for video_id in ("carHonk_st1", "babyOffBird", "threeFrogs1", "silentMeadw", *REJECTED_IDS):
        scene, facts = SCENES[video_id], probe(world.videos / f"{video_id}.mp4")
        assert (facts.width, facts.height) == (scene.width, scene.height)
        assert facts.fps == scene.fps
        assert facts.frame_count == scene.num_frames
        assert facts.duration_s == pytest.approx(scene.duration_s, abs=0.05)
        assert (facts.video_codec, facts.audio_codec) == ("h264", "aac")
        assert (facts.sample_rate_hz, facts.channels) == (44_100, 2)
        assert facts.start_s == 0
    assert SCENES[REJECTED_IDS[0]].width != 640
    assert SCENES[REJECTED_IDS[1]].duration_s < 10


def test_keyframes_are_at_most_five_seconds_apart(world: World) -> None:
    for video_id in ("carHonk_st1", "babyOffBird", "threeFrogs1", "silentMeadw"):
        with av.open(str(world.videos / f"{video_id}.mp4")) as container:
            stream = container.streams.video[0]
            keys = [
                float(p.pts * p.time_base)
                for p in container.demux(stream)
                if p.is_keyframe and p.pts is not None and p.time_base is not None
            ]
        assert keys[0] == 0
        assert max(np.diff([*keys, SCENES[video_id].duration_s])) <= SCENES[video_id].gop_s <= 5


def test_the_bad_files_are_bad_and_the_gone_one_is_not_there(world: World) -> None:
    with pytest.raises(MediaError) as cut_off:
        probe(world.videos / f"{TRUNCATED_ID}.mp4")
    assert cut_off.value.kind == "truncated"
    with pytest.raises(MediaError) as web_page:
        probe(world.videos / f"{HTML_ID}.mp4")
    assert web_page.value.kind == "not_media"
    assert not (world.videos / f"{GONE_ID}.mp4").exists()


def test_the_list_is_in_the_form_of_the_official_one(world: World) -> None:
    text = world.csv.read_text(encoding="utf-8")
    assert 'carHonk_st1,5,"vehicle horn, car horn, honking",' in text
    rows = list(csv.reader(text.splitlines()))
    assert {row[0] for row in rows} == set(ALL_RENDERED)
    assert all(len(row) == 4 for row in rows)
    assert all(row[1].isdecimal() and row[3] in ("train", "test") for row in rows)


def test_the_truth_says_who_sounds(truth: Truth) -> None:
    assert sounding(truth, "carHonk_st1", 5.0) == ["car"]
    assert sounding(truth, "carHonk_st1", 18.0) == []
    assert sounding(truth, "babyOffBird", 5.0) == ["bird"]
    assert sounding(truth, "threeFrogs1", 5.0) == ["frog behind"]
    assert sounding(truth, "threeFrogs1", 15.0) == ["frog right"]
    off_screen = [s for s in truth["videos"]["babyOffBird"]["sounds"] if s["object"] is None]
    assert [s["category"] for s in off_screen] == ["baby crying"]


def test_one_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        encode(short_scene(seed), tmp_path / name)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_progress_ends_at_all_of_the_seconds(world: World, progress: list[tuple[int, int]]) -> None:
    ends = np.cumsum([SCENES[name].duration_s for name in SCENES if name in ALL_RENDERED])
    assert progress == [(round(end), round(ends[-1])) for end in ends]
    assert len(progress) == len(RENDERED) + len(REJECTED_IDS)
