"""Facts of an image's bytes: its size, from the header alone, and how it looks.

A hostile image cannot cost much: its size is known before anything is decoded.
"""

from __future__ import annotations

import hashlib
import struct

import cv2
import numpy as np

_PNG = b"\x89PNG\r\n\x1a\n"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers that open a frame header (C4, C8 and CC are tables and a reserved one)."""

_MARGIN = 2
"""Grey levels of 256."""
_MOST_PIXELS = 1 << 26
"""Larger images are not decoded."""


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return a JPEG's or PNG's width and height in pixels; none when it is neither, or cut short.

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


def difference_hash(data: bytes) -> str:
    """Return how an image looks, in 64 bits as 16 hex digits; empty when it cannot be decoded.

    Each bit says whether one of 9x8 grey patches is clearly darker than its right neighbour (dHash,
    with a margin so that noise in flat parts says nothing). Another encode of the same frame flips
    a few bits, another frame many.
    """
    size = image_size(data)
    if size is None or size[0] * size[1] > _MOST_PIXELS:
        return ""
    # 8-fold reduction happens inside the JPEG's own transform, and costs a tenth.
    reading = cv2.IMREAD_REDUCED_GRAYSCALE_8 if min(size) >= 128 else cv2.IMREAD_GRAYSCALE
    grey = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), reading)
    if grey is None:
        return ""
    patches = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.packbits(patches[:, :-1] + _MARGIN < patches[:, 1:])
    return bits.tobytes().hex()


def fingerprint(data: bytes) -> dict[str, str]:
    """Return the columns of an image row that say which image it is."""
    return {
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "image_dhash": difference_hash(data),
    }


def hash_distance(one: str, other: str) -> int:
    """Count the bits of 64 in which two hashes differ.

    >>> hash_distance("00000000000000ff", "000000000000000f")
    4
    """
    return (int(one, 16) ^ int(other, 16)).bit_count()
