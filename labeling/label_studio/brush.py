"""Read and write masks as Label Studio's brush regions.

Its run lengths count the bytes of an RGBA picture, row by row; ours (COCO's) count pixels down the
columns. The stream is bits: how many bytes follow (32), bits of a value less one (5), four widths
less one (4 each), then blocks: a flag (1), which width (2), a length less one in that width, and
for flag 1 the one value that repeats, for flag 0 as many values. It is the format of the package
``rle-pack`` of thi.ng.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.records.rle import Mask

_WIDTHS = (3, 4, 8, 16)
_LONGEST = 1 << _WIDTHS[-1]
_CHANNELS = 4
_OPAQUE = 127
"""Browsers soften the rim of a stroke; what is more than half opaque is inside."""
_WORST_BITS = 27
"""A block that holds one byte: flag, width, the longest length, the value."""


def encode(mask: NDArray[np.bool_]) -> list[int]:
    """Pack a mask, ``(height, width)``, as the bytes of a brush region, opaque inside."""
    flat = np.asarray(mask, dtype=bool).ravel()
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], turns, [flat.size]))
    bits = [f"{flat.size * _CHANNELS:032b}{7:05b}", *(f"{width - 1:04b}" for width in _WIDTHS)]
    for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        value = 255 if flat[first] else 0
        left = (stop - first) * _CHANNELS
        while left:
            length = min(left, _LONGEST)
            number = next(n for n, width in enumerate(_WIDTHS) if length <= 1 << width)
            bits.append(f"1{number:02b}{length - 1:0{_WIDTHS[number]}b}{value:08b}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode(data: object, height: int, width: int) -> Mask:
    """Read the mask, ``(height, width)``, of a brush region's bytes.

    Nothing larger than the picture is ever held: what claims more is refused before it is read.

    Args:
        data: what the server gave.
        height: of the picture it was drawn on.
        width: of the same.

    Raises:
        InputError: ``bad_brush`` when it is no brush region of that size.
    """
    total = height * width * _CHANNELS
    stream = _Bits(_bytes(data, total))
    said = stream.take(32)
    if said != total:
        raise InputError("bad_brush", f"a brush of {said} bytes, not {width}x{height}x4 = {total}")
    if stream.take(5) != 7:
        raise InputError("bad_brush", "its values are not bytes")
    widths = [stream.take(4) + 1 for _ in _WIDTHS]
    rgba = np.empty(total, dtype=np.uint8)
    at = 0
    while at < total:
        repeats = stream.take(1)
        stop = at + stream.take(widths[stream.take(2)]) + 1
        if stop > total:
            raise InputError("bad_brush", f"its runs reach byte {stop} of {total}")
        if repeats:
            rgba[at:stop] = stream.take(8)
        else:
            values = stream.take(8 * (stop - at)).to_bytes(stop - at, "big")
            rgba[at:stop] = np.frombuffer(values, dtype=np.uint8)
        at = stop
    inside: Mask = rgba[_CHANNELS - 1 :: _CHANNELS].reshape(height, width) > _OPAQUE
    return inside


class _Bits:
    """A stream of bits, read from its highest."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        """Return the next bits as a number."""
        stop = self._at + count
        if stop > 8 * len(self._data):
            raise InputError("bad_brush", f"it ends in the middle of a run ({len(self._data)} B)")
        found = int.from_bytes(self._data[self._at >> 3 : (stop + 7) >> 3], "big")
        self._at = stop
        return found >> (-stop % 8) & ((1 << count) - 1)


def _bytes(data: object, total: int) -> bytes:
    if not isinstance(data, list) or not data:
        raise InputError("bad_brush", "it has no list of bytes")
    if len(data) > 16 + total * _WORST_BITS // 8:
        raise InputError("bad_brush", f"{len(data)} bytes are more than any brush needs")
    try:
        return bytes(data)
    except (TypeError, ValueError) as error:
        raise InputError("bad_brush", f"not a list of bytes ({error})") from error
