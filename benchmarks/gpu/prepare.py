"""Put what a bare GPU machine needs into one folder: this code, and the packages it imports.

    python -m benchmarks.gpu.prepare [gpu-work]

Copy the folder there and run ``python -m benchmarks.gpu.run`` in it. The packages are those
installed here, for machines of this Python and system, less what is never run there; OpenCV is left
out (``without_opencv`` stands in), as all together must stay below 64 MB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "gpu-work"
ARCHIVE, ABOUT = "packages.zip", "about.json"
MOST_BYTES = 64_000_000
CODE = ("benchmarks", "pipeline", "stages", "tavlo")
PACKAGES = {
    "annotated-types": "annotated_types",
    "av": "av",
    "einops": "einops",
    "numpy": "numpy",
    "pillow": "PIL",
    "pycocotools": "pycocotools",
    "pydantic": "pydantic",
    "pydantic-core": "pydantic_core",
    "segment-anything": "segment_anything",
    "torchvision": "torchvision",
    "typing-extensions": "typing_extensions",
    "typing-inspection": "typing_inspection",
}
"""Distribution to the module that tells whether a machine has it already."""
_NEVER_RUN = ("/tests/", "/__pycache__/", "/f2py/", "torchvision/datasets/_", "torchvision.libs/")
_NO_USE = (".pyi", ".pxd", ".pyx", ".h", ".hpp", ".a", ".c", ".lib")


def prepare(folder: Path, packages: Sequence[str] = tuple(PACKAGES)) -> int:
    """Fill a folder, replacing what an earlier call put there; return its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CODE:
        shutil.rmtree(folder / name, ignore_errors=True)
        skip = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in packages:
            for file in distribution(name).files or []:
                path = f"/{file}"
                left_out = any(part in path for part in _NEVER_RUN) or path.endswith(_NO_USE)
                # Its kernels are built for one torch; the networks here need none of them.
                left_out = left_out or (name == "torchvision" and path.endswith(".so"))
                if not left_out and ".." not in file.parts:
                    archive.write(str(file.locate()), str(file))
    about = {
        "python": list(sys.version_info[:2]),
        "packages": {name: distribution(name).version for name in packages},
    }
    (folder / ABOUT).write_text(json.dumps(about))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Prepare the folder and say its size; a folder that is too large is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    size = prepare(folder)
    print(f"{folder}: {size / 1e6:.1f} MB. There: python -m benchmarks.gpu.run")
    if size >= MOST_BYTES:
        sys.exit(f"{size / 1e6:.1f} MB are more than {MOST_BYTES / 1e6:.0f}.")


if __name__ == "__main__":
    main()
