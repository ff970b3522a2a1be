"""The shape of the house: what may import what, and what a light command may load."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from pipeline.flow import FLOW
from tests.conftest import ROOT

PACKAGES = ["pipeline", "stages", "labeling", "tavlo", "exports"]
ROOF = "pipeline.cli"
"""The commands join the packages; everything else meets in ``pipeline``."""
ONE_NAME_TWICE = {"synthetic", "release", "workspace"}
"""Rooms of one subject in two packages, and the module of ``Workspace`` in its room."""


@cache
def parsed(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"))


@cache
def imported_modules(source: Path) -> frozenset[str]:
    """Full names of all modules a file imports."""
    names = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return frozenset(names)


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
        if ROOF in room_of(source) or source == ROOT / "pipeline" / "__init__.py":
            continue
        own = source.relative_to(ROOT).parts[0]
        reached = {name.split(".")[0] for name in imported_modules(source)} & set(PACKAGES)
        assert reached <= {"pipeline", own}, source


def module_of(source: Path) -> str:
    """The dotted name of a file."""
    name = ".".join(source.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def room_of(source: Path) -> str:
    """The dotted name of a file's folder."""
    return ".".join(source.relative_to(ROOT).parent.parts)


def arrows() -> dict[str, set[str]]:
    """Which folder imports from which others."""
    rooms = {module_of(source): room_of(source) for source in sources(*PACKAGES)}
    found: dict[str, set[str]] = {}
    for source in sources(*PACKAGES):
        if source == ROOT / "pipeline" / "__init__.py":
            continue  # it hands out the roof's Workspace, on request
        reached = {rooms[name] for name in imported_modules(source) if name in rooms}
        found.setdefault(room_of(source), set()).update(reached - {room_of(source)})
    return found


def test_arrows_between_folders_run_one_way() -> None:
    graph = TopologicalSorter(arrows())
    try:
        graph.prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


def test_a_folder_holds_about_a_dozen_files() -> None:
    for room in {room_of(source) for source in sources(*PACKAGES)}:
        files = [path for path in (ROOT / room.replace(".", "/")).glob("*.py")]
        assert len(files) <= 16, room


def test_a_name_is_given_once() -> None:
    modules = [module_of(source) for source in sources(*PACKAGES)]
    names = Counter(module.rsplit(".", 1)[-1] for module in modules)
    twice = {name for name, count in names.items() if count > 1}
    assert twice - {"__main__"} == ONE_NAME_TWICE


def test_the_flow_is_the_only_list_of_stages() -> None:
    # Elsewhere such names are sections of settings, and commands as the help lists them.
    others = {"pipeline/flow.py", "pipeline/config.py", "pipeline/cli/common/options.py"}
    for source in sources(*PACKAGES):
        if str(source.relative_to(ROOT)) in others:
            continue
        for node in ast.walk(parsed(source)):
            entries = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
            named = {entry.value for entry in entries if isinstance(entry, ast.Constant)}
            assert len(named & {step.name for step in FLOW}) < 2, (source, named)


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("yt_dlp", {"stages/download/ytdlp.py", "stages/download/failure_kinds.py"}),
        ("av", {"pipeline/"}),
        ("httpx", {"labeling/label_studio/client.py"}),
        ("kaldi_native_fbank", {"stages/backends/cav_mae/"}),
        ("ultralytics", {"stages/backends/yolo.py"}),
        ("segment_anything", {"stages/backends/sam.py"}),
        (
            "transformers",
            {
                "stages/backends/detectors.py",
                "stages/backends/edgetam.py",
                "stages/backends/grounding_dino.py",
                "stages/backends/sam2.py",
                "stages/backends/sam2_video.py",
            },
        ),
        ("timm", {"stages/backends/edgetam.py"}),
        ("onnxruntime", {"stages/backends/yolox.py"}),
    ],
)
def test_a_foreign_library_has_one_home(library: str, home: set[str]) -> None:
    for source in sources(*PACKAGES):
        if library in {name.split(".")[0] for name in imported_modules(source)}:
            place = str(source.relative_to(ROOT))
            assert any(place.startswith(allowed) for allowed in home), place


def test_what_tests_share_lies_beside_them() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        assert not {n for n in imported_modules(path) if ".test_" in n}, path


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
    assert not (heavy | {"httpx"}) & loaded_by("import pipeline.cli")


@pytest.mark.parametrize(
    "module",
    [
        "stages.download.fetcher",
        "stages.sample.sampler",
        "stages.backends.hearing.vggsound_label",
        "stages.backends.motion.video_motion",
        "stages.propose.linking.tracks",
        "labeling.automatic.accept",
        "stages.backends.grabcut.cutting",
    ],
)
def test_no_worker_without_a_network_loads_torch_librosa_or_pandas(module: str) -> None:
    code = f"import pipeline.run.local, pipeline.run.worker, {module}"
    assert not {"torch", "librosa", "pandas"} & loaded_by(code)


def test_a_stage_and_its_backends_are_known_without_what_their_work_takes() -> None:
    """A command asks them for their versions, and mostly has nothing to do."""
    code = (
        "import importlib; from pipeline.flow import FLOW;"
        " from stages.backends.interfaces import DETECTORS, SEGMENTERS, TAGGERS;"
        " from stages.propose.linking.linkers import LINKERS;"
        " places = [one.stage or one.derive for one in FLOW if one.stage or one.derive];"
        " tables = (TAGGERS, DETECTORS, SEGMENTERS, LINKERS);"
        " places += [place for table in tables for place in table.values()];"
        " assert len(places) > 40;"
        " [getattr(importlib.import_module(m), c) for m, c in (p.split(':') for p in places)]"
    )
    heavy = {"torch", "cv2", "av", "scipy", "pandas", "librosa", "transformers", "ultralytics"}
    assert not (heavy | {"yt_dlp", "onnxruntime"}) & loaded_by(code)


def test_reading_a_table_starts_none_of_the_threads_that_abort_at_exit() -> None:
    code = "; ".join(
        (
            "import tempfile",
            "from pipeline.workspace.storage import Storage",
            "from pipeline.records.schema import Source",
            "from pipeline.workspace.table import read_records, to_parquet",
            "s = Storage(tempfile.mkdtemp())",
            "r = Source(video_id='v', label='', split='', start_s=0)",
            "s.write('t.parquet', to_parquet(Source, [r]))",
            "assert read_records(Source, s, 't.parquet') == [r]",
            "import sys; assert 'pyarrow.dataset' not in sys.modules",
        )
    )
    loaded_by(code)


def test_the_architecture_page_names_every_room_and_only_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {room_of(source).replace(".", "/") for source in sources(*PACKAGES)}
    rooms -= {"labeling", "tavlo"}  # nothing of their own lies there
    assert set(re.findall(r"^\| `([a-z_/]+)` \|", page, re.MULTILINE)) >= rooms
    for path in re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", page):
        assert (ROOT / path).is_file(), path


LEANING = re.compile(
    r"""(?x: of|in|about|with|for|to|as|from|by|at|on|after|before|under|over|because|so|and|or|but
    |its|their|also|than|into|out|off|up|those|these|such|same|none|only|otherwise|whether|which
    |how|where|when|who|whose|what|why|if|like|without|beside|besides|within|between|among|against
    |per|until|since|across|along|around|through|during|not|no|both|either|neither|each )"""
)
"""First words of phrases that lean on the line above them."""


def documented(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """The docstrings of a module's public classes and attributes, with their lines."""
    for place, node in enumerate(body):
        following = body[place + 1] if place + 1 < len(body) else None
        if isinstance(node, ast.ClassDef):
            if not node.name.startswith("_") and (text := ast.get_docstring(node)):
                yield node.lineno, text
            yield from documented(node.body)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            name = target.id if isinstance(target, ast.Name) else "_"
            said = following.value if isinstance(following, ast.Expr) else None
            if isinstance(said, ast.Constant) and isinstance(said.value, str) and name[:1] != "_":
                yield said.lineno, said.value


def first_word(text: str) -> str:
    return text.strip().lstrip("`'\"(").partition(" ")[0].rstrip(",.:;").lower()


def test_no_public_docstring_leans_on_the_line_above() -> None:
    found = []
    for source in sources(*PACKAGES):
        tree = parsed(source)
        every = [(1, ast.get_docstring(tree) or ""), *documented(tree.body)]
        found += [
            f"{source.relative_to(ROOT)}:{line}: {text[:60]!r}"
            for line, text in every
            if LEANING.fullmatch(first_word(text))
        ]
    assert found == []
