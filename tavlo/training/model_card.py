"""The model card of a training: what was trained, on what, how it was chosen, and does it hear.

It lies beside the checkpoints, is written whole when a training starts and again when it ends, and
says nothing that the checkpoint and the log do not hold. Scores are ``evaluate``'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.columns import markdown_table
from pipeline.files import write_whole
from pipeline.models.register import find_model
from tavlo.metrics.sound_sensitivity import MEAN_MAP, SENSITIVITY
from tavlo.training.checkpoint import Checkpoint
from tavlo.training.label_free import DEAF
from tavlo.training.training_log import LOG, read_log

CARD = "model-card.md"


def write_card(out: Path, state: Checkpoint, steps: int, held_out: Sequence[str] = ()) -> None:
    """Write the card into a training's folder.

    Args:
        out: the folder, with its log.
        state: the training's last checkpoint.
        steps: of the whole training.
        held_out: evaluation sets its videos were held against.
    """
    write_whole(out / CARD, card(state, steps, read_log(out / LOG), held_out))


def card(
    state: Checkpoint, steps: int, rows: Sequence[Mapping[str, Any]], held_out: Sequence[str]
) -> str:
    """Return the card's Markdown; see ``write_card``. ``rows`` are the log's."""
    data, best = state.data, state.best or {}
    step = f"all {steps} steps" if state.step >= steps else f"{state.step} of {steps} steps so far"
    lines = [
        f"# {state.recipe}, trained for {step}",
        "",
        f"Preset: {state.preset or 'not stated'}. Seed {state.train_config['seed']}: weights,"
        " order, split and augmentation follow from it. Code revision"
        f" {state.revision}; {', '.join(f'{k} {v}' for k, v in sorted(state.versions.items()))}.",
        "",
        "## Data",
        "",
        f"{data['clips']} clips of {len(data['videos'])} videos to train on, SHA-256"
        f" `{data['digest']}`; those of {len(data['validation_videos'])} other videos to choose the"
        f" best checkpoint, SHA-256 `{data['validation_digest']}`. {len(data['failed'])} were left"
        f" out as unreadable, {len(data['silent'])} are silent. No labels were used.",
        *(f"- {note}" for note in data["notes"]),
        "",
        "## Start",
        "",
        *(f"- {part}: {source}" for part, source in sorted(state.weights_from.items())),
        "",
        "## Validation",
        "",
        *_validation(best, rows),
        "",
        "## Compared with",
        "",
        f"Held apart from: {', '.join(held_out) or 'no evaluation set was named (--held-out)'}."
        " The training itself compares with nothing: `avatar-build evaluate` scores `best.pt`"
        " beside a fixed map, and `evaluate --model object-prior` a model that hears nothing.",
        "",
        "## Licences",
        "",
        "- Code: Apache-2.0.",
        *_licences(state),
        "- Training clips: each video's own; a release states them in its table of videos, a list"
        " does not, and weights made from them may be bound by them.",
        "",
        "## Settings",
        "",
        "```json",
        json.dumps({state.recipe: state.recipe_config, "train": state.train_config}, indent=1),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _validation(best: Mapping[str, float], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what the best and the last validation found, and whether the model went deaf."""
    checks = [row for row in rows if "validation_loss" in row]
    if not checks:
        return ["None was made yet, or there are no clips for one."]
    table = [("last", checks[-1])]
    if best:
        chosen = {**best, "validation_loss": best["loss"]}
        table.insert(0, ("best.pt", chosen))
    found = [
        [what, f"{row['step']:.0f}", *(_number(row, name) for name in _COLUMNS)]
        for what, row in table
    ]
    said = markdown_table(["", "step", *_COLUMNS.values()], found)
    deaf = next((row for row in rows if row.get("event") == "deaf"), None)
    if deaf:
        said += ["", f"**It went deaf**: since step {deaf['step']} a line in the log says so."]
    return [
        *said,
        "",
        f"Sound sensitivity: 1 minus the correlation of maps with those under another clip's sound;"
        f" below {DEAF} a model is called deaf. A correlation with the mean map of 1 is one fixed"
        " map.",
    ]


_COLUMNS = {
    "validation_loss": "loss",
    SENSITIVITY: "sound sensitivity",
    MEAN_MAP: "correlation with mean map",
}


def _number(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.4f}" if name in row else ""


def _licences(state: Checkpoint) -> list[str]:
    """Name the licence of the weights it started from."""
    if not any("ImageNet" in source for source in state.weights_from.values()):
        return ["- Starting weights: none but random ones."]
    return [f"- Starting weights: {find_model('resnet18').licence}."]
