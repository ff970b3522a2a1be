"""Check what a run needs before it needs it. Asks this machine only, never the network.

``bad`` is what makes a run fail, ``warn`` what may; both say what to do.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config import PROFILES, Config, DownloadConfig, LabelConfig, RunConfig
from pipeline.errors import AvatarBuildError, DamagedError
from pipeline.extras import EXTRAS, missing
from pipeline.flow import STAGES
from pipeline.run.gpus import VISIBLE, visible_gpus
from pipeline.run.lost import media_states
from pipeline.run.stage import Stage
from pipeline.words import counted, size
from pipeline.workspace.storage import Storage
from pipeline.workspace.table import way_out
from pipeline.workspace.workspace import Workspace

_YT_DLP_OLD_DAYS = 60
"""YouTube changes under yt-dlp: releases rot in weeks."""

_JS_RUNTIMES = {
    "deno": ("deno", (2, 3, 0)),
    "node": ("node", (22, 0, 0)),
    "bun": ("bun", (1, 2, 11)),
    "quickjs": ("qjs", (2023, 12, 9)),
}
"""Program and least version yt-dlp takes for YouTube's challenges; it enables deno alone itself."""

_DECODERS = ("h264", "aac", "vp9", "opus", "av1")

_VIDEO_BYTES = 18_000_000
"""A 4-minute video at 600 kb/s, the mean of the paper's kind of source."""

_KEPT_FRACTION = 39 / 70
"""The paper fetched 70k videos and kept 39k."""


@dataclass(frozen=True)
class Check:
    """A thing that was looked at, and its state."""

    name: str
    state: Literal["ok", "warn", "bad"]
    detail: str
    advice: str = ""
    """The next step; empty when there is none."""


def run_checks(storage: Storage, config: Config, today: datetime.date | None = None) -> list[Check]:
    """Look at everything.

    Args:
        storage: the workspace.
        config: its settings.
        today: for the age of yt-dlp.
    """
    download = config.download
    return [
        Check("Python", "ok", platform.python_version()),  # an older one never gets here
        _yt_dlp(today or datetime.datetime.now(datetime.UTC).date()),
        _challenge_scripts(),
        _js_runtime(download),
        *_cookies(download),
        _disk(storage, download),
        _locks(storage),
        _decoders(),
        _ffmpeg(download),
        *_extras(),
        _gpu(config.run),
        *_chosen(config),
        *_profiles(),
        *_token(config.label),
        *_ray(config.run),
    ]


def _yt_dlp(today: datetime.date) -> Check:
    try:
        version = importlib.metadata.version("yt-dlp")
    except importlib.metadata.PackageNotFoundError:
        return Check("yt-dlp", "bad", "not installed", "pip install 'yt-dlp[default]'")
    match = re.match(r"(\d{4})\.(\d{1,2})\.(\d{1,2})", version)
    if match is None:
        return Check(
            "yt-dlp", "warn", f"{version}: no date in its version", "pip install -U yt-dlp"
        )
    days = (today - datetime.date(*map(int, match.groups()))).days
    detail = f"{version}, {days} days old"
    if days > _YT_DLP_OLD_DAYS:
        return Check("yt-dlp", "warn", detail, "pip install -U 'yt-dlp[default]'")
    return Check("yt-dlp", "ok", detail)


def _challenge_scripts() -> Check:
    if importlib.util.find_spec("yt_dlp_ejs") is None:
        detail = "not installed: YouTube's challenges cannot be solved"
        return Check("yt-dlp-ejs", "warn", detail, "pip install 'yt-dlp[default]'")
    return Check("yt-dlp-ejs", "ok", importlib.metadata.version("yt-dlp-ejs"))


def _js_runtime(config: DownloadConfig) -> Check:
    enabled = config.options.get("js_runtimes", {"deno": {}})
    found: dict[str, str] = {}
    for name, (program, least) in _JS_RUNTIMES.items():
        settings = enabled.get(name) or {}
        path = _find(settings.get("path") or program)
        version = _version_of(path, name) if path else ()
        if version >= least:
            found[name] = f"{name} {'.'.join(map(str, version))}"
        if name in enabled and name in found:
            return Check("JavaScript runtime", "ok", found[name])
    wanted = ", ".join(enabled) or "none"
    if found:
        name = next(iter(found))
        return Check(
            "JavaScript runtime",
            "warn",
            f"{found[name]} is here, but enabled is {wanted}",
            f"Put options = {{js_runtimes = {{{name} = {{}}}}}} under [download] in avatar.toml,"
            " or install deno.",
        )
    return Check(
        "JavaScript runtime",
        "warn",
        f"none that yt-dlp takes (enabled: {wanted}); YouTube needs one, a mirror does not",
        "Install deno 2.3 or newer: pip install deno, or https://deno.com",
    )


def _find(program: str) -> str | None:
    beside_python = Path(sysconfig.get_path("scripts")) / program
    if os.access(beside_python, os.X_OK):
        return str(beside_python)
    return shutil.which(program)


def _version_of(path: str, name: str) -> tuple[int, ...]:
    """Return its version; empty when it does not say."""
    option = "--help" if name == "quickjs" else "--version"
    try:
        shown = subprocess.run([path, option], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"(\d+)[.-](\d+)[.-](\d+)", shown.stdout)
    return tuple(map(int, match.groups())) if match else ()


def _cookies(config: DownloadConfig) -> Iterator[Check]:
    for entry in config.identities:
        if not entry.startswith("cookies:"):
            continue
        path = Path(entry.removeprefix("cookies:")).expanduser()
        if not os.access(path, os.R_OK) or not path.is_file():
            advice = "Export cookies.txt there, or take it out of download.identities."
            yield Check("cookies", "bad", f"{path}: cannot be read", advice)
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Check("cookies", "warn", f"{path}: others can read it", f"chmod 600 {path}")
        else:
            yield Check("cookies", "ok", f"{path}: readable by you alone")


def _disk(storage: Storage, config: DownloadConfig) -> Check:
    free = storage.free_bytes()
    if free is None:
        return Check("disk", "ok", f"{storage.url}: an object store, not measured")
    rows = _waiting_videos(storage)
    need = round(rows * _VIDEO_BYTES * _KEPT_FRACTION)
    detail = f"{size(free)} free; {counted(rows, 'video')} to fetch, about {size(need)} to keep"
    if free < config.min_free_bytes:
        advice = f"Make room: a run stops under {config.min_free_bytes / 1e9:.1f} GB."
        return Check("disk", "bad", detail, advice)
    if free - config.min_free_bytes < need:
        return Check("disk", "warn", detail, "Make room, or fetch fewer (--limit, --labels).")
    return Check("disk", "ok", detail)


def _locks(storage: Storage) -> Check:
    """Say how runs on one workspace know of each other."""
    mount = storage.mount
    if storage.local is None:
        return Check("locks", "ok", "none on an object store: runs know of each other by leases")
    if mount is None:
        detail = "kernel locks; whether other nodes see them cannot be told here"
        return Check("locks", "ok", detail)
    if storage.has_locks:
        which = "a shared disk, seen by its nodes" if mount.is_shared else "this machine's own disk"
        return Check("locks", "ok", f"kernel locks ({mount.kind} at {mount.place}: {which})")
    detail = f"{mount.kind} at {mount.place}: its locks hold on one node, so runs use leases"
    return Check("locks", "ok", detail)


def check_commits(workspace: Workspace) -> list[Check]:
    """Look for commits whose files are gone."""
    checks = []
    for ledger in workspace.ledgers():
        # What else is damaged every command says that reads it.
        with contextlib.suppress(DamagedError):
            if gone := ledger.gone():
                rows = sum(commit.counts["input"] for commit in gone)
                detail = f"files of {counted(len(gone), 'unit')} ({counted(rows, 'row')}) are gone"
                advice = f"Put them back, or {way_out(ledger.stage)}."
                checks.append(Check(f"commits: {ledger.stage}", "bad", detail, advice))
    return checks or [Check("commits", "ok", "every file that one names is there")]


def check_media(workspace: Workspace) -> list[Check]:
    """Count the media files of each table that are not there as they were recorded."""
    checks = []
    for state in media_states(workspace):
        if said := state.said():
            checks.append(Check(f"media: {state.table}", "warn", said, state.way_back()))
        else:
            detail = f"{state.files} files, none missing or changed"
            checks.append(Check(f"media: {state.table}", "ok", detail))
    return checks


def _waiting_videos(storage: Storage) -> int:
    """Count the listed videos of which nothing is known yet."""
    import pyarrow.parquet as pq

    names = [name for name in storage.names("tables/sources") if name.endswith(".parquet")]
    listed = 0
    for name in names:
        # What is damaged is not counted: every command that reads it says so.
        with contextlib.suppress(OSError, ValueError):
            listed += pq.read_metadata(storage.path(f"tables/sources/{name}")).num_rows
    known = sum(name.endswith(".json") for name in storage.names("media/videos"))
    return max(0, listed - known)


def _decoders() -> Check:
    import av

    missing = []
    for name in _DECODERS:
        try:
            av.Codec(name, "r")
        except ValueError:
            missing.append(name)
    if missing:
        advice = "Install PyAV from its wheel: pip install --force-reinstall av"
        return Check("decoders", "bad", f"PyAV {av.__version__} lacks {', '.join(missing)}", advice)
    return Check("decoders", "ok", f"PyAV {av.__version__}: {', '.join(_DECODERS)}")


def _ffmpeg(config: DownloadConfig) -> Check:
    if "+" in config.format and not shutil.which("ffmpeg"):
        return Check(
            "ffmpeg",
            "bad",
            f"missing, and format {config.format!r} merges two streams",
            "Choose a format without '+', or install ffmpeg.",
        )
    return Check("ffmpeg", "ok", "not needed: PyAV carries its own libraries")


def _extras() -> Iterator[Check]:
    for extra, packages in EXTRAS.items():
        lacking = missing(packages)
        detail = f"without {', '.join(lacking)}" if lacking else "installed"
        advice = f"For its commands: pip install 'avatar-build[{extra}]'" if lacking else ""
        yield Check(f"extra {extra}", "ok", detail, advice)


def _token(config: LabelConfig) -> Iterator[Check]:
    """Check that the token file of the settings can be used; the server itself is not asked."""
    if not config.token_file or os.environ.get("AVATAR_LABEL_TOKEN", "").strip():
        return
    file = Path(config.token_file)
    advice = "Write the token of your account page into it, or take label.token_file away."
    try:
        wrong = "" if file.read_text(encoding="utf-8").strip() else "empty"
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            wrong, advice = "others can read this token", f"Run: chmod 600 {shlex.quote(str(file))}"
    except (OSError, UnicodeError) as error:
        wrong = getattr(error, "strerror", None) or "not text"
    detail = f"label.token_file: {file}"
    if wrong:
        yield Check("label", "bad", f"{detail}: {wrong}", advice)
    else:
        yield Check("label", "ok", detail)


def _chosen(config: Config) -> Iterator[Check]:
    """Look for what the stages that may run models need for the backends of these settings."""
    gpus: int | None = None
    for name, (stage, backends, wrong) in _backends(config).items():
        if wrong:
            yield Check(name, "bad", f"{backends} cannot run", wrong)
            continue
        device = stage.device()
        if device.startswith("cuda"):
            gpus = len(visible_gpus()) if gpus is None else gpus
            if int(device.partition(":")[2] or 0) >= gpus:
                detail = f"{backends} is to run on {device}; GPUs seen: {gpus}"
                yield Check(name, "bad", detail, f"Set {name}.device to auto or cpu.")
                continue
        yield Check(name, "ok", f"{backends}: what it needs is here")


def _profiles() -> Iterator[Check]:
    """Say which profiles of ``init`` could run on this machine."""
    for profile, settings in PROFILES.items():
        found = _backends(Config.model_validate(settings)).values()
        name, wrong = f"profile {profile}", {wrong: None for _, _, wrong in found if wrong}
        if wrong:
            install = next(
                (m[0] for one in wrong if (m := re.search(r"pip install '\S+'", one))), ""
            )
            first = f"{install}, then " if install else ""
            advice = f"For it: {first}avatar-build models fetch --profile {profile}"
            yield Check(
                name, "ok", f"not yet: {'; '.join(one.split('. ')[0] for one in wrong)}", advice
            )
        else:
            yield Check(name, "ok", "can run")


def _backends(config: Config) -> dict[str, tuple[Stage[Any], str, str]]:
    """Return each stage that may run models, its backends, and why they cannot run or nothing."""
    found = {}
    for name, step in STAGES.items():
        if step.uses_device:
            section, wrong = getattr(config, step.section), ""
            stage: Stage[Any] = step.load()(section)
            try:
                stage.fingerprint()
            except AvatarBuildError as error:
                wrong = str(error)
            found[name] = (stage, " + ".join(section.backends()), wrong)
    return found


def _ray(run: RunConfig) -> Iterator[Check]:
    if run.executor == "ray" and missing(EXTRAS["ray"]):
        advice = "pip install 'avatar-build[ray]', or set run.executor to local"
        yield Check("executor", "bad", "run.executor is ray, which is not installed", advice)


def _gpu(run: RunConfig) -> Check:
    count = len(visible_gpus())
    if count:
        workers = min(run.workers or len(os.sched_getaffinity(0)), count * run.workers_per_gpu)
        detail = f"visible: {count}; workers of a stage whose model runs on GPUs: {workers}"
        return Check("GPU", "ok", f"{detail} (run.workers_per_gpu: {run.workers_per_gpu})")
    if VISIBLE in os.environ:
        return Check("GPU", "ok", f"none: {VISIBLE}={os.environ[VISIBLE]!r} shows none")
    if shutil.which("nvidia-smi"):
        advice = "Run nvidia-smi -L: it says what is wrong with the driver."
        return Check("GPU", "warn", "nvidia-smi is here, but lists none", advice)
    return Check("GPU", "ok", "none seen; none is needed")
