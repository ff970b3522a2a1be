"""The core: records, tables, units, commits, media and the command line.

From Python, ``from pipeline import Workspace`` is the way in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.cli.python import Workspace
else:

    def __getattr__(name):
        """Import the workspace when it is asked for, so that ``--help`` stays instant."""
        if name == "Workspace":
            from pipeline.cli.python import Workspace

            return Workspace
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")


__all__ = ["Workspace"]
