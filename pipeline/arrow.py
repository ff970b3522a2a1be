"""Arrow as the processes of a run have it."""

from __future__ import annotations

import sys


def spare_pandas() -> None:
    """Keep Arrow from importing pandas, as it does with its first array: 0.2 s of CPU time.

    It takes pandas for absent until a table is asked for as a frame. For processes of ours alone:
    to those of others a series is a column.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    sys.meta_path.insert(0, _Absent())
    try:
        pa.array([None])
    finally:
        del sys.meta_path[0]


class _Absent:
    """A finder of modules that says of pandas that there is none."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
