"""SAM 2.1 with box prompts, through transformers: faster than SAM and better.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024. Code and weights are Apache-2.0.
The published folders hold the video model; its memory is left out, as each frame stands alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.models import check_state_dict, load_state_dict
from stages.backends.interfaces import Image
from stages.backends.prompted import Prepared, PromptedSegmenter

if TYPE_CHECKING:
    import torch

_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")

_SHARED = "shared_image_embedding.positional_embedding"
_SHARED_AGAIN = "prompt_encoder.shared_embedding.positional_embedding"
"""The second name of one matrix; a file need hold it once."""


class Sam2Segmenter(PromptedSegmenter):
    """SAM 2.1 in one of its four sizes: ``sam2.1-hiera-tiny`` and so on."""

    packages = ("transformers", "torchvision")

    def load(self, path: Path, device: torch.device) -> None:
        """Build the network from its folder."""
        from transformers import Sam2ImageProcessor

        self._model = load_sam2(path).to(device)
        self._side = int(self._model.config.prompt_encoder_config.image_size)
        size = {"height": self._side, "width": self._side}
        self._processor: Any = Sam2ImageProcessor(size=size)

    @property
    def input_pixels(self) -> int:
        """Pixels of the square every frame is stretched to."""
        return self._side * self._side

    def pixels(self, image: Image) -> torch.Tensor:
        """Stretch the frame to a square and normalise it."""
        found: torch.Tensor = self._processor(image, return_tensors="pt").pixel_values[0]
        return found

    def encode(self, pixels: torch.Tensor) -> Sequence[Any]:
        """Compute the feature maps of three scales of each frame."""
        maps = self._model.get_image_embeddings(pixels)
        return [[one[i : i + 1].float() for one in maps] for i in range(len(pixels))]

    def decode(self, embedding: Any, frame: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode all boxes of a frame at once."""
        import torch

        height, width = frame.size
        scale, device = (
            torch.tensor([self._side / width, self._side / height]),
            embedding[-1].device,
        )
        asked = {"input_boxes": (torch.from_numpy(frame.boxes) * scale.repeat(2))[None].to(device)}
        if frame.points is not None and frame.inside is not None:
            asked["input_points"] = (torch.from_numpy(frame.points) * scale)[None, None].to(device)
            asked["input_labels"] = torch.from_numpy(frame.inside)[None, None].to(device)
        found = self._model(
            image_embeddings=embedding, multimask_output=frame.points is None, **asked
        )
        (logits,) = self._processor.post_process_masks(
            [found.pred_masks[0]], [frame.size], binarize=False
        )
        return logits, found.iou_scores[0]


def load_sam2(folder: Path) -> Any:
    """Load the network of a published folder, ready to run, on the CPU.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.

    Raises:
        UsageError: the settings are no SAM 2's, or naming the first tensor that is not as this
            network has it.
    """
    from transformers import Sam2Config, Sam2Model

    file = folder / "config.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        config = Sam2Config(**{part: document[part] for part in _PARTS})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{file}: not the settings of a SAM 2 model ({error}).") from error
    model = Sam2Model(config)
    weights = folder / "model.safetensors"
    found = load_state_dict(weights)
    video = re.compile("|".join(Sam2Model._keys_to_ignore_on_load_unexpected or ["$."]))
    still = {name: tensor.float() for name, tensor in found.items() if not video.search(name)}
    if _SHARED in still:
        still.setdefault(_SHARED_AGAIN, still[_SHARED])
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_state_dict(shapes, still, str(weights))
    model.load_state_dict(still)
    return model.requires_grad_(False).train(False)
