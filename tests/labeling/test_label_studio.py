"""Against a real Label Studio: what is sent arrives, and what people decide comes back."""

from __future__ import annotations

import http.client
import json
import stat
from typing import Any
from urllib.parse import urlsplit

import pytest

from labeling.label_studio.client import LabelServerError, LabelStudio
from labeling.sync.project_status import project_statuses
from pipeline.errors import UsageError
from pipeline.records.schema import Instance, Proposal, Review
from tests.labeling.conftest import Studio
from tests.labeling.exchange import accepted, choice, frame_of, pull, push, submit
from tests.labeling.labelled_workspace import name

pytestmark = [pytest.mark.labelstudio, pytest.mark.slow]


@pytest.fixture(scope="module")
def pushed(studio: Studio) -> dict[str, dict[str, Any]]:
    """The tasks by frame, as the server has them after two pushes."""
    first = push(studio.workspace, studio.api)
    assert (first.new, first.skipped) == (6, [])
    second = push(studio.workspace, studio.api)
    assert (second.new, second.known, second.doubled) == (0, 6, 0)
    tasks = studio.api.tasks(first.project.number)
    return {str(frame_of(task)): task for task in tasks}


def instances(studio: Studio, index: int) -> list[Instance]:
    return [row for row in studio.workspace.rows(Instance) if row.frame_id == name(index)]


def reviews(studio: Studio, index: int) -> list[Review]:
    found = [row for row in studio.workspace.rows(Review) if row.frame_id == name(index)]
    return sorted(found, key=lambda row: row.updated_at)


def test_a_prediction_arrives_field_by_field(
    studio: Studio, pushed: dict[str, dict[str, Any]]
) -> None:
    task = pushed[name(10)]
    assert [item["value"] for item in task["data"]["categories"]] == ["dog", "cat", "lion"]
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "avatar-build"
    box, scenario, status = prediction["result"]
    assert (box["id"], box["score"], box["from_name"]) == ("p_10", 0.8, "category")
    assert box["value"]["rectanglelabels"] == ["dog"]
    assert scenario["value"]["choices"] == ["Single-sound"]
    assert status["value"]["choices"] == ["Visible"]


def test_the_server_gives_frames_and_clips_to_those_who_may_see_them(
    studio: Studio, pushed: dict[str, dict[str, Any]]
) -> None:
    data = pushed[name(10)]["data"]
    loop = data["clips_html"].split('src="')[1].split('"')[0]
    for address, kind in ((data["image"], b"\x89PNG"), (loop, b"\x00\x00\x00")):
        assert fetch(studio, address, {"Authorization": f"Token {studio.token}"})[:3] == kind[:3]
        with pytest.raises(PermissionError):
            fetch(studio, address, {})
    part = {"Authorization": f"Token {studio.token}", "Range": "bytes=0-9"}
    assert len(fetch(studio, loop, part)) == 10


def fetch(studio: Studio, address: str, headers: dict[str, str]) -> bytes:
    where = urlsplit(studio.api.url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=30)
    connection.request("GET", address, headers=headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    if answer.status not in (200, 206):
        raise PermissionError(answer.status)
    return data


def test_an_accepted_frame_comes_back_field_by_field(
    studio: Studio, pushed: dict[str, dict[str, Any]]
) -> None:
    annotation = submit(studio.api, pushed[name(10)], accepted(pushed[name(10)]))
    assert pull(studio.workspace, studio.api).new == 1
    (review,) = reviews(studio, 10)
    assert (review.kind, review.decision, review.verified) == ("boxes", "labelled", True)
    assert review.annotator == str(annotation["completed_by"])
    assert review.lead_time_s == 3.5
    assert review.annotation_id.endswith(f"/{annotation['id']}@{annotation['created_at']}")
    assert review.updated_at[:19] == annotation["updated_at"][:19]
    (proposal,) = [row for row in studio.workspace.rows(Proposal) if row.frame_id == name(10)]
    (found,) = instances(studio, 10)
    assert found.bbox == proposal.bbox
    assert (found.audio_visual_category, found.scenario) == ("dog", "Single-sound")
    assert (found.proposal_id, found.verified) == ("p_10", True)
    before = studio.workspace.digest("reviews")
    assert pull(studio.workspace, studio.api).new == 0
    assert studio.workspace.digest("reviews") == before


def test_moved_added_and_removed_boxes_are_told_apart(
    studio: Studio, pushed: dict[str, dict[str, Any]]
) -> None:
    moved = json.loads(json.dumps(accepted(pushed[name(11)])).replace("31.25", "62.5"))
    submit(studio.api, pushed[name(11)], moved)
    drawn = json.loads(json.dumps(accepted(pushed[name(12)])).replace('"p_12"', '"drawn"'))
    submit(studio.api, pushed[name(12)], drawn)
    pull(studio.workspace, studio.api)
    (first,) = reviews(studio, 11)[0].instances
    assert (first.origin, first.proposal_id, first.bbox[2]) == ("moved", "p_11", 200.0)
    (second,) = reviews(studio, 12)[0].instances
    assert (second.origin, second.proposal_id) == ("added", None)


def test_edits_skips_and_deletes_are_seen(
    studio: Studio, pushed: dict[str, dict[str, Any]]
) -> None:
    task = pushed[name(13)]
    annotation = submit(studio.api, task, accepted(task))
    pull(studio.workspace, studio.api)
    place = f"/api/annotations/{annotation['id']}/"
    relabelled = json.loads(json.dumps(accepted(task)).replace('["dog"]', '["cat"]'))
    studio.api.call("PATCH", place, {"result": relabelled})
    assert pull(studio.workspace, studio.api).edited == 1
    assert [row.audio_visual_category for row in instances(studio, 13)] == ["cat"]
    studio.api.call("PATCH", place, {"was_cancelled": True})
    assert pull(studio.workspace, studio.api).taken_back == 1
    assert instances(studio, 13) == []
    studio.api.call("PATCH", place, {"was_cancelled": False})
    assert pull(studio.workspace, studio.api).edited == 1
    studio.api.call("DELETE", place)
    assert pull(studio.workspace, studio.api).taken_back == 1
    assert pull(studio.workspace, studio.api).taken_back == 0
    assert instances(studio, 13) == []


def test_the_server_checks_nothing_and_we_list_it(
    studio: Studio, pushed: dict[str, dict[str, Any]]
) -> None:
    task = pushed[name(14)]
    unknown = json.loads(json.dumps(accepted(task)).replace('["dog"]', '["unicorn"]'))
    annotation = submit(studio.api, task, unknown)
    found = pull(studio.workspace, studio.api)
    assert [frame_id for frame_id, _ in found.bad] == [name(14)]
    assert f"/data?task={task['id']}" in found.bad[0][1]
    studio.api.call("PATCH", f"/api/annotations/{annotation['id']}/", {"result": accepted(task)})
    assert pull(studio.workspace, studio.api).new == 1
    assert studio.workspace.ledger("pull").failures() == []


def test_off_screen_comes_back_with_its_category(
    studio: Studio, pushed: dict[str, dict[str, Any]]
) -> None:
    said = [
        {**choice(control, value), "to_name": "frame"}
        for control, value in (("status", "Off-screen"), ("off_screen_category", "lion"))
    ]
    submit(studio.api, pushed[name(15)], said)
    pull(studio.workspace, studio.api)
    (review,) = reviews(studio, 15)
    assert (review.decision, review.off_screen_category) == ("off_screen", "lion")


def test_the_standing_counts_what_was_done(
    studio: Studio, pushed: dict[str, dict[str, Any]]
) -> None:
    found, of_masks = project_statuses(studio.workspace, studio.api)
    assert (of_masks.tasks, of_masks.seconds_per_task) == (0, None)
    assert found.tasks == len(pushed) == found.to_do + found.done
    assert found.done >= 1
    assert found.seconds_per_task == 3.5


def test_a_personal_token_works_as_well(studio: Studio, pushed: dict[str, dict[str, Any]]) -> None:
    token = studio.api.call("POST", "/api/token/")["token"]
    personal = LabelStudio(studio.api.url, token)
    assert personal.check() == studio.api.check()
    assert push(studio.workspace, personal).new == 0


def test_refusals_are_one_line(studio: Studio) -> None:
    with pytest.raises(UsageError, match="token was refused"):
        LabelStudio(studio.api.url, "f" * 40).check()
    with pytest.raises(LabelServerError, match="title"):
        studio.api.create_project(title="x")


def test_secrets_are_the_owners_alone(studio: Studio) -> None:
    home = studio.workspace.storage.path("label-studio")
    for name_ in ("token", "password"):
        assert stat.S_IMODE((home / name_).stat().st_mode) == 0o600
    assert studio.token not in (home / "server.log").read_text(encoding="utf-8")
