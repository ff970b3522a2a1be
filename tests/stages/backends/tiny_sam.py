"""Segment Anything in miniature: the official file formats, random numbers, seconds on a CPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import segment_anything
import torch
from safetensors.torch import save_file
from segment_anything.build_sam import _build_sam

from pipeline.flow import Step
from pipeline.run.runner import RunOptions, run_stage
from pipeline.run.stage import StageSpec, WorkerContext
from pipeline.workspace.workspace import Workspace
from stages.segment.segment_instances import SegmentInstances

SAM2: dict[str, Any] = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [256, 256],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "global_attention_blocks": [3],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
        "fpn_hidden_size": 256,
    },
    "prompt_encoder_config": {"image_size": 256},
    "mask_decoder_config": {},
    "model_type": "sam2_video",
}


def tiny_sam(checkpoint: str | None = None) -> Any:
    """SAM as published but for an encoder of two narrow blocks, one of which sees all."""
    assert checkpoint is None
    return _build_sam(32, 2, 2, [1])


def randomized(model: Any, seed: int = 2) -> Any:
    """The model with numbers large enough that its masks have edges."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() > 1:
                tensor.normal_(std=0.1, generator=generator)
    return model.eval()


def use_tiny_sam(set_item: Callable[[Any, str, Any], None] = dict.__setitem__) -> None:
    """Let ``sam-vit-b`` be the tiny one."""
    set_item(segment_anything.sam_model_registry, "vit_b", tiny_sam)


def write_sam(path: Path) -> Path:
    """A checkpoint as Meta publishes them: ``torch.save`` of a state dict."""
    torch.manual_seed(0)
    torch.save(randomized(tiny_sam()).state_dict(), path)
    return path


def write_sam2(folder: Path) -> Path:
    """A folder as published for transformers, with parts of the video model in it."""
    from transformers import Sam2Config, Sam2Model

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SAM2))
    torch.manual_seed(0)
    parts = {name: part for name, part in SAM2.items() if name != "model_type"}
    model = randomized(Sam2Model(Sam2Config(**parts)))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    tensors["memory_encoder.projection.weight"] = torch.zeros(2, 2)
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_edgetam(folder: Path, side: int = 256) -> Path:
    """A folder as published for transformers, of full width, for a small picture."""
    from transformers import EdgeTamConfig, EdgeTamModel, EdgeTamVisionConfig, TimmWrapperConfig

    folder.mkdir()
    encoder = TimmWrapperConfig(
        architecture="repvit_m1",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    sizes = [[side // stride] * 2 for stride in (4, 8, 16)]
    vision = EdgeTamVisionConfig(backbone_config=encoder, backbone_feature_sizes=sizes)
    config = EdgeTamConfig(vision_config=vision, prompt_encoder_config={"image_size": side})
    document = config.to_dict() | {"model_type": "edgetam_video"}
    (folder / "config.json").write_text(json.dumps(document))
    torch.manual_seed(0)
    model = EdgeTamModel(config)
    randomized(model.mask_decoder)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    tensors["memory_encoder.projection.weight"] = torch.zeros(2, 2)
    tensors["spatial_perceiver.latents"] = torch.zeros(2, 2)
    save_file(tensors, folder / "model.safetensors")
    return folder


class SegmentTiny(SegmentInstances):
    """The stage with the tiny SAM, in units of two frames."""

    spec: ClassVar[StageSpec] = replace(SegmentInstances.spec, rows_per_unit=4)

    def open(self, ctx: WorkerContext) -> None:
        """As the stage does, in a worker that knows the tiny one."""
        use_tiny_sam()
        super().open(ctx)


ENTRY = Step(
    "segmenttiny",
    "",
    "",
    "",
    "",
    stage="tests.stages.backends.tiny_sam:SegmentTiny",
    section="segment",
)


def segment(root: str, workers: int = 1) -> None:
    """Run the stage over a workspace."""
    run_stage(Workspace(root), "segment", RunOptions(workers=workers), step=ENTRY)


if __name__ == "__main__":
    segment(sys.argv[1])
