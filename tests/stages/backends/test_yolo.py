"""A real YOLOv8n of 601 classes with random weights, from its file to committed rows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.config import ProposeConfig
from pipeline.errors import UsageError
from pipeline.records.boxes import clip
from pipeline.records.schema import Frame, Proposal
from pipeline.run.stage import Fail, Ok
from pipeline.run.unit import process_batch
from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace
from stages.backends.interfaces import Detection, FrameInput
from stages.backends.yolo import YoloDetector, load_network
from stages.propose.preview import preview_settings
from stages.propose.propose_boxes import ProposeBoxes
from stages.taxonomy import check_classes, load_taxonomy, seen_classes
from tests.conftest import ROOT
from tests.pipeline.one_process import in_one_process
from tests.rows import context, frame, sounds, video
from tests.stages.backends.weights import register_yolo, write_yolo
from tests.stages.proposed import DETECTOR, propose, sampled, settings

VIDEOS = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights' file, registered in the folder ``register`` beside it."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVATAR_BUILD_MODELS", str(folder / "register"))
        return register_yolo(folder)


@pytest.fixture
def registered(weights: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same file, for tests that ask for it by name."""
    monkeypatch.setenv("AVATAR_BUILD_MODELS", str(weights.parent / "register"))
    return weights


def detector(**changes: Any) -> YoloDetector:
    values = {"detector": DETECTOR, "device": "cpu", "image_px": 320, **changes}
    found = YoloDetector(ProposeConfig(**values))
    found.open(Storage("unused"))
    return found


def noise(index: int, width: int = 320, height: int = 180) -> FrameInput:
    pixels = np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)
    return FrameInput(frame(index, width=width, height=height), lambda: pixels, video())


def test_boxes_are_of_open_images_classes_in_frame_pixels(registered: Path) -> None:
    (found,) = detector().detect([noise(1)])
    assert len(found) > 20
    assert {d.name for d in found} <= set(seen_classes("openimages"))
    assert all(0.05 <= d.score <= 1 for d in found)
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)


def test_settings_bound_what_is_kept(registered: Path) -> None:
    (every,) = detector().detect([noise(1)])
    (few,) = detector(raw_boxes=7).detect([noise(1)])
    (sure,) = detector(raw_score=0.3, min_score=0.3).detect([noise(1)])
    (sparse,) = detector(raw_iou=0.1).detect([noise(1)])
    assert few == every[:7]
    assert sure == [d for d in every if d.score >= 0.3]
    assert len(sparse) < len(every)


def test_frames_are_answered_in_order_whatever_is_beside_them(registered: Path) -> None:
    inputs = [noise(1), noise(2), noise(3, 180, 320), noise(4)]
    one = detector()
    alone = [found for item in inputs for found in one.detect([item])]
    assert list(one.detect(inputs)) == alone
    assert all(alone)
    assert alone[0] != alone[1]


def test_a_box_does_not_depend_on_the_margins(registered: Path) -> None:
    def centres(found: list[Detection]) -> tuple[float, float]:
        x = np.mean([d.bbox[0] + d.bbox[2] / 2 for d in found])
        return float(x), float(np.mean([d.bbox[1] + d.bbox[3] / 2 for d in found]))

    (wide,) = detector().detect([noise(1, 320, 160)])  # no margin
    (cut,) = detector().detect([noise(1, 320, 170)])
    assert centres(wide) == pytest.approx((160, 80), abs=40)
    assert centres(cut) == pytest.approx((160, 85), abs=40)


def test_answers_equal_those_of_ultralytics_own_steps(registered: Path) -> None:
    from ultralytics.models.yolo.detect import DetectionPredictor
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.ops import scale_boxes

    item = noise(5)
    make: Any = DetectionPredictor
    theirs = make(overrides={"imgsz": 320, "rect": True, "verbose": False, "save": False})
    theirs.setup_model(load_network(registered), verbose=False)
    theirs.imgsz = (320, 320)
    bgr = item.image[..., ::-1].copy()
    given = theirs.preprocess([bgr])
    suppress: Any = non_max_suppression
    (rows,) = suppress(theirs.model(given), 0.05, 0.7, multi_label=True, max_det=300)
    scale: Any = scale_boxes
    # Theirs are cut to the frame at once, ours later.
    boxes = scale(given.shape[2:], rows[:, :4], bgr.shape).tolist()
    (ours,) = detector().detect([item])
    assert len(ours) == len(boxes) > 20
    for d, (x0, y0, x1, y1), (score, label) in zip(ours, boxes, rows[:, 4:].tolist(), strict=True):
        assert d.name == seen_classes("openimages")[int(label)]
        assert d.score == pytest.approx(score, abs=1e-4)
        inside = clip(d.bbox, 320, 180)
        assert inside is not None
        assert inside == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=0.02)


def test_float16_moves_boxes_by_a_pixel_or_two(registered: Path) -> None:
    (whole,) = detector().detect([noise(1)])
    (half,) = detector(precision="float16").detect([noise(1)])
    assert half[0].name == whole[0].name
    assert half[0].bbox == pytest.approx(whole[0].bbox, abs=2)
    assert half != whole


def test_nothing_is_written_to_the_home_and_nothing_is_fetched(
    registered: Path, tmp_path: Path
) -> None:
    code = (
        "import socket; from pathlib import Path\n"
        "def refuse(*_): raise AssertionError('the network was asked')\n"
        "socket.getaddrinfo = socket.create_connection = refuse\n"
        "from stages.backends.yolo import load_network\n"
        f"load_network(Path({str(registered)!r}))\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment.pop("XDG_CONFIG_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_weights_that_are_not_as_registered_do_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVATAR_BUILD_MODELS", str(tmp_path / "register"))
    stage = ProposeBoxes(ProposeConfig(detectors=[DETECTOR]))
    with pytest.raises(UsageError, match=r"no weights on this machine.*models fetch.*offline"):
        stage.fingerprint()
    path = register_yolo(tmp_path)
    assert len(stage.fingerprint()["weights"]) == 64
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    before = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(before, before))
    with pytest.raises(UsageError, match=r"SHA-256 .* registered was"):
        stage.fingerprint()


def test_a_file_of_another_vocabulary_is_named_by_its_first_class(tmp_path: Path) -> None:
    names = dict(enumerate(seen_classes("openimages")))
    with pytest.raises(
        UsageError, match=r"class 12 is 'Artichoke2', in Open Images V7 it is 'Artichoke'"
    ):
        check_classes(names | {12: names[12] + "2"}, "openimages", Path("x.pt"))
    with pytest.raises(UsageError, match="class 601 is 'Extra', in Open Images V7 it is None"):
        check_classes(names | {601: "Extra"}, "openimages", Path("x.pt"))
    coco = write_yolo(tmp_path / "coco.pt", {0: "person", 1: "bicycle"})
    with pytest.raises(UsageError, match="class 0 is 'person', in Open Images V7 it is 'Acc"):
        load_network(coco)


class Bomb:
    """What a pickle may hold: a call of anything."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.file), "w"))


def test_foreign_and_corrupt_files_are_one_line_and_run_no_code(tmp_path: Path) -> None:
    import torch

    bomb, empty, text = tmp_path / "bomb.pt", tmp_path / "empty.pt", tmp_path / "text.pt"
    torch.save({"model": Bomb(tmp_path / "exploded")}, bomb)
    empty.write_bytes(b"")
    text.write_bytes(b"<html>not found</html>")
    for path in (bomb, empty, text):
        with pytest.raises(UsageError, match=r"\.pt: not a checkpoint ultralytics can read") as e:
            load_network(path)
        assert "\n" not in str(e.value)
    assert not (tmp_path / "exploded").exists()
    other = tmp_path / "other.pt"
    torch.save({"model": torch.nn.Linear(2, 2)}, other)
    with pytest.raises(UsageError, match="holds a Linear, not a YOLO detector"):
        load_network(other)


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    import torch

    path = write_yolo(tmp_path / "x.pt")
    checkpoint = torch.load(path, weights_only=False)
    with torch.no_grad():
        checkpoint["model"].model[0].conv.weight[0] = float("nan")
    torch.save(checkpoint, path)
    with pytest.raises(UsageError, match=r"tensor model\.0\.conv\.weight holds numbers that"):
        load_network(path)


def test_a_network_that_answers_no_number_fails_the_frame(registered: Path, tmp_path: Path) -> None:
    import cv2
    import torch

    (tmp_path / "media" / "frames").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / frame(3).path), noise(3).image)
    stage = ProposeBoxes(ProposeConfig(detectors=[DETECTOR], image_px=320))
    stage.open(context(tmp_path, videos=[video()], sounds=[sounds()]))
    (only,) = stage.detectors
    assert isinstance(only, YoloDetector)
    with torch.no_grad():
        next(only._network.parameters()).fill_(float("inf"))
    (outcome,) = process_batch(stage, [frame(3)])
    assert isinstance(outcome, Fail)
    assert outcome.kind == "not_a_number"


@pytest.fixture(scope="module")
def before(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of real videos before ``propose``; to copy."""
    root = tmp_path_factory.mktemp("sampled") / "ws"
    sampled(root, shared, VIDEOS)
    return root


@pytest.fixture(scope="module")
def proposed(weights: Path, before: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Real videos after ``propose``."""
    root = tmp_path_factory.mktemp("proposed") / "ws"
    shutil.copytree(before, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVATAR_BUILD_MODELS", str(weights.parent / "register"))
        in_one_process(patch)
        return propose(root)


def test_the_whole_stage_runs_on_real_videos(proposed: Workspace) -> None:
    frames, rows = proposed.rows(Frame), proposed.rows(Proposal)
    ledger = proposed.ledger("propose")
    assert len(frames) >= 10
    assert not ledger.failures()
    per_frame = Counter(row.frame_id for row in rows)
    assert set(per_frame) | {row.input_id for row in ledger.drops()} == {f.id for f in frames}
    assert max(per_frame.values()) <= 10
    taxonomy = load_taxonomy()
    for row in rows:
        assert row.detector == DETECTOR
        assert row.detector_score >= 0.05
        assert set(row.categories) <= set(
            taxonomy.of_seen("openimages").get(row.detector_class, [])
        )
        assert row.bbox[0] >= 0 <= row.bbox[1]
        assert row.bbox[0] + row.bbox[2] <= 640.001 >= row.bbox[1] + row.bbox[3]
    generation = ledger.generation()
    assert generation is not None
    assert set(generation.fingerprint) == {"weights", "taxonomy"}


def test_the_command_draws_a_contact_sheet_per_clip(proposed: Workspace, registered: Path) -> None:
    chosen = [word for setting in settings() for word in ("--set", setting)]
    words = ["propose", "--workspace", proposed.storage.url, "--contact-sheet", *chosen]
    said = CliRunner().invoke(cli, words)
    assert said.exit_code == 0, said.output
    clips = {row.clip_id for row in proposed.rows(Frame)}
    assert f"{len(clips)} contact sheets in sheets/propose/" in said.output
    assert set(proposed.storage.names("sheets/propose")) == {f"{name}.jpg" for name in clips}


def test_thresholds_change_without_inference_and_the_preview_says_how(
    proposed: Workspace, registered: Path, one_process: None
) -> None:
    root = Path(proposed.storage.url)
    changed = ["propose.min_score=0.3", "propose.openimages=generic", "propose.max_boxes=4"]
    toml = proposed.storage.read("avatar.toml")
    before = proposed.rows(Proposal)
    digest = proposed.digest("proposals")
    found = preview_settings(proposed, changed)
    assert proposed.digest("proposals") == digest
    answers = {p: p.stat().st_mtime_ns for p in (root / "media" / "cache").rglob("*.json")}
    after = propose(root, *changed, redo=True).rows(Proposal)
    assert {p: p.stat().st_mtime_ns for p in (root / "media" / "cache").rglob("*.json")} == answers

    def pairs(rows: list[Proposal]) -> Counter[str]:
        return Counter(f"{r.id} {name}" for r in rows if r.audible for name in r.categories)

    come, gone = pairs(after) - pairs(before), pairs(before) - pairs(after)
    names = {name.split(" ", 1)[1] for name in come | gone}
    recount = {
        name: (
            sum(key.split(" ", 1)[1] == name for key in come),
            sum(key.split(" ", 1)[1] == name for key in gone),
        )
        for name in names
    }
    assert {n: counts for n, counts in found.categories.items() if any(counts)} == recount
    ids_before, ids_after = {r.id for r in before}, {r.id for r in after}
    assert found.boxes == (len(ids_after - ids_before), len(ids_before - ids_after))
    assert found.boxes[1] > 0
    assert found.unanswered == 0
    proposed.storage.write("avatar.toml", toml)  # what was typed stands there with its results
    back = propose(root, redo=True)
    assert back.digest("proposals") == digest


def test_killed_in_the_middle_and_resumed_equals_never_killed(
    proposed: Workspace, before: Path, registered: Path, tmp_path: Path, one_process: None
) -> None:
    root = tmp_path / "ws"
    shutil.copytree(before, root)
    answers = root / "media" / "cache"
    command = [sys.executable, "-m", "tests.stages.proposed", str(root)]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(answers.rglob("*.json"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    killed = Workspace(root)
    assert 3 <= len(list(answers.rglob("*.json"))) < len(killed.rows(Frame))
    assert killed.rows(Proposal) == []
    assert propose(root).digest("proposals") == proposed.digest("proposals")


def test_a_missing_frame_file_is_a_failure_row(
    proposed: Workspace, registered: Path, tmp_path: Path
) -> None:
    rows = proposed.rows(Frame)[:2]
    stage = ProposeBoxes(ProposeConfig(detectors=[DETECTOR], image_px=320))
    heard = [sounds(clip_id=row.clip_id) for row in rows]
    stage.open(
        context(tmp_path, videos=[video(row.video_id) for row in rows[:1]], sounds=heard[:1])
    )
    whole = proposed.storage.read(rows[1].path)
    Storage(tmp_path).write(rows[1].path, whole)
    lost, fine = process_batch(stage, rows)
    assert isinstance(lost, Fail)
    assert lost.kind == "missing_file"
    assert isinstance(fine, Ok)
