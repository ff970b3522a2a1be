"""The dataset card: what the release is, whom to thank, and what not to take it for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from exports.coco import Document
from exports.layout import CROSS_EVENT, DOCUMENT, FIGURES, TWINS
from exports.statistics import SCENARIOS
from exports.templating import environment

UNVERIFIED = "**Unverified.**"
"""How the card warns; its presence is checked by ``verify``."""


def render_card(
    document: Document, counts: Mapping[str, Any], left_out_reasons: Mapping[str, int]
) -> str:
    """The card as Markdown.

    Args:
        document: the release.
        counts: ``statistics.count`` of it.
        left_out_reasons: rows that are not in it, by ``kind reason``.
    """
    licenses = {row.id: row.name for row in document.licenses}
    per_license: dict[str, int] = {}
    for video in document.videos:
        name = licenses[video.license_id]
        per_license[name] = per_license.get(name, 0) + 1
    made = [
        (
            stage,
            ", ".join(f"{key} {_plain(value)}" for key, value in facts.get("config", {}).items()),
            ", ".join(revision[:12] for revision in facts.get("code_revisions", [])),
        )
        for stage, facts in document.info.provenance.items()
    ]
    return (
        environment()
        .get_template("card.md.j2")
        .render(
            info=document.info,
            unverified=UNVERIFIED,
            counts=counts,
            scenarios=SCENARIOS,
            videos=document.videos,
            per_license=per_license,
            left_out=left_out_reasons,
            made=made,
            paths={"document": DOCUMENT, "cross_event": CROSS_EVENT, **TWINS},
            figures=FIGURES,
        )
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
