"""Bar charts as SVG text: small, the same bytes everywhere, and no plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_ROW, _LABEL, _BAR, _VALUE = 22, 190, 380, 70
"""Height of a row; widths of the label, the longest bar and the number, pixels."""


def bar_chart(title: str, bars: Sequence[tuple[str, int]], limit: int = 100) -> str:
    """Draw horizontal bars, one a row, longest possible for the largest value.

    Args:
        title: the heading.
        bars: label and value, 0 or more, in the order drawn; labels may hold anything.
        limit: rows drawn; the heading says when there are more.
    """
    if len(bars) > limit:
        title, bars = f"{title} (the first {limit} of {len(bars)})", bars[:limit]
    width, height = _LABEL + _BAR + _VALUE, 44 + _ROW * max(1, len(bars))
    largest = max((value for _, value in bars), default=0) or 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="600" fill="#1d2733">{escape(title)}'
        "</text>",
    ]
    if not bars:
        parts.append('<text x="12" y="52" fill="#6b7785">none</text>')
    for row, (label, value) in enumerate(bars):
        top = 38 + row * _ROW
        length = max(round(_BAR * value / largest, 1), 1 if value else 0)
        short = label if len(label) <= 26 else label[:25] + "…"
        parts += [
            f'<text x="{_LABEL - 8}" y="{top + 14}" text-anchor="end" fill="#1d2733">'
            f"{escape(short)}</text>",
            f'<rect x="{_LABEL}" y="{top + 2}" width="{length}" height="{_ROW - 6}" rx="2" '
            'fill="#3b6ea5"/>',
            f'<text x="{_LABEL + length + 6}" y="{top + 14}" fill="#4a5663">{value:,}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
