"""Masks follow the reviews, and the segmenter's own come back when a review no longer counts."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labeling.review.instances import bring_instances_up_to_date, deciding_reviews
from labeling.review.verified_masks import bring_masks_up_to_date
from pipeline.records import rle
from pipeline.records.schema import LATER_COLUMNS, Instance, Mask, Review
from pipeline.run.history import history
from pipeline.workspace.workspace import Workspace
from tests.labeling.labelled_workspace import add_reviews, commit, mask_of, review, sample

SIZE = (18, 32)
BY_HAND = {"source": "annotator", "model_digest": "", "predicted_iou": None, "stability": None}


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    """Two frames with an instance each, segmented."""
    sample(workspace, "f1", "f2")
    add_reviews(workspace, review("f1", "dog", 1), review("f2", "cat", 1))
    bring_instances_up_to_date(workspace)
    segment(workspace)
    return workspace


def square(left: int) -> Any:
    mask = np.zeros(SIZE, dtype=bool)
    mask[2:8, left : left + 6] = True
    return mask


def segmented(instance: Instance, left: int = 4) -> Mask:
    by = {"source": "sam-vit-h", "model_digest": "abc", "predicted_iou": 0.9, "stability": 0.8}
    return mask_of(instance, square(left), **by)


def segment(workspace: Workspace, stage: str = "segment", left: int = 4) -> None:
    masks = [segmented(row, left) for row in workspace.rows(Instance)]
    commit(workspace, stage, Mask, masks)


def instance(workspace: Workspace, frame: str) -> Instance:
    (found,) = [row for row in workspace.rows(Instance) if row.frame_id == frame]
    return found


def about_masks(
    workspace: Workspace, frame: str, day: int, left: int | None = 9, **changes: Any
) -> Review:
    """A review of a frame's mask: painted anew at ``left``, or accepted where it is none."""
    row = instance(workspace, frame)
    spoken: dict[str, Any] = {
        "bbox": row.bbox,
        "category": row.audio_visual_category,
        "scenario": row.scenario,
        "origin": "kept" if left is None else "moved",
        "proposal_id": None,
        "instance_id": row.instance_id,
        "rle": rle.encode(square(4 if left is None else left)),
    }
    if left is None:
        shown = segmented(row)
        spoken["drawn_by"] = {
            name: getattr(shown, name)
            for name in ("source", "model_digest", "predicted_iou", "stability")
        }
    values = {"kind": "masks", "instances": [spoken], "review_id": f"m_{frame}_{day}"}
    return review(frame, "", day, **(values | {"annotation_id": f"m{day}"} | changes))


def masks(workspace: Workspace) -> dict[str, Mask]:
    return {row.frame_id: row for row in workspace.rows(Mask)}


def on_disk(workspace: Workspace) -> list[str]:
    """What anybody who reads the folder finds."""
    folder = Path(workspace.storage.url) / "tables" / "masks"
    files = sorted(folder.glob("*.parquet"))
    return sorted(name for file in files for name in pq.read_table(file)["instance_id"].to_pylist())


def test_without_reviews_of_masks_nothing_is_made(workspace: Workspace) -> None:
    assert bring_masks_up_to_date(workspace) == 0
    assert workspace.ledger("settle-masks").commits() == []
    assert not workspace.storage.exists("commits/settle-masks/units")


def test_a_painted_mask_stands_in_the_segmenters_place(workspace: Workspace) -> None:
    add_reviews(workspace, about_masks(workspace, "f1", 2))
    assert bring_masks_up_to_date(workspace) == 1
    found = masks(workspace)
    assert (found["f1"].source, found["f1"].verified, found["f1"].model_digest) == (
        "annotator",
        True,
        "",
    )
    assert (rle.decode(found["f1"].rle) == square(9)).all()
    assert (found["f1"].area, found["f1"].bbox) == (36, [9.0, 2.0, 6.0, 6.0])
    assert found["f2"] == segmented(instance(workspace, "f2"))
    assert on_disk(workspace) == sorted(row.instance_id for row in found.values())
    assert bring_masks_up_to_date(workspace) == 0


def test_an_accepted_mask_stays_the_segmenters_and_is_verified(workspace: Workspace) -> None:
    before = masks(workspace)["f1"]
    add_reviews(workspace, about_masks(workspace, "f1", 2, left=None))
    bring_masks_up_to_date(workspace)
    assert masks(workspace)["f1"] == before.model_copy(update={"verified": True})


def test_a_newer_review_decides_and_taking_it_back_brings_the_segmenters_mask_back(
    workspace: Workspace,
) -> None:
    before = workspace.digest("masks")
    for day, left in ((2, 9), (3, 12)):
        add_reviews(workspace, about_masks(workspace, "f1", day, left))
        assert bring_masks_up_to_date(workspace) == 1
        assert masks(workspace)["f1"].bbox[0] == left
    back = {"decision": "back_to_boxes", "instances": [], "reject_reasons": ["annotation deleted"]}
    for day in (2, 3):
        gone: dict[str, Any] = {**back, "review_id": f"w_{day}", "updated_at": f"2026-02-{day:02d}"}
        add_reviews(workspace, about_masks(workspace, "f1", day, **gone))
    bring_masks_up_to_date(workspace)
    assert workspace.digest("masks") == before
    assert len(on_disk(workspace)) == 2
    assert not workspace.storage.names("commits/settle-masks/aside")


@pytest.mark.parametrize("decision", ["rejected", "back_to_boxes"])
def test_a_frame_that_is_not_done_has_no_verified_mask(workspace: Workspace, decision: str) -> None:
    add_reviews(workspace, about_masks(workspace, "f1", 2))
    bring_masks_up_to_date(workspace)
    add_reviews(workspace, about_masks(workspace, "f1", 3, decision=decision, instances=[]))
    bring_masks_up_to_date(workspace)
    assert not any(row.verified for row in workspace.rows(Mask))


def test_a_mask_nobody_segmented_is_kept_and_gives_way_to_none(workspace: Workspace) -> None:
    ledger = workspace.ledger("segment")
    ledger.retire(ledger.commits(), "gone")
    add_reviews(workspace, about_masks(workspace, "f1", 2))
    assert bring_masks_up_to_date(workspace) == 1
    assert list(masks(workspace)) == ["f1"]
    segment(workspace, "segment-again")
    bring_masks_up_to_date(workspace)
    assert masks(workspace)["f1"].source == "annotator"
    assert len(on_disk(workspace)) == 2


def test_another_run_of_the_segmenter_changes_no_verified_mask(workspace: Workspace) -> None:
    add_reviews(workspace, about_masks(workspace, "f1", 2))
    bring_masks_up_to_date(workspace)
    ledger = workspace.ledger("segment")
    ledger.retire(ledger.commits(), "other settings")
    segment(workspace, "segment-again", left=14)
    assert len(workspace.rows(Mask)) == 2, (
        "no instance has two masks, also before it is brought up to date"
    )
    assert bring_masks_up_to_date(workspace) == 1
    found = masks(workspace)
    assert (found["f1"].source, found["f2"].bbox[0]) == ("annotator", 14.0)
    assert len(on_disk(workspace)) == 2
    assert bring_masks_up_to_date(workspace) == 0


def test_a_mask_of_an_instance_that_is_no_more_waits_for_it(workspace: Workspace) -> None:
    add_reviews(workspace, about_masks(workspace, "f1", 2))
    bring_masks_up_to_date(workspace)
    add_reviews(workspace, review("f1", "lion", 3))
    bring_instances_up_to_date(workspace)
    bring_masks_up_to_date(workspace)
    assert not any(row.verified for row in workspace.rows(Mask))
    add_reviews(workspace, review("f1", "dog", 4))
    bring_instances_up_to_date(workspace)
    bring_masks_up_to_date(workspace)
    assert masks(workspace)["f1"].verified


@pytest.mark.parametrize("moves", range(5))
def test_a_crash_anywhere_leaves_every_instance_its_one_mask(
    workspace: Workspace, moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_reviews(workspace, about_masks(workspace, "f1", 2))
    bring_masks_up_to_date(workspace)
    add_reviews(workspace, about_masks(workspace, "f1", 3, 12))
    done, real = [0], workspace.storage.move

    def dies(source: str, target: str) -> None:
        if done[0] == moves:
            raise KeyboardInterrupt
        done[0] += 1
        real(source, target)

    monkeypatch.setattr(workspace.storage, "move", dies)
    with pytest.raises(KeyboardInterrupt):
        bring_masks_up_to_date(workspace)
    monkeypatch.undo()
    again = Workspace(workspace.storage.url)
    bring_masks_up_to_date(again)
    assert masks(again)["f1"].bbox[0] == 12
    assert on_disk(again) == sorted(row.id for row in again.rows(Mask))
    assert len(on_disk(again)) == 2


@pytest.mark.parametrize("seed", range(3))
def test_each_frame_has_the_masks_of_its_newest_review_that_counts(
    workspace: Workspace, seed: int
) -> None:
    rng = random.Random(seed)
    sample(workspace, "f3", "f4", "f5")
    add_reviews(workspace, *(review(frame, "dog", 1) for frame in ("f3", "f4", "f5")))
    bring_instances_up_to_date(workspace)
    new = [row for row in workspace.rows(Instance) if row.frame_id in ("f3", "f4")]
    commit(workspace, "segment", Mask, [segmented(row) for row in new])  # f5 is painted, or not
    for day in rng.sample(range(2, 28), 5):
        frames = rng.sample(["f1", "f2", "f3", "f4", "f5"], 3)
        said = [
            about_masks(workspace, frame, day, rng.choice([None, 9, 12]), annotation_id=frame + who)
            for frame, who in zip(frames, rng.choices("ab", k=3), strict=True)
        ]
        said[0] = said[0].model_copy(
            update={"decision": rng.choice(["rejected", "labelled"]), "instances": []}
        )
        add_reviews(workspace, *said)
        bring_masks_up_to_date(workspace)
        expected = {
            row.frame_id: segmented(row) for row in workspace.rows(Instance) if row.frame_id != "f5"
        }
        for frame, one in deciding_reviews(workspace.rows(Review), "masks").items():
            for spoken in one.instances:
                shown = spoken.drawn_by.model_dump() if spoken.drawn_by else BY_HAND
                assert spoken.rle is not None
                changes = {"rle": spoken.rle, "bbox": rle.bbox(spoken.rle), "verified": True}
                whole = segmented(instance(workspace, frame))
                expected[frame] = whole.model_copy(update={**changes, **shown})
        assert masks(workspace) == expected
        assert on_disk(workspace) == sorted(row.id for row in expected.values())


def test_why_tells_who_made_a_mask_and_who_spoke_of_it(workspace: Workspace) -> None:
    add_reviews(
        workspace, about_masks(workspace, "f1", 2), about_masks(workspace, "f2", 2, left=None)
    )
    bring_masks_up_to_date(workspace)
    for frame, maker in (("f1", "settle-masks"), ("f2", "segment")):
        steps, _ = history(workspace, instance(workspace, frame).instance_id)
        made = {step.record.table: step.commit.stage for step in steps if step.commit}
        assert made["masks"] == maker
        kinds = [step.record.kind for step in steps if isinstance(step.record, Review)]
        assert kinds == ["masks", "boxes"]


def test_reviews_written_before_masks_had_words_of_their_own_are_still_read(
    workspace: Workspace,
) -> None:
    file = workspace.files("reviews")[0].file
    path = workspace.storage.path(file)
    table = pq.ParquetFile(path).read()
    place = table.schema.get_field_index("instances")
    kind = table.schema.field(place).type.value_type
    known = [kind.field(number) for number in range(kind.num_fields)]
    known = [field for field in known if field.name not in LATER_COLUMNS]
    rows = [
        [{field.name: one[field.name] for field in known} for one in row]
        for row in table.column("instances").to_pylist()
    ]
    old = pa.array(rows, pa.list_(pa.struct(known)))
    older = table.set_column(place, "instances", old).drop_columns(["purpose"])
    pq.write_table(older, path)
    (made,) = workspace.storage.path("commits/pull/units").iterdir()
    told = json.loads(made.read_bytes())
    del told["digest"]  # commits as old have none
    told["files"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    made.write_text(json.dumps(told))
    workspace = Workspace(workspace.storage.url)
    add_reviews(workspace, about_masks(workspace, "f1", 2))
    whole = workspace.arrow("reviews")
    assert len(whole) == 3
    assert set(whole.column("purpose").to_pylist()) == {"label"}
