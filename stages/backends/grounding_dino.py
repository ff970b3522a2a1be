"""Grounding DINO and MM Grounding DINO through transformers: the permissive detectors.

They find what a text names. They are asked for what the target categories look like, in as few
prompts as their text encoder has room for. Code and weights are Apache-2.0. Only files of the
registered folder are read, and only safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import ProposeConfig
from pipeline.errors import UsageError
from pipeline.extras import need_packages
from pipeline.models import require
from pipeline.records.schema import digest_of
from pipeline.workspace.storage import Storage
from stages.backends.detectors import (
    TransformersDetector,
    best_boxes,
    box_precision,
    load_folder,
    to_corners,
)
from stages.backends.device import inference, worker_device
from stages.backends.interfaces import Detection, FrameInput, Vocabulary
from stages.taxonomy import load_taxonomy

if TYPE_CHECKING:
    import torch

_CLS, _SEP, _DOT = 101, 102, 1012
"""BERT's ids of what begins, ends and separates; the network knows them by number too."""


@dataclass(frozen=True)
class Prompt:
    """Some of the names, as the network reads them."""

    token_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """Places of each name's tokens, start and stop."""


def make_prompts(names: Sequence[Sequence[int]], max_tokens: int) -> list[Prompt]:
    """Pack names into as few prompts as possible, in order.

    Args:
        names: each name's token ids.
        max_tokens: longest prompt.

    >>> make_prompts([[7, 8], [9]], max_tokens=6)
    [Prompt(token_ids=(101, 7, 8, 1012, 102), spans=((1, 3),)), \
Prompt(token_ids=(101, 9, 1012, 102), spans=((1, 2),))]
    """
    prompts: list[Prompt] = []
    ids: list[int] = [_CLS]
    spans: list[tuple[int, int]] = []
    for name in names:
        if spans and len(ids) + len(name) + 2 > max_tokens:
            prompts.append(Prompt((*ids, _SEP), tuple(spans)))
            ids, spans = [_CLS], []
        spans.append((len(ids), len(ids) + len(name)))
        ids += [*name, _DOT]
    prompts.append(Prompt((*ids, _SEP), tuple(spans)))
    return prompts


class PromptedDetector(TransformersDetector):
    """Find what the target categories look like."""

    has_weights = True
    nothing = "no_target_box"
    vocabulary: Vocabulary = "prompts"

    def __init__(self, config: ProposeConfig) -> None:
        self.name = config.detector
        self._config = config

    def fingerprint(self) -> Mapping[str, str]:
        """Return the digests of the weights and of what is asked for."""
        need_packages("torch", "transformers")
        names = load_taxonomy(self._config.taxonomy).prompts
        return {"weights": require(self.name).sha256, "prompts": digest_of(names)}

    def open(self, storage: Storage) -> None:
        """Load the registered weights and read the prompts.

        Raises:
            UsageError: they are not here, not what was registered, or not such a network.
        """
        self._device = worker_device(self._config.device)
        parts = load_parts(require(self.name).path)
        self._network, self._look, tokenize = parts
        self._network.to(self._device)
        self._names = load_taxonomy(self._config.taxonomy).prompts
        tokens = [tokenize(name, add_special_tokens=False)["input_ids"] for name in self._names]
        self._prompts = make_prompts(tokens, self._network.config.max_text_len)

    def _run(self, batch: Sequence[tuple[FrameInput, torch.Tensor]]) -> list[list[Detection]]:
        import torch

        images = torch.stack([pixels for _, pixels in batch]).to(self._device)
        boxes, scores = [], []
        for prompt in self._prompts:
            ids = torch.tensor(prompt.token_ids, device=self._device).expand(len(batch), -1)
            with inference(self._device, box_precision(self._config, self._device)):
                answer = self._network(
                    pixel_values=images,
                    pixel_mask=torch.ones_like(images[:, 0], dtype=torch.long),
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    token_type_ids=torch.zeros_like(ids),
                )
            likely = answer.logits.float().sigmoid()  # (batch, queries, tokens)
            # A name is as likely as its tokens are on average.
            scores.append(torch.stack([likely[..., a:b].mean(-1) for a, b in prompt.spans], -1))
            boxes.append(answer.pred_boxes.float())
        return [
            self._boxes(item, [b[place] for b in boxes], [s[place] for s in scores])
            for place, (item, _) in enumerate(batch)
        ]

    def _boxes(
        self, item: FrameInput, boxes: Sequence[torch.Tensor], scores: Sequence[torch.Tensor]
    ) -> list[Detection]:
        """Join a frame's boxes of all prompts; each prompt scores its own names alone."""
        import torch

        xyxy = to_corners(torch.cat(list(boxes)), item.frame.width, item.frame.height)
        together: Any = torch.block_diag
        best = best_boxes(xyxy, together(*scores), self._config)
        return [
            Detection([x0, y0, x1 - x0, y1 - y0], self._names[label], score)
            for (x0, y0, x1, y1), label, score in best
        ]


def load_parts(folder: Path) -> tuple[Any, Any, Any]:
    """Load the network for evaluation, its image processor and its tokenizer from local files.

    Raises:
        UsageError: a part is missing or foreign, naming the first wrong tensor.
    """
    # Custom kernels would be fetched.
    network, look = load_folder(
        "AutoModelForZeroShotObjectDetection", folder, disable_custom_kernels=True
    )
    import transformers

    hub: Any = transformers
    try:
        tokenize = hub.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{folder}: not a detector transformers can read: {said}") from error
    for token, expected in (("[CLS]", _CLS), ("[SEP]", _SEP), (".", _DOT)):
        if (found := tokenize.convert_tokens_to_ids(token)) != expected:
            raise UsageError(f"{folder}: token {token!r} is {found}, in BERT it is {expected}.")
    return network, look, tokenize
