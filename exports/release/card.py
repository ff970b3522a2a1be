"""The dataset card: what the release is, whom to thank, and what not to take it for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.release.document import Document, Leak, VideoRow
from pipeline.release.layout import COPIES, CROSS_EVENT, DOCUMENT, FIGURES
from pipeline.templating import environment, markdown_text, safe_url
from pipeline.workspace.asking import ASKED

LICENCES = "## Licences and attribution"
"""The heading of the last part."""

UNVERIFIED = "**Unverified.**"
"""The card's warning; ``verify`` looks for it."""


Reasons = Mapping[str, int]
"""Rows that are not in the release, by ``kind reason``."""


def render_card(document: Document, counts: Mapping[str, Any], left_out: Reasons) -> str:
    """Render the card as Markdown.

    Args:
        document: the release.
        counts: ``statistics.count`` of it.
        left_out: what it does not have, by reason.
    """
    licenses = {row.id: row.name for row in document.licenses}
    per_license = Counter(licenses[video.license_id] for video in document.videos)
    made = [
        (
            stage,
            ", ".join(f"{key} {_plain(value)}" for key, value in facts.get("config", {}).items()),
            ", ".join(revision[:12] for revision in facts.get("code_revisions", [])),
        )
        for stage, facts in document.info.provenance.items()
    ]
    return (
        environment("exports")
        .get_template("card.md.j2")
        .render(
            info=document.info,
            unverified=UNVERIFIED,
            licences=LICENCES,
            counts=counts,
            **_rows(document, counts, left_out),
            per_license=dict(sorted(per_license.items())),
            made=made,
            orders=[
                f"{markdown_text(one['order'])} (seed {one['seed']})"
                for one in document.info.provenance.get(ASKED, {})
                .get("config", {})
                .get("orders", [])
            ],
            nameless=sum(not image.image_sha256 for image in document.images),
            paths={"document": DOCUMENT, "cross_event": CROSS_EVENT, **COPIES},
            figures=FIGURES,
        )
    )


def stated_rows(document: Document, counts: Mapping[str, Any], left_out: Reasons) -> list[str]:
    """Return the card's table rows that state facts of the release; ``verify`` looks for them."""
    return [row for rows in _rows(document, counts, left_out).values() for row in rows]


def _rows(document: Document, counts: Mapping[str, Any], left_out: Reasons) -> dict[str, list[str]]:
    return {
        "count_rows": _count_rows(document, counts),
        "left_out_rows": [
            f"| {markdown_text(reason.replace('_', ' '))} | {rows} |"
            for reason, rows in sorted(left_out.items())
        ],
        "leak_rows": _leak_rows(document),
        "attribution_rows": [_attribution(video) for video in document.videos],
    }


def _count_rows(document: Document, counts: Mapping[str, Any]) -> list[str]:
    info = document.info
    encoded = counts.get("clips_made", {}).get("encoded", 0)
    anew = [("clips encoded anew, as their packets cannot be cut", encoded)] if encoded else []
    checked = "yes" if info.verified else "no"
    rows: list[tuple[str, object]] = [
        ("videos", counts["videos"]),
        ("clips", counts["clips"]),
        *anew,
        ("labelled frames", counts["frames"]["total"]),
        ("off-screen frames", counts["frames"]["off_screen"]),
        ("instances", counts["instances"]["total"]),
        *((name, number) for name, number in counts["instances"].items() if name != "total"),
        ("videos in the cross-event subset", counts["cross_event_videos"]),
        ("checked by people", "as its source says" if info.imported_from else checked),
        ("media included", "yes" if info.media else "no, annotations and ids only"),
        ("videos taken down before this release", len(info.takedowns)),
    ]
    return [f"| {name} | {value} |" for name, value in rows]


def _leak_rows(document: Document) -> list[str]:
    videos = len(document.videos) or 1
    return [
        f"| {markdown_text(leak.list_name)}{_doubts(leak)} | {leak.list_ids} | {len(leak.videos)} "
        f"({100 * len(leak.videos) / videos:.1f} %) | {leak.clips} |"
        for leak in document.info.leaks
    ]


def _doubts(leak: Leak) -> str:
    parts = []
    if leak.unsure:
        parts.append(f"{leak.unsure} videos may be in it: names do not tell")
    if leak.unread:
        parts.append(f"{leak.unread} lines name no video")
    return f" ({'; '.join(parts)})" if parts else ""


def _attribution(video: VideoRow) -> str:
    url = safe_url(video.source_url)
    source = f"[source]({url})" if url else "not on the web"
    cells = (
        f"`{video.id}`",
        markdown_text(video.title or "untitled"),
        markdown_text(video.uploader or "unknown"),
        markdown_text(video.license or "not stated"),
        source,
    )
    return f"| {' | '.join(cells)} |"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
