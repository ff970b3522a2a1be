"""Videos from a folder on this machine: linked where the disk allows, copied otherwise."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stages.download.failure_kinds import SiteFailure
from stages.download.fetching import Fetched, Refused, SiteFacts
from stages.download.identity import Identity


class LocalFiles:
    """A site whose files are already here.

    Args:
        template: a path or ``file://`` URL with ``{video_id}`` in it.
        max_bytes: largest file taken.
    """

    def __init__(self, template: str, max_bytes: int) -> None:
        if template.startswith("file://"):
            template = unquote(urlsplit(template).path)
        self._template, self._max_bytes = template, max_bytes

    def fetch(self, video_id: str, folder: Path, identity: Identity) -> Fetched:
        """Link or copy one file; the identity plays no part.

        Raises:
            SiteFailure: ``missing_file``, ``local_disk``.
            Refused: ``too_large``.
        """
        source = Path(self._template.replace("{video_id}", video_id)).absolute()
        if not source.is_file():
            raise SiteFailure("missing_file", f"{source}: no such file")
        size = source.stat().st_size
        if size > self._max_bytes:
            raise Refused("too_large", f"{size} bytes, over {self._max_bytes}")
        target = folder / f"{video_id}{source.suffix.lower() or '.mp4'}"
        target.unlink(missing_ok=True)
        try:
            _link_or_copy(source.resolve(), target)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise SiteFailure("local_disk", f"{source}: {error.strerror}") from error
        return Fetched(target, SiteFacts(source_url=source.as_uri()))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        shutil.copyfile(source, target)  # another disk, or one without hard links
