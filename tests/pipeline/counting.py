"""A workspace that counts what is read of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pipeline.workspace.storage import Storage
from pipeline.workspace.workspace import Workspace


class CountingStorage(Storage):
    """Counts how often each file is read."""

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()

    def read(self, name: str, *, anew: bool = False) -> bytes:
        self.reads[name] += 1
        return super().read(name, anew=anew)

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        names = [*names]
        self.reads.update(names)
        return super().read_all(names)


def counting(workspace: Workspace) -> tuple[Workspace, Counter[str]]:
    """The workspace opened anew, and what is read of it from now on."""
    storage = CountingStorage(workspace.storage.url)
    opened = Workspace(storage.url)
    opened.storage = storage
    return opened, storage.reads
