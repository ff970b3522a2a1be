"""The authors' own files, downloaded, imported and scored, for heatmaps and for a model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from exports.importers.import_release import import_release
from exports.verify.verify_release import verify_release
from tavlo.evaluation.evaluate import evaluate
from tavlo.evaluation.evaluation_set import read_release
from tavlo.evaluation.image_models import ImagePredictor
from tavlo.evaluation.predictions import GRID_HW, Predictions, predict
from tavlo.training.training_clips import read_clips
from tests.tavlo.small import Ear
from tests.video_factory import bursts, make_video, scene


def polygon(x: int, y: int, side: int) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


CLIP = "l_7B1wnTNtA_00020"
LONGEST = f"{'v' * 80}_9999980"
"""As long as a video's name may be, as late as a clip may be."""


def official(folder: Path, clip: str = CLIP) -> Path:
    """``metadata.zip`` and ``video.zip`` with one clip of four labelled frames."""
    folder.mkdir()
    size = (96, 72)
    # 20 frames a second, which the layout does not tell: its frames are timed for 25.
    sound = bursts(2.5, [2.05])
    make_video(folder / "clip.mp4", frames=50, fps=20, draw=scene(*size), sound=sound)
    annotations: dict[str, list[dict[str, Any]]] = {
        "00005": [{"task": "Single-sound", "audio_visual_category": "dog", "at": (8, 8, 40)}],
        "00020": [{"task": "Off-screen", "audio_visual_category": "piano"}],
        "00030": [
            {"task": "Mixed-sound", "audio_visual_category": "dog", "at": (4, 4, 30)},
            {"task": "Multi-entity", "audio_visual_category": "violin", "at": (50, 20, 40)},
        ],
        "00045": [{"task": "Multi-entity", "audio_visual_category": "violin", "at": (20, 10, 50)}],
    }
    with zipfile.ZipFile(folder / "metadata.zip", "w") as archive:
        for index, found in annotations.items():
            for row in found:
                if at := row.pop("at", None):
                    x, y, side = at
                    row |= {"bbox": [x, y, side, side], "segmentation": [polygon(x, y, side)]}
            content = {
                "original_width": size[0],
                "original_height": size[1],
                "annotations": found,
            }
            archive.writestr(f"metadata/{clip}/{index}.json", json.dumps(content))
            picture = cv2.imencode(".jpg", scene(*size)(int(index)))[1].tobytes()
            archive.writestr(f"metadata/{clip}/{index}.jpg", picture)
    with zipfile.ZipFile(folder / "video.zip", "w") as archive:
        archive.write(folder / "clip.mp4", f"video/{clip}.mp4")
    (folder / "clip.mp4").unlink()
    return folder


@pytest.mark.parametrize("name", [CLIP, LONGEST])
def test_the_authors_files_are_imported_verified_and_scored(tmp_path: Path, name: str) -> None:
    import_release(official(tmp_path / "AVATAR", name), tmp_path / "avatar-1")
    assert verify_release(tmp_path / "avatar-1") == []
    assert [source.path.stem for source in read_clips(tmp_path / "avatar-1")] == [name]
    data = read_release(tmp_path / "avatar-1")
    assert data.imported_from.startswith("AVATAR")
    (clip,) = {frame.clip_id for frame in data.frames}
    (tmp_path / "heat").mkdir()
    perfect = Predictions(tmp_path / "heat")
    heat = np.stack([frame.truth(GRID_HW).astype(np.float32) for frame in data.frames])
    perfect.save(clip, [frame.frame_index for frame in data.frames], heat)
    scores = evaluate(data, perfect)
    count = {name: next(iter(row.values())).n for name, row in scores.rows.items()}
    assert count == {
        **{"Single-sound": 1, "Mixed-sound": 1, "Multi-entity": 2, "Total": 3, "Off-screen": 1},
        # The violin was not heard before; a piano off screen was.
        **{"Cross-event": 3, "Cross-event - Total": 3},
    }
    assert scores.rows["Total"]["CIoU"].value == 100
    assert scores.rows["Off-screen"]["TN"].value == 100
    # The frame's union is right as a whole, and too much for either scenario alone.
    assert scores.rows["Multi-entity"]["CIoU"].value < 100


def test_a_model_hears_what_sounds_while_the_frame_is_shown(tmp_path: Path) -> None:
    import_release(official(tmp_path / "AVATAR"), tmp_path / "avatar-1")
    data = read_release(tmp_path / "avatar-1")
    found, _ = predict(ImagePredictor(Ear()), data, {10.0: tmp_path / "10", 0.4: tmp_path / "04"})
    for frame in data.frames:
        whole, part = (
            predictions.heatmap(frame.clip_id, frame.frame_index) for predictions in found.values()
        )
        assert whole[9, 3] == pytest.approx(2.5, abs=0.06)
        assert whole[9, 200] == pytest.approx(2.05, abs=0.03)
        assert part[9, 3] == pytest.approx(0.4, abs=1e-3)
    # Frame 45 is shown at 2.25 s: the swell at 2.05 begins its window. At 1.8 s it were the end.
    (last,) = (frame for frame in data.frames if frame.frame_index == 45)
    heard = found[0.4].heatmap(last.clip_id, 45)[9, 200]
    assert heard == pytest.approx(0.0, abs=0.05)
    assert evaluate(data, found[10.0]).rows["Total"]["CIoU"].n == 3
