"""The size of an image from its header, without decoding it: a hostile image cannot cost much."""

from __future__ import annotations

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers that open a frame header (C4, C8 and CC are tables and a reserved one)."""


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels of a JPEG or PNG; none when it is neither, or cut short.

    >>> image_size(_PNG + struct.pack(">I4sII", 13, b"IHDR", 640, 360))
    (640, 360)
    """
    if data.startswith(_PNG):
        whole = data[12:16] == b"IHDR" and len(data) >= 24
        return struct.unpack(">II", data[16:24]) if whole else None
    if not data.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _FRAME_MARKERS:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None
