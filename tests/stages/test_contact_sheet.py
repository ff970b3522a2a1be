"""Sheets show every frame of a clip, with boxes and masks where they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.pictures import category_color
from pipeline.records import rle
from pipeline.records.schema import Instance, Mask, Record
from pipeline.workspace.workspace import Workspace
from stages.backends.interfaces import Image
from stages.propose.contact_sheet import Thing, draw, mask_sheets, proposal_sheets, sheet
from tests.rows import frame, proposal

BOX = [100.0, 60.0, 80.0, 50.0]


def blank(height: int = 180, width: int = 320) -> Image:
    return np.full((height, width, 3), 40, dtype=np.uint8)


def test_a_box_is_drawn_where_it_is_and_the_picture_given_is_not_changed() -> None:
    image = blank()
    drawn = draw(image, [Thing(BOX, "dog 0.90", "dog")])
    assert (image == 40).all()
    assert tuple(drawn[85, 100]) == category_color("dog", 0.57)
    assert tuple(drawn[109, 140]) == category_color("dog", 0.57)
    assert (drawn[66:104, 106:174] == 40).all(), "the thing itself stays visible"


def test_what_is_not_heard_is_grey_and_thinner() -> None:
    heard = draw(blank(), [Thing(BOX, "", "dog")])
    unheard = draw(blank(), [Thing(BOX, "", "")])
    assert len({*unheard[85, 100]}) == 1
    assert (unheard != 40).any(2).sum() < (heard != 40).any(2).sum()


def test_a_mask_is_tinted_inside_and_nowhere_else() -> None:
    mask = np.zeros((180, 320), dtype=bool)
    mask[70:100, 120:160] = True
    drawn = draw(blank(), [Thing(BOX, "", "dog", mask)])
    assert (drawn[85, 140] != 40).any()
    assert (drawn[150:, :] == 40).all()


@pytest.mark.parametrize("box", [[-50.0, -50.0, 20.0, 20.0], [300, 170, 500, 500], [5, 5, 0, 0]])
def test_boxes_and_names_beyond_the_edge_draw_without_an_error(box: list[float]) -> None:
    assert draw(blank(), [Thing(box, "Trompete für Anfänger " * 20, "dog")]).shape == (180, 320, 3)


def test_a_sheet_holds_all_pictures_in_order_whatever_their_sizes() -> None:
    tiles = [(np.full((180, 320, 3), 60 * n, dtype=np.uint8), f"{n}") for n in range(1, 4)]
    tiles.append((np.full((640, 360, 3), 240, dtype=np.uint8), "upright"))
    whole = sheet(tiles)
    high = 24 + round(640 * 640 / 360)
    assert whole.shape == (2 * high, 3 * 640, 3)
    middles = [whole[200, 320 + 640 * n, 0] for n in range(3)] + [whole[high + 500, 320, 0]]
    assert middles == [60, 120, 180, 240]


def rows_in(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *rows: Record) -> None:
    """Let the workspace hold exactly these rows."""
    monkeypatch.setattr(workspace, "rows", lambda kind: [r for r in rows if isinstance(r, kind)])


def read(workspace: Workspace, name: str) -> Image:
    packed = np.frombuffer(workspace.storage.read(name), dtype=np.uint8)
    image = cv2.imdecode(packed, cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image.astype(np.uint8)


def test_every_clip_gets_a_sheet_of_all_its_frames_those_without_boxes_too(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = frame(5, "wwwwwwwwwww")
    rows = [frame(10), frame(20), other]
    for row in rows:
        data = cv2.imencode(".png", blank())[1].tobytes()
        workspace.storage.write(row.path, data)
    rows_in(workspace, monkeypatch, *rows, proposal("p_1", bbox=BOX))
    names = proposal_sheets(workspace)
    assert names == [f"sheets/propose/{row.clip_id}.jpg" for row in (frame(10), other)]
    first, second = (read(workspace, name) for name in names)
    assert first.shape == (24 + 360, 2 * 640, 3)
    assert second.shape == (24 + 360, 640, 3)
    distance = np.abs(first[24 + 170, 200].astype(int) - category_color("dog", 0.57))
    assert distance.max() < 60, "the box's left side, twice as large, through JPEG"


def test_masks_and_instances_without_one_are_drawn_and_a_lost_frame_is_black(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.storage.write(frame(10).path, cv2.imencode(".png", blank())[1].tobytes())
    pixels = np.zeros((180, 320), dtype=bool)
    pixels[70:100, 120:160] = True
    packed = rle.encode(pixels)
    made = [
        Instance(
            instance_id=f"i_{number}",
            frame_id=frame(10).id,
            bbox=BOX,
            audio_visual_category="dog",
            scenario="Single-sound",
            review_ids=[],
            proposal_id=None,
            verified=False,
        )
        for number in range(2)
    ]
    mask = Mask(
        instance_id="i_0",
        frame_id=frame(10).id,
        rle=packed,
        area=1200,
        bbox=rle.bbox(packed),
        source="sam-vit-b",
        model_digest="",
        predicted_iou=0.9,
        verified=False,
    )
    rows_in(workspace, monkeypatch, frame(10), frame(20), *made, mask)
    (name,) = mask_sheets(workspace)
    image = read(workspace, name).astype(int)
    tinted, plain = image[24 + 170, 280], image[24 + 300, 100]
    assert np.abs(tinted - plain).max() > 40
    assert image[24:, 640:].max() < 20, "a frame that is gone"
