"""Segment Anything with box prompts, through its authors' package: the paper's segmenter.

Kirillov et al., "Segment Anything", 2023. Code and weights are Apache-2.0. The network is theirs;
only its attention is computed by torch's fused kernel, which gives the same numbers without ever
holding the attention map of 4,096 by 4,096 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.models import check_state_dict, load_state_dict
from stages.backends.interfaces import Image
from stages.backends.prompted import Prepared, PromptedSegmenter

if TYPE_CHECKING:
    import torch


class SamSegmenter(PromptedSegmenter):
    """SAM with one of its three encoders: ``sam-vit-b``, ``-l``, ``-h``."""

    packages = ("segment_anything", "torchvision")

    def load(self, path: Path, device: torch.device) -> None:
        """Build the network and give it the checkpoint's tensors, every one of them."""
        from segment_anything import SamPredictor

        sam = load_sam(self.name.removeprefix("sam-"), path)
        self._mean, self._std = sam.pixel_mean, sam.pixel_std
        self._side: int = sam.image_encoder.img_size
        self._predictor = SamPredictor(sam.to(device))

    @property
    def input_pixels(self) -> int:
        """Pixels of the padded square."""
        return self._side * self._side

    def pixels(self, image: Image) -> torch.Tensor:
        """Scale the frame's longest side to what the network wants, and pad it to a square."""
        import torch

        resized = self._predictor.transform.apply_image(image)
        planes = torch.from_numpy(resized).permute(2, 0, 1).float()
        padding = (0, self._side - planes.shape[2], 0, self._side - planes.shape[1])
        return torch.nn.functional.pad((planes - self._mean) / self._std, padding)

    def encode(self, pixels: torch.Tensor) -> Sequence[Any]:
        """Compute one embedding per frame, ``(1, channels, height, width)``."""
        features = self._predictor.model.image_encoder(pixels).float()
        return [features[i : i + 1] for i in range(len(features))]

    def decode(self, embedding: Any, frame: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode by the authors' predictor, as if it had embedded the frame itself."""
        import torch

        predictor = self._predictor
        transform = predictor.transform
        predictor.features, predictor.is_image_set = embedding, True
        predictor.original_size = frame.size
        predictor.input_size = transform.get_preprocess_shape(*frame.size, transform.target_length)
        boxes = torch.from_numpy(transform.apply_boxes(frame.boxes, frame.size))
        points = inside = None
        if frame.points is not None and frame.inside is not None:
            moved = transform.apply_coords(frame.points, frame.size)
            points = torch.from_numpy(moved)[None].to(embedding.device)
            inside = torch.from_numpy(frame.inside)[None].to(embedding.device)
        logits, ious, _ = predictor.predict_torch(
            points,
            inside,
            boxes.to(embedding.device),
            multimask_output=points is None,
            return_logits=True,
        )
        return logits, ious


def load_sam(size: str, path: Path) -> Any:
    """Load the network of an official checkpoint, ready to run, on the CPU.

    Args:
        size: ``vit-b``, ``vit-l`` or ``vit-h``.
        path: the checkpoint.

    Raises:
        UsageError: naming the first tensor that is not as this network has it.
    """
    import torch
    from segment_anything import sam_model_registry

    found = load_state_dict(path)
    with torch.device("meta"):
        sam = sam_model_registry[size.replace("-", "_")]()
    shapes = {name: tensor.shape for name, tensor in sam.state_dict().items()}
    check_state_dict(shapes, found, str(path))
    sam.load_state_dict({name: tensor.float() for name, tensor in found.items()}, assign=True)
    for block in sam.image_encoder.blocks:
        block.attn.forward = fused_attention(block.attn)
    return sam.eval()


def fused_attention(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compute SAM's attention with decomposed relative positions as one fused product.

    The authors add ``rel_h[query, key row] + rel_w[query, key column]`` to the map of scores. The
    same sum is a dot product when each query is lengthened by its rows of ``rel_h`` and ``rel_w``
    and each key by the one-hot codes of its row and column, so no map is needed.

    Args:
        layer: the authors' ``Attention``.
    """
    import torch
    from segment_anything.modeling.image_encoder import get_rel_pos

    def forward(x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        tokens, heads = height * width, layer.num_heads
        parts = layer.qkv(x).reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        place = query.reshape(batch, heads, height, width, -1)
        rows = get_rel_pos(height, height, layer.rel_pos_h).to(query.dtype)
        columns = get_rel_pos(width, width, layer.rel_pos_w).to(query.dtype)
        rel_h = torch.einsum("bnhwc,hkc->bnhwk", place, rows).flatten(2, 3)
        rel_w = torch.einsum("bnhwc,wkc->bnhwk", place, columns).flatten(2, 3)
        eye_h = torch.eye(height, dtype=query.dtype, device=x.device)
        eye_w = torch.eye(width, dtype=query.dtype, device=x.device)
        codes = torch.cat((eye_h.repeat_interleave(width, 0), eye_w.repeat(height, 1)), 1)
        long_query = torch.cat((query * layer.scale, rel_h, rel_w), -1)
        long_key = torch.cat((key, codes.expand(batch, heads, -1, -1)), -1)
        extra = long_query.shape[-1] - value.shape[-1]
        # The fused kernels want one length of all three.
        long_value = torch.nn.functional.pad(value, (0, extra))
        mixed = torch.nn.functional.scaled_dot_product_attention(
            long_query, long_key, long_value, scale=1.0
        )[..., : value.shape[-1]]
        joined = mixed.transpose(1, 2).reshape(batch, height, width, channels)
        projected: torch.Tensor = layer.proj(joined)
        return projected

    return forward
