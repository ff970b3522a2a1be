"""Run a Label Studio of our own for one workspace, on the loopback interface.

It lives in an environment of its own: its packages and ours do not mix. It sends nothing out: no
version check, no analytics, no error reports. It reads its settings under bare names too (``HOST``,
``DEBUG``), so it is started with none of the user's environment but what finds its programs.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labeling.label_studio.client import LabelStudio, is_answering
from labeling.projects.box_project import BOXES
from labeling.projects.connect import FOLDER, open_project
from labeling.projects.mask_project import MASKS
from pipeline.errors import AvatarBuildError, UsageError
from pipeline.workspace.workspace import Workspace

VERSION = "1.23.2"
"""The version our configs and the rules of ``pull`` were tried with."""

USER = "annotator@example.com"

_START_S = 300.0
"""The longest wait for an answer; the first start makes the database, a minute on two cores."""

_KEYMAP = {
    "region:cycle": {"key": "space"},
    "region:delete": {"key": "d"},
    # With the key that turns the page: what is pressed there must not change a box of another page.
    "region:unselect": {"key": "ctrl+right"},
}
"""Keys of the annotator's page that differ from Label Studio's own."""

PINS = Path(__file__).with_name("label-studio.txt")
"""The file of every package of a Label Studio of ours, as tested."""

_LOG = "server.log"

_PASSED_ON = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"}
_OF_UV = ("UV_", "XDG_")
"""The beginnings of the names that say where uv keeps what it fetched."""


@dataclass
class RunningServer:
    """A Label Studio of ours that was started."""

    process: subprocess.Popen[bytes]
    url: str
    home: Path

    def stop(self) -> None:
        """End the server and what it started."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_server(workspace: Workspace) -> RunningServer:
    """Start the workspace's server, and make its token and projects.

    Raises:
        UsageError: there is no Label Studio to start, or the port is taken.
        AvatarBuildError: it did not start; its log says why.
    """
    home = workspace.storage.local_path(FOLDER)
    if home is None:
        raise UsageError(
            f"{workspace.storage.url}: 'label serve' reads pictures from a disk. Run a Label Studio"
            " of your own and name it to 'label push' with --url; its pictures come from the store,"
            " by signed addresses."
        )
    home.mkdir(mode=0o700, exist_ok=True)
    password, token = _secret(home / "password", 8), _secret(home / "token", 20)
    config = workspace.config.label
    port = config.server_port
    url = f"http://127.0.0.1:{port}"
    if is_answering(url):
        raise UsageError(
            f"{url}: something answers there already. Stop it, or take another port with"
            " --set label.server_port=8081."
        )
    server = LabelStudio(url, token)
    command = list(config.server_command) or find_command()
    command += ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    settings = server_settings(home, workspace.storage.path("."), password, token)
    running = RunningServer(_start(command, settings, home), url, home)
    try:
        _wait(running)
        server.check()
        for kind in (BOXES, MASKS):
            project = open_project(server, config.project, kind)
            server.add_local_files(project.number, str(workspace.storage.path("media")))
    except BaseException:
        running.stop()
        raise
    (home / "server.json").write_text(json.dumps({"url": url}) + "\n", encoding="utf-8")
    return running


def _start(command: list[str], settings: dict[str, str], home: Path) -> subprocess.Popen[bytes]:
    with (home / _LOG).open("ab") as log:
        try:
            return subprocess.Popen(command, env=settings, stdout=log, stderr=log, cwd=home)
        except OSError as error:
            raise UsageError(
                f"{command[0]}: cannot be started ({error.strerror}). Mend label.server_command."
            ) from error


def find_command() -> list[str]:
    """Find how to start Label Studio here: the one on the PATH, else through uv, which fetches it.

    Raises:
        UsageError: neither is there.
        AvatarBuildError: it could not be fetched.
    """
    if found := shutil.which("label-studio"):
        return [found]
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv:
        return _fetched(uv)
    raise UsageError(
        "No label-studio and no uv on the PATH. Install either, for instance with"
        f" 'pipx install label-studio=={VERSION}', or set label.server_command."
    )


def _fetched(uv: str) -> list[str]:
    """Have uv keep a Label Studio in an environment of its own, and return its command.

    It is fetched with the user's environment, which may name a proxy or certificates, and started
    later without both.
    """
    tool = [uv, "tool", "run", "--constraints", str(PINS), "--from", f"label-studio=={VERSION}"]
    if subprocess.run([*tool, "python", "-c", ""]).returncode:  # it says itself what it does
        raise AvatarBuildError(
            f"label serve: uv could not install label-studio {VERSION}; it says why above."
            " Mend that, or install Label Studio yourself and name it in label.server_command."
        )
    return [*tool, "--offline", "label-studio"]


def server_settings(home: Path, media_root: Path, password: str, token: str) -> dict[str, str]:
    """Return the server's whole environment.

    Args:
        home: where its database goes.
        media_root: the folder whose ``media`` it may serve.
        password: of ``USER``.
        token: a legacy token for the same.
    """
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_OF_UV)
    }
    return {
        **passed,
        "LABEL_STUDIO_BASE_DATA_DIR": str(home / "data"),
        "LABEL_STUDIO_USERNAME": USER,
        "LABEL_STUDIO_PASSWORD": password,
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "1",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "0",
        "LABEL_STUDIO_COLLECT_ANALYTICS": "0",
        "LABEL_STUDIO_SENTRY_DSN": "",
        "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(media_root),
        # 'label backend' answers on this machine, and Label Studio adds a webhook to it.
        "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "0",
        "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "0",
        "LABEL_STUDIO_EDITOR_KEYMAP": json.dumps(_KEYMAP),
    }


def _secret(file: Path, size: int) -> str:
    """Return the secret of the file, drawn at the first call; only its owner can read it."""
    if not file.exists():
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as output:
            output.write(secrets.token_hex(size))
    return file.read_text(encoding="utf-8").strip()


def _wait(running: RunningServer) -> None:
    log = running.home / _LOG
    deadline = time.monotonic() + _START_S
    while not is_answering(running.url):
        if running.process.poll() is not None:
            raise AvatarBuildError(
                f"label serve: the server ended with {running.process.returncode}: {_last(log)}"
            )
        if time.monotonic() > deadline:
            raise AvatarBuildError(f"label serve: no answer after {_START_S:.0f} s; see {log}.")
        time.sleep(0.5)


def _last(log: Path) -> str:
    lines: Sequence[str] = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1][:200] if lines else 'it said nothing'} (see {log})"
