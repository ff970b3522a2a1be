"""``store://``: an object store that several processes can share, as a folder.

Like S3 it puts a file whole, or only where there is none, and knows no locks and no renames.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tests.conftest import ROOT


class FolderStore(LocalFileSystem):  # type: ignore[misc]
    """See above."""

    protocol: ClassVar[str] = "store"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return super()._strip_protocol(str(path).removeprefix("store://"))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        handle, staged = tempfile.mkstemp()
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(value)
            target = self._strip_protocol(path)
            if mode == "create":
                os.link(staged, target)
            else:
                Path(staged).replace(target)
        finally:
            Path(staged).unlink(missing_ok=True)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        self.pipe_file(path2, self.cat_file(path1))


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process that is to know it, and whose children are.

    Args:
        folder: empty, for the file that Python reads at its start.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import fsspec\n"
        "fsspec.register_implementation('store', 'tests.pipeline.folder_store.FolderStore')\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def known() -> None:
    """Make this process know it."""
    fsspec.register_implementation("store", FolderStore, clobber=True)
