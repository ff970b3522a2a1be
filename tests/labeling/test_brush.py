"""Brush regions and COCO run lengths are the same pixels, both ways, whatever they are."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labeling.label_studio import brush
from pipeline.errors import InputError
from pipeline.records import rle
from tests.labeling.conftest import label_studio_command

masks = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda size: arrays(np.bool_, size, elements=st.booleans(), fill=st.booleans())
)


def slowly(data: list[int]) -> list[int]:
    """All bytes of a stream, bit by bit and one after another."""
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, value_bits = take(32), take(5) + 1
    widths = [take(4) + 1 for _ in range(4)]
    found: list[int] = []
    while len(found) < total:
        repeats = take(1)
        length = take(widths[take(2)]) + 1
        if repeats:
            value = take(value_bits)
            found += [value] * length
        else:
            found += [take(value_bits) for _ in range(length)]
    return found


def stream(blocks: list[tuple[int, list[int]]], total: int, widths: list[int]) -> list[int]:
    """A stream written as other encoders may: any widths, values that repeat or do not."""
    bits = f"{total:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in widths)
    for number, values in blocks:
        alike = len(set(values)) == 1
        bits += f"{int(alike)}{number:02b}{len(values) - 1:0{widths[number]}b}"
        bits += "".join(f"{value:08b}" for value in (values[:1] if alike else values))
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


@given(masks)
def test_a_mask_comes_back_as_it_was(mask: Any) -> None:
    data = brush.encode(mask)
    assert (brush.decode(data, *mask.shape) == mask).all()
    rgba = np.array(slowly(data)).reshape(*mask.shape, 4)
    assert (rgba == np.where(mask, 255, 0)[..., None]).all(), "opaque white inside, nothing outside"


@given(masks)
def test_run_lengths_of_coco_come_back_as_the_same_text(mask: Any) -> None:
    packed = rle.encode(mask)
    data = brush.encode(rle.decode(packed))
    again = rle.encode(brush.decode(data, *mask.shape))
    assert again == packed
    assert brush.encode(rle.decode(again)) == data


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (33, 19), (720, 1280)])
@pytest.mark.parametrize("inside", ["none", "all", "first", "last"])
def test_the_corners_of_what_a_mask_can_be(size: tuple[int, int], inside: str) -> None:
    mask = np.full(size, inside == "all")
    if inside in ("first", "last"):
        mask.flat[0 if inside == "first" else -1] = True
    assert (brush.decode(brush.encode(mask), *size) == mask).all()


@given(st.data())
def test_any_encoders_stream_is_read_as_the_slow_reading_has_it(data: Any) -> None:
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    widths = data.draw(st.lists(st.integers(1, 16), min_size=4, max_size=4))
    left, blocks = 4 * height * width, []
    while left:
        number = data.draw(st.integers(0, 3))
        length = data.draw(st.integers(1, min(left, 1 << widths[number])))
        value = st.integers(0, 255)
        values = data.draw(st.lists(value, min_size=length, max_size=length))
        blocks.append((number, values))
        left -= length
    written = stream(blocks, 4 * height * width, widths)
    alpha = np.array(slowly(written)).reshape(height, width, 4)[..., 3]
    assert (brush.decode(written, height, width) == (alpha > 127)).all()


def test_half_transparent_rims_of_strokes_are_outside_and_colour_does_not_matter() -> None:
    values = [10, 20, 30, 127, 0, 0, 0, 128]
    assert brush.decode(stream([(2, values)], 8, [3, 4, 8, 16]), 1, 2).tolist() == [[False, True]]


WHOLE = brush.encode(np.ones((4, 4), dtype=bool))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "no list"),
        ("abc", "no list"),
        (10**12, "no list"),
        ([], "no list"),
        ([1, 2, "3"], "not a list of bytes"),
        ([0, 0, 0, 256], "not a list of bytes"),
        ([0, 0, 0, -1], "not a list of bytes"),
        ([0, 0], "ends in the middle"),
        (WHOLE[:-1], "ends in the middle"),
        ([255, 255, 255, 255, *WHOLE[4:]], r"brush of 4294967295 bytes, not 4x4x4 = 64"),
        ([*WHOLE[:4], 0xFF, *WHOLE[5:]], "not bytes"),
        (stream([(3, [255] * 65)], 64, [3, 4, 8, 16]), "reach byte 65 of 64"),
        (WHOLE + [0] * 300, "more than any brush needs"),
    ],
)
def test_what_is_no_brush_is_refused_in_one_line(data: object, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        brush.decode(data, 4, 4)
    assert refused.value.kind == "bad_brush"
    assert "\n" not in refused.value.detail


@given(st.lists(st.integers(0, 255), max_size=60))
def test_noise_is_a_mask_or_refused_and_never_another_error(data: list[int]) -> None:
    head = [0, 0, 0, 64, *data]
    for tried in (data, head):
        with contextlib.suppress(InputError):
            assert brush.decode(tried, 4, 4).shape == (4, 4)


def test_a_few_bytes_that_claim_a_gigabyte_take_no_memory() -> None:
    bomb = stream([(3, [255] * 65536)] * 4, 2**32 - 1, [3, 4, 8, 16])
    tracemalloc.start()
    with pytest.raises(InputError):
        brush.decode(bomb, 40, 40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.labelstudio
@pytest.mark.slow
def test_label_studios_own_codec_agrees(tmp_path: Any) -> None:
    python = label_studio_command().with_name("python")
    drawn = np.random.default_rng(0)
    shapes = [(1, 1), (7, 5), (72, 128)]
    kinds = [drawn.random(size) < share for size in shapes for share in (0.0, 0.3, 1.0)]
    code = (
        "import sys, json, numpy as np\n"
        "from label_studio_sdk.converter.brush import decode_rle, mask2rle\n"
        "out = []\n"
        "for rows, ours in json.load(open(sys.argv[1])):\n"
        "    m = np.array(rows, dtype=np.uint8)\n"
        "    read = decode_rle(ours).reshape(*m.shape, 4)[..., 3] > 0\n"
        "    out.append([bool((read == (m > 0)).all()), list(map(int, mask2rle(m * 255)))])\n"
        "json.dump(out, open(sys.argv[2], 'w'))\n"
    )
    asked, said = tmp_path / "asked.json", tmp_path / "said.json"
    asked.write_text(json.dumps([[m.astype(int).tolist(), brush.encode(m)] for m in kinds]))
    subprocess.run([str(python), "-c", code, str(asked), str(said)], check=True)
    for mask, (same, theirs) in zip(kinds, json.loads(said.read_text()), strict=True):
        assert same
        assert (brush.decode(theirs, *mask.shape) == mask).all()
