"""The shape of the house: what may import what, and what a light command may load."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ["pipeline", "stages", "labeling", "tavlo", "exports"]
TOP_FLOOR = {
    *(ROOT / "pipeline" / "cli").glob("*.py"),
    ROOT / "pipeline" / "demo" / "run.py",
    ROOT / "pipeline" / "steps.py",
}
"""These join the packages; everything else meets in tables."""


def imported_modules(source: Path) -> set[str]:
    """Full names of all modules a file imports."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def sources(*packages: str) -> list[Path]:
    return sorted(path for name in packages for path in (ROOT / name).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_imported_is_the_one_in_this_checkout(package: str) -> None:
    found = importlib.import_module(package).__file__
    assert found is not None
    assert Path(found).parent == ROOT / package


@pytest.mark.parametrize("package", PACKAGES)
def test_no_dependency_ships_a_package_of_the_same_name(package: str) -> None:
    assert set(packages_distributions().get(package, [])) <= {"avatar-build"}


def test_one_package_alone_owns_opencv() -> None:
    # A second one overwrites files of the first, and removing either breaks both.
    assert set(packages_distributions()["cv2"]) == {"opencv-python-headless"}


def test_imports_point_one_way() -> None:
    for source in sources(*PACKAGES):
        if source in TOP_FLOOR:
            continue
        own = source.relative_to(ROOT).parts[0]
        reached = {name.split(".")[0] for name in imported_modules(source)} & set(PACKAGES)
        assert reached <= {"pipeline", own}, source


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("yt_dlp", {"stages/backends/ytdlp.py", "stages/failure_kinds.py"}),
        ("av", {"pipeline/"}),
        ("kaldi_native_fbank", {"stages/backends/cav_mae/"}),
        ("ultralytics", {"stages/backends/yolo.py"}),
        ("segment_anything", {"stages/backends/sam.py"}),
        ("transformers", {"stages/backends/sam2.py", "stages/backends/grounding_dino.py"}),
    ],
)
def test_a_foreign_library_has_one_home(library: str, home: set[str]) -> None:
    for source in sources(*PACKAGES):
        if library in {name.split(".")[0] for name in imported_modules(source)}:
            place = str(source.relative_to(ROOT))
            assert any(place.startswith(allowed) for allowed in home), place


def test_every_test_folder_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def loaded_by(code: str) -> set[str]:
    """Top-level modules that running ``code`` in a fresh interpreter loads."""
    listing = "; import sys; print(' '.join({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code + listing], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "cv2", "pandas", "numpy", "pyarrow", "pydantic", "av", "yt_dlp", "scipy"}
    assert not heavy & loaded_by("import pipeline.cli")


@pytest.mark.parametrize("stage", ["download", "sample", "hear", "propose", "accept", "segment"])
def test_no_worker_loads_torch_librosa_or_pandas(stage: str) -> None:
    code = f"from pipeline.registry import STAGES; STAGES['{stage}'].load()"
    assert not {"torch", "librosa", "pandas"} & loaded_by(code)


def test_reading_a_table_starts_none_of_the_threads_that_abort_at_exit() -> None:
    code = "; ".join(
        (
            "import tempfile",
            "from pipeline.storage import Storage",
            "from pipeline.schema import Source",
            "from pipeline.table import read_records, to_parquet",
            "s = Storage(tempfile.mkdtemp())",
            "r = Source(video_id='v', label='', split='', start_s=0)",
            "s.write('t.parquet', to_parquet(Source, [r]))",
            "assert read_records(Source, s, 't.parquet') == [r]",
            "import sys; assert 'pyarrow.dataset' not in sys.modules",
        )
    )
    loaded_by(code)
