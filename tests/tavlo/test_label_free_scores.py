"""An evaluation says whether its model hears, and what a fixed map would get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import AvatarBuildError
from pipeline.media.clip_cache import ClipTensors
from tavlo.baselines.interface import GRID, Picture, Sound
from tavlo.evaluation.evaluate import evaluate, to_csv, to_markdown
from tavlo.evaluation.evaluation_set import EvaluationSet, read_release
from tavlo.evaluation.floors import FIXED_MAP, fixed_maps
from tavlo.evaluation.image_models import ImagePredictor
from tavlo.evaluation.open_predictor import ClipPredictor
from tavlo.evaluation.predictions import GRID_HW, HEARING, Notes, Predictions, predict
from tavlo.metrics.localisation import ciou
from tavlo.metrics.sound_sensitivity import MEAN_MAP, SENSITIVITY
from tavlo.synthetic.drawn_clips import WorldConfig
from tavlo.synthetic.write_world import write_world
from tavlo.training.tavlo_recipe import TavloRecipe
from tavlo.training.training_config import train_config
from tests.tavlo.release_factory import heatmaps, make_release
from tests.tavlo.small import TAVLO, TRAIN, Ear


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    return read_release(make_release(tmp_path_factory.mktemp("release") / "r"))


class Deaf(Ear):
    """Looks at the pictures alone, and rounds as batches of other sizes do."""

    def heatmaps(self, pictures: Sequence[Picture], sounds: Sequence[Sound]) -> NDArray[np.float32]:
        grey = [picture[:, :, 0].astype(np.float32)[:64, :64] for picture in pictures]
        return np.stack(grey) + np.float32(1e-3 / len(pictures)) * np.eye(64, dtype=np.float32)


class Hears(Ear):
    """Lights a place of its own for the moment at which its sound is loudest."""

    def heatmaps(self, pictures: Sequence[Picture], sounds: Sequence[Sound]) -> NDArray[np.float32]:
        found = np.zeros((len(sounds), GRID, GRID), np.float32)
        for map_, sound in zip(found, sounds, strict=True):
            row = GRID * int(np.abs(sound).argmax()) // len(sound)
            map_[max(0, row - 3) : row + 3] = 1
        return found


def test_a_deaf_model_has_exactly_none_and_one_that_hears_much(
    data: EvaluationSet, tmp_path: Path
) -> None:
    scored = {}
    for model in (Deaf(), Hears()):
        folder = tmp_path / type(model).__name__
        found, _ = predict(ImagePredictor(model), data, {None: folder}, sensitivity_clips=64)
        scored[type(model)] = evaluate(data, found[None]).label_free
    assert scored[Deaf][SENSITIVITY].value == 0.0
    assert scored[Deaf][SENSITIVITY].clips == 3
    assert scored[Hears][SENSITIVITY].value > 0.9
    assert scored[Hears][MEAN_MAP].value < 0.2


def test_each_window_has_its_own_and_the_table_says_both(
    data: EvaluationSet, tmp_path: Path
) -> None:
    windows = {10.0: tmp_path / "10", 0.2: tmp_path / "02"}
    found, _ = predict(ImagePredictor(Hears()), data, windows, sensitivity_clips=2, seed=1)
    whole, short = (evaluate(data, found[at]) for at in windows)
    assert whole.label_free[SENSITIVITY].clips == 2
    assert whole.label_free != short.label_free
    told = " ".join(to_markdown(whole).split())
    value = whole.label_free[SENSITIVITY].value
    assert f"sound sensitivity {value:.3f} (" in told
    assert "correlation with the mean map" in told
    assert "of_clips" not in told
    about = json.loads((tmp_path / "10/model.json").read_text())
    pairs = about[HEARING]["sounds_of"]
    assert len(pairs) == 2
    assert all(clip != other for clip, other in pairs.items())
    # JSON has them too.
    assert whole.as_dict()["label_free"][SENSITIVITY]["value"] == value


def test_heatmaps_of_a_model_that_is_not_here_have_the_second_alone(tmp_path: Path) -> None:
    release = make_release(tmp_path / "r", clips=False, images=False)
    folder = heatmaps(release, tmp_path / "heat", 0)
    scores = evaluate(read_release(release), Predictions(folder))
    assert scores.label_free.keys() == {MEAN_MAP}
    told = " ".join(to_markdown(scores).split())
    assert "sound sensitivity not known: it takes the model" in told
    # What a file claims without a run's digest is not believed.
    claims = {HEARING: {"of_clips": {"video000001_00000000": 1.0}}}
    (folder / "model.json").write_text(json.dumps(claims))
    scores = evaluate(read_release(release), Predictions(folder))
    assert scores.label_free.keys() == {MEAN_MAP}
    none = evaluate(read_release(release), Predictions(folder), sensitivity_clips=0)
    assert none.label_free == {}


class Lit(TavloRecipe):
    """Lights each frame by its picture and the moment at which the clip's sound is loudest."""

    def heatmaps(
        self, model: nn.Module, clip: ClipTensors, frame_index: Sequence[int]
    ) -> NDArray[np.float32]:
        found = np.zeros((len(frame_index), 8, 8), np.float32)
        for map_, number in zip(found, frame_index, strict=True):
            map_.flat[int(clip.frames[number].astype(int).sum()) % 64] = 1
            map_.flat[64 * int(np.abs(clip.waveform).argmax()) // len(clip.waveform)] += 2
        return found


def test_a_clip_gets_its_own_pictures_with_the_other_clips_sound(tmp_path: Path) -> None:
    write_world(tmp_path / "world", WorldConfig(seconds=2, fps=4, height=36), 12)
    data = read_release(tmp_path / "world")
    recipe, config = Lit(TAVLO), train_config(TRAIN | {"clip_s": 2.0})
    model = ClipPredictor(recipe, nn.Identity(), config, torch.device("cpu"), {})
    clips = sorted({frame.clip_id for frame in data.frames})
    sounds_of = dict(zip(clips, [*clips[1:], clips[0]], strict=True))
    del sounds_of[clips[-1]]
    notes = Notes(len(data.frames))
    answers = {a.clip_id: a for a in model.answers(data, [None], (), notes, sounds_of)}
    assert sorted(answers) == clips
    read = dict(model.read(data, clips, notes))
    for clip, answer in answers.items():
        own = recipe.heatmaps(model.model, read[clip], answer.frame_index)
        np.testing.assert_array_equal(answer.heatmaps[None], own)
        if clip not in sounds_of:
            assert answer.exchanged is None
            continue
        assert answer.exchanged is not None
        kept, changed = answer.exchanged[None]
        np.testing.assert_array_equal(kept, own)
        other = ClipTensors(read[clip].frames, read[sounds_of[clip]].waveform)
        np.testing.assert_array_equal(
            changed, recipe.heatmaps(model.model, other, answer.frame_index)
        )
    assert any(
        (a.exchanged[None][0] != a.exchanged[None][1]).any()
        for a in answers.values()
        if a.exchanged
    )


@pytest.mark.parametrize("claimed", [5, {"of_clips": {"a": "much"}}, {"of_clips": {"a": 3.0}}, {}])
def test_a_spoiled_sensitivity_is_one_line(
    data: EvaluationSet, tmp_path: Path, claimed: object
) -> None:
    found, _ = predict(ImagePredictor(Hears()), data, {None: tmp_path}, sensitivity_clips=2)
    about = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(about | {HEARING: claimed}))
    with pytest.raises(AvatarBuildError, match=r"model\.json: hearing") as error:
        evaluate(data, found[None])
    assert "\n" not in str(error.value)


def test_the_fixed_map_equals_a_slow_second_definition(data: EvaluationSet) -> None:
    frames = data.frames
    found = list(fixed_maps(frames, "mask", 0.1))
    assert len(found) == len(frames)
    for frame, predicted in zip(frames, found, strict=True):
        others = [f for f in frames if f.video_id != frame.video_id and not f.off_screen]
        mean = np.mean([f.truth(GRID_HW).astype(float) for f in others], axis=0)
        nth = np.sort(mean.ravel())[::-1][round(mean.size * 0.1) - 1]
        assert (predicted == ((mean >= nth - 1e-12) & (mean > 0))).all()
    # Nothing of a frame's own video is in it, so one video alone has none.
    alone = [frame for frame in frames if frame.video_id == "video000001"]
    assert list(fixed_maps(alone, "mask", 0.1)) == []


def test_the_fixed_map_stands_in_every_table(data: EvaluationSet, tmp_path: Path) -> None:
    found, _ = predict(ImagePredictor(Hears()), data, {None: tmp_path})
    scores = evaluate(data, found[None])
    floor = scores.floors[FIXED_MAP]
    assert floor.keys() == scores.rows.keys()
    maps = dict(
        zip((f.frame_id for f in data.frames), fixed_maps(data.frames, "mask", 0.1), strict=True)
    )
    sounding = [frame for frame in data.frames if not frame.off_screen]
    wanted = np.mean([ciou(maps[f.frame_id], f.truth(GRID_HW)) for f in sounding])
    assert floor["Total"]["CIoU"].value == pytest.approx(100 * wanted)
    told = to_markdown(scores)
    assert "fixed map: the mean truth of the other videos' frames" in " ".join(told.split())
    rows = [[cell.strip() for cell in line.split("|")] for line in told.splitlines()]
    (row,) = [row for row in rows if row[1:3] == ["Total", "CIoU"]]
    assert row[-2] == f"{floor['Total']['CIoU'].value:.2f}"
    assert any(line.startswith("fixed map: Total,CIoU,") for line in to_csv(scores).splitlines())
    one = replace(data, frames=tuple(f for f in data.frames if f.video_id == "video000001"))
    assert evaluate(one, found[None]).floors == {}
