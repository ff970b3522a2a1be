"""Half-fetched files: what they are the half of, and whether they still are.

yt-dlp goes on from any ``.part`` it finds: of another video, of another version, longer than the
file. Here a part counts only with a record of what it belongs to, and only while the server's
answer agrees with the record and with the part's own last bytes, which are asked for once more.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from pipeline.records.schema import Record
from stages.download.failure_kinds import SiteFailure

OVERLAP = 1 << 16
"""Bytes at the end of a part that are fetched again and compared."""

_RECORD = "part.json"
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class PartRecord(Record):
    """What a part belongs to."""

    source_url: str
    """Without secrets."""
    format_id: str
    size: int | None = None
    """Bytes of the whole file, when the server said so."""
    etag: str = ""
    last_modified: str = ""


class Partial:
    """The part of one file, in a folder of its own.

    Args:
        part: where yt-dlp keeps it.
        source_url: without secrets.
        format_id: of the chosen format.
    """

    def __init__(self, part: Path, source_url: str, format_id: str) -> None:
        self._part, self._source_url, self._format_id = part, source_url, format_id
        self._path = part.parent / _RECORD
        self._known = self._read()
        self.size: int | None = None
        """Bytes of the whole file by the newest answer."""
        if self._known is None:
            part.unlink(missing_ok=True)
        elif part.is_file() and part.stat().st_size == self._known.size:
            # Whole, and ended before it was renamed. yt-dlp takes an answer without new bytes for
            # an error, so its end is left to be fetched.
            os.truncate(part, max(0, self._known.size - OVERLAP))

    def lap(self, start: int) -> int:
        """How many bytes before ``start`` to ask for again."""
        return min(OVERLAP, start) if self._known is not None and self._part.is_file() else 0

    def check(self, status: int, headers: Any, body: IO[bytes], start: int, lap: int) -> None:
        """Hold a server's answer to a request for ``start - lap`` on against the part.

        Reads the lap from ``body``, so that it goes on at ``start``, and changes ``headers`` to
        say so.

        Raises:
            SiteFailure: ``stale_partial``: the part is of another file.
        """
        now = self._record_of(headers)
        if status != 206 or not lap:
            self._keep(now)
            return
        assert self._known is not None
        for name in ("size", "etag", "last_modified"):
            before, after = getattr(self._known, name), getattr(now, name)
            if before and after and before != after:
                raise SiteFailure(
                    "stale_partial", f"{name} of the file was {before}, now is {after}"
                )
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range") or "")
        if match is None or int(match[1]) != start - lap:
            raise SiteFailure("stale_partial", "the server sent another range than asked for")
        if int(match[2]) < start:
            raise SiteFailure("stale_partial", "the part is as long as the file already")
        with self._part.open("rb") as part:
            part.seek(start - lap)
            mine = part.read(lap)
        if _read_exactly(body, lap) != mine:
            raise SiteFailure("stale_partial", f"the part's last {lap} bytes are not the file's")
        _replace(headers, "Content-Range", f"bytes {start}-{match[2]}/{match[3]}")
        if length := headers.get("Content-Length"):
            _replace(headers, "Content-Length", str(int(length) - lap))
        self._keep(now)

    def _record_of(self, headers: Any) -> PartRecord:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range") or "")
        length = match[3] if match else headers.get("Content-Length") or ""
        known = length.isdecimal() and not headers.get("Content-Encoding")
        return PartRecord(
            source_url=self._source_url,
            format_id=self._format_id,
            size=int(length) if known else None,
            etag=headers.get("ETag") or "",
            last_modified=headers.get("Last-Modified") or "",
        )

    def _keep(self, record: PartRecord) -> None:
        self.size = record.size
        if record != self._known:
            self._path.write_text(record.model_dump_json())
            self._known = record

    def _read(self) -> PartRecord | None:
        """The record of the part; none when it belongs to something else."""
        try:
            record = PartRecord.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        same = (record.source_url, record.format_id) == (self._source_url, self._format_id)
        return record if same else None


def _read_exactly(body: IO[bytes], count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = body.read(count - len(data))
        if not more:
            break
        data += more
    return data


def _replace(headers: Any, name: str, value: str) -> None:
    del headers[name]
    headers[name] = value
