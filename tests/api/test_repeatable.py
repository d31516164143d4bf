"""The same command gives the same figures: all of fidelity.json but dates and times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lmu_deploy.api.validate import validate
from lmu_deploy.report import write

DIGITS = Path(__file__).resolve().parents[2] / "examples/models/digits.safetensors"
TIMES = {"date", "wall_seconds"}


def timeless(value):
    """The file without dates and times."""
    if isinstance(value, dict):
        return {name: timeless(v) for name, v in value.items() if name not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


# Tests that share an expensive fixture run in one worker.
pytestmark = pytest.mark.xdist_group("repeatable")


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Folders of two validations; their pages are not drawn, as that is tested with reports."""
    folders = [tmp_path_factory.mktemp("validated") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(write, "make_html", lambda *_, **__: "drawn")
        for folder in folders:
            validate(
                DIGITS, targets="integer,onnxruntime,spiking", out=folder, limit=12, attribution=4
            )
    return folders


def read(folder):
    return json.loads((folder / "fidelity.json").read_text(encoding="utf-8"))


def test_every_figure_is_the_same(twice):
    one, other = map(read, twice)
    assert timeless(one) == timeless(other)
    assert {"integer", "onnxruntime", "spiking"} == set(one["targets"])
    assert one["targets"]["integer"]["attribution"] is not None
    assert one["targets"]["integer"]["costs"] is not None
    assert timeless(one) != one


def test_networks_and_rasters_are_the_same(twice):
    names = sorted(path.name for path in twice[0].glob("*.safetensors"))
    assert names == sorted(path.name for path in twice[1].glob("*.safetensors"))
    for name in names:
        assert (twice[0] / name).read_bytes() == (twice[1] / name).read_bytes()
    with np.load(twice[0] / "plots.npz") as one, np.load(twice[1] / "plots.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])
