"""SAM, SAM 2.1 and EdgeTAM of random numbers, through what loads and runs the official ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segment_anything
import torch
from safetensors.torch import load_file, save_file

from pipeline.config import SegmentConfig
from pipeline.errors import UsageError
from pipeline.media import frames_between
from pipeline.models.register import add
from pipeline.records import rle
from pipeline.records.schema import Frame, Instance, Mask
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from stages.backends.interfaces import SEGMENTERS, Hint, Image, Prompt, Segmented, make_backend
from stages.backends.prompted import PromptedSegmenter, choose_mask
from stages.backends.sam import fused_attention
from tests.conftest import ROOT
from tests.labeling.labelled_workspace import commit
from tests.rows import frame
from tests.stages.backends import tiny_sam

BOXES = [[0.0, 0.0, 320.0, 180.0], [40.0, 20.0, 200.0, 120.0], [100.5, 60.0, 30.0, 30.0]]
NAMES = ["sam-vit-b", "sam2.1-hiera-tiny", "edgetam"]
HINTS = [
    Hint([40.0, 20.0, 200.0, 120.0], [(60.0, 40.0, True)]),
    Hint([40.0, 20.0, 200.0, 120.0], [(60.0, 40.0, True), (200.5, 130.0, False)]),
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "sam-vit-b": tiny_sam.write_sam(folder / "sam_vit_b_01ec64.pth"),
        "sam2.1-hiera-tiny": tiny_sam.write_sam2(folder / "sam2"),
        "edgetam": tiny_sam.write_edgetam(folder / "edgetam"),
    }


@pytest.fixture
def registered(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch, models_folder: Path
) -> dict[str, Path]:
    """The tiny models under the names of real ones."""
    tiny_sam.use_tiny_sam(monkeypatch.setitem)
    for name, path in weights.items():
        add(name, path, own=True)
    return weights


def opened(name: str, folder: Path, **settings: Any) -> PromptedSegmenter:
    config = SegmentConfig.model_validate({"segmenter": name, "device": "cpu", **settings})
    made: PromptedSegmenter = make_backend(SEGMENTERS, name, config)
    made.open(Storage(folder))
    return made


def picture(seed: int = 0) -> Image:
    small = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return np.kron(small, np.ones((20, 20, 1), dtype=np.uint8))


def same(one: Segmented, other: Segmented) -> None:
    assert (one.mask != other.mask).mean() < 1e-3
    assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-4)
    assert one.stability == pytest.approx(other.stability, abs=1e-2)


def test_sam_answers_as_its_authors_predictor_does_box_by_box(
    registered: dict[str, Path], tmp_path: Path
) -> None:
    theirs = tiny_sam.tiny_sam()
    theirs.load_state_dict(torch.load(registered["sam-vit-b"], weights_only=True))
    predictor = segment_anything.SamPredictor(theirs.eval())
    predictor.set_image(picture())
    ours = opened("sam-vit-b", tmp_path)
    (answers,) = ours.segment([Prompt(picture(), BOXES)])
    for (x, y, w, h), answer in zip(BOXES, answers, strict=True):
        box = np.array([x, y, x + w, y + h])
        logits, ious, _ = predictor.predict(box=box, multimask_output=True, return_logits=True)
        taken = choose_mask(logits > 0, ious, box, 0.5)
        stability = (logits[taken] > 1).sum() / (logits[taken] > -1).sum()
        same(answer, Segmented(logits[taken] > 0, float(ious[taken]), float(stability)))
        assert 0 < answer.mask.mean() < 1, "an empty answer would agree with anything"


def as_transformers_loads_it(name: str, folder: Path) -> tuple[Any, Any]:
    """The processor, and the network as its own library reads the folder."""
    import transformers

    classes = {"sam2.1-hiera-tiny": "Sam2Model", "edgetam": "EdgeTamModel"}
    images = transformers.Sam2ImageProcessor(size={"height": 256, "width": 256})
    network = getattr(transformers, classes[name]).from_pretrained(folder)
    return transformers.Sam2Processor(images, target_size=256), network.eval()


@pytest.mark.parametrize("name", ["sam2.1-hiera-tiny", "edgetam"])
def test_sam2_answers_as_transformers_own_processor_and_model_do(
    name: str, registered: dict[str, Path], tmp_path: Path
) -> None:
    (answers,) = opened(name, tmp_path).segment([Prompt(picture(), BOXES)])
    processor, model = as_transformers_loads_it(name, registered[name])
    corners = [[[x, y, x + w, y + h] for x, y, w, h in BOXES]]
    given = processor(images=picture(), input_boxes=corners, return_tensors="pt")
    with torch.inference_mode():
        found: Any = model(
            pixel_values=given["pixel_values"],
            input_boxes=given["input_boxes"],
            multimask_output=True,
        )
    (logits,) = processor.post_process_masks(
        found.pred_masks, given["original_sizes"], binarize=False
    )
    for number, answer in enumerate(answers):
        all_masks, ious = logits[number].numpy(), found.iou_scores[0, number].numpy()
        taken = choose_mask(all_masks > 0, ious, np.array(corners[0][number]), 0.5)
        mask = all_masks[taken]
        stability = (mask > 1).sum() / max(1, (mask > -1).sum())
        same(answer, Segmented(mask > 0, float(ious[taken]), float(stability)))


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_is_embedded_once_for_all_of_its_boxes_and_batches_change_no_answer(
    name: str, registered: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = opened(name, tmp_path)
    seen: list[int] = []
    encode = segmenter.encode

    def counted(pixels: torch.Tensor) -> Sequence[Any]:
        seen.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(segmenter, "encode", counted)
    prompts = [Prompt(picture(seed), BOXES[: 3 - seed]) for seed in range(3)]
    alone = list(segmenter.segment(prompts))
    assert seen == [1, 1, 1]
    monkeypatch.setattr(segmenter, "_batch", lambda: 2)
    together = list(segmenter.segment(prompts))
    assert seen[3:] == [2, 1]
    assert [len(answers) for answers in together] == [3, 2, 1]
    for one, other in zip(sum(alone, []), sum(together, []), strict=True):  # noqa: RUF017
        same(one, other)


def test_a_batch_too_large_for_the_device_is_halved(
    registered: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = opened("sam2.1-hiera-tiny", tmp_path)
    encode = segmenter.encode

    def small(pixels: torch.Tensor) -> Sequence[Any]:
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(pixels)

    prompts = [Prompt(picture(seed), BOXES[:1]) for seed in range(3)]
    expected = list(segmenter.segment(prompts))
    monkeypatch.setattr(segmenter, "encode", small)
    monkeypatch.setattr(segmenter, "_batch", lambda: 3)
    for one, other in zip(expected, segmenter.segment(prompts), strict=True):
        same(one[0], other[0])


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_moves_masks_only_a_little(
    name: str, registered: dict[str, Path], tmp_path: Path
) -> None:
    (full,) = opened(name, tmp_path).segment([Prompt(picture(), BOXES)])
    (half,) = opened(name, tmp_path, precision="bfloat16").segment([Prompt(picture(), BOXES)])
    assert any(
        one.predicted_iou != other.predicted_iou for one, other in zip(full, half, strict=True)
    )
    for one, other in zip(full, half, strict=True):
        assert other.predicted_iou == pytest.approx(one.predicted_iou, abs=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_nan_says_so_for_every_box(
    name: str, registered: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = opened(name, tmp_path)
    prepare = segmenter.pixels
    monkeypatch.setattr(segmenter, "pixels", lambda image: prepare(image) * float("nan"))
    (answers,) = segmenter.segment([Prompt(picture(), BOXES)])
    assert all(answer.predicted_iou != answer.predicted_iou for answer in answers)


@pytest.mark.parametrize(("side", "batch"), [(14, 3), (6, 1)])
def test_fused_attention_is_the_authors_attention(side: int, batch: int) -> None:
    from segment_anything.modeling.image_encoder import Attention

    torch.manual_seed(0)
    layer = Attention(48, 3, qkv_bias=True, use_rel_pos=True, input_size=(side, side))
    torch.nn.init.normal_(layer.rel_pos_h)
    torch.nn.init.normal_(layer.rel_pos_w)
    given = torch.randn(batch, side, side, 48)
    with torch.inference_mode():
        expected = layer(given)
        torch.testing.assert_close(fused_attention(layer)(given), expected, atol=1e-5, rtol=0)


def masks_with(*corners: tuple[int, int, int, int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    made = np.zeros((len(corners), 50, 50), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(made, corners, strict=True):
        mask[y0:y1, x0:x1] = True
    return made


BOX = (10, 10, 30, 30)


@pytest.mark.parametrize(
    ("corners", "ious", "taken"),
    [
        ([BOX, BOX, BOX], [0.3, 0.9, 0.5], 1),
        ([BOX, (10, 10, 28, 30), (0, 0, 50, 50)], [0.3, 0.5, 0.99], 1),  # all of the frame
        ([(10, 10, 14, 14), BOX, (0, 0, 0, 0)], [0.9, 0.1, 0.95], 1),  # a part, nothing
        ([(10, 10, 14, 14), (0, 0, 50, 50), (40, 40, 50, 50)], [0.5, 0.1, 0.9], 1),  # none agrees
        ([BOX, BOX, BOX], [0.3, 0.9, float("nan")], 2),
    ],
)
def test_the_mask_of_highest_predicted_iou_among_those_that_agree_with_the_box_is_taken(
    corners: list[tuple[int, int, int, int]], ious: list[float], taken: int
) -> None:
    found = choose_mask(masks_with(*corners), np.array(ious), np.array(BOX, dtype=float), 0.5)
    assert found == taken


def test_a_checkpoint_of_another_size_names_its_first_wrong_tensor(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    add("sam-vit-b", weights["sam-vit-b"], own=True)
    with pytest.raises(UsageError, match=r"image_encoder\.pos_embed is \(1, 64, 64, 32\)"):
        opened("sam-vit-b", tmp_path)


def changed(found: dict[str, Any], how: str) -> dict[str, Any]:
    name = next(key for key in found if key.endswith("iou_token.weight"))
    if how == "missing":
        return {key: value for key, value in found.items() if key != name}
    if how == "shape":
        return found | {name: torch.zeros(1, 7)}
    return found | {"head.extra": torch.zeros(1)}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", r"iou_token\.weight is missing"),
        ("shape", r"iou_token\.weight is \(1, 7\), this model's is \(1, 256\)"),
        ("extra", r"head\.extra is none of this model"),
    ],
)
def test_a_foreign_checkpoint_names_its_first_wrong_tensor(
    how: str, said: str, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_sam.use_tiny_sam(monkeypatch.setitem)
    path = tmp_path / "bad.pth"
    torch.save(changed(torch.load(weights["sam-vit-b"], weights_only=True), how), path)
    add("sam-vit-b", path, own=True)
    with pytest.raises(UsageError, match=said):
        opened("sam-vit-b", tmp_path)
    for name in ("sam2.1-hiera-tiny", "edgetam"):
        folder = copied(weights[name], tmp_path / name)
        tensors = load_file(folder / "model.safetensors")
        save_file(changed(tensors, how), folder / "model.safetensors")
        add(name, folder, own=True)
        with pytest.raises(UsageError, match=said):
            opened(name, tmp_path)


def copied(source: Path, folder: Path) -> Path:
    """A model's folder to spoil."""
    shutil.copytree(source, folder)
    return folder


@pytest.mark.parametrize("name", ["sam2.1-hiera-tiny", "edgetam"])
@pytest.mark.parametrize("kept", [0, 7, 100_000])
def test_a_truncated_file_of_tensors_is_named(
    name: str, kept: int, weights: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(weights[name], tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    add(name, folder, own=True)
    with pytest.raises(UsageError, match=r"model\.safetensors: not a readable checkpoint"):
        opened(name, tmp_path)


def test_settings_of_another_model_are_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(weights["sam2.1-hiera-tiny"], tmp_path / "sam2")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    add("sam2.1-hiera-tiny", folder)
    with pytest.raises(UsageError, match=r"config.json: not the settings of a SAM 2"):
        opened("sam2.1-hiera-tiny", tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((), {"model_type": "bert"}, r"not the settings of an EdgeTAM \(KeyError\('vision_config"),
        ((), [], "not the settings of an EdgeTAM"),
        (("model_type",), "sam2_video", "model_type 'sam2_video', EdgeTAM's is 'edgetam_video'"),
        (
            ("vision_config", "backbone_config", "architecture"),
            "hf-hub:somebody/else",
            "encoder 'hf-hub:somebody/else', EdgeTAM's is 'repvit_m1'",
        ),
        (("prompt_encoder_config", "image_size"), 10**9, "image_size 1000000000"),
        (("prompt_encoder_config", "image_size"), 250, "image_size 250, EdgeTAM's is 1024"),
        (("prompt_encoder_config", "image_size"), True, "image_size True"),
    ],
)
def test_settings_that_are_not_edgetams_are_refused_by_name(
    place: tuple[str, ...], value: Any, said: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(weights["edgetam"], tmp_path / "edgetam")
    file = folder / "config.json"
    document = json.loads(file.read_text())
    part = document
    for key in place[:-1]:
        part = part[key]
    if place:
        part[place[-1]] = value
    file.write_text(json.dumps(document if place else value))
    add("edgetam", folder, own=True)
    with pytest.raises(UsageError, match=said):
        opened("edgetam", tmp_path)


def test_a_folder_of_sam2_is_no_edgetam_and_the_other_way_round(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    add("edgetam", weights["sam2.1-hiera-tiny"], own=True)
    add("sam2.1-hiera-tiny", weights["edgetam"])
    with pytest.raises(UsageError, match="EdgeTAM"):
        opened("edgetam", tmp_path)
    with pytest.raises(UsageError, match="its encoder is 'timm_wrapper', not 'sam2_hiera_det"):
        opened("sam2.1-hiera-tiny", tmp_path)


def test_settings_that_ask_for_a_network_of_any_size_take_no_memory_before_they_are_refused(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(weights["sam2.1-hiera-tiny"], tmp_path / "sam2")
    document = json.loads((folder / "config.json").read_text())
    document["mask_decoder_config"]["mlp_dim"] = 10**10  # 10 TB a matrix
    (folder / "config.json").write_text(json.dumps(document))
    add("sam2.1-hiera-tiny", folder)
    with pytest.raises(UsageError, match=r"this model's is \(10000000000"):
        opened("sam2.1-hiera-tiny", tmp_path)


# The whole stage


@pytest.fixture(scope="module")
def shots(shared: Path) -> list[bytes]:
    """Frames of a real video."""
    video = shared / "data" / "raw_videos" / "3qesirWAGt4.mp4"
    found = [shown.encode("jpg", 95) for shown in frames_between(video, 1.0, 6.0)][::20]
    assert len(found) >= 6
    return found[:6]


def filled(root: Path, shots: Sequence[bytes], segmenter: str) -> Workspace:
    """A workspace with instances on real frames: one around all of it, one around a part."""
    workspace = Workspace.create(root)
    toml = f'[segment]\nsegmenter = "{segmenter}"\ndevice = "cpu"\nmin_mask_area = 0.0\n'
    (root / "avatar.toml").write_text(toml)
    frames, instances = [], []
    for index, data in enumerate(shots):
        row = frame(index, width=640, height=360, path=f"media/frames/{index}.jpg")
        workspace.storage.write(row.path, data)
        frames.append(row)
        for part, box in enumerate(([0.0, 0.0, 640.0, 360.0], [200.0, 100.0, 200.0, 200.0])):
            instances.append(instance(f"i_{index}_{part}", row, box))
    commit(workspace, "sample", Frame, frames)
    commit(workspace, "drawn", Instance, instances)
    return Workspace(root)


def instance(name: str, shown: Frame, box: list[float]) -> Instance:
    return Instance(
        instance_id=name,
        frame_id=shown.frame_id,
        bbox=box,
        audio_visual_category="dog",
        scenario="Single-sound",
        review_ids=[],
        proposal_id=None,
        verified=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_stage_answers_for_every_instance_of_real_frames(
    name: str,
    registered: dict[str, Path],
    shots: list[bytes],
    tmp_path: Path,
    one_process: None,
) -> None:
    workspace = filled(tmp_path / "ws", shots, name)
    tiny_sam.segment(str(tmp_path / "ws"))
    asked = {row.id for row in workspace.rows(Instance)}
    masks = {row.id: row for row in workspace.rows(Mask)}
    failed = {row.input_id: row.kind for row in workspace.ledger("segment").failures()}
    assert masks.keys() | failed.keys() == asked
    assert not masks.keys() & failed.keys()
    assert set(failed.values()) <= {"empty_mask", "mask_off_box"}
    assert masks, "not one mask to look at"
    sha256 = opened(name, tmp_path).digest
    for mask in masks.values():
        pixels = rle.decode(mask.rle)
        assert pixels.shape == (360, 640)
        assert (mask.area, mask.bbox) == (pixels.sum(), rle.bbox(mask.rle))
        assert (mask.source, mask.model_digest) == (name, sha256)
        assert mask.predicted_iou is not None
        assert mask.stability is not None
        assert 0 <= mask.stability <= 1


def test_killed_in_the_middle_and_resumed_it_ends_where_an_uninterrupted_run_ends(
    registered: dict[str, Path], shots: list[bytes], tmp_path: Path, one_process: None
) -> None:
    whole = filled(tmp_path / "whole", shots, "sam-vit-b")
    tiny_sam.segment(str(tmp_path / "whole"))
    killed = filled(tmp_path / "killed", shots, "sam-vit-b")
    module = "tests.stages.backends.tiny_sam"
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(tmp_path / "killed")], cwd=ROOT, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not killed.ledger("segment").commits() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = len(killed.ledger("segment").commits())
    assert 0 < before < 3, "killed too early or too late to show anything"
    tiny_sam.segment(str(tmp_path / "killed"))
    assert len(killed.ledger("segment").commits()) == 3
    assert killed.digest("masks") == whole.digest("masks")
    kinds = [
        sorted((row.input_id, row.kind) for row in one.ledger("segment").failures())
        for one in (killed, whole)
    ]
    assert kinds[0] == kinds[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_workers_on_the_gpus_find_the_masks_that_one_finds(
    registered: dict[str, Path], shots: list[bytes], tmp_path: Path
) -> None:
    found = []
    for workers in (1, 2):
        workspace = filled(tmp_path / str(workers), shots, "sam-vit-b")
        toml = tmp_path / str(workers) / "avatar.toml"
        toml.write_text(toml.read_text().replace('"cpu"', '"auto"\nprecision = "float32"'))
        tiny_sam.segment(str(tmp_path / str(workers)), workers)
        found.append({row.id: rle.decode(row.rle) for row in workspace.rows(Mask)})
    one, two = found
    assert one
    assert one.keys() == two.keys()
    for name, mask in one.items():
        assert (mask != two[name]).mean() < 1e-3


def test_a_stage_without_its_weights_stops_before_it_begins(
    shots: list[bytes], tmp_path: Path
) -> None:
    filled(tmp_path / "ws", shots, "sam-vit-b")
    with pytest.raises(UsageError, match="models fetch sam-vit-b"):
        tiny_sam.segment(str(tmp_path / "ws"))


def test_sams_points_are_answered_as_its_authors_predictor_does(
    registered: dict[str, Path], tmp_path: Path
) -> None:
    theirs = tiny_sam.tiny_sam()
    theirs.load_state_dict(torch.load(registered["sam-vit-b"], weights_only=True))
    predictor = segment_anything.SamPredictor(theirs.eval())
    predictor.set_image(picture())
    ours = opened("sam-vit-b", tmp_path)
    embedding = ours.embed(picture())
    for hint in HINTS:
        x, y, w, h = hint.box
        logits, ious, _ = predictor.predict(
            np.array([point[:2] for point in hint.points]),
            np.array([int(point[2]) for point in hint.points]),
            np.array([x, y, x + w, y + h]),
            multimask_output=False,
            return_logits=True,
        )
        stability = (logits[0] > 1).sum() / max(1, (logits[0] > -1).sum())
        same(ours.refine(embedding, hint), Segmented(logits[0] > 0, float(ious[0]), stability))


@pytest.mark.parametrize("name", ["sam2.1-hiera-tiny", "edgetam"])
def test_sam2s_points_are_answered_as_transformers_own_processor_and_model_do(
    name: str, registered: dict[str, Path], tmp_path: Path
) -> None:
    ours = opened(name, tmp_path)
    processor, model = as_transformers_loads_it(name, registered[name])
    embedding = ours.embed(picture())
    for hint in HINTS:
        x, y, w, h = hint.box
        given = processor(
            images=picture(),
            input_boxes=[[[x, y, x + w, y + h]]],
            input_points=[[[list(point[:2]) for point in hint.points]]],
            input_labels=[[[int(point[2]) for point in hint.points]]],
            return_tensors="pt",
        )
        with torch.inference_mode():
            found: Any = model(
                pixel_values=given["pixel_values"],
                input_boxes=given["input_boxes"],
                input_points=given["input_points"],
                input_labels=given["input_labels"],
                multimask_output=False,
            )
        (logits,) = processor.post_process_masks(
            found.pred_masks, given["original_sizes"], binarize=False
        )
        logits = logits[0, 0].numpy()
        stability = (logits > 1).sum() / max(1, (logits > -1).sum())
        expected = Segmented(logits > 0, float(found.iou_scores[0, 0, 0]), stability)
        same(ours.refine(embedding, hint), expected)


@pytest.mark.parametrize("name", NAMES)
def test_without_points_a_person_gets_what_the_stage_answers(
    registered: dict[str, Path], tmp_path: Path, name: str
) -> None:
    ours = opened(name, tmp_path)
    (answers,) = ours.segment([Prompt(picture(), BOXES)])
    embedding = ours.embed(picture())
    for box, answer in zip(BOXES, answers, strict=True):
        same(ours.refine(embedding, Hint(box)), answer)
    one = ours.refine(embedding, HINTS[0])
    assert (one.mask != answers[1].mask).any(), "a point changes the answer"
