"""Our object prior against what the authors' gave."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from tavlo.baselines.localiser import ObjectPrior, load_prior  # noqa: E402
from tests.tavlo import parity  # noqa: E402
from tests.tavlo.parity import assert_close  # noqa: E402


def test_the_map_and_the_heatmap_are_the_authors(tmp_path: Path) -> None:
    folder = parity.fixture("ogl")
    io = parity.arrays(folder)
    network = load_prior(parity.write_released(folder, tmp_path / "resnet18.pth"))
    maps = network(torch.from_numpy(io["image"].astype("float32"))).numpy()
    assert_close(maps[:, None], io["obj_map"])
    heatmaps = ObjectPrior(network).post.upsample(maps)
    assert_close(heatmaps[:, None], io["obj_up224_bilinear_ac_true"])
