"""The interfaces of the backends, and the tables of those there are.

A backend is made from its stage's settings, cheaply; what is heavy, OpenCV and PyAV among it, is
imported and loaded in ``open`` or where it works, in the worker. One joins with its module, one
line in a table here, and its name in the setting that chooses it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.records.schema import Clip, Frame, SoundClass, Video
from pipeline.workspace.storage import Storage

Image = NDArray[np.uint8]
"""RGB as displayed, ``(height, width, 3)``."""


@dataclass(frozen=True)
class FrameInput:
    """A frame and where it comes from."""

    frame: Frame
    decode: Callable[[], Image]
    """Decodes the frame's file, or raises an ``InputError``."""
    video: Video
    others: Sequence[Frame] = ()
    """The clip's other frames. Only a detector without a vocabulary may look at them: answers of
    the others are kept whichever frames a clip has."""

    @cached_property
    def image(self) -> Image:
        """The picture of the frame, decoded when it is first looked at."""
        return self.decode()


@dataclass(frozen=True)
class Detection:
    """A box around something."""

    bbox: list[float]
    """``[x, y, w, h]`` in pixels of the frame; parts outside of it are cut off later."""
    name: str
    """The detector's own class."""
    score: float
    """The detector's confidence, in [0, 1]."""


@dataclass(frozen=True)
class Segmented:
    """The pixels of one box's thing."""

    mask: NDArray[np.bool_]
    """``(height, width)`` of the frame; may be empty."""
    predicted_iou: float | None
    """The model's own guess of its quality, about [0, 1]; none when it makes none."""
    stability: float | None = None
    """IoU of the masks at a slightly higher and a slightly lower threshold, in [0, 1]; none when
    the model has no threshold."""
    reason: str = ""
    """The kind of failure where the mask is empty; empty when the segmenter does not know it."""
    assumed: str = ""
    """The assumption it took to find a mask at all; joins the segmenter's name in the source."""


@dataclass(frozen=True)
class Prompt:
    """A frame and the boxes to segment in it."""

    image: Image
    boxes: Sequence[Sequence[float]]
    """``[x, y, w, h]`` in pixels of the frame."""


@dataclass(frozen=True)
class AudioQuery:
    """A clip and the spans of it to listen to."""

    clip: Clip
    video: Video
    spans: Sequence[tuple[float, float]]
    """Start and end, seconds from the video's first frame."""


Vocabulary = Literal["none", "openimages", "coco", "objects365", "prompts"]
"""A detector's class names. none: they mean nothing. prompts: those the taxonomy prompted it with.
The others are keys of ``stages.taxonomy.SEEN``."""


class Backend(Protocol):
    """A model, or a rule in place of one."""

    name: str
    """The setting's spelling of it, which stands in every row."""
    has_weights: bool
    """It is a model that runs on the device of the settings."""

    def fingerprint(self) -> Mapping[str, str]:
        """Return digests of the files that decide its answers; called before any worker starts."""
        ...

    def open(self, storage: Storage) -> None:
        """Load what it needs, once per worker."""


class Tagger(Backend, Protocol):
    """A backend that hears classes of its own vocabulary."""

    vocabulary: Literal["audioset", "vggsound"]
    """The kind of its class names."""

    def tag(self, asked: Iterable[AudioQuery]) -> Iterator[list[list[SoundClass]] | InputError]:
        """Yield what each clip sounds like, in order: the loudest classes of each span, best first.

        Clips are taken as they come, possibly by another thread and some ahead of the answers.
        One that cannot be heard is answered with the reason and holds up no other; ``no_audio``
        where there is nothing to hear.
        """
        ...


class Detector(Backend, Protocol):
    """A backend that draws boxes."""

    nothing: str
    """The reason with which a frame without a box is dropped."""
    vocabulary: Vocabulary
    """The kind of its class names."""

    def detect(self, inputs: Iterable[FrameInput]) -> Iterator[list[Detection]]:
        """Yield the boxes of each frame, in order of the inputs, which are taken as they come.

        Raises:
            InputError: when one of them cannot be looked at; the runner finds out which.
        """
        ...


class Segmenter(Backend, Protocol):
    """A backend that turns boxes into masks."""

    digest: str
    """SHA-256 of the weights; empty without weights."""

    def segment(self, prompts: Iterable[Prompt]) -> Iterator[list[Segmented]]:
        """Yield the thing in each box, frame by frame: one look at a frame for all of its boxes.

        Prompts are taken as they come, possibly by another thread and some ahead of the answers.
        """
        ...


@dataclass(frozen=True)
class Hint:
    """A person's hint at a thing in a frame."""

    box: Sequence[float]
    """``[x, y, w, h]`` in pixels of the frame: around it."""
    points: Sequence[tuple[float, float, bool]] = ()
    """x, y in pixels, and whether the thing is there."""


class Refiner(Segmenter, Protocol):
    """A segmenter that a person can correct; all of ours are."""

    def embed(self, image: Image) -> Any:
        """Compute what is worth keeping of a frame while somebody works at it."""
        ...

    def refine(self, embedding: Any, hint: Hint) -> Segmented:
        """Segment the thing a person means; without points, as ``segment`` does for the box."""
        ...


_EFFICIENTAT = "stages.backends.efficientat.efficientat_tagger:EfficientAtTagger"

TAGGERS = {
    "vggsound-label": "stages.backends.hearing.vggsound_label:LabelTagger",
    "cav-mae": "stages.backends.cav_mae.tagger:CavMaeTagger",
    **{
        f"efficientat-mn{width}-as": _EFFICIENTAT
        for width in ("01", "02", "04", "05", "10", "20", "30", "40")
    },
}
DETECTORS = {
    "motion": "stages.backends.motion.motion_detector:MotionDetector",
    **{
        f"yolox-{size}": "stages.backends.yolox:YoloxDetector"
        for size in ("nano", "tiny", "s", "m", "l", "x")
    },
    **{
        f"dfine-{size}-{trained_on}": "stages.backends.dfine:DFineDetector"
        for size in ("small", "medium", "large", "xlarge")
        for trained_on in ("obj365", "coco", "obj2coco")
    },
    **{f"yolov8{size}-oiv7": "stages.backends.yolo:YoloDetector" for size in "nsmlx"},
    **{
        name: "stages.backends.grounding_dino:PromptedDetector"
        for name in (
            "mm-grounding-dino-tiny",
            "mm-grounding-dino-base",
            "mm-grounding-dino-large",
            "grounding-dino-tiny",
        )
    },
}
SEGMENTERS = {
    "grabcut": "stages.backends.grabcut.segmenter:GrabCutSegmenter",
    "edgetam": "stages.backends.edgetam:EdgeTamSegmenter",
    **{f"sam-vit-{size}": "stages.backends.sam:SamSegmenter" for size in "blh"},
    **{
        f"sam2.1-hiera-{size}": "stages.backends.sam2:Sam2Segmenter"
        for size in ("tiny", "small", "base-plus", "large")
    },
}


def make_backend(table: Mapping[str, str], name: str, config: Any) -> Any:
    """Import the backend ``name`` of ``table`` and make it from its stage's settings."""
    module, _, class_name = table[name].partition(":")
    return getattr(importlib.import_module(module), class_name)(config)
