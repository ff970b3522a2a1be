"""The code and the libraries that made a result."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_LIBRARIES = ("av", "numpy", "opencv-python-headless", "pyarrow", "scipy", "yt-dlp", "torch")


def package_version() -> str:
    """Return the installed version of avatar-build."""
    try:
        return version("avatar-build")
    except PackageNotFoundError:
        return "0+unknown"


def tool_versions() -> dict[str, str]:
    """Return the versions of what decides results, without importing any of it."""
    return dict(_tool_versions())


@functools.cache  # each is read from a file of its package, and every unit and checkpoint asks
def _tool_versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "avatar-build": package_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def code_revision() -> str:
    """Return a checkout's git revision, with ``+`` when files differ from it; else the version."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return package_version()
    try:
        head = _git(folder, "rev-parse", "HEAD")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return package_version()
    return head + ("+" if dirty else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
