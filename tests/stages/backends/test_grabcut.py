from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import SegmentConfig
from pipeline.media import frames_between
from pipeline.records.boxes import to_pixels
from stages.backends.grabcut.cutting import GrabCut, Model, _to_the_power
from stages.backends.interfaces import Hint, Image, Prompt, Segmented

ELLIPSE = [100.0, 40.0, 81.0, 61.0]


def scene() -> tuple[Image, NDArray[np.bool_]]:
    """A reddish ellipse on a greenish ground, both noisy, and its pixels."""
    draw = np.random.default_rng(0)
    inside = np.zeros((180, 320), np.uint8)
    cv2.ellipse(inside, (140, 70), (40, 30), 0, 0, 360, 1, -1)
    ground = np.array([60, 140, 70]) + draw.normal(0, 12, (180, 320, 3))
    thing = np.array([190, 70, 60]) + draw.normal(0, 12, (180, 320, 3))
    image = np.where(inside[..., None] > 0, thing, ground)
    return np.clip(image, 0, 255).astype(np.uint8), inside > 0


def cut(image: Image, box: list[float]) -> NDArray[np.bool_]:
    return segmented(image, box).mask


def segmented(image: Image, box: list[float]) -> Segmented:
    return next(GrabCut(SegmentConfig()).segment([Prompt(image, [box])]))[0]


def iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("grown", [0, 6])
def test_a_thing_is_cut_out_of_a_tight_or_loose_box(grown: int) -> None:
    image, truth = scene()
    x, y, w, h = ELLIPSE
    mask = cut(image, [x - grown, y - grown, w + 2 * grown, h + 2 * grown])
    assert (mask & truth).sum() / (mask | truth).sum() > 0.97


@pytest.mark.parametrize("box", [[98.4, 36.7, 90.1, 70.3], [80.0, -30.0, 120.0, 150.0], ELLIPSE])
def test_a_mask_never_leaves_the_whole_pixels_its_box_touches(box: list[float]) -> None:
    image, _ = scene()
    mask = cut(image, box)
    x0, y0, x1, y1 = to_pixels(box, 320, 180) or (0, 0, 0, 0)
    assert mask.any()
    mask[y0:y1, x0:x1] = False
    assert not mask.any()


def test_a_box_gives_the_same_mask_alone_again_and_among_others() -> None:
    image, _ = scene()
    segmenter = GrabCut(SegmentConfig())
    other = [20.0, 90.0, 60.0, 60.0]
    (alone,) = next(segmenter.segment([Prompt(image, [ELLIPSE])]))
    cv2.setRNGSeed(99)
    _, together = next(segmenter.segment([Prompt(image, [other, ELLIPSE])]))
    np.testing.assert_array_equal(alone.mask, together.mask)
    assert alone.predicted_iou is None


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([400.0, 10.0, 20.0, 20.0], "box_outside_frame"),
        ([10.0, 10.0, 2.0, 2.0], "box_too_small"),
        ([240.0, 100.0, 60.0, 60.0], "colours_alike"),  # ground and nothing else
    ],
)
def test_a_box_that_holds_nothing_to_tell_apart_gives_an_empty_mask_and_says_why(
    box: list[float], reason: str
) -> None:
    image, _ = scene()
    found = segmented(image, box)
    assert not found.mask.any()
    assert found.reason == reason


@pytest.mark.parametrize("side", [3, 4, 5, 7, 12, 40])
def test_a_mask_grown_from_the_middle_stays_in_a_box_of_any_size(side: int) -> None:
    noise = np.random.default_rng(side).integers(0, 256, (180, 320, 3), dtype=np.uint8)
    segmenter = GrabCut(SegmentConfig(min_mask_area=1.0))  # nothing is ever enough
    (found,) = next(segmenter.segment([Prompt(noise, [[100.0, 50.0, side, side + 1.0]])]))
    assert found.assumed == "centre" or found.reason == "colours_alike"
    found.mask[50 : 51 + side, 100 : 100 + side] = False
    assert not found.mask.any()


def test_a_box_as_large_as_the_picture_takes_its_rim_for_background_and_says_so() -> None:
    image, truth = scene()
    image, truth = image[40:101, 100:181], truth[40:101, 100:181]
    found = segmented(np.ascontiguousarray(image), [0.0, 0.0, 81.0, 61.0])
    assert found.assumed == "rim"
    assert iou(found.mask, truth) > 0.95


def test_a_thing_of_its_surrounds_colours_grows_from_its_middle_to_its_edge_and_says_so() -> None:
    image, truth = scene()
    draw = np.random.default_rng(1)
    image[truth] = np.clip(draw.normal((60, 140, 70), 12, (truth.sum(), 3)), 0, 255)
    near = cv2.dilate(truth.astype(np.uint8), np.ones((9, 9), np.uint8))
    for x, y in draw.integers(0, (320, 180), (60, 2)).tolist():
        if not near[y, x]:
            cv2.circle(image, (x, y), 8, (10, 10, 10), 2)
    cv2.ellipse(image, (140, 70), (40, 30), 0, 0, 360, (10, 10, 10), 2)
    found = segmented(image, ELLIPSE)
    assert found.assumed == "centre"
    assert iou(found.mask, truth) > 0.85


@pytest.mark.parametrize("factor", [3, 6, 9])
def test_the_rim_of_a_large_thing_is_cut_at_full_size(factor: int) -> None:
    draw = np.random.default_rng(0)
    size = (180 * factor, 320 * factor)
    inside = np.zeros(size, np.uint8)
    cv2.ellipse(inside, (140 * factor, 70 * factor), (40 * factor, 30 * factor), 0, 0, 360, 1, -1)
    colours = np.where(inside[..., None] > 0, (190, 70, 60), (60, 140, 70))
    image = np.clip(colours + draw.normal(0, 12, (*size, 3)), 0, 255).astype(np.uint8)
    x, y, w, h = ELLIPSE
    box = [factor * side for side in (x - 5, y - 5, w + 10, h + 10)]
    assert iou(segmented(image, box).mask, inside > 0) > 0.998


@pytest.mark.parametrize("factor", [1, 6])
def test_what_a_person_points_at_is_in_the_mask_and_what_they_point_away_from_is_not(
    factor: int,
) -> None:
    image, _ = scene()
    large = np.kron(image, np.ones((factor, factor, 1), dtype=np.uint8))
    segmenter = GrabCut(SegmentConfig())
    embedding = segmenter.embed(large)
    box = [factor * side for side in (60.0, 20.0, 160.0, 110.0)]
    ground, thing = (80.0, 30.0), (115.0, 70.0)
    points = [(factor * ground[0], factor * ground[1], True)]
    points += [(factor * thing[0], factor * thing[1], False)]
    mask = segmenter.refine(embedding, Hint(box, points)).mask
    for x, y, inside in points:
        assert mask[round(y), round(x)] == inside
    alone = segmenter.refine(embedding, Hint(box)).mask
    (answer,) = next(segmenter.segment([Prompt(large, [box])]))
    np.testing.assert_array_equal(alone, answer.mask)


def test_speckles_of_the_things_colour_are_left_out() -> None:
    image, truth = scene()
    image[96:99, 104:107] = (190, 70, 60)
    mask = cut(image, [96.0, 36.0, 90.0, 70.0])
    assert not mask[96:99, 104:107].any()
    assert (mask & truth).sum() / truth.sum() > 0.97


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_picture_of_one_colour_is_no_crash(grey: int) -> None:
    mask = cut(np.full((180, 320, 3), grey, np.uint8), ELLIPSE)
    assert mask.shape == (180, 320)


def looked_at(
    patch: pytest.MonkeyPatch, segmenter: GrabCut, image: Image, box: list[float]
) -> list[int]:
    """The pixels that are in doubt in each round of GrabCut when a box is cut."""
    made: list[int] = []
    grab_cut = cv2.grabCut

    def counted(image: Image, states: NDArray[np.uint8], *rest: Any) -> Any:
        made.append(int(np.isin(states, (cv2.GC_PR_FGD, cv2.GC_PR_BGD)).sum()))
        return grab_cut(image, states, *rest)

    patch.setattr(cv2, "grabCut", counted)
    next(segmenter.segment([Prompt(image, [box])]))
    return made


def test_up_to_a_size_a_box_is_cut_as_grabcut_cuts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = scene()
    hues = np.linspace(0, 1, 12)[:, None] * (130, -70, -10) + (60, 140, 70)
    for (x, y), hue in zip(
        np.random.default_rng(5).integers(0, (320, 180), (12, 2)), hues, strict=True
    ):
        cv2.circle(image, (int(x), int(y)), 14, hue.tolist(), cv2.FILLED)
    segmenter = GrabCut(SegmentConfig())
    segmenter.settled = -1  # every round is made
    for box in ([70.0, 20.0, 130.0, 100.0], [10.0, 10.0, 150.0, 120.0], [40.0, 20.0, 200.0, 140.0]):
        whole = large_parts(by_opencv(image, box))
        assert whole.any()
        segmenter.whole_px = box[2] * box[3]
        (found,) = next(segmenter.segment([Prompt(image, [box])]))
        np.testing.assert_array_equal(found.mask, whole)
        segmenter.whole_px -= 1
        with monkeypatch.context() as patch:
            *_, rim = looked_at(patch, segmenter, image, box)
        assert rim < box[2] * box[3]


def by_opencv(image: Image, box: list[float]) -> NDArray[np.bool_]:
    """Five rounds on the box and half of its sides around it, all at full size."""
    x, y, w, h = (int(side) for side in box)
    top, left = max(0, y - h // 2), max(0, x - w // 2)
    rows, columns = slice(top, y + h + h // 2), slice(left, x + w + w // 2)
    found = np.zeros(image.shape[:2], bool)
    found[rows, columns] = plain(image[rows, columns], [float(x - left), float(y - top), w, h])
    return found


def large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of a tenth of the largest one's area or more."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    parts = [labels == number for number in range(1, count)]
    most = max((part.sum() for part in parts), default=0)
    large: NDArray[np.bool_] = np.any([p for p in parts if p.sum() >= 0.1 * most], axis=0)
    return large


def test_what_a_large_box_costs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    image, truth = scene()
    large = np.kron(image, np.ones((6, 6, 1), np.uint8))
    box = [6 * side for side in ELLIPSE]
    segmenter = GrabCut(SegmentConfig())
    *small, rim = looked_at(monkeypatch, segmenter, large, box)
    assert max(small) <= 12_500
    assert rim < 0.2 * 36 * truth.sum()


@pytest.mark.parametrize(("iterations", "rounds"), [(1, 1), (2, 2), (5, 2), (50, 2)])
def test_a_box_that_has_settled_is_not_cut_again(
    iterations: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, truth = scene()
    segmenter = GrabCut(SegmentConfig(grabcut_iterations=iterations))
    assert len(looked_at(monkeypatch, segmenter, image, ELLIPSE)) == rounds
    (found,) = next(segmenter.segment([Prompt(image, [ELLIPSE])]))
    assert iou(found.mask, truth) > 0.97


def densities(model: Model, colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """As GrabCut has them: without the factor that all modes share."""
    weights, means, covariances = np.split(model[0], [5, 20])
    found = np.zeros(len(colours))
    for mode in range(5):
        covariance = covariances.reshape(5, 3, 3)[mode]
        apart = colours - means.reshape(5, 3)[mode]
        if weights[mode] > 0:
            far = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart)
            found += weights[mode] * np.exp(-far / 2) / np.sqrt(np.linalg.det(covariance))
    return found


@pytest.mark.parametrize("power", [1.0, 2.5, 40.0])
def test_densities_to_a_power_are_that_but_for_one_factor_of_both_models(power: float) -> None:
    draw = np.random.default_rng(3)
    models = []
    for darker in (0, 100):
        model = np.zeros((1, 65))
        model[0, :5] = 0.1, 0.2, 0.3, 0.4, 0.0
        model[0, 5:20] = np.repeat([30, 90, 150, 210, 0], 3) - darker / 5
        for mode in range(5):
            axes = draw.normal(0, 3, (3, 3))
            model[0, 20 + 9 * mode : 29 + 9 * mode] = (axes @ axes.T + np.eye(3)).ravel()
        models.append(model)
    near = [model[0, 5:17].reshape(4, 3) + draw.normal(0, 1, (4, 3)) for model in models]
    before = [densities(model, colours) for model, colours in zip(models, near, strict=True)]
    weighed = _to_the_power((models[0], models[1]), power)
    after = [densities(model, colours) for model, colours in zip(weighed, near, strict=True)]
    factors = np.log(after) - power * np.log(before)
    assert np.isfinite(factors).all()
    assert factors == pytest.approx(np.full((2, 4), factors[0, 0]), abs=1e-6)


def plain(image: Image, box: list[float]) -> NDArray[np.bool_]:
    """The whole picture at full size, everything outside of the box background."""
    x0, y0, x1, y1 = to_pixels(box, image.shape[1], image.shape[0]) or (0, 0, 0, 0)
    states = np.full(image.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    states[y0:y1, x0:x1] = cv2.GC_PR_FGD
    models = (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.setRNGSeed(0)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, states, (0, 0, 1, 1), *models, 5, cv2.GC_INIT_WITH_MASK)
    return np.isin(states, (cv2.GC_FGD, cv2.GC_PR_FGD))


@pytest.mark.slow
def test_on_real_frames_a_mask_is_about_that_of_the_whole_picture_at_full_size(
    shared: Path,
) -> None:
    folder = shared / "data" / "raw_videos"
    truth = json.loads((folder / "ground_truth.json").read_text())["frames"]
    agree = []
    for shot in truth:
        start = max(0.0, shot["time_s"] - 0.02)
        video = folder / f"{shot['video_id']}.mp4"
        image = next(frames_between(video, start, start + 0.2)).rgb()
        for thing in shot["instances"]:
            found = segmented(image, thing["bbox"])
            assert not found.reason
            agree.append(iou(found.mask, plain(image, thing["bbox"])))
    assert np.median(agree) > 0.9
    assert np.mean(agree) > 0.75, agree
