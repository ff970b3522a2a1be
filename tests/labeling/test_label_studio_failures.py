"""Killed, stopped and locked out in the middle: against a real Label Studio outside the workspace.

Whatever happens, running the same command again leaves one task per frame and every answer once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.projects.annotator_clips import make_clips
from labeling.projects.box_project import BOXES
from labeling.projects.connect import find_project
from labeling.projects.pages import frames_of
from labeling.projects.serve import RunningServer, start_server
from labeling.review.instances import bring_instances_up_to_date
from labeling.sync.pull import pull
from labeling.sync.push import push
from pipeline.errors import UsageError
from pipeline.files import sha256_of
from pipeline.records.schema import Frame, Review
from pipeline.workspace.recorded import note_file
from pipeline.workspace.workspace import Workspace
from tests.conftest import ROOT
from tests.labeling.conftest import serve_settings
from tests.labeling.exchange import accepted, frame_of, submit
from tests.labeling.labelled_workspace import VOCABULARY, fill, fill_clips
from tests.rows import clip, frame, video

pytestmark = [pytest.mark.labelstudio, pytest.mark.slow]

FRAMES = 600
"""Three imports, two pages."""


class Outside:
    """A server of somebody else's, which can be stopped and started again."""

    secret = "known-to-the-test-so-that-it-can-sign-tokens"

    def __init__(self, host: Workspace) -> None:
        self._host = host
        self._running: RunningServer | None = None
        home = host.storage.path("label-studio")
        (home / "data").mkdir(parents=True)
        (home / "data" / ".env").write_text(f"SECRET_KEY={self.secret}\n", encoding="utf-8")
        self.start()
        self.token = (home / "token").read_text(encoding="utf-8")
        self.url = self.running.url
        self.api = LabelStudio(self.url, self.token)

    @property
    def running(self) -> RunningServer:
        assert self._running is not None
        return self._running

    def start(self) -> None:
        self._running = start_server(self._host)

    def kill(self) -> None:
        """As a power cut does."""
        self.running.process.kill()
        self.running.process.wait()

    def personal_token(self) -> str:
        """A new one; a user has only one that lives."""
        for old in self.api.call("GET", "/api/token/"):
            self.api.call("POST", "/api/token/blacklist/", {"refresh": old["token"]})
        return str(self.api.call("POST", "/api/token/")["token"])


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    settings = serve_settings()
    root = tmp_path_factory.mktemp("outside") / "host"
    Workspace.create(root)
    server = Outside(Workspace(root, settings))
    try:
        yield server
    finally:
        server.running.stop()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with many frames, whose clips are there already."""
    root = tmp_path_factory.mktemp("mine") / "ws"
    workspace = fill(Workspace.create(root), frames=FRAMES)
    first = make_clips(
        workspace.storage, frame(10), clip(end_s=4.0), video(), workspace.config.label
    )
    digests = {made: sha256_of(workspace.storage.path(made)) for made in first}
    for row in workspace.rows(Frame):
        for made in first:
            copy = made.replace(frame(10).frame_id, row.frame_id)
            if copy != made:
                os.link(workspace.storage.path(made), workspace.storage.path(copy))
                note_file(workspace.storage, copy, digests[made])
    return root


@pytest.fixture
def root(filled: Path, tmp_path: Path) -> Path:
    """A copy of it for one test; the media are shared."""
    shutil.copytree(filled, tmp_path / "ws", copy_function=os.link)
    return tmp_path / "ws"


def opened(root: Path, outside: Outside, title: str) -> Workspace:
    return Workspace(root, [f"label.url={outside.url}", f"label.project={title}"])


def words(root: Path, outside: Outside, title: str, *command: str) -> list[str]:
    """The command line of a real process."""
    options = ["--workspace", str(root), "--url", outside.url, "--set", f"label.project={title}"]
    verb, *more = command
    return [sys.executable, "-m", "pipeline.cli", "label", verb, *options, *more]


def environment(**changes: str) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **changes}


def run(
    root: Path, outside: Outside, title: str, *command: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words(root, outside, title, *command),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(**{"AVATAR_LABEL_TOKEN": outside.token, **changes}),
    )


def start(root: Path, outside: Outside, title: str, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words(root, outside, title, *command),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(AVATAR_LABEL_TOKEN=outside.token),
    )


def after_the_first_import(process: subprocess.Popen[str]) -> None:
    """Wait until it says that some frames have arrived."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("push: 250 of 600"):
            return
    raise AssertionError("it ended before anything had arrived")


def tasks_by_frame(outside: Outside, title: str) -> Counter[str | None]:
    project = find_project(outside.api, title, BOXES)
    assert project is not None
    return Counter(frame_of(task) for task in outside.api.tasks(project.number))


def all_once(root: Path, outside: Outside, title: str) -> bool:
    frames = [row.frame_id for row in Workspace(root).rows(Frame)]
    return tasks_by_frame(outside, title) == Counter(frames)


def one_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    return line


def test_a_push_that_is_killed_in_the_middle_is_finished_by_the_next(
    root: Path, outside: Outside
) -> None:
    process = start(root, outside, "killed", "push", "boxes")
    after_the_first_import(process)
    process.kill()
    process.communicate()
    there = tasks_by_frame(outside, "killed")
    assert 250 <= sum(there.values()) < FRAMES
    again = run(root, outside, "killed", "push", "boxes", "--json")
    assert again.returncode == 0, again.stderr
    # The import under way when it died may still have arrived while the next one looked.
    run(root, outside, "killed", "push", "boxes")
    assert all_once(root, outside, "killed")
    last = run(root, outside, "killed", "push", "boxes", "--json")
    assert json.loads(last.stdout)["result"]["new"] == 0


def test_a_server_that_dies_in_the_middle_of_a_push_is_one_line_and_nothing_is_doubled(
    root: Path, outside: Outside
) -> None:
    process = start(root, outside, "dying", "push", "boxes")
    after_the_first_import(process)
    outside.kill()
    stdout, stderr = process.communicate()
    done = subprocess.CompletedProcess([], process.returncode, stdout, stderr)
    error = one_error(done, 1)
    assert outside.url in error
    assert "run the same command again" in error
    outside.start()
    again = run(root, outside, "dying", "push", "boxes")
    assert again.returncode == 0, again.stderr
    assert all_once(root, outside, "dying")


def test_a_push_of_clips_that_is_killed_in_the_middle_is_finished_by_the_next(
    tmp_path: Path, outside: Outside
) -> None:
    root = tmp_path / "clips"
    fill_clips(Workspace.create(root), 600, frames=2)
    command = "push", "boxes", "--task", "clip"
    process = start(root, outside, "killed", *command)
    assert process.stderr is not None
    assert any(line.startswith("push: 500 of 1200") for line in process.stderr)
    process.kill()
    process.communicate()
    again = run(root, outside, "killed", *command)
    assert again.returncode == 0, again.stderr
    # The import under way when it died may still have arrived while the next one looked.
    run(root, outside, "killed", *command)
    project = find_project(outside.api, "killed", BOXES, by_clip=True)
    assert project is not None
    shown = Counter(name for task in outside.api.tasks(project.number) for name in frames_of(task))
    assert shown == Counter(row.frame_id for row in Workspace(root).rows(Frame))
    last = run(root, outside, "killed", *command, "--json")
    found = json.loads(last.stdout)["result"]
    assert (found["new"], found["known"]) == (0, 1200)


class Dying(LabelStudio):
    """A client whose server dies after the first page of tasks."""

    outside: Outside

    def tasks(self, project: int, since: str = "") -> Iterator[dict[str, Any]]:
        for number, task in enumerate(super().tasks(project, since)):
            if number == 100:
                self.outside.kill()
            yield task


def test_a_server_that_dies_in_the_middle_of_a_pull_leaves_nothing_half_done(
    root: Path, outside: Outside
) -> None:
    workspace = opened(root, outside, "halfway")
    number = push(workspace, outside.api, BOXES, VOCABULARY).project.number
    tasks = list(outside.api.tasks(number))
    for task in (tasks[0], tasks[50], tasks[-1]):
        submit(outside.api, task, accepted(task))
    dying = Dying(outside.url, outside.token, sleep=lambda _: None)
    dying.outside = outside
    with pytest.raises(LabelServerError, match="no answer to GET") as caught:
        pull(workspace, dying, BOXES, VOCABULARY)
    assert "\n" not in str(caught.value)
    assert workspace.rows(Review) == []
    outside.start()
    assert pull(workspace, outside.api, BOXES, VOCABULARY).new == 3
    bring_instances_up_to_date(workspace)
    before = workspace.digest("reviews"), workspace.digest("instances")
    assert pull(workspace, outside.api, BOXES, VOCABULARY).new == 0
    assert (workspace.digest("reviews"), workspace.digest("instances")) == before


def signed(claims: dict[str, Any], like: str, secret: str) -> str:
    """A token of these claims, as the server signs its own."""
    head = like.split(".")[0]
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    digest = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def test_an_access_token_that_expires_in_the_middle_is_renewed(
    root: Path, outside: Outside
) -> None:
    personal = outside.personal_token()
    api = LabelStudio(outside.url, personal)
    api.check()
    access = api._access
    padded = access.split(".")[1] + "=="
    claims = json.loads(base64.urlsafe_b64decode(padded))
    assert 0 < claims["exp"] - time.time() <= 300
    live = signed({**claims, "exp": claims["exp"] + 60}, access, outside.secret)
    api._access = live
    api.check()
    assert api._access == live, "the server takes what is signed like this"
    expired = signed({**claims, "exp": int(time.time()) - 1}, access, outside.secret)
    renewed = []

    def expire(done: int, total: int) -> None:
        renewed.append(api._access != expired)
        api._access = expired

    workspace = opened(root, outside, "expiring")
    assert push(workspace, api, BOXES, VOCABULARY, expire).new == FRAMES
    assert renewed == [True, True, True]
    assert all_once(root, outside, "expiring")


def test_a_token_that_is_revoked_in_the_middle_is_one_line_and_a_new_one_goes_on(
    root: Path, outside: Outside
) -> None:
    personal, now = outside.personal_token(), [0.0]
    api = LabelStudio(outside.url, personal, clock=lambda: now[0])

    def revoke(done: int, total: int) -> None:
        outside.api.call("POST", "/api/token/blacklist/", {"refresh": personal})
        now[0] += 1000.0  # the access token is old: the next request asks for another

    workspace = opened(root, outside, "revoked")
    with pytest.raises(UsageError, match="token was refused") as caught:
        push(workspace, api, BOXES, VOCABULARY, revoke)
    assert personal not in str(caught.value)
    assert "\n" not in str(caught.value)
    fresh = LabelStudio(outside.url, outside.personal_token())
    found = push(workspace, fresh, BOXES, VOCABULARY)
    assert (found.known, found.new) == (250, FRAMES - 250)
    assert all_once(root, outside, "revoked")


def test_a_server_outside_is_used_with_either_token_which_stays_out_of_sight(
    root: Path, outside: Outside, tmp_path: Path
) -> None:
    media = "--set", "label.media_url=https://media.example.org/"
    file = tmp_path / "token"
    file.write_text(outside.token + "\n")
    file.chmod(0o600)
    personal = outside.personal_token()
    options = "--token-file", str(file), *media
    first = run(root, outside, "theirs", "push", "boxes", *options, AVATAR_LABEL_TOKEN="")
    second = run(root, outside, "theirs", "status", "--json", AVATAR_LABEL_TOKEN=personal)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert json.loads(second.stdout)["result"]["projects"][0]["to_do"] == FRAMES
    project = find_project(outside.api, "theirs", BOXES)
    assert project is not None
    task = next(outside.api.tasks(project.number))
    assert task["data"]["image"].startswith("https://media.example.org/media/frames/")
    assert 'src="https://media.example.org/media/clips/' in task["data"]["clips_html"]
    storages = outside.api.call(
        "GET", "/api/storages/localfiles", query={"project": project.number}
    )
    assert storages == [], "their disk is not ours to serve"
    said = first.stdout + first.stderr + second.stdout + second.stderr
    written = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".mp4"]
    for token in (outside.token, personal):
        assert token not in said
        assert not any(token.encode() in path.read_bytes() for path in written)


def test_refusals_of_a_server_outside_are_one_line(
    root: Path, outside: Outside, tmp_path: Path
) -> None:
    wrong = run(root, outside, "none", "push", "boxes", AVATAR_LABEL_TOKEN="f" * 40)
    assert "token was refused" in one_error(wrong, 2)
    file = tmp_path / "token"
    file.write_text(outside.token)
    file.chmod(0o644)
    open_to_all = run(
        root, outside, "none", "push", "boxes", "--token-file", str(file), AVATAR_LABEL_TOKEN=""
    )
    assert "chmod 600" in one_error(open_to_all, 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    options = "--url", nowhere
    assert nowhere in one_error(run(root, outside, "none", "push", "boxes", *options), 1)
    assert find_project(outside.api, "none", BOXES) is None, "nothing was made"
