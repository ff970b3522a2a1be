"""The candidate filter: the rules by which a fetched video stays (paper, section 3.1.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.config import DownloadConfig
from pipeline.media import MediaFacts


class Rejection(NamedTuple):
    """A rule of the filter that a video breaks."""

    reason: str
    detail: str


def rejections(facts: MediaFacts, license_text: str, config: DownloadConfig) -> list[Rejection]:
    """Return the rules of the candidate filter (paper, section 3.1.1) that a video breaks."""
    found = []
    if (facts.width, facts.height) != (config.width, config.height):
        found.append(
            Rejection(
                "resolution",
                f"{facts.width}x{facts.height}, not {config.width}x{config.height}",
            )
        )
    if not config.min_fps <= facts.fps <= config.max_fps:
        detail = f"{facts.fps:.6g} fps, not {config.min_fps:g} to {config.max_fps:g}"
        found.append(Rejection("frame_rate", detail))
    if facts.duration_s < config.min_duration_s:
        detail = f"{facts.duration_s:.3g} s, under {config.min_duration_s:g} s"
        found.append(Rejection("duration", detail))
    if facts.bitrate_bps < config.min_bitrate_bps:
        detail = f"{facts.bitrate_bps} bps, under {config.min_bitrate_bps}"
        found.append(Rejection("bitrate", detail))
    if facts.audio_codec is None:
        found.append(Rejection("no_audio", "no audio stream"))
    if not matches_license(license_text, config.require_license):
        detail = license_detail(license_text, config.require_license)
        found.append(Rejection("license", detail))
    return found


def license_detail(license_text: str, wanted: str) -> str:
    """Return what stands in the row of a video whose licence is not the wanted one."""
    return f"{repr(license_text) if license_text else 'no licence stated'}, not {wanted}"


_CC_BY = re.compile(r"\bcreative ?commons attribution\b|\bcc by\b|\blicenses by\b|^attribution \d")
_CC_RESTRICTED = re.compile(r"\b(nc|nd|sa)\b|\bnon ?commercial|\bno ?deriv|\bshare ?alike")


def matches_license(license_text: str, wanted: str) -> bool:
    """Say whether a licence, in the site's words, is the wanted one.

    Args:
        license_text: such as YouTube's "Creative Commons Attribution license (reuse allowed)".
        wanted: ``cc-by``, which is CC BY without further conditions, or a part of the text itself;
            empty accepts all.

    >>> matches_license("CC BY 4.0", "cc-by"), matches_license("CC BY-NC 4.0", "cc-by")
    (True, False)
    """
    if wanted.lower() != "cc-by":
        return wanted.lower() in license_text.lower()
    words = re.sub(r"[^a-z0-9]+", " ", license_text.lower()).strip()
    return bool(_CC_BY.search(words)) and not _CC_RESTRICTED.search(words)
