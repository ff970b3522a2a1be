"""Pictures that no other refers to: on the way to a wanted one they need not be decoded.

H.264 says so of each picture in its first bytes (ITU-T H.264, 7.4.1: nal_ref_idc 0), and of films
with B-frames it is about half of them. What is damaged in such a picture is nobody else's damage.
"""

from __future__ import annotations

from collections.abc import Callable

from av.packet import Packet
from av.video.stream import VideoStream

_SLICES = range(1, 6)
"""Types of the units (ITU-T H.264, table 7-1) that hold the picture itself."""
_BESIDE = (6, 9, 12)
"""Those that say nothing a later picture needs: messages, delimiters, filler."""


def disposable_packets(stream: VideoStream) -> Callable[[Packet[VideoStream]], bool] | None:
    """Return what tells whether no other picture refers to a packet's.

    Args:
        stream: with the header of its codec.

    Returns:
        None where it cannot be told: another codec, or units without lengths (MPEG-TS).
    """
    header = stream.codec_context.extradata
    if stream.codec_context.codec.canonical_name != "h264" or not header or len(header) < 7:
        return None
    if header[0] != 1:  # ISO/IEC 14496-15: configurationVersion; else start codes
        return None
    length_bytes = (header[4] & 3) + 1
    return lambda packet: is_disposable(memoryview(packet), length_bytes)


def is_disposable(data: memoryview, length_bytes: int) -> bool:
    """Say whether each unit of a packet is whole, and none is of a picture that others refer to.

    Args:
        data: units, each after its length.
        length_bytes: of such a length, 1 to 4.

    >>> is_disposable(memoryview(bytes([2, 0x01, 0x9A])), 1)  # a slice, nal_ref_idc 0
    True
    >>> is_disposable(memoryview(bytes([2, 0x41, 0x9A])), 1)  # nal_ref_idc 2
    False
    >>> is_disposable(memoryview(bytes([3, 0x01, 0x9A])), 1)  # cut off
    False
    """
    at, end, slices = 0, len(data), 0
    while at < end:
        first = at + length_bytes
        size = int.from_bytes(data[at:first])
        at = first + size
        if not size or at > end:
            return False
        kind = data[first] & 0x1F
        if kind in _SLICES and not data[first] & 0x60:
            slices += 1
        elif kind not in _BESIDE:
            return False
    return slices > 0
