"""Segment Anything in miniature: the official file formats, random numbers, seconds on a CPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import segment_anything
import torch
from safetensors.torch import save_file
from segment_anything.build_sam import _build_sam

from pipeline.flow import Step
from pipeline.run.runner import RunOptions, run_stage
from pipeline.run.stage import StageSpec, WorkerContext
from pipeline.workspace.workspace import Workspace
from stages.segment.segment_instances import SegmentInstances


def sam2_settings(side: int) -> dict[str, Any]:
    """What the ``config.json`` of a small SAM 2.1 says, its input a square of this many pixels."""
    cells = [[side // stride] * 2 for stride in (4, 8, 16)]
    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [side, side],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": cells,
            "fpn_hidden_size": 256,
        },
        "prompt_encoder_config": {"image_size": side},
        "mask_decoder_config": {},
        "model_type": "sam2_video",
        "image_size": side,
        "memory_attention_num_layers": 2,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": cells[-1],
        "memory_attention_rope_theta": 500.0,
        "memory_fuser_num_layers": 1,
        "memory_fuser_intermediate_dim": 32,
    }


Answers = Literal["random", "everywhere", "nowhere"]


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


def write_sam2(folder: Path, answers: Answers = "random", side: int = 256) -> Path:
    """A folder as published for transformers: the whole video model.

    Args:
        folder: is made.
        answers: what the network finds. everywhere: the mask of anything is all of a picture.
            nowhere: the same masks, and that nothing is there.
        side: pixels of its square input.
    """
    from transformers import Sam2VideoConfig, Sam2VideoModel

    folder.mkdir()
    settings = sam2_settings(side)
    (folder / "config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    theta = settings.pop("memory_attention_rope_theta")
    config: Any = Sam2VideoConfig(**settings, rope_parameters={"rope_theta": theta})
    model = randomized(Sam2VideoModel(config))
    decoder = model.mask_decoder
    with torch.no_grad():
        for layer in model.memory_encoder.memory_fuser.layers:
            layer.scale.fill_(1.0)
        # As drawn, it would find next to nothing again.
        score = decoder.pred_obj_score_head.proj_out
        score.bias.add_(4.8)
        if answers != "random":
            score.weight.zero_()
            score.bias.fill_(10.0 if answers == "everywhere" else -10.0)
            for tensor in (decoder.conv_s0.weight, decoder.upscale_conv2.weight):
                tensor.zero_()
            for tensor in (decoder.conv_s0.bias, decoder.upscale_conv2.bias):
                tensor.fill_(1.0)
            for network in decoder.output_hypernetworks_mlps:
                network.proj_out.weight.zero_()
                network.proj_out.bias.fill_(1.0)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
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
