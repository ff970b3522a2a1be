from __future__ import annotations

import subprocess
import sys

CONVERTED = """
import sys
from pipeline.arrow import spare_pandas
spare_pandas()
import pyarrow as pa
table = pa.Table.from_pylist([{"a": 1}, {"a": 2}])
assert table.column("a").to_numpy().tolist() == [1, 2]
print("pandas" in sys.modules)
frame = table.to_pandas()
print(list(frame.a), pa.Table.from_pandas(frame).equals(table), pa.array(frame.a).to_pylist())
"""


def test_arrow_does_without_pandas_until_somebody_asks_for_a_frame() -> None:
    answer = subprocess.run([sys.executable, "-c", CONVERTED], capture_output=True, text=True)
    assert answer.stdout.split("\n")[:2] == ["False", "[1, 2] True [1, 2]"], answer.stderr


def test_where_pandas_is_at_hand_arrow_may_use_it() -> None:
    used = (
        "import pandas; from pipeline.arrow import spare_pandas; spare_pandas();"
        " import pyarrow as pa; print(pa.array(pandas.Categorical(['x'])).type)"
    )
    answer = subprocess.run([sys.executable, "-c", used], capture_output=True, text=True)
    assert answer.stdout.startswith("dictionary"), answer.stderr
