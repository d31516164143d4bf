"""Networks in the code of other authors run in integers, and every executor agrees."""

import shutil
from collections.abc import Callable

import numpy as np
import pytest
from equal_runs import differences
from torch_lmus import NETWORKS, RECORDED, loaded

from converters.pytorch import from_torch
from converters.quantize import quantize
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.linear import Conv1d
from targets.base import Target
from targets.c import CTarget
from targets.integer import IntegerTarget
from targets.lava import LavaTarget
from targets.onnxruntime import OnnxRuntimeTarget

STEPS, SAMPLES = 40, 2


def frames(network, name):
    x = RECORDED[f"{name}/x"][:SAMPLES]
    if network.provenance["input layout"] == "batch features steps":
        x = x.swapaxes(1, 2)
    return x[:, :STEPS]


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    network = from_torch(loaded(request.param, NETWORKS[request.param]()))
    x = frames(network, request.param)
    integer = quantize(network, x)
    return network, integer, x, IntegerTarget("numpy").run(integer, x, record=True)


TARGETS: dict[str, Callable[[], Target]] = {
    "torch": lambda: IntegerTarget("torch"),
    "numba": lambda: IntegerTarget("numba"),
    "onnxruntime": OnnxRuntimeTarget,
    "c": CTarget,
    "lava": LavaTarget,
}
FORMER = "lmuformer"
SLOW = {"numba", "lava"}
"""They run LMUFormer alone, which has convolutions."""
RUNS = [(n, t) for n in NETWORKS for t in TARGETS if t not in SLOW or n == FORMER]


@pytest.mark.parametrize(("case", "target"), RUNS, indirect=["case"])
def test_every_executor_agrees(case, target):
    network, integer, x, expected = case
    if target in SLOW:
        assert any(isinstance(node.operator, Conv1d) for node in network.nodes)
    if target == "c" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    found = differences(expected, TARGETS[target]().run(integer, x, record=True))
    if target == "c":  # its code saturates as the others do, without counting
        found = [name for name in found if name != "saturations"]
    assert not found


def test_nothing_runs_on_the_host_and_answers_are_near(case):
    network, integer, x, found = case
    assert not integer.on_host
    answers = run(network, x)
    error = np.abs(found.outputs - answers).max() / np.abs(answers).max()
    assert error < 0.1
