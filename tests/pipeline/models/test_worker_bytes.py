"""The memory a worker is said to take, against what was measured of each backend."""

from __future__ import annotations

import json

import pytest

from pipeline.config import HearConfig, ProposeConfig, SegmentConfig
from pipeline.models.catalogue import worker_bytes
from stages.propose.propose_boxes import ProposeBoxes
from stages.propose.tag_sounds import TagSounds
from stages.segment.segment_instances import SegmentInstances
from tests.conftest import ROOT

MEASURED = {
    name: row["peak_memory_mb"]
    for name, row in json.loads((ROOT / "benchmarks/results/models.json").read_text())[
        "cpu_one_thread"
    ].items()
}


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_it_is_enough_and_not_twice_what_was_measured(name: str) -> None:
    said = worker_bytes([name])
    if name.endswith("-link"):
        model = name.removesuffix("-link")
        config = ProposeConfig.model_validate({"link": "sam2", "link_model": model})
        said = ProposeBoxes(config).memory_bytes()
    assert MEASURED[name] <= said / 1e6 <= 2 * MEASURED[name]


def test_every_stage_that_loads_models_says_so_of_those_its_settings_name() -> None:
    hear = TagSounds(HearConfig(tagger="efficientat-mn10-as"))
    propose = ProposeBoxes(ProposeConfig(detectors=["motion", "yolox-nano", "yolox-tiny"]))
    segment = SegmentInstances(SegmentConfig(segmenter="sam-vit-h"))
    found = [round(stage.memory_bytes() / 1e6) for stage in (hear, propose, segment)]
    assert found == [1_020, 1_524, 4_565]
    assert ProposeBoxes(ProposeConfig(detectors=["motion"])).memory_bytes() == 0
