"""The instances that follow from the reviews, by one rule.

Per frame one ``boxes`` review decides: a verified one before an unverified one, then the newest,
then the greatest review id. Its instances are the frame's when its decision is ``labelled``; any
other decision leaves the frame without.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.schema import Instance, Review, content_id


def deciding_reviews(reviews: Iterable[Review]) -> dict[str, Review]:
    """The ``boxes`` review that decides for each frame, by ``frame_id``, sorted."""
    chosen: dict[str, Review] = {}
    for review in reviews:
        if review.kind != "boxes":
            continue
        other = chosen.get(review.frame_id)
        if other is None or _rank(review) > _rank(other):
            chosen[review.frame_id] = review
    return dict(sorted(chosen.items()))


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


def _rank(review: Review) -> tuple[bool, str, str]:
    # ISO 8601 times in UTC sort as text.
    return review.verified, review.updated_at, review.review_id
