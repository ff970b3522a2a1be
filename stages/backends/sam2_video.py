"""SAM 2.1's memory, through transformers: things are followed from picture to picture.

Each thing is told by a box in one picture. In the next ones the network finds its mask from the
picture and from what it remembers: the first picture, its last six, and sixteen short notes.

Each thing has a session of its own. In a session of several, transformers makes the memories of all
of them from hard masks as soon as one of them is new, so an answer would depend on the others. A
session keeps all it has seen, too: what the network will not look at again is thrown away here, so
that memory does not grow with the clip.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.errors import InputError
from pipeline.extras import need_packages
from pipeline.models import require
from pipeline.workspace.storage import Storage
from stages.backends.device import Precision, inference, worker_device
from stages.backends.interfaces import Image
from stages.backends.sam2 import PARTS, fill, sam2_settings

if TYPE_CHECKING:
    import torch

_THING = 0
"""The one object of a session."""

_STRIDES = (4, 8, 16)
"""Pixels of the input per cell of the three feature maps, on either side."""

_OLD_THETA = "memory_attention_rope_theta"
"""The name that folders written before transformers 5 have for a wave length of the positions."""


class Sam2Video:
    """SAM 2.1 as a tracker, in one of its four sizes."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "torchvision")

    def __init__(self, name: str, device: str, precision: Precision) -> None:
        self.name = name
        self._device_setting, self._precision = device, precision

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digest of the weights."""
        need_packages(*self.packages)
        return {"weights": require(self.name).sha256}

    def open(self, storage: Storage) -> None:
        """Load the registered weights.

        Raises:
            UsageError: they are not here, not what was registered, or not of this model.
        """
        from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

        self.device = worker_device(self._device_setting)
        self.network = load_sam2_video(require(self.name).path).to(self.device)
        size = {"height": self.network.image_size, "width": self.network.image_size}
        images, videos = Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size)
        self.processor: Any = Sam2VideoProcessor(images, videos)

    def memory(self) -> Sam2Memory:
        """Return an empty memory."""
        return Sam2Memory(self)

    def inference(self) -> Any:
        """Return the context in which the network runs."""
        return inference(self.device, self._precision)


class Sam2Memory:
    """The memory of the things of one clip.

    Args:
        model: opened.
    """

    def __init__(self, model: Sam2Video) -> None:
        self._model = model
        self._number = -1  # of the picture that is shown
        self._sessions: dict[Hashable, Any] = {}
        self._masks: dict[Hashable, tuple[torch.Tensor, torch.Tensor]] = {}
        self._cache: Any = None

    def show(self, image: Image) -> None:
        """Show the next picture, and find everything that is remembered in it."""
        self._number += 1
        model = self._model
        given = model.processor.image_processor(image, return_tensors="pt")
        self._pixels = given.pixel_values.to(model.device)
        for thing in self._sessions:
            self._find(thing)

    def take_up(self, thing: Hashable, box: Sequence[float], size: tuple[int, int]) -> None:
        """Remember the thing in a box of the shown picture.

        Args:
            thing: its name.
            box: ``[x, y, w, h]``.
            size: height and width of the picture the box is of.
        """
        model = self._model
        session = model.processor.init_video_session(inference_device=model.device)
        # One cache for all sessions: a picture is encoded once, when the first of them needs it.
        self._cache = session.cache = self._cache or session.cache
        x, y, w, h = box
        model.processor.add_inputs_to_inference_session(
            session,
            frame_idx=self._number,
            obj_ids=_THING,
            input_boxes=[[[x, y, x + w, y + h]]],
            original_size=size,
        )
        self._sessions[thing] = session
        self._find(thing)

    def keep(self, things: Collection[Hashable]) -> None:
        """Forget all but some things."""
        for kept in (self._sessions, self._masks):
            for thing in [one for one in kept if one not in things]:
                del kept[thing]

    def box(self, thing: Hashable, size: tuple[int, int]) -> list[float] | None:
        """Return the box around a thing's mask in the shown picture.

        Args:
            thing: its name.
            size: height and width of the picture the box is to be of.

        Returns:
            ``[x, y, w, h]``; none where the network says it is not there, or it was forgotten.

        Raises:
            InputError: ``not_a_number`` where the network computed none.
        """
        import cv2

        if thing not in self._masks:
            return None
        logits, is_there = self._masks[thing]
        if not (logits.isfinite().all() and is_there.isfinite().all()):
            raise InputError("not_a_number", f"{self._model.name} computed no number")
        # Where it says that a thing is not there, no pixel is above 0.
        (mask,) = self._model.processor.post_process_masks([logits.float()], [size])
        x, y, w, h = cv2.boundingRect(mask[0, 0].cpu().numpy().astype(np.uint8))
        return [float(x), float(y), float(w), float(h)] if w and h else None

    def _find(self, thing: Hashable) -> None:
        """Find a thing in the shown picture, and remember what it looks like there."""
        session = self._sessions[thing]
        with self._model.inference():
            found = self._model.network(
                inference_session=session, frame_idx=self._number, frame=self._pixels
            )
        self._masks[thing] = found.pred_masks, found.object_score_logits
        self._forget_what_is_past(session)

    def _forget_what_is_past(self, session: Any) -> None:
        """Throw away of a session what no later picture asks for."""
        session.processed_frames.clear()
        config = self._model.network.config
        memories, notes = config.num_maskmem, config.max_object_pointers_in_encoder
        ((first, passed),) = (
            (outputs["cond_frame_outputs"], outputs["non_cond_frame_outputs"])
            for outputs in session.output_dict_per_obj.values()
        )
        for output in (*first.values(), *passed.values()):
            for large in ("pred_masks", "high_res_masks"):
                output.pop(large, None)
        # The next picture looks back this far for memories, and for notes.
        if memory := passed.get(self._number - memories + 1):
            for large in ("maskmem_features", "maskmem_pos_enc"):
                memory.pop(large, None)
        passed.pop(self._number - max(memories, notes) + 1, None)


def load_sam2_video(folder: Path) -> Any:
    """Load the whole network of a published folder, its memory with it, on the CPU.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.

    Raises:
        UsageError: the settings are no SAM 2's, or naming the first tensor that is not as this
            network has it.
    """
    from transformers import Sam2VideoConfig, Sam2VideoModel

    with sam2_settings(folder / "config.json") as document:
        known = [name for name in Sam2VideoConfig.__annotations__ if name in document]
        settings = {name: document[name] for name in (*PARTS, *known)}
        if _OLD_THETA in document:
            settings.setdefault("rope_parameters", {"rope_theta": document[_OLD_THETA]})
        config: Any = Sam2VideoConfig(**settings)
        side = config.prompt_encoder_config.image_size
        cells = [[side // stride] * 2 for stride in _STRIDES]
        has = [
            *config.vision_config.backbone_feature_sizes,
            config.memory_attention_rope_feat_sizes,
        ]
        if config.image_size != side or [list(one) for one in has] != [*cells, cells[-1]]:
            raise ValueError(f"its parts are not all of an input of {side} pixels")
    return fill(Sam2VideoModel, config, folder / "model.safetensors")
