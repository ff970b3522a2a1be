"""The instances that follow from the reviews: those of each frame's deciding review.

Which review decides is said in ``pipeline.records.reviews``. Its instances are the frame's when its
decision is ``labelled``; any other decision leaves the frame without.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.records.reviews import by_frame, deciding
from pipeline.records.schema import Instance, Review, content_id


def deciding_reviews(reviews: Iterable[Review]) -> dict[str, Review]:
    """The ``boxes`` review that decides for each frame, by ``frame_id``, sorted."""
    found = {name: deciding(rows) for name, rows in sorted(by_frame(reviews).items())}
    return {name: review for name, review in found.items() if review is not None}


def derive_instances(reviews: Iterable[Review]) -> list[Instance]:
    """All instances, by frame and in the order of their review.

    An id is made from frame, box, category and scenario, so the same decision made twice gives the
    same instance, and a box listed twice in one review is one instance.
    """
    instances: dict[str, Instance] = {}
    for review in deciding_reviews(reviews).values():
        if review.decision != "labelled":
            continue
        for found in review.instances:
            name = content_id("i", review.frame_id, found.bbox, found.category, found.scenario)
            instance = Instance(
                instance_id=name,
                frame_id=review.frame_id,
                bbox=found.bbox,
                audio_visual_category=found.category,
                scenario=found.scenario,
                review_ids=[review.review_id],
                proposal_id=found.proposal_id,
                verified=review.verified,
            )
            instances.setdefault(name, instance)
    return list(instances.values())


def every_instance(reviews: Iterable[Review]) -> dict[str, Instance]:
    """What any review of boxes ever said was an instance, by id; few of them are so now."""
    boxes = [review for review in reviews if review.kind == "boxes"]
    return {row.instance_id: row for review in boxes for row in derive_instances([review])}
