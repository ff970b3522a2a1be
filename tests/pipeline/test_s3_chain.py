"""The whole chain in a bucket, as it is typed; and the list of what works there, walked."""

from __future__ import annotations

import hashlib
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.records.schema import Frame
from pipeline.workspace.workspace import Workspace
from tavlo.training.cached_clips import fill_cache
from tavlo.training.training_clips import ClipRules, read_clips
from tests.conftest import ROOT
from tests.flow_world import draw, run_flow
from tests.labeling.fake_label_studio import TOKEN, FakeLabelStudio
from tests.pipeline.command_line import ALL
from tests.pipeline.s3_server import S3, served
from tests.pipeline.shell import Said, Shell

pytestmark = pytest.mark.slow

LISTED = re.compile(r"^\| `([a-z -]+)` \| (works|refused|of this machine)\b", re.MULTILINE)
CHAIN = ("sample", "propose", "label accept", "segment")

NOTHING_TO_DO = {"download": 20, **dict.fromkeys(CHAIN, 20), "run": 30}
"""The most requests of each command where nothing is to do; ``run`` looks at five stages."""


@dataclass
class Bucket:
    """A workspace in a bucket after the whole chain, and how each command ended there."""

    s3: S3
    url: str
    said: Mapping[str, Said]
    idle: Mapping[str, Counter[str]]
    """The requests of each command with nothing to do, by kind."""
    fake: FakeLabelStudio
    scratch: Path

    @property
    def release(self) -> str:
        return f"{self.url}/releases/0.1"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    scratch = tmp_path_factory.mktemp("chain")
    fake = FakeLabelStudio()
    with pytest.MonkeyPatch.context() as patch, served(patch) as s3, fake.serve() as server:
        patch.setenv("AVATAR_LABEL_TOKEN", TOKEN)
        patch.chdir(scratch)
        shell, said = Shell(patch), {}
        url = f"{s3.make_bucket('chain')}/ws"
        videos, listed = draw(scratch)
        template = f"{videos}/{{video_id}}.mp4"
        release, to_server = f"{url}/releases/0.1", ("--url", server.url)

        def run(name: str, *words: str | Path, place: bool = True) -> None:
            where = ("--workspace", url) if place else ()
            said[name] = shell(*name.split(), *words, *where)

        run("init", url, "--profile", "offline", place=False)
        run("download", "--list", listed, "--source-template", template)
        for name in CHAIN:
            run(name, *(["--workers", "1"]))
        run("run", "--workers", "1")
        idle = {}
        for name in NOTHING_TO_DO:
            before = len(s3.requests)
            shell(*name.split(), "--workspace", url, "--workers", "1").check()
            idle[name] = s3.since(before)
        run("export", "--version", "0.1", "--unverified")
        for name in ("status", "failures", "doctor", "config show", "config validate"):
            run(name)
        run("report", "--clips")
        run("why", "dogInMeadow")
        run("retry", "--stage", "sample")
        run("label push", "boxes", *to_server)
        run("label status", *to_server)
        run("label pull", "boxes", *to_server)
        run("label report")
        run("label agreement")
        run("label serve")
        run("tune", url, place=False)
        settings = ("train.batch=2", "train.validation=0", "tavlo.imagenet=false")
        more = [word for one in settings for word in ("--set", one)]
        run("train-tavlo", "--data", release, "--out", "run", "--dry-run", *more, place=False)
        for name, words in {
            "release diff": (release, release),
            "fetch-media": (release,),
            "import-release": (release, "--to", "new"),
            "evaluate": ("--release", release, "--predictions", ".", "--out", "scores"),
            "evaluate-images": ("--release", release, "--out", "scores"),
            "synth": (f"{url}/world",),
            "demo": ("--workspace", url),
        }.items():
            run(name, *words, place=False)
        run("takedown", "dogInMeadow")
        yield Bucket(s3, url, said, idle, fake, scratch)


ELSEWHERE = {"label backend": "it runs until Ctrl-C: tests/labeling/test_backend.py"}
"""What the walk leaves out, and why."""

SHORT_OF_INPUT = {
    "tune": "it learns from people's reviews",
    "train-tavlo": "clips to train on",
    "label report": "",
}
"""Commands that work and for which this small workspace has too little; what they say of it."""


def test_the_list_of_what_works_on_a_store_is_true(bucket: Bucket) -> None:
    listed = dict(LISTED.findall((ROOT / "docs/object-stores.md").read_text(encoding="utf-8")))
    assert listed.keys() == ALL.keys()
    walked = {name for name, how in listed.items() if how != "of this machine"} - ELSEWHERE.keys()
    assert walked == bucket.said.keys()
    for name in walked:
        said = bucket.said[name]
        if listed[name] == "refused":
            said.one_line()
            assert "Traceback" not in said.err
        elif name in SHORT_OF_INPUT and said.code:
            assert SHORT_OF_INPUT[name] in said.one_line(), name
        else:
            assert said.code == 0, (name, said.err)


def test_commands_with_nothing_to_do_cost_few_requests_and_write_nothing(bucket: Bucket) -> None:
    for name, most in NOTHING_TO_DO.items():
        assert bucket.idle[name].total() <= most, (name, bucket.idle[name])
        assert bucket.idle[name].keys() == {"GET", "LIST"}, name


def test_the_rows_are_those_of_a_workspace_on_a_disk(bucket: Bucket, tmp_path: Path) -> None:
    # Rows of videos hold when and whence they were fetched.
    there, here = Workspace(bucket.url), run_flow(tmp_path).workspace
    for table in ("clips", "frames", "proposals", "instances", "masks"):
        assert len(there.arrow(table)) > 0
        assert there.digest(table) == here.digest(table), table


def test_a_release_in_a_bucket_is_verified_and_a_takedown_beside_it_is_seen(
    bucket: Bucket, shell: Shell
) -> None:
    said = shell("export", "--verify", bucket.release)
    assert said.code == 1
    assert "dogInMeadow: was taken down on" in said.err
    assert [line for line in said.err.splitlines() if "taken down" not in line] == [
        f"Error: {bucket.release}: 1 finding."
    ]
    storage = Workspace(bucket.url).storage
    whole = storage.read("releases/0.1/annotations/instances.json")
    storage.write("releases/0.1/annotations/instances.json", whole + b" ")
    try:
        assert "instances.json" in shell("export", "--verify", bucket.release).err
    finally:
        storage.write("releases/0.1/annotations/instances.json", whole)
    assert "No release at" in shell("export", "--verify", f"{bucket.url}/releases/9").one_line()


def test_the_report_plays_clips_that_lie_in_the_bucket(bucket: Bucket) -> None:
    storage = Workspace(bucket.url).storage
    page = storage.read("report.html").decode()
    films = set(re.findall(r"\./((?:media|releases)/[^\"&\\]+\.mp4)", page))
    assert films
    assert all(storage.exists(name) for name in films)


def test_annotators_see_pictures_by_addresses_that_are_renewed_before_they_end(
    bucket: Bucket, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVATAR_LABEL_TOKEN", TOKEN)
    digests = {frame.frame_id: frame.sha256 for frame in Workspace(bucket.url).rows(Frame)}
    assert len(bucket.fake.tasks) == len(digests)
    for task in bucket.fake.tasks.values():
        with urllib.request.urlopen(task["data"]["image"]) as opened:
            shown = hashlib.sha256(opened.read()).hexdigest()
        assert shown == digests[task["data"]["frame_id"]]
    first = min(bucket.fake.tasks)
    soon = datetime.now(UTC) + timedelta(days=1)
    bucket.fake.tasks[first]["meta"]["open_until"] = soon.isoformat()
    old = bucket.fake.tasks[first]["data"]["image"]
    with bucket.fake.serve() as server:
        said = shell("label", "push", "boxes", "--workspace", bucket.url, "--url", server.url)
    said.check()
    assert "1 given addresses anew" in said.out
    assert bucket.fake.tasks[first]["data"]["image"] != old
    assert datetime.fromisoformat(bucket.fake.tasks[first]["meta"]["open_until"]) > soon


def test_training_copies_each_clip_of_a_bucket_once_into_its_cache(
    bucket: Bucket, tmp_path: Path
) -> None:
    Workspace(bucket.url).storage.fetch_all("releases/0.1", tmp_path / "0.1")
    rules = ClipRules(min_frames=1)
    here, none = fill_cache(read_clips(tmp_path / "0.1"), tmp_path / "here", rules, 1)
    clips = read_clips(bucket.release)
    there, failed = fill_cache(clips, tmp_path / "there", rules, 1)
    assert (none, failed) == ({}, {})
    assert [clip.sha256 for clip in there] == [clip.sha256 for clip in here]
    before = len(bucket.s3.requests)
    again, _ = fill_cache(clips, tmp_path / "there", rules, 1)
    assert again == there
    assert not bucket.s3.since(before)
    Workspace(bucket.url).storage.remove(f"releases/0.1/{clips[0].path}")
    _, failed = fill_cache(clips, tmp_path / "third", rules, 1)
    assert list(failed) == [clips[0].clip_id]
    assert "no such file" in failed[clips[0].clip_id]
