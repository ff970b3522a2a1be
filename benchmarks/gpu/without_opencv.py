"""A stand-in where OpenCV is not installed: it is imported, and resizes nothing."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np


def install() -> None:
    """Put the stand-in where ``import cv2`` finds it, unless OpenCV is there."""
    try:
        import cv2  # noqa: F401
    except ImportError:
        sys.modules["cv2"] = _stand_in()


def _stand_in() -> ModuleType:
    module: Any = ModuleType("cv2")
    module.INTER_AREA, module.INTER_LINEAR, module.INTER_CUBIC = 3, 1, 2
    module.setNumThreads = lambda _count: None
    module.resize = _resize
    return module  # type: ignore[no-any-return]


def _resize(picture: Any, size: tuple[int, int], **_: Any) -> Any:
    """Return the picture where it has the size.

    Raises:
        NotImplementedError: it has another.
    """
    if picture.shape[1::-1] != tuple(size):
        raise NotImplementedError(f"{picture.shape[1::-1]} to {size} takes OpenCV")
    return np.array(picture)
