"""SAM 2.1's memory with random numbers, against transformers' own way through a whole video."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import InputError, UsageError
from pipeline.models.register import add
from pipeline.workspace.storage import Storage
from stages.backends.device import Precision
from stages.backends.interfaces import Image
from stages.backends.sam2_video import Sam2Memory, Sam2Video
from tests.stages.backends.tiny_sam import write_sam2

NAME = "sam2.1-hiera-tiny"
SIZE = (180, 320)
BOXES = [[40.0, 20.0, 200.0, 120.0], [200.5, 60.0, 60.0, 90.0]]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sam2(tmp_path_factory.mktemp("weights") / "sam2")


@pytest.fixture
def model(weights: Path, models_folder: Path, tmp_path: Path) -> Sam2Video:
    add(NAME, weights)
    return opened(tmp_path)


def opened(folder: Path, precision: Precision = "auto") -> Sam2Video:
    made = Sam2Video(NAME, "cpu", precision)
    made.open(Storage(folder))
    return made


def film(count: int, seed: int = 0) -> list[Image]:
    """A bright patch that walks over a coarse pattern."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 200, (9, 16, 3), dtype=np.uint8)
    still = np.kron(small, np.ones((20, 20, 1), dtype=np.uint8))
    pictures = []
    for number in range(count):
        picture = still.copy()
        picture[50:110, 60 + 6 * number : 120 + 6 * number] = (250, 240, 30)
        pictures.append(picture)
    return pictures


def seen(memory: Sam2Memory, thing: object) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask's logits and the score of a thing in the picture that is shown."""
    return memory._masks[thing]


def follow(
    model: Sam2Video, pictures: Sequence[Image], things: dict[str, tuple[int, Sequence[float]]]
) -> list[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """What is found in each picture of things that are taken up in some picture, in some box."""
    memory, found = model.memory(), []
    for number, picture in enumerate(pictures):
        memory.show(picture)
        for name, (first, box) in things.items():
            if number == first:
                memory.take_up(name, box, SIZE)
        found.append({name: seen(memory, name) for name, (n, _) in things.items() if n <= number})
    return found


def as_transformers_does(
    folder: Path, pictures: Sequence[Image], box: Sequence[float]
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Logits, scores and masks of frame size, the whole video in one session."""
    import transformers

    size = {"height": 256, "width": 256}
    processor: Any = transformers.Sam2VideoProcessor(
        transformers.Sam2ImageProcessor(size=size),
        transformers.Sam2VideoVideoProcessor(size=size),
    )
    build: Any = transformers.Sam2VideoModel
    network = build.from_pretrained(folder).eval()
    session = processor.init_video_session(video=np.stack(pictures))
    x, y, w, h = box
    processor.add_inputs_to_inference_session(
        session, frame_idx=0, obj_ids=1, input_boxes=[[[x, y, x + w, y + h]]]
    )
    found = []
    for one in network.propagate_in_video_iterator(session, start_frame_idx=0):
        (mask,) = processor.post_process_masks([one.pred_masks], [SIZE])
        found.append((one.pred_masks, one.object_score_logits, mask[0, 0]))
    return found


def test_masks_are_those_of_transformers_own_way_through_a_whole_video(
    model: Sam2Video, weights: Path
) -> None:
    pictures = film(24)  # more than memories and notes reach back: one too few is 0.07 off
    for box in BOXES:
        theirs = as_transformers_does(weights, pictures, box)
        ours = follow(model, pictures, {"it": (0, box)})
        for (logits, score, _), found in zip(theirs, ours, strict=True):
            torch.testing.assert_close(found["it"][0], logits, atol=2e-2, rtol=0)
            torch.testing.assert_close(found["it"][1].flatten(), score.flatten(), atol=2e-3, rtol=0)
        areas = [float(mask.float().mean()) for _, _, mask in theirs]
        assert len(set(areas)) > 12, "masks that are all alike would agree with anything"
        assert any(0.01 < area < 0.95 for area in areas[1:])


def test_a_box_is_the_one_around_the_mask(model: Sam2Video, weights: Path) -> None:
    pictures = film(6)
    masks = [mask for _, _, mask in as_transformers_does(weights, pictures, BOXES[0])]
    memory = model.memory()
    memory.show(pictures[0])
    memory.take_up("it", BOXES[0], SIZE)
    for picture, mask in zip(pictures[1:], masks[1:], strict=True):
        memory.show(picture)
        rows, columns = np.nonzero(mask.numpy())
        box = memory.box("it", SIZE)
        if not rows.size:
            assert box is None
            continue
        left, top = columns.min(), rows.min()
        expected = [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        assert box == pytest.approx(expected, abs=1)


def test_a_thing_is_found_alike_alone_and_among_others_that_come_later(model: Sam2Video) -> None:
    pictures = film(16)
    alone = follow(model, pictures, {"it": (0, BOXES[0])})
    among = follow(
        model,
        pictures,
        {
            "before": (0, BOXES[1]),
            "it": (0, BOXES[0]),
            "later": (4, BOXES[1]),
            "last": (9, BOXES[0]),
        },
    )
    for one, other in zip(alone, among, strict=True):
        assert torch.equal(one["it"][0], other["it"][0])
        assert torch.equal(one["it"][1], other["it"][1])
    assert not torch.equal(among[12]["before"][0], among[12]["later"][0])


def test_what_is_kept_of_a_thing_does_not_grow_with_the_pictures(model: Sam2Video) -> None:
    memory = model.memory()
    sizes = []
    for number, picture in enumerate(film(26)):
        memory.show(picture)
        if number == 0:
            memory.take_up("it", BOXES[0], SIZE)
        sizes.append(held_bytes(memory._sessions["it"]))
    assert sizes[17] == sizes[25] > 0
    memory.keep(["it"])
    assert memory.box("it", SIZE) == memory.box("it", SIZE)
    memory.keep([])
    assert memory.box("it", SIZE) is None
    assert not memory._sessions
    assert not memory._masks


def held_bytes(held: Any) -> int:
    """The bytes of all tensors in what a session holds."""
    if isinstance(held, torch.Tensor):
        return held.numel() * held.element_size()
    if isinstance(held, dict):
        return sum(held_bytes(one) for one in held.values())
    if isinstance(held, list | tuple):
        return sum(held_bytes(one) for one in held)
    return held_bytes(vars(held)) if type(held).__name__.startswith("Sam2Video") else 0


def test_a_picture_is_encoded_once_for_all_things(
    model: Sam2Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    look = model.network.get_image_features

    def counted(pixels: torch.Tensor, **settings: Any) -> Any:
        looked.append(len(pixels))
        return look(pixels, **settings)

    monkeypatch.setattr(model.network, "get_image_features", counted)
    follow(model, film(5), {"a": (0, BOXES[0]), "b": (0, BOXES[1]), "c": (2, BOXES[0])})
    assert looked == [1] * 5


def test_half_precision_moves_scores_only_a_little(model: Sam2Video, tmp_path: Path) -> None:
    pictures = film(6)
    full = follow(model, pictures, {"it": (0, BOXES[0])})
    half = follow(opened(tmp_path, "bfloat16"), pictures, {"it": (0, BOXES[0])})
    assert not torch.equal(full[1]["it"][0], half[1]["it"][0].float())
    for one, other in zip(full[:2], half[:2], strict=True):
        assert float(other["it"][1]) == pytest.approx(float(one["it"][1]), abs=1.0)


def test_a_model_of_nan_says_so(model: Sam2Video) -> None:
    memory = model.memory()
    with torch.no_grad():
        model.network.mask_decoder.iou_token.weight.fill_(float("nan"))
    memory.show(film(1)[0])
    memory.take_up("it", BOXES[0], SIZE)
    with pytest.raises(InputError, match=r"not_a_number: sam2\.1-hiera-tiny computed no number"):
        memory.box("it", SIZE)


def test_nothing_is_where_the_network_says_it_is_not(models_folder: Path, tmp_path: Path) -> None:
    for answers, box in (("everywhere", [0.0, 0.0, 320.0, 180.0]), ("nowhere", None)):
        add(NAME, write_sam2(tmp_path / answers, answers))  # type: ignore[arg-type]
        memory = opened(tmp_path).memory()
        memory.show(film(1)[0])
        memory.take_up("it", BOXES[0], SIZE)
        assert memory.box("it", SIZE) == box
        memory.show(film(2)[1])
        assert memory.box("it", SIZE) == box


@pytest.mark.parametrize(
    "box",
    [
        [-50.0, -20.0, 100.0, 90.0],
        [300.0, 170.0, 90.0, 90.0],
        [400.0, 300.0, 20.0, 20.0],
        [9, 9, 0, 0],
    ],
)
def test_a_box_beyond_the_picture_or_without_an_area_is_no_fault(
    model: Sam2Video, box: list[float]
) -> None:
    found = follow(model, film(3), {"it": (0, box)})
    assert all(one["it"][0].isfinite().all() for one in found)


# Weights and settings


def copied(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


def changed(found: dict[str, Any], name: str, how: str) -> dict[str, Any]:
    if how == "missing":
        return {key: value for key, value in found.items() if key != name}
    if how == "shape":
        return found | {name: torch.zeros(3)}
    return found | {f"{name}.more": torch.zeros(1)}


@pytest.mark.parametrize(
    "name",
    [
        "memory_encoder.projection.weight",
        "memory_attention.layers.1.linear1.bias",
        "memory_temporal_positional_encoding",
        "no_object_pointer",
        "mask_decoder.iou_token.weight",
    ],
)
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "tensor {} is missing: not a checkpoint of this model"),
        ("shape", r"tensor {} is \(3,\), this model's is"),
        ("extra", r"tensor {}\.more is none of this model's"),
    ],
)
def test_every_tensor_of_the_memory_must_be_there_and_no_other(
    name: str, how: str, said: str, weights: Path, models_folder: Path, tmp_path: Path
) -> None:
    folder = copied(weights, tmp_path / "spoiled")
    tensors = load_file(folder / "model.safetensors")
    save_file(changed(tensors, name, how), folder / "model.safetensors")
    add(NAME, folder, own=True)
    with pytest.raises(UsageError, match=said.format(name.replace(".", r"\."))):
        opened(tmp_path)


def test_a_truncated_file_of_tensors_is_named(
    weights: Path, models_folder: Path, tmp_path: Path
) -> None:
    folder = copied(weights, tmp_path / "spoiled")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])
    add(NAME, folder, own=True)
    with pytest.raises(UsageError, match=r"model\.safetensors: not a readable checkpoint"):
        opened(tmp_path)


def test_weights_that_changed_since_they_were_registered_are_refused(
    weights: Path, models_folder: Path, tmp_path: Path
) -> None:
    folder = copied(weights, tmp_path / "sam2")
    add(NAME, folder)
    before = Sam2Video(NAME, "cpu", "auto").fingerprint()
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    for ask in (lambda: Sam2Video(NAME, "cpu", "auto").fingerprint(), lambda: opened(tmp_path)):
        with pytest.raises(UsageError, match=r"registered was .*models fetch sam2\.1-hiera-tiny"):
            ask()
    add(NAME, folder)
    assert Sam2Video(NAME, "cpu", "auto").fingerprint() != before


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((), {"model_type": "bert"}, "not the settings of a SAM 2 model"),
        ((), [], "not the settings of a SAM 2 model"),
        (("vision_config", "backbone_config", "model_type"), "timm_wrapper", "'timm_wrapper'"),
        (("image_size",), 512, "its parts are not all of an input of 256 pixels"),
        (("memory_attention_rope_feat_sizes",), [8, 8], "its parts are not all of an input of 256"),
        (("prompt_encoder_config", "image_size"), 512, "its parts are not all of an input of 512"),
        (("prompt_encoder_config", "image_size"), [256, 256], "not the settings of a SAM 2 model"),
        (("num_maskmem",), "seven", "not the settings of a SAM 2 model"),
        (("memory_attention_num_layers",), 3, r"memory_attention\.layers\.2\..* is missing"),
        (("memory_attention_feed_forward_hidden_size",), 10**10, r"this model's is \(10000000000"),
    ],
)
def test_settings_that_are_not_sam2s_are_refused_by_name(
    place: tuple[str, ...],
    value: Any,
    said: str,
    weights: Path,
    models_folder: Path,
    tmp_path: Path,
) -> None:
    folder = copied(weights, tmp_path / "sam2")
    file = folder / "config.json"
    document = json.loads(file.read_text())
    part = document
    for key in place[:-1]:
        part = part[key]
    if place:
        part[place[-1]] = value
    file.write_text(json.dumps(document if place else value))
    add(NAME, folder, own=True)
    with pytest.raises(UsageError, match=said):
        opened(tmp_path)


def test_a_setting_of_the_memory_is_read_from_the_folder(
    model: Sam2Video, weights: Path, tmp_path: Path
) -> None:
    assert model.network.config.rope_parameters["rope_theta"] == 500.0
    folder = copied(weights, tmp_path / "sam2")
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(document | {"sigmoid_scale_for_mem_enc": 2.0}))
    add(NAME, folder, own=True)
    (one, other) = (
        follow(made, film(3), {"it": (0, BOXES[0])})[2]["it"][0]
        for made in (model, opened(tmp_path))
    )
    assert not torch.equal(one, other)
