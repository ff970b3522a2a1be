"""Encode a few pictures as a small silent MP4, for players that loop it."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.errors import MediaError
from pipeline.media.picture import Picture


def encode(pictures: Iterable[Picture], fps: float, target: Path) -> None:
    """Write the pictures as displayed, each shown for one frame of ``fps``, as H.264 without sound.

    A side of odd length loses its last row or column: H.264's colours need even ones.

    Raises:
        MediaError: ``empty_span`` when there is no picture, and what decoding them raises.
        OSError: the target cannot be written.
    """
    rate = Fraction(fps).limit_denominator(1001)
    written = 0
    with av.open(
        str(target.absolute()), "w", format="mp4", options={"movflags": "faststart"}
    ) as mp4:
        stream = mp4.add_stream("libx264", rate=rate, options={"crf": "20", "threads": "1"})
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            rgb = picture.rgb()
            height, width = (side - side % 2 for side in rgb.shape[:2])
            if not written:
                stream.width, stream.height = width, height
            image = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(rgb[: stream.height, : stream.width]), format="rgb24"
            )
            image.pts, image.time_base = written, 1 / rate
            mp4.mux(stream.encode(image))
            written += 1
        if written:
            mp4.mux(stream.encode(None))
    if not written:
        target.unlink(missing_ok=True)
        raise MediaError("empty_span", f"{target.name}: no picture to show")
