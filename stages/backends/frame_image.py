"""Read the image of a frame as it was saved."""

from __future__ import annotations

import numpy as np

from pipeline.errors import InputError
from pipeline.records.schema import Frame
from pipeline.workspace.recorded import frame_bytes
from pipeline.workspace.storage import Storage
from stages.backends.interfaces import Image


def read_frame_image(storage: Storage, frame: Frame) -> Image:
    """Read a frame's file as RGB.

    Raises:
        InputError: ``unreadable_frame`` when the file is no image, or of another size, and what
            ``frame_bytes`` raises.
    """
    return decode_frame_image(frame_bytes(storage, frame), frame)


def decode_frame_image(data: bytes, frame: Frame) -> Image:
    """Decode the bytes of a frame's file as RGB.

    Raises:
        InputError: ``unreadable_frame`` when it is no image, or of another size.
    """
    import cv2

    image = None
    if data:
        packed = np.frombuffer(data, dtype=np.uint8)
        image = cv2.imdecode(packed, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise InputError("unreadable_frame", f"{frame.path}: not an image ({len(data)} bytes)")
    height, width = image.shape[:2]
    if (width, height) != (frame.width, frame.height):
        raise InputError(
            "unreadable_frame",
            f"{frame.path}: {width}x{height}, but the frame is {frame.width}x{frame.height}",
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
