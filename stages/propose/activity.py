"""The active target categories, by what a tagger heard in its own classes (paper 3.1.3).

Cheap and without a model: a changed threshold is applied to the classes the ``sounds`` table
keeps. A category is as loud as the loudest AudioSet class that activates it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import HearConfig
from pipeline.errors import UsageError
from pipeline.records.schema import SoundCategory, SoundClass
from stages.taxonomy import Taxonomy, audioset_classes


def active_categories(
    classes: Sequence[SoundClass], taxonomy: Taxonomy, config: HearConfig
) -> list[SoundCategory]:
    """Return the categories the classes speak for, loudest first, equals in the taxonomy's order.

    A class that activates no category (Music, Speech, Siren) plays no part, so a generic class
    that drowns the specific one does not silence it.

    Args:
        classes: AudioSet classes with scores in [0, 1].
        taxonomy: the target categories.
        config: its ``active_*`` settings are the rule.

    Returns:
        Every category with a class among ``classes``, active or not.
    """
    target = {one.name: one.score for one in classes if taxonomy.of_audioset(one.name)}
    strongest = max(target.values(), default=0.0)
    ranked = sorted(target, key=lambda name: -target[name])
    first = {name for name in ranked if ranked.index(name) < config.active_top_k}
    score: dict[str, float] = {}
    active: set[str] = set()
    for name, value in target.items():
        if name in config.active_scores:
            loud = value >= config.active_scores[name]
        else:
            near = config.active_relative > 0 and value >= config.active_relative * strongest
            loud = value >= config.active_score or (
                (near or name in first) and value >= config.active_floor
            )
        for category in taxonomy.of_audioset(name):
            score[category] = max(score.get(category, 0.0), value)
            if loud:
                active.add(category)
    order = {category.name: place for place, category in enumerate(taxonomy.categories)}
    return [
        SoundCategory(category=name, score=score[name], active=name in active)
        for name in sorted(score, key=lambda name: (-score[name], order[name]))
    ]


def check_active_scores(config: HearConfig) -> None:
    """Refuse a threshold of a class that AudioSet does not have.

    Raises:
        UsageError: naming it.
    """
    for name in config.active_scores:
        if name not in audioset_classes():
            raise UsageError(
                f"hear.active_scores: {name!r} is not one of AudioSet's 527 classes; names are"
                " exact, see audioset_classes.csv."
            )
