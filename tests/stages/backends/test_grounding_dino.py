"""A tiny Grounding DINO and MM Grounding DINO with random weights, from their files to boxes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import ProposeConfig
from pipeline.errors import InputError, UsageError
from pipeline.models.register import add
from pipeline.run.stage import Ok
from pipeline.workspace.storage import Storage
from stages.backends.grounding_dino import PromptedDetector, load_parts, make_prompts
from stages.backends.interfaces import Detection, FrameInput
from stages.propose.propose_boxes import ProposeBoxes
from stages.taxonomy import load_taxonomy
from tests.conftest import ROOT
from tests.rows import context, frame, sounds, video
from tests.stages.backends.weights import write_grounding_dino

NAMES = ["mm-grounding-dino-tiny", "grounding-dino-tiny"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of either model."""
    root = tmp_path_factory.mktemp("dino")
    return {name: write_grounding_dino(root / name, mm=name.startswith("mm")) for name in NAMES}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, folders: dict[str, Path], models_folder: Path) -> str:
    """A registered model."""
    chosen = str(request.param)
    add(chosen, folders[chosen])
    return chosen


def detector(name: str, **changes: Any) -> PromptedDetector:
    config = ProposeConfig(**{"detector": name, "device": "cpu", "raw_score": 0.0} | changes)
    found = PromptedDetector(config)
    found.open(Storage("unused"))
    return found


def noise(index: int) -> FrameInput:
    pixels = np.random.default_rng(index).integers(0, 255, (180, 320, 3), np.uint8)
    return FrameInput(frame(index), lambda: pixels, video())


def test_names_are_packed_in_order_and_none_is_cut() -> None:
    names = [[2000 + n] * (1 + n % 4) for n in range(60)]
    prompts = make_prompts(names, max_tokens=24)
    assert len(prompts) > 3
    read = [list(p.token_ids[a:b]) for p in prompts for a, b in p.spans]
    assert read == names
    for prompt in prompts:
        assert len(prompt.token_ids) <= 24
        assert (prompt.token_ids[0], prompt.token_ids[-1]) == (101, 102)
        assert all(prompt.token_ids[stop] == 1012 for _, stop in prompt.spans)


def test_boxes_are_of_the_prompted_names_and_in_frame_pixels(name: str) -> None:
    one = detector(name)
    assert len(one._prompts) > 1
    (found,) = one.detect([noise(1)])
    assert len(found) == 300
    assert len({d.name for d in found}) > 5
    assert {d.name for d in found} <= set(load_taxonomy().prompts)
    x, y = (np.array([d.bbox[k] + d.bbox[k + 2] / 2 for d in found]) for k in (0, 1))
    assert x.min() >= 0 <= y.min()
    assert x.max() <= 320
    assert y.max() <= 180
    assert all(0 <= d.score <= 1 for d in found)


def test_frames_are_answered_in_order_whatever_is_beside_them(name: str) -> None:
    one = detector(name)
    inputs = [noise(1), noise(2)]
    alone = [found for item in inputs for found in one.detect([item])]
    assert list(one.detect(inputs)) == alone
    assert alone[0] != alone[1]


def test_a_names_score_is_the_mean_of_its_tokens(name: str) -> None:
    import torch

    one = detector(name, raw_iou=1.0, raw_boxes=100_000)
    item = noise(1)
    (found,) = one.detect([item])
    prompt = one._prompts[-1]
    ids = torch.tensor([prompt.token_ids])
    looked = one._look(images=[item.image], return_tensors="pt")
    with torch.inference_mode():
        answer = one._network(pixel_values=looked["pixel_values"], input_ids=ids)
    first = sum(len(p.spans) for p in one._prompts[:-1])
    start, stop = prompt.spans[0]
    expected = answer.logits[0, :, start:stop].sigmoid().mean(-1).max().item()
    best = max(d.score for d in found if d.name == one._names[first])
    assert best == pytest.approx(expected, abs=1e-5)


def test_the_whole_stage_maps_names_to_categories(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    (tmp_path / "media" / "frames").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / frame(3).path), noise(3).image)
    config = ProposeConfig(
        detectors=[name], raw_score=0.0, min_score=0.0, max_boxes=50, nms_iou=1.0
    )
    stage = ProposeBoxes(config)
    assert set(stage.fingerprint()) == {"weights", "prompts", "taxonomy"}
    stage.open(context(tmp_path, videos=[video()], sounds=[sounds()]))
    (outcome,) = stage.process([frame(3)])
    assert isinstance(outcome, Ok)
    for row in outcome.rows:
        assert row.audible == (row.detector_class == "dog")  # type: ignore[attr-defined]


def test_a_network_that_answers_no_number_fails(name: str) -> None:
    import torch

    one = detector(name)
    with torch.no_grad():
        for parameter in one._network.model.decoder.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(InputError, match="not_a_number"):
        list(one.detect([noise(1)]))


def test_a_checkpoint_without_a_tensor_is_named_by_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folders[NAMES[0]].iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    gone = next(name for name in tensors if "input_proj_vision.0.0.weight" in name)
    del tensors[gone]
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=f"missing tensor {gone}"):
        load_parts(broken)
    (broken / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(UsageError, match="not a detector transformers can read"):
        load_parts(broken)
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UsageError, match="not a detector transformers can read"):
        load_parts(broken)


def test_nothing_is_fetched_and_the_home_stays_as_it_was(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    code = (
        "import socket; from pathlib import Path\n"
        "def refuse(*_, **__): raise AssertionError('the network was asked')\n"
        "socket.getaddrinfo = socket.create_connection = refuse\n"
        "from stages.backends.grounding_dino import load_parts\n"
        f"load_parts(Path({str(folders[NAMES[0]])!r}))\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_another_list_of_categories_is_asked_for_and_counts_as_another_model(
    name: str, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text(
        "category,group,openimages_classes,audioset_classes,vggsound_classes,notes,"
        "openimages_generic\ndog,animal,Dog,Bark,,,\nkazoo,music,,,,,\n"
    )
    one = detector(name, taxonomy=str(mine))
    assert one._names == ["dog", "kazoo"]
    shipped = PromptedDetector(ProposeConfig(detectors=[name]))
    assert one.fingerprint()["prompts"] != shipped.fingerprint()["prompts"]
    (found,) = one.detect([noise(1)])
    assert {d.name for d in found} == {"dog", "kazoo"}
    assert isinstance(found[0], Detection)
    assert json.dumps(found[0].bbox)
