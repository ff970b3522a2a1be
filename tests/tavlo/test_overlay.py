"""Heatmaps over pictures, films and the gallery, on a small drawn release."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import AvatarBuildError
from pipeline.media import Media, decode_pictures, read_timeline, waveform
from tavlo.evaluation.evaluate import FrameScore, evaluate
from tavlo.evaluation.evaluation_set import EvaluationSet, read_release
from tavlo.evaluation.gallery import best_middle_worst, write_gallery
from tavlo.evaluation.overlay import Scale, paint, write_overlays
from tavlo.evaluation.predictions import GRID_HW, Predictions
from tests.tavlo.release_factory import FRAMES, make_release


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSet:
    return read_release(make_release(tmp_path_factory.mktemp("release") / "r"))


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory, data: EvaluationSet) -> Predictions:
    """The truth, softened, and nothing where nothing sounds."""
    folder = tmp_path_factory.mktemp("heat")
    found = Predictions(folder)
    for clip in sorted({frame.clip_id for frame in data.frames}):
        frames = [frame for frame in data.frames if frame.clip_id == clip]
        heat = [
            cv2.resize(frame.truth(GRID_HW).astype(np.float32), (14, 14))
            + 0.001 * frame.frame_index
            for frame in frames
        ]
        found.save(clip, [frame.frame_index for frame in frames], np.stack(heat))
    return found


def test_hot_places_are_tinted_and_cold_ones_keep_the_picture() -> None:
    image = np.full((40, 60, 3), 128, np.uint8)
    heat = np.zeros((4, 6), np.float32)
    heat[:, :2] = 1.0
    scale = Scale(low=0.0, high=1.0, threshold=2.0)
    painted = paint(image, heat, scale, None)
    assert (painted[:, 35:] == 128).all()
    red, _, blue = painted[20, 2].tolist()
    assert red > 110
    assert blue < 60


def test_outlines_follow_the_prediction_in_white_and_the_truth_in_green() -> None:
    image = np.full((224, 224, 3), 90, np.uint8)
    heat = np.zeros(GRID_HW, np.float32)
    heat[40:80, 40:80] = 1.0
    truth = np.zeros(GRID_HW, bool)
    truth[120:160, 120:160] = True
    painted = paint(image, heat, Scale(0.0, 1e9, 0.5), truth)
    assert painted[60, 40].tolist() == [255, 255, 255]
    assert painted[140, 120].tolist() == [60, 255, 110]
    assert painted[10, 10].tolist() == [90, 90, 90]


def test_one_scale_serves_all_frames() -> None:
    loud = np.linspace(0, 1, GRID_HW[0] * GRID_HW[1], dtype=np.float32).reshape(GRID_HW)
    scale = Scale.over([loud, 0.1 * loud], threshold=0.9)
    # Stretched to its own maximum the quiet one would be as hot as the loud one.
    assert scale.heat(0.1 * loud).max() < 0.02
    assert scale.heat(loud).max() == 1


def test_a_clip_becomes_a_picture_per_labelled_frame_and_a_film_with_its_sound(
    data: EvaluationSet, predictions: Predictions, tmp_path: Path
) -> None:
    written = write_overlays(data, predictions, "video000002_00000000", 0.5, tmp_path / "o")
    assert [path.name for path in written] == [
        "video000002_00000000_0005.jpg",
        "video000002_00000000_0030.jpg",
        "video000002_00000000.mp4",
    ]
    image = cv2.imread(str(written[0]))
    assert image is not None
    assert image.shape == (72, 96, 3)
    film, clip = Media(written[-1]), Media(data.folder / "video/video000002_00020.mp4")
    timelines = read_timeline(film), read_timeline(clip)
    assert len(timelines[0].pts) == len(timelines[1].pts) == 50
    assert float(timelines[0].time(49)) == pytest.approx(float(timelines[1].time(49)), abs=1e-3)
    heard = [
        int(np.abs(waveform(media, timeline, 0, 1.9, 16_000)).argmax()) / 16_000
        for media, timeline in zip((film, clip), timelines, strict=True)
    ]
    assert heard[0] == pytest.approx(heard[1], abs=0.03)
    shown = {p.index: p.rgb().astype(int) for p in decode_pictures(film, timelines[0], [range(50)])}
    plain = {p.index: p.rgb().astype(int) for p in decode_pictures(clip, timelines[1], [range(50)])}
    change = {index: np.abs(shown[index] - plain[index]).mean() for index in shown}
    # The labelled frames carry their own heatmap and outlines, the others a fainter one.
    assert min(change[5], change[30]) > 2 * max(change[12], change[20])


def test_a_frame_without_image_comes_from_its_clip(tmp_path: Path) -> None:
    data = read_release(make_release(tmp_path / "r", images=False))
    media = Media(tmp_path / "r/video/video000001_00020.mp4")
    (wanted,) = decode_pictures(media, read_timeline(media), [range(3, 4)])
    assert (data.picture(data.frames[0]) == wanted.rgb()).all()


def test_an_image_that_is_not_the_released_one_is_no_picture_of_its_frame(tmp_path: Path) -> None:
    folder = make_release(tmp_path / "r")
    path = folder / "annotations/instances.json"
    document = json.loads(path.read_text())
    document["info"]["media"] = True
    for image in document["images"]:
        data = (folder / image["file_name"]).read_bytes()
        image["image_sha256"] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(document))
    whole = read_release(folder)
    one, other = whole.frames[:2]
    assert whole.picture(one).any()
    (folder / one.row.file_name).write_bytes((folder / other.row.file_name).read_bytes() + b"0")
    with pytest.raises(AvatarBuildError, match="not the image that was released"):
        whole.picture(one)


@pytest.mark.parametrize(
    "name", ["metadata/video000001_00020/00003.png", "video/video000001_00020.mp4"]
)
def test_no_image_or_clip_is_scored_that_its_release_does_not_list(
    tmp_path: Path, name: str
) -> None:
    folder = make_release(tmp_path / "r", images=name.endswith("png"))
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "CHECKSUMS.sha256").write_text(f"{digest}  {name}\n")
    data = read_release(folder)
    assert data.picture(data.frames[0]).any()
    with (folder / name).open("ab") as file:
        file.write(b"0")
    with pytest.raises(AvatarBuildError, match=f"{name}: not the .* that was released"):
        data.picture(data.frames[0])


def test_a_release_without_media_names_the_frame_and_what_to_do(
    tmp_path: Path, predictions: Predictions
) -> None:
    data = read_release(make_release(tmp_path / "r", clips=False, images=False))
    with pytest.raises(AvatarBuildError, match=r"_0003: .*missing.*fetch-media"):
        write_overlays(data, predictions, "video000001_00000000", 0.5, tmp_path / "o")
    with pytest.raises(AvatarBuildError, match=r"--clip 'nothing'"):
        write_overlays(data, predictions, "nothing", 0.5, tmp_path / "o")
    with pytest.raises(AvatarBuildError, match="no heatmap of its labelled frames"):
        write_overlays(data, Predictions(tmp_path), "video000001_00000000", 0.5, tmp_path / "o")


def test_the_gallery_shows_each_scenario_and_needs_nothing_else(
    data: EvaluationSet, predictions: Predictions, tmp_path: Path
) -> None:
    scores = evaluate(data, predictions)
    text = write_gallery(data, predictions, scores, tmp_path / "g.html").read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == ["Single-sound", "Mixed-sound", "Multi-entity", "Off-screen", "Cross-event"]
    # Two single, one mixed, two multi, one off-screen; the changing video's two again.
    assert text.count("<figure>") == 2 + 1 + 2 + 1 + 2
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "<script" not in text
    assert text == write_gallery(data, predictions, scores, tmp_path / "h.html").read_text()


def test_the_best_the_middling_and_the_worst_are_shown_once() -> None:
    ordered = [FrameScore(f"f{n}", "v", {"Total": 1 - n / 100}) for n in range(30)]
    assert [frame.frame_id for frame in best_middle_worst(ordered, 3)] == [
        *("f0", "f1", "f2"),
        *("f13", "f14", "f15"),
        *("f27", "f28", "f29"),
    ]
    assert best_middle_worst(ordered[:4], 3) == ordered[:4]
    assert best_middle_worst(ordered[:1], 3) == ordered[:1]


@pytest.mark.browser
def test_a_browser_shows_every_picture_of_the_gallery(
    data: EvaluationSet, predictions: Predictions, tmp_path: Path
) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium")
    page = write_gallery(data, predictions, evaluate(data, predictions), tmp_path / "g.html")
    probe = page.read_text().replace("img-src data:;", "img-src data:; script-src 'unsafe-inline';")
    page.write_text(
        probe.replace(
            "</body>",
            "<script>document.title = [...document.images].filter(i => i.naturalWidth).length"
            "</script></body>",
        )
    )
    done = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"<title>{2 * 8}</title>" in done.stdout
    assert len(FRAMES) == 6
