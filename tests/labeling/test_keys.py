"""The keys a page tells its annotators are those it has."""

from __future__ import annotations

import re

import pytest

from labeling.projects.labeling_config import keys_html, layout
from labeling.projects.mask_project import BOX_KEYS, MASK_KEYS, POINT_KEYS


@pytest.mark.parametrize("name", ["boxes", "clips", "masks", "mask_clips"])
def test_every_key_of_a_status_or_scenario_is_told(name: str) -> None:
    told = {key.lower() for key in re.findall(r"<kbd>(.)</kbd>", keys_html(name))}
    typed = {key for key in layout(name).hotkeys if len(key) == 1 and key.isalnum()}
    assert typed <= told


@pytest.mark.parametrize("name", ["masks", "mask_clips"])
def test_the_keys_of_things_are_told(name: str) -> None:
    told = set(re.findall(r"<kbd>(.)</kbd>", keys_html(name)))
    assert {*POINT_KEYS, *BOX_KEYS, MASK_KEYS[0], MASK_KEYS[-1]} <= told
