"""D-FINE with random weights in its published size and folder, from the files to boxes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.config import ProposeConfig
from pipeline.errors import InputError, UsageError
from pipeline.models.register import add
from pipeline.run.stage import Ok
from pipeline.workspace.storage import Storage
from stages.backends.detectors import load_folder
from stages.backends.dfine import DFineDetector, check_folder
from stages.backends.interfaces import FrameInput
from stages.propose.propose_boxes import ProposeBoxes
from stages.taxonomy import load_taxonomy, seen_classes
from tests.rows import context, frame, sounds, video
from tests.stages.backends.weights import write_dfine

pytest.importorskip("transformers")

NAME = "dfine-small-obj365"
OLD_SPELLINGS = {3: "motorbike", 4: "aeroplane", 57: "sofa", 60: "diningtable", 62: "tvmonitor"}


def published() -> dict[int, str]:
    """The names in the published settings of the networks of Objects365's classes."""
    names = {place + 1: name for place, name in enumerate(seen_classes("objects365"))}
    spelled = {"Dining Table": "Dinning Table", "Hami melon": "Hamimelon"}
    return {0: "None"} | {place: spelled.get(name, name) for place, name in names.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dfine(tmp_path_factory.mktemp("dfine") / "files", published())


@pytest.fixture
def registered(folder: Path, models_folder: Path) -> Path:
    add(NAME, folder)
    return folder


def detector(name: str = NAME, **changes: Any) -> DFineDetector:
    values = {"detectors": [name], "device": "cpu"} | changes
    found = DFineDetector(ProposeConfig(**values))
    found.open(Storage("unused"))
    return found


def noise(index: int, width: int = 320, height: int = 180) -> FrameInput:
    pixels = np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)
    return FrameInput(frame(index, width=width, height=height), lambda: pixels, video())


def test_boxes_are_of_objects365s_classes_and_in_frame_pixels(registered: Path) -> None:
    for width, height in ((320, 180), (180, 320)):
        (found,) = detector().detect([noise(1, width, height)])
        assert len(found) > 20
        assert len({d.name for d in found}) > 5
        assert {d.name for d in found} <= set(seen_classes("objects365")), "none is of nothing"
        for part, side in ((0, width), (1, height)):
            centres = [d.bbox[part] + d.bbox[part + 2] / 2 for d in found]
            assert min(centres) >= 0
            assert side / 2 < max(centres) <= side
        assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
        assert all(0.05 <= d.score <= 1 for d in found)


def test_the_published_post_processing_gives_no_box_that_ours_does_not(registered: Path) -> None:
    import torch

    item = noise(2)
    one = detector(raw_iou=1.0, raw_boxes=100_000)
    (ours,) = one.detect([item])
    with torch.inference_mode():
        answer = one._network(**one._look(images=[item.image], return_tensors="pt"))
    (theirs,) = one._look.post_process_object_detection(
        answer, threshold=0.05, target_sizes=[(180, 320)]
    )
    spelled = {"Dinning Table": "Dining Table", "Hamimelon": "Hami melon"}
    said = one._network.config.id2label
    compared = 0
    for label, score, (x0, y0, x1, y1) in zip(
        *(theirs[part].tolist() for part in ("labels", "scores", "boxes")), strict=True
    ):
        name = spelled.get(said[label], said[label])
        like = [d for d in ours if d.name == name and abs(d.score - score) < 1e-5]
        box = pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=1e-2)
        assert any(d.bbox == box for d in like) == (name != "None")
        compared += bool(like)
    assert compared > 20


def test_frames_are_answered_in_order_whatever_is_beside_them(registered: Path) -> None:
    one = detector()
    inputs = [noise(1), noise(2)]
    alone = [found for item in inputs for found in one.detect([item])]
    assert list(one.detect(inputs)) == alone
    assert alone[0] != alone[1]


def test_a_network_that_answers_no_number_fails(registered: Path) -> None:
    import torch

    one = detector()
    with torch.no_grad():
        for parameter in one._network.model.decoder.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(InputError, match="not_a_number"):
        list(one.detect([noise(1)]))


def test_the_whole_stage_maps_classes_to_categories(registered: Path, tmp_path: Path) -> None:
    (tmp_path / "media" / "frames").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / frame(3).path), noise(3).image)
    config = ProposeConfig(
        detectors=[NAME], max_boxes=300, nms_iou=1.0, classes="generic", raw_boxes=20_000
    )
    stage = ProposeBoxes(config)
    assert set(stage.fingerprint()) == {"weights", "taxonomy"}
    stage.open(context(tmp_path, videos=[video()], sounds=[sounds()]))
    (outcome,) = stage.process([frame(3)])
    assert isinstance(outcome, Ok)
    known = load_taxonomy().of_seen("objects365", generic=True)
    for row in outcome.rows:
        assert set(row.categories) <= set(known[row.detector_class])  # type: ignore[attr-defined]


def test_cocos_classes_are_known_in_their_older_spelling(
    tmp_path: Path, models_folder: Path
) -> None:
    names = dict(enumerate(seen_classes("coco"))) | OLD_SPELLINGS
    folder = write_dfine(tmp_path / "coco", names)
    for name in ("dfine-small-coco", "dfine-small-obj2coco"):
        add(name, folder)
        (found,) = detector(name).detect([noise(1)])
        assert {d.name for d in found} <= set(seen_classes("coco"))
    with pytest.raises(UsageError, match=r"class 0 is 'person'|in Objects365 it is"):
        check_folder(folder, NAME)


def changed(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def text(file: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_text(content)

    return change


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1_000_000])


def labels(**other: str) -> dict[str, str]:
    return {str(place): name for place, name in published().items()} | other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(model_type="rt_detr"), "config.json: model_type is 'rt_detr', not 'd_fine'"),
        (
            changed(id2label={str(n): f"LABEL_{n}" for n in range(366)}),
            "class 0 is 'LABEL_0', in Objects365 it is 'Person'",
        ),
        (changed(id2label=labels(**{"54": "Harp"})), "class 53 is 'Harp', .* it is 'Drum'"),
        (changed(id2label=labels(**{"366": "Harp"})), "class 365 is 'Harp', .* it is None"),
        (changed(id2label=["Person"]), "no names of classes"),
        (changed(id2label={"one": "Person"}), "no names of classes"),
        (text("config.json", "{"), "config.json: cannot be read as JSON"),
        (text("config.json", "[" * 100_000), "config.json: cannot be read as JSON"),
        (text("preprocessor_config.json", "[]"), "preprocessor_config.json: not a JSON object"),
        (text("preprocessor_config.json", "{}"), "no size of the input"),
        (
            text("preprocessor_config.json", '{"size": {"height": 99999, "width": 640}}'),
            r"size is \[99999, 640\], not 32 to 2048 pixels",
        ),
        (truncated, "model.safetensors: no safetensors file"),
        (text("model.safetensors", "<html>"), "model.safetensors: no safetensors file"),
    ],
)
def test_foreign_files_stop_the_run_before_any_worker_in_one_line(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    mine = shutil.copytree(folder, tmp_path / "mine")
    change(mine)
    add(NAME, mine)
    with pytest.raises(UsageError, match=message) as caught:
        ProposeBoxes(ProposeConfig(detectors=["motion", NAME])).fingerprint()
    assert str(mine) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_size_or_head_of_the_network_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"43\.0 MB, so it is another model: dfine-medium-obj365"):
        check_folder(folder, "dfine-medium-obj365")


def test_weights_of_other_classes_than_the_settings_name_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(folder, tmp_path / "mine")
    named = {str(place): name for place, name in enumerate(seen_classes("objects365"))}
    changed(id2label=named)(mine)
    with pytest.raises(UsageError, match=r"class_embed.* \[366, 256\]; its config.json names 365"):
        check_folder(mine, NAME)


@pytest.mark.parametrize(
    "named",
    [
        {"use_timm_backbone": True, "backbone": "hf-hub:someone/else"},
        {"backbone_config": {"model_type": "timm_wrapper", "architecture": "resnet50"}},
        {"parts": [{"backbone": "microsoft/resnet-50"}]},
    ],
)
def test_settings_that_name_a_network_elsewhere_are_refused(
    folder: Path, tmp_path: Path, named: dict[str, Any]
) -> None:
    here = Path(shutil.copytree(folder, tmp_path / "here"))
    settings = json.loads((here / "config.json").read_text())
    (here / "config.json").write_text(json.dumps(settings | named))
    with pytest.raises(UsageError, match="a network outside of its folder"):
        load_folder("AutoModelForObjectDetection", here)


def test_weights_without_a_tensor_are_named_by_it(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    mine = shutil.copytree(folder, tmp_path / "mine")
    tensors = load_file(mine / "model.safetensors")
    gone = next(name for name in tensors if "enc_score_head.weight" in name)
    del tensors[gone]
    save_file(tensors, mine / "model.safetensors", {"format": "pt"})
    add(NAME, mine)
    with pytest.raises(UsageError, match=f"missing tensor {gone}"):
        detector()
