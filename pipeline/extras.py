"""The packages that the core has not, by the extra that brings them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from pipeline.errors import UsageError

EXTRAS = {
    "label": ("httpx",),
    "train": ("einops", "matplotlib", "PIL", "tensorboard", "torch", "torchvision"),
    "light": ("onnxruntime", "timm", "torch", "torchvision", "transformers"),
    "models": (
        "einops",
        "kaldi_native_fbank",
        "onnxruntime",
        "segment_anything",
        "timm",
        "torch",
        "torchvision",
        "transformers",
        "ultralytics",
    ),
    "ray": ("ray",),
    "s3": ("s3fs",),
}
"""The packages of each extra, as they are imported; where several have one, the first is named."""


def extra_of(package: str) -> str | None:
    """Return the extra that brings a package.

    >>> extra_of("torch"), extra_of("numpy")
    ('train', None)
    """
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)


def missing(packages: Iterable[str]) -> list[str]:
    """Return the packages that are not installed; imports none of them."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def need_packages(*names: str) -> None:
    """Insist that packages a backend imports are installed.

    Raises:
        UsageError: one is not.
    """
    if lacking := missing(names):
        extra = "light" if set(names) <= set(EXTRAS["light"]) else "models"
        raise UsageError(
            f"{', '.join(lacking)}: not installed. Run pip install 'avatar-build[{extra}]', or make"
            " a workspace that needs none: 'avatar-build init DIR --profile offline'."
        )
