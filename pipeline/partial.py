"""Half-fetched files: what they are the half of, and whether they still are.

A part is trusted as far as the server can prove it. It counts only with a record of what it belongs
to. The rest is asked for on the condition that the file is still that one (``If-Range``), the
answer must agree with the record, and the part's last bytes are asked for once more and compared.
"""

from __future__ import annotations

import http.client
import os
import re
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import AvatarBuildError

OVERLAP = 1 << 16
"""Bytes at the end of a part that are fetched again and compared."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class StalePartError(AvatarBuildError):
    """A part that is of another file than the server's; it is of no use."""


class _Record(BaseModel):
    """The file that a part belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source_url: str
    """The address without secrets."""
    format_id: str = ""
    """Name of the file among those of one address."""
    size: int | None = None
    """Bytes of the whole file, when the server said so."""
    etag: str = ""
    last_modified: str = ""

    @property
    def validator(self) -> str:
        """Value of ``If-Range``: a strong tag, else the date; empty without either."""
        return self.last_modified if not self.etag or self.etag.startswith("W/") else self.etag


class PartialFile:
    """The part of one file on the disk, and the record beside it.

    A part without a record of the same file is deleted.

    Args:
        part: where the part is kept.
        record: where its record is kept.
        source_url: the file's address, without secrets.
        format_id: which of the address's files it is.
    """

    def __init__(self, part: Path, record: Path, source_url: str, format_id: str = "") -> None:
        self._part, self._path = part, record
        self._source_url, self._format_id = source_url, format_id
        self._known = self._read()
        self._start = self._lap = 0
        self.size: int | None = None
        """Bytes of the whole file by the newest answer."""
        if self._known is None:
            part.unlink(missing_ok=True)
        elif 0 < self.length == self._known.size:
            # Whole, and ended before it was renamed. An answer without new bytes is refused by
            # some servers and by yt-dlp, so the file's end is left to be fetched.
            os.truncate(part, max(0, self._known.size - OVERLAP))

    @property
    def length(self) -> int:
        """Bytes of the part."""
        return self._part.stat().st_size if self._part.is_file() else 0

    def headers(self, start: int, last: str = "") -> dict[str, str]:
        """Return the headers that ask for what follows ``start``, with some bytes before it.

        Args:
            start: bytes to go on behind; all of the part or, at 0, nothing of it.
            last: the last byte wanted; empty for the file's end.
        """
        known = self._known if self.length else None
        self._start, self._lap = start, min(OVERLAP, start) if known else 0
        if not known or not self._lap:
            return {}
        condition = {"If-Range": known.validator} if known.validator else {}
        return {"Range": f"bytes={start - self._lap}-{last}", **condition}

    def check(self, status: int, headers: Any, body: IO[bytes]) -> int:
        """Hold the answer to a request with ``headers`` against the part.

        Reads the bytes that the part has from ``body``, and changes ``headers`` to say so. A part
        that the server does not go on from is emptied.

        Returns:
            How many bytes of the part stand; ``body`` goes on behind them.

        Raises:
            StalePartError: the part is of another file.
            http.client.IncompleteRead: the answer broke off before it came to anything new.
        """
        now = self._record_of(headers)
        if status != http.client.PARTIAL_CONTENT:
            if self.length:
                os.truncate(self._part, 0)
            self._keep(now)
            return 0
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range") or "")
        if match is None or int(match[1]) != self._start - self._lap:
            raise StalePartError("the server sent another range than asked for")
        if self._lap:
            self._compare(now, int(match[2]), body)
            _replace(headers, "Content-Range", f"bytes {self._start}-{match[2]}/{match[3]}")
            if length := headers.get("Content-Length"):
                _replace(headers, "Content-Length", str(int(length) - self._lap))
        self._keep(now)
        return self._start

    def forget(self) -> None:
        """Delete the part and its record."""
        self._known = None
        self._part.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def _compare(self, now: _Record, last: int, body: IO[bytes]) -> None:
        assert self._known is not None
        for name in ("size", "etag", "last_modified"):
            before, after = getattr(self._known, name), getattr(now, name)
            if before and after and before != after:
                raise StalePartError(f"{name} of the file was {before}, now is {after}")
        if last < self._start:
            raise StalePartError("the part is as long as the file already")
        with self._part.open("rb") as part:
            part.seek(self._start - self._lap)
            mine = part.read(self._lap)
        theirs = b""
        while len(theirs) < self._lap:
            more = body.read(self._lap - len(theirs))
            if not more:
                raise http.client.IncompleteRead(theirs, self._lap - len(theirs))
            theirs += more
        if theirs != mine:
            raise StalePartError(f"the part's last {self._lap} bytes are not the file's")

    def _record_of(self, headers: Any) -> _Record:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range") or "")
        length = match[3] if match else headers.get("Content-Length") or ""
        known = length.isdecimal() and not headers.get("Content-Encoding")
        return _Record(
            source_url=self._source_url,
            format_id=self._format_id,
            size=int(length) if known else None,
            etag=headers.get("ETag") or "",
            last_modified=headers.get("Last-Modified") or "",
        )

    def _keep(self, record: _Record) -> None:
        self.size = record.size
        if record != self._known:
            self._path.write_text(record.model_dump_json())
            self._known = record

    def _read(self) -> _Record | None:
        """Return the part's record; none when it belongs to something else."""
        try:
            record = _Record.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        same = (record.source_url, record.format_id) == (self._source_url, self._format_id)
        return record if same else None


def _replace(headers: Any, name: str, value: str) -> None:
    del headers[name]
    headers[name] = value
