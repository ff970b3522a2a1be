"""SAM 2.1 with box prompts, through transformers: faster than SAM and better.

Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024. Code and weights are Apache-2.0.
The published folders hold the video model; its memory is left out, as each frame stands alone
(``sam2_video`` has it).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import UsageError
from pipeline.models import check_state_dict, load_state_dict
from stages.backends.interfaces import Image
from stages.backends.prompted import Prepared, PromptedSegmenter

if TYPE_CHECKING:
    import torch

PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
"""The settings of a network's parts, in a folder's ``config.json``."""

_ENCODER = "sam2_hiera_det_model"

_SHARED = "shared_image_embedding.positional_embedding"
_SHARED_AGAIN = "prompt_encoder.shared_embedding.positional_embedding"
"""The second name of one matrix; a file need hold it once."""


class Sam2Segmenter(PromptedSegmenter):
    """SAM 2.1 in one of its four sizes: ``sam2.1-hiera-tiny`` and so on."""

    packages: ClassVar[tuple[str, ...]] = ("transformers", "torchvision")

    def load(self, path: Path, device: torch.device) -> None:
        """Build the network from its folder, and what prepares its pictures."""
        from transformers import Sam2ImageProcessor

        self._model = self.network(path).to(device)
        self._side = int(self._model.config.prompt_encoder_config.image_size)
        size = {"height": self._side, "width": self._side}
        self._processor: Any = Sam2ImageProcessor(size=size)

    def network(self, folder: Path) -> Any:
        """Build the network from its folder."""
        return load_sam2(folder)

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

    with sam2_settings(folder / "config.json") as document:
        config = Sam2Config(**{part: document[part] for part in PARTS})
    return fill(Sam2Model, config, folder / "model.safetensors")


@contextlib.contextmanager
def sam2_settings(file: Path) -> Iterator[dict[str, Any]]:
    """Give what a ``config.json`` says, to be made settings of inside.

    Raises:
        UsageError: it is no SAM 2's, or what is made of it fails.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        # Another kind would be built too, some of them from what they name on the network.
        kind = document["vision_config"]["backbone_config"].get("model_type", _ENCODER)
        if kind != _ENCODER:
            raise ValueError(f"its encoder is {str(kind)[:40]!r}, not {_ENCODER!r}")
        yield document
    except (
        OSError,
        ValueError,
        RecursionError,
        TypeError,
        KeyError,
        AttributeError,
        StrictDataclassError,
    ) as error:
        raise UsageError(f"{file}: not the settings of a SAM 2 model ({error}).") from error


def fill(network: Any, config: Any, weights: Path) -> Any:
    """Make a network of transformers' and give it a file's tensors, every one of them.

    Args:
        network: its class.
        config: its sizes. It is made without memory until the file has proved to be of them.
        weights: tensors of the video model, of which the class names those it does without.

    Raises:
        UsageError: naming the first tensor that is not as this network has it.
    """
    import torch

    found = load_state_dict(weights)
    video = re.compile("|".join(network._keys_to_ignore_on_load_unexpected or ["$."]))
    still = {name: tensor for name, tensor in found.items() if not video.search(name)}
    if _SHARED in still:
        still.setdefault(_SHARED_AGAIN, still[_SHARED])
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in network(config).state_dict().items()}
    check_state_dict(shapes, still, str(weights))
    model = network(config)
    model.load_state_dict({name: tensor.float() for name, tensor in still.items()})
    return model.requires_grad_(False).train(False)
