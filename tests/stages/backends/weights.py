"""Real architectures with random weights, in the files their makers publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.models.register import add
from stages.backends.yolo import quiet_import
from stages.taxonomy import seen_classes


def write_yolo(path: Path, names: dict[int, str] | None = None, **changes: Any) -> Path:
    """A YOLOv8n of 601 classes as ultralytics saves it, some classes likely anywhere."""
    import torch

    with quiet_import():
        from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    build: Any = DetectionModel
    network = build("yolov8n.yaml", nc=len(names or seen_classes("openimages")), verbose=False)
    network.names = names or dict(enumerate(seen_classes("openimages")))
    with torch.no_grad():
        for scale in network.model[-1].cv3:
            scale[-1].weight.normal_(0, 0.05)
            scale[-1].bias.normal_(-7, 1.5)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()(torch.rand(2, 3, 320, 320))  # else signals fade on their way
    checkpoint = {
        "epoch": -1,
        "best_fitness": None,
        "model": network.half(),
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": {"task": "detect", "imgsz": 640},
        "date": "2023-11-08T00:00:00",
        "version": "8.0.207",
    }
    torch.save(checkpoint | changes, path)
    return path


def register_yolo(folder: Path) -> Path:
    """Write one and register it as ``yolov8n-oiv7``."""
    path = write_yolo(folder / "yolov8n-oiv7.pt")
    add("yolov8n-oiv7", path)
    return path


def write_grounding_dino(folder: Path, *, mm: bool) -> Path:
    """A tiny Grounding DINO (or MM Grounding DINO) as transformers saves it."""
    import torch
    import transformers

    hub: Any = transformers
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "backbone_config": hub.SwinConfig(
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 2, 2, 4],
            window_size=4,
            out_indices=[2, 3, 4],
        ),
        "text_config": hub.BertConfig(
            vocab_size=1100,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        ),
    }
    sizes = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 30,
        "max_text_len": 256,
    }
    kind = "MMGroundingDino" if mm else "GroundingDino"
    config = getattr(hub, f"{kind}Config")(**parts, **sizes)
    network = getattr(hub, f"{kind}ForObjectDetection")(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # else all queries answer alike
    network.save_pretrained(folder)
    hub.GroundingDinoImageProcessor(
        size={"shortest_edge": 96, "longest_edge": 160}
    ).save_pretrained(folder)
    words = [f"[unused{n}]" for n in range(1100)]
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: "."}
    letters = "abcdefghijklmnopqrstuvwxyz"
    placed = dict(enumerate([*letters, *(f"##{letter}" for letter in letters), "(", ")"], 200))
    for place, word in (special | placed).items():
        words[place] = word
    vocabulary = {word: place for place, word in enumerate(words)}
    hub.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


def write_dfine(folder: Path, names: dict[int, str], *, side_px: int = 320) -> Path:
    """D-FINE's small network, in the size of the published one, as its authors' folders hold it."""
    import torch
    import transformers

    hub: Any = transformers
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    backbone = hub.HGNetV2Config(
        hidden_sizes=[128, 256, 512, 1024],
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[3, 3, 3, 3],
        use_learnable_affine_block=True,
        embedding_size=32,
        out_indices=[2, 3, 4],
    )
    config = hub.DFineConfig(
        backbone_config=backbone,
        decoder_layers=3,
        hidden_expansion=0.5,
        depth_mult=0.34,
        decoder_n_points=[3, 6, 3],
        encoder_in_channels=[256, 512, 1024],
        id2label=names,
        label2id={name: place for place, name in names.items()},
    )
    network = hub.DFineForObjectDetection(config)
    with torch.no_grad():
        for head in network.model.decoder.class_embed:
            head.weight.normal_(0, 0.2)
            head.bias.normal_(-3, 1)  # else hardly anything is above any score
    network.save_pretrained(folder)
    size = {"height": side_px, "width": side_px}
    hub.RTDetrImageProcessor(size=size, do_normalize=False).save_pretrained(folder)
    return folder
