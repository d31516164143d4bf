"""The conformance suite of lmu-deploy on the chip, and a file of its own read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from halfchip.importer import HalfChipImporter
from halfchip.target import HalfChipTarget

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import LMUNetwork, LSTMLayer, Readout
from lmu_deploy.core.reference import run_reference
from targets.conformance import CASES, cases_for, maker

TARGET = HalfChipTarget()
MAKE = maker(LMUNetwork)


@pytest.mark.parametrize("name", cases_for(TARGET, LMUNetwork))
def test_conformance(name):
    CASES[name](TARGET, MAKE)


def test_an_lstm_is_refused():
    lstm = LSTMLayer(np.ones((1, 8)), np.ones((2, 8)), np.ones(8))
    network = LMUNetwork((lstm,), Readout(np.ones((2, 1)), None))
    with pytest.raises(InputError, match="layer 0 is an LSTM"):
        TARGET.run(network, np.ones((1, 3, 1)))


FILE = {
    "halfchip": 1,
    "order": 3,
    "theta": 6.0,
    "activation": "tanh",
    "input_encoders": [[1.0], [0.5]],
    "memory_kernel": [[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]],
    "readout": [[1.0], [2.0]],
}


@pytest.fixture
def read(tmp_path):
    """Write a file of the chip and read it."""

    def write_and_read(values):
        path = tmp_path / "n.json"
        path.write_text(json.dumps(values))
        return HalfChipImporter().read(path, None, {})

    return write_and_read


def test_states_have_sixteen_bits(read):
    states = TARGET.run(read(FILE), np.full((2, 30, 2), 0.7), record=True).states
    for values in (states.m, states.h, states.y):
        assert np.array_equal(values, values.astype(np.float16))


def test_a_file_is_read(read):
    network = read(FILE)
    assert (network.n_in, network.n_out, network.layers[0].memory.theta) == (2, 1, 6.0)
    outputs = run_reference(network, np.ones((1, 4, 2))).outputs
    assert outputs.shape == (1, 1)


@pytest.mark.parametrize(
    "change",
    [{"order": "many"}, {"readout": [[1.0], ["x"]]}, {"halfchip": 2}, {"input_encoders": 3}],
)
def test_a_wrong_file_is_refused(read, change):
    with pytest.raises(InputError):
        read({**FILE, **change})


def test_a_missing_field_is_named(read):
    with pytest.raises(InputError, match="fields: theta"):
        read({name: value for name, value in FILE.items() if name != "theta"})
