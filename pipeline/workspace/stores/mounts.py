"""The disk a folder is on, and whether its locks hold on one node alone.

By what Linux lists in ``/proc/self/mountinfo``; elsewhere nothing is known, and locks are trusted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_MOUNTS = Path("/proc/self/mountinfo")

_SHARED = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs", "gfs2",
    "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "wekafs",
}  # fmt: skip
"""Types of disks that several nodes may share."""

_NEVER = {
    "beegfs", "fuse.blobfuse", "fuse.blobfuse2", "fuse.gcsfuse", "fuse.goofys", "fuse.mount-s3",
    "fuse.mountpoint-s3", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
}  # fmt: skip
"""Types whose locks hold on one node, or that may be told otherwise where no mount shows it."""

_UNLESS = {"lustre": "flock"}
"""Types whose locks hold on all nodes only with an option."""

_BY_NODE = {
    "nolock",
    "localflock",
    "nobrl",
    "local_lock=all",
    "local_lock=flock",
    "local_lock=posix",
}
"""Options of mounts (of nfs, lustre, cifs) that keep locks on the node."""


class Mount(NamedTuple):
    """A disk that is mounted."""

    place: str
    kind: str
    """The type, such as ``ext4`` or ``nfs4``."""
    options: frozenset[str]

    @property
    def is_shared(self) -> bool:
        """Say whether other nodes may have it, too."""
        return self.kind in _SHARED or self.kind in _NEVER

    @property
    def locks_by_node(self) -> bool:
        """Say whether a lock on one node is not seen by the others."""
        if self.kind in _UNLESS and _UNLESS[self.kind] not in self.options:
            return True
        return self.is_shared and (self.kind in _NEVER or bool(self.options & _BY_NODE))


def mount_of(folder: Path, mounts: str | None = None) -> Mount | None:
    """Return the disk a folder is on, or will be; none where the system does not list them.

    Args:
        folder: need not be there yet.
        mounts: the list, as Linux has it; none reads that.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    path = folder.resolve()
    found = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(more) < 3:
            continue
        place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        # A later mount at one place hides an earlier one.
        if path.is_relative_to(place) and (found is None or len(place) >= len(found.place)):
            options = frozenset(f"{fields[5]},{more[2]}".split(","))
            found = Mount(place, more[0], options)
    return found
