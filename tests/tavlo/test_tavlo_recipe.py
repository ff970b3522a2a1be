"""TAVLO from a clip to its heatmaps: frames and sound stay together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18

from pipeline.errors import AvatarBuildError, ConfigError, UsageError
from pipeline.media.clip_cache import RATE_HZ, ClipTensors
from pipeline.models.register import add
from tavlo.network.model import Tavlo, TavloSizes
from tavlo.training.cached_clips import cache_clip
from tavlo.training.data import collate, read_clip
from tavlo.training.recipe import Recipe, make_recipe
from tavlo.training.tavlo_recipe import TavloRecipe
from tavlo.training.training_clips import ClipSource
from tavlo.training.training_config import read_settings
from tests.tavlo import small
from tests.video_factory import make_video

FRAMES = 10


def model_of(recipe: Recipe, seed: int = 0) -> Tavlo:
    torch.manual_seed(seed)
    model = recipe.make_network().eval()
    assert isinstance(model, Tavlo)
    return model


def forward(model: Tavlo, *clips: ClipTensors) -> dict[str, Tensor]:
    samples = [
        (str(number), small.recipe().sample(clip, None)) for number, clip in enumerate(clips)
    ]
    with torch.no_grad():
        found: dict[str, Tensor] = model(collate(samples).inputs)
    return found


def impulses(frames: list[int], at: float = 0.25) -> np.ndarray:
    """A click in some frames of a second; by default in the middle of the frame's first step."""
    sound = np.zeros(RATE_HZ, np.float32)
    each = RATE_HZ // FRAMES
    for frame in frames:
        middle = frame * each + round(each * at)
        sound[middle - 200 : middle + 200] = np.hanning(400) * 0.5
    return sound


def test_the_shapes_are_the_papers_at_full_size() -> None:
    recipe = make_recipe("tavlo")
    clip = ClipTensors(np.zeros((250, 224, 224, 3), np.uint8), np.zeros(160_000, np.float32))
    sample = recipe.sample(clip, None)
    assert sample["frames"].shape == (250, 224, 224, 3)
    assert sample["spectrogram"].shape == (1000, 128)
    assert isinstance(recipe, TavloRecipe)
    assert (TavloSizes().feature_size, TavloSizes().token_size, TavloSizes().grid) == (512, 576, 7)


def test_the_maps_are_cosines_of_the_frames_asked_for() -> None:
    recipe = small.recipe()
    model, clip = model_of(recipe), small.blank(FRAMES)
    maps = recipe.heatmaps(model, clip, range(FRAMES))
    assert maps.shape == (FRAMES, 2, 2)
    assert maps.dtype == np.float32
    assert np.abs(maps).max() <= 1 + 1e-6
    assert np.array_equal(recipe.heatmaps(model, clip, [7, 2]), maps[[7, 2]])


def test_a_batch_of_one_equals_a_batch_of_many_of_other_lengths() -> None:
    model = model_of(small.recipe())
    clips = [small.blank(8, 0), small.blank(12, 1), small.blank(10, 2)]
    many = forward(model, *clips)
    for number, clip in enumerate(clips):
        alone = forward(model, clip)
        count = len(clip.frames)
        for name in ("audio_tokens", "visual_tokens"):
            assert torch.allclose(many[name][number, :count], alone[name][0], atol=1e-5)


def test_filling_changes_neither_the_loss_nor_what_batchnorm_counts() -> None:
    recipe = small.recipe()
    clips = [small.blank(8, 0), small.blank(12, 1)]
    batch = collate([(str(n), recipe.sample(clip, None)) for n, clip in enumerate(clips)])
    losses, means = [], []
    for more in (0, 3):  # filled up further
        model = model_of(recipe).train()
        inputs = {
            "frames": torch.cat([batch.inputs["frames"], torch.full((2, more, 64, 64, 3), 255)], 1),
            "spectrogram": torch.cat([batch.inputs["spectrogram"], torch.ones(2, 2 * more, 16)], 1),
            "frame_mask": torch.cat(
                [batch.inputs["frame_mask"], torch.zeros(2, more, dtype=torch.bool)], 1
            ),
        }
        model.time_position = torch.nn.Parameter(torch.ones(20, 8))
        model.sizes = TavloSizes(**(small.SIZES | {"max_frames": 20}))  # type: ignore[arg-type]
        losses.append(recipe.loss(model(inputs)).item())
        norm = model.visual_encoder.stages[0][1]  # type: ignore[index]
        means.append(norm.running_mean.clone())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert torch.allclose(means[0], means[1], atol=1e-6)


def test_the_order_of_the_frames_matters() -> None:
    recipe = small.recipe()
    model, clip = model_of(recipe), small.blank(FRAMES)
    order = np.random.default_rng(1).permutation(FRAMES)
    sound = clip.waveform.reshape(FRAMES, -1)[order].ravel()
    maps = recipe.heatmaps(model, clip, range(FRAMES))
    moved = recipe.heatmaps(model, ClipTensors(clip.frames[order], sound), range(FRAMES))
    assert np.abs(moved - maps[order]).max() > 1e-3


def test_impulses_a_frame_later_move_the_map_by_one_frame() -> None:
    recipe = small.recipe()
    model = model_of(recipe)
    with torch.no_grad():
        # Without positions in time nothing else tells the frames of a still picture apart.
        model.time_position.zero_()
    still = small.blank(FRAMES).frames
    still[:] = still[0]
    maps = [
        recipe.heatmaps(model, ClipTensors(still, impulses(frames)), range(FRAMES))
        for frames in ([2, 5, 6], [3, 6, 7])
    ]
    assert np.allclose(maps[1], np.roll(maps[0], 1, axis=0), atol=1e-5)
    assert np.abs(maps[1] - maps[0]).max() > 1e-3


def test_impulses_in_a_file_are_heard_in_their_own_frame(tmp_path: Path) -> None:
    recipe = small.recipe()
    model = model_of(recipe)
    heard = []
    for name, frames in (("a", [2, 5, 6]), ("b", [3, 6, 7])):
        path = tmp_path / f"{name}.mkv"
        make_video(path, frames=FRAMES, fps=FRAMES, sound=impulses(frames), sound_codec="flac")
        cache_clip(ClipSource(name, name, path, 0.0), tmp_path / "copy.mkv", small.config().rules)
        sample = recipe.sample(read_clip(tmp_path / "copy.mkv", 1.0), None)
        with torch.no_grad():
            heard.append(model.audio_encoder(sample["spectrogram"].T[None])[0])
        loud = sample["spectrogram"].reshape(FRAMES, -1).amax(1)
        assert loud.topk(3).indices.sort().values.tolist() == frames
    assert torch.allclose(heard[1], heard[0].roll(1, 0), atol=1e-3)
    assert not torch.allclose(heard[1], heard[0], atol=1e-1)


def test_every_second_frame_hears_the_sound_of_two() -> None:
    recipe = small.recipe(every=2)
    clip = ClipTensors(small.blank(FRAMES).frames, impulses([4], 0.5))
    sample = recipe.sample(clip, None)
    assert len(sample["frames"]) == 5
    assert int(sample["spectrogram"].reshape(5, -1).amax(1).argmax()) == 2
    odd = ClipTensors(clip.frames[:9], impulses([4], 0.5)[: 9 * 1600])
    sample = recipe.sample(odd, None)
    assert len(sample["frames"]) == 5
    assert int(sample["spectrogram"].reshape(5, -1).amax(1).argmax()) == 2
    assert recipe.heatmaps(model_of(recipe), odd, [8]).shape == (1, 2, 2)


def test_a_clip_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(AvatarBuildError, match="13 frames; the network's positions end at 12"):
        small.recipe().sample(small.blank(13), None)


def test_imagenet_is_refused_to_be_missing_and_said_either_way(tmp_path: Path) -> None:
    recipe = make_recipe("tavlo", {})
    torch.manual_seed(0)
    model = recipe.make_network()
    missing = r"models fetch resnet18', or train from scratch with --set tavlo\.imagenet=false\.$"
    for ask in (recipe.check_start, lambda: recipe.initialise(model)):
        with pytest.raises(UsageError, match=missing):
            ask()
    torch.manual_seed(1)
    weights = resnet18().state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    file = add("resnet18", tmp_path / "resnet18.pth", own=True)
    assert recipe.initialise(model)["visual encoder"] == f"ImageNet, SHA-256 {file.sha256}"
    assert isinstance(model, Tavlo)
    found = model.visual_encoder.state_dict()
    assert torch.equal(found["stages.0.0.weight"], weights["conv1.weight"])
    assert torch.equal(found["stages.4.1.conv2.weight"], weights["layer4.1.conv2.weight"])
    # The same pictures give the same features as torchvision's own network.
    net = resnet18()
    net.load_state_dict(weights)
    net.eval()
    model.eval()
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        theirs = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(picture)))))
        theirs = net.layer4(net.layer3(net.layer2(theirs)))
        assert torch.allclose(model.visual_encoder(picture), theirs, atol=1e-5)
    # Registered or not, another encoder cannot take them.
    narrow = small.recipe(imagenet=True)
    with pytest.raises(UsageError, match=r"make no ResNet-18, .* --set tavlo\.imagenet=false"):
        narrow.check_start()
    plain = make_recipe("tavlo", {"imagenet": False})
    plain.check_start()
    assert plain.initialise(plain.make_network())["visual encoder"] == "from scratch"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pictures": 1}, "tavlo.pictures: no such setting"),
        ({"sizes": {"nope": 1}}, "tavlo.sizes.nope: no such setting"),
        ({"picture_px": 96}, "picture_px is 96, and 7 cells of 32 pixels are 224"),
        ({"negatives": "median"}, r"tavlo\.negatives: .*\(got 'median'\)"),
        ({"spectrogram": {"num_bins": 64}}, "must agree"),
    ],
)
def test_a_setting_that_is_none_or_does_not_fit_is_one_line(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_recipe("tavlo", changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("toml", "typed", "message"),
    [
        ("train = 5", "", "train is no table of settings"),
        ("[train]\nbatch = " + "9" * 5000, "", "not valid TOML"),
        ("[train]\nbatch = " + "[" * 9000, "", "not valid TOML"),
        ("[train]\nbatch = 2", "train.batch.x=1", "batch is no table of settings"),
        ("", "train.batch=" + "9" * 5000, "train.batch: "),
        ("", "train.batch=2\nseed = 1", "train.batch: "),
    ],
)
def test_settings_of_training_that_are_none_are_one_line(
    tmp_path: Path, toml: str, typed: str, message: str
) -> None:
    (tmp_path / "t.toml").write_text(toml)
    with pytest.raises(ConfigError, match=message):
        read_settings("tavlo", tmp_path / "t.toml", [typed] if typed else [])


def test_the_settings_give_the_same_recipe_again() -> None:
    recipe = small.recipe(negatives="max", every=3)
    assert make_recipe("tavlo", recipe.config()).config() == recipe.config()


def test_settings_by_their_older_names_are_taken_and_said_once() -> None:
    typed = ["tavlo.sizes.meeting=alone", "tavlo.sizes.start=identity"]
    _, recipe = read_settings("tavlo", None, typed)
    sizes = recipe.config()["sizes"]
    assert (sizes["spatial_attention"], sizes["residual_init"]) == ("none", "zero")
    assert recipe.notes[:2] == [
        "tavlo.sizes.meeting=alone is now called spatial_attention=none.",
        "tavlo.sizes.start=identity is now called residual_init=zero.",
    ]
    assert make_recipe("tavlo", recipe.config()).notes == []
    with pytest.raises(ConfigError, match=r"sizes\.meeting: the older name of spatial_attention"):
        read_settings("tavlo", None, [*typed, "tavlo.sizes.spatial_attention=joint"])
    with pytest.raises(ConfigError, match=r"spatial_attention: .*\(got 'together'\)"):
        read_settings("tavlo", None, ["tavlo.sizes.meeting=together"])


def test_presets_are_what_their_names_say() -> None:
    _, paper = read_settings("tavlo", preset="paper")
    _, none = read_settings("tavlo")
    # No preset is no silent change of what the paper prints.
    assert paper.config() == none.config() == make_recipe("tavlo").config()
    settings = paper.config()
    assert (settings["negatives"], settings["temperature"]) == ("mean", 1.0)
    assert (settings["sizes"]["spatial_attention"], settings["sizes"]["residual_init"]) == (
        "joint",
        "random",
    )
    assert (paper.preset, none.preset) == ("paper", "paper")
    assert [note.partition(":")[0] for note in (*paper.notes, *none.notes)] == [
        "preset paper",
        "no --preset, so paper",
    ]
    _, late = read_settings("tavlo", preset="late-fusion")
    changed = {
        name: value for name, value in flat(late.config()).items() if value != flat(settings)[name]
    }
    assert changed == {
        "negatives": "max",
        "temperature": 0.07,
        "sizes.spatial_attention": "none",
        "sizes.residual_init": "zero",
    }
    assert late.preset == "late-fusion"
    assert len(late.notes) == 1
    assert late.notes[0].startswith("preset late-fusion: ours, not the paper's")


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
        )
    return found


def test_what_is_set_wins_over_a_preset_and_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[tavlo]\ntemperature = 0.1\n[tavlo.sizes]\nnum_blocks = 3\n")
    typed = ["tavlo.negatives=mean", "tavlo.sizes.residual_init=zero"]
    _, recipe = read_settings("tavlo", tmp_path / "t.toml", typed, preset="late-fusion")
    settings = recipe.config()
    assert (settings["negatives"], settings["temperature"]) == ("mean", 0.1)
    assert settings["sizes"]["spatial_attention"] == "none"
    assert settings["sizes"]["num_blocks"] == 3
    changed = "tavlo.negatives=mean (not max), tavlo.temperature=0.1 (not 0.07)"
    assert recipe.notes[-1].endswith(f": {changed}.")
    assert recipe.preset == f"late-fusion, but {changed}"
    # Without a preset what is changed of the paper is said as well.
    _, other = read_settings("tavlo", settings=["tavlo.negatives=max"])
    assert other.preset == "paper, but tavlo.negatives=max (not mean)"


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r"--preset 'best': of tavlo there is paper, late-fusion\."
    ):
        read_settings("tavlo", preset="best")
    with pytest.raises(UsageError, match=r"--preset 'late-fusion': of ezvsl there is paper\."):
        read_settings("ezvsl", preset="late-fusion")
    _, recipe = read_settings("ezvsl", preset="paper")
    assert recipe.notes[0].startswith("preset paper: its authors' settings")
