"""integer_network.py: what is no integer network is refused by name when it is built."""

from dataclasses import replace

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save, to_tree
from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.layered import (
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerReadout,
    LayeredNetwork,
)
from lmu_deploy.core.integer.network import INTEGER_CLASSES, IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format, largest


def connection(n_out, n_in, slices=1):
    rows = (slices, n_out)
    return Connection(
        np.ones((slices, n_out, n_in), np.int8), np.ones(rows, np.int32), np.zeros(rows, np.int32)
    )


STATE, MESSAGE = Format(24, 2.0**-20), Format(12, 2.0**-8)
LINES = PiecewiseLinear(np.array([64, 32]), np.array([0, 10]), 6, "odd")
MEMORY = IntegerMemory(
    state=STATE,
    message=MESSAGE,
    message_shift=12,
    recurrent=connection(4, 4, slices=2),
    input=connection(4, 2),
    hidden=connection(4, 3),
    bias=np.array([1, -1, 0, 5]),
)
HIDDEN = IntegerHidden(
    drive=Format(24, 2.0**-12),
    message=Format(8, 2.0**-7),
    memory=connection(3, 4),
    input=connection(3, 2),
    recurrent=connection(3, 3),
    bias=None,
    activation=LINES,
)
LAYER = IntegerLayer(MEMORY, HIDDEN)
READOUT = IntegerReadout(connection(5, 3), np.zeros(5, np.int64), Format(24, 2.0**-10))
NETWORK = LayeredNetwork(Format(12, 2.0**-10), (LAYER,), READOUT).graph()


def test_sizes_follow_from_the_connections():
    assert (NETWORK.n_in, NETWORK.n_out) == (2, 5)
    assert (LAYER.n_in, LAYER.n_out, MEMORY.size, HIDDEN.units) == (2, 3, 4, 3)
    assert LAYER.output is HIDDEN.message
    alone = IntegerLayer(replace(MEMORY, hidden=None), None)
    assert (alone.n_out, alone.output) == (4, MESSAGE)


def test_formats_are_symmetric():
    assert [largest(bits) for bits in (2, 8, 24, 32)] == [1, 127, 2**23 - 1, 2**31 - 1]
    assert Format(8, 0.5).limit == 127


def test_fan_out_counts_nonzero_weights():
    slices = np.array([[[0, 1, 2], [0, 0, 3]], [[0, 0, 0], [0, 4, 0]]])
    ones, zeros = np.ones((2, 2), int), np.zeros((2, 2), int)
    assert Connection(slices, ones, zeros).fan_out.tolist() == [0, 2, 2]


def test_arrays_are_narrowed_to_small_types():
    big = Connection(np.full((1, 2, 2), -127), np.full((1, 2), 32767), np.full((1, 2), 31))
    assert (big.slices.dtype, big.multiplier.dtype, big.shift.dtype) == ("i1", "i4", "i4")
    assert big.slices.min() == -127
    assert MEMORY.bias.dtype == np.int32


def test_round_trip_through_a_file(tmp_path):
    save(NETWORK, tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors", INTEGER_CLASSES)
    tree, tensors = to_tree(NETWORK)
    loaded_tree, loaded_tensors = to_tree(loaded)
    assert type(loaded) is IntegerNetwork
    assert tree == loaded_tree
    for name, array in tensors.items():
        assert array.dtype == loaded_tensors[name].dtype
        np.testing.assert_array_equal(array, loaded_tensors[name])


CONNECTION = connection(2, 2)
WRONG = {
    "bits": (STATE, {"bits": 1}, "format bits is 1"),
    "bits too many": (STATE, {"bits": 33}, "outside 2 to 32"),
    "scale": (STATE, {"scale": 0.0}, "format scale is 0"),
    "float weights": (CONNECTION, {"slices": np.ones((1, 2, 2))}, "signed integer"),
    "weight of -128": (
        CONNECTION,
        {"slices": np.full((1, 2, 2), -128, np.int8)},
        "entries from -128 to -128; they must lie in -127 to 127",
    ),
    "weight beyond its bits": (
        CONNECTION,
        {"slices": np.full((1, 2, 2), 8), "weight_bits": 4},
        "8 to 8; they must lie in -7 to 7",
    ),
    "weight that int8 would wrap": (
        CONNECTION,
        {"slices": np.full((1, 2, 2), 256 + 1)},
        "entries from 257",
    ),
    "weight bits": (CONNECTION, {"weight_bits": 9}, "weight_bits is 9"),
    "accumulator": (CONNECTION, {"accumulator_bits": 33}, "accumulator_bits is 33"),
    "no slices": (
        CONNECTION,
        {"slices": np.ones((0, 2, 2), np.int8)},
        "0 slices; give 1 to 4",
    ),
    "five slices": (CONNECTION, {"slices": np.ones((5, 2, 2), np.int8)}, "5 slices"),
    "multiplier 0": (CONNECTION, {"multiplier": np.zeros((1, 2), int)}, "multiplier has entries"),
    "multiplier 2^15": (CONNECTION, {"multiplier": np.full((1, 2), 2**15)}, "1 to 32767"),
    "multiplier shape": (CONNECTION, {"multiplier": np.ones(2, int)}, "multiplier has shape"),
    "shift 32": (CONNECTION, {"shift": np.full((1, 2), 32)}, "0 to 31"),
    "shift -1": (CONNECTION, {"shift": np.full((1, 2), -1)}, "0 to 31"),
    "message shift": (MEMORY, {"message_shift": 32}, "message_shift is 32"),
    "realization": (MEMORY, {"realization": "diagonal"}, "dense-incremental"),
    "recurrent not square": (MEMORY, {"recurrent": connection(4, 3)}, "memory recurrent slices"),
    "recurrent absent": (MEMORY, {"recurrent": None}, "recurrent needs a Connection"),
    "input of other rows": (MEMORY, {"input": connection(3, 2)}, "memory input slices"),
    "hidden of other rows": (MEMORY, {"hidden": connection(3, 3)}, "memory hidden slices"),
    "bias of floats": (MEMORY, {"bias": np.ones(4)}, "memory bias has type"),
    "bias beyond 24 bits": (MEMORY, {"bias": np.full(4, 2**23)}, "memory bias has entries"),
    "bias shape": (MEMORY, {"bias": np.ones(3, int)}, "memory bias has shape"),
    "state format": (MEMORY, {"state": 24}, "memory needs a Format"),
    "slope beyond": (LINES, {"slope": np.array([2**15, 1])}, "activation slope has entries"),
    "slope negative": (LINES, {"slope": np.array([-1, 1])}, "activation slope has entries"),
    "intercepts": (LINES, {"intercept": np.array([0])}, "activation intercept has shape"),
    "not through zero": (LINES, {"intercept": np.array([1, 2])}, "must pass through zero"),
    "no pieces": (
        LINES,
        {"slope": np.zeros(0, int), "intercept": np.zeros(0, int)},
        "0 pieces; give 1 to 64",
    ),
    "kind": (LINES, {"kind": "even"}, "linear, odd, positive"),
    "shift of lines": (LINES, {"shift": 99}, "activation shift is 99"),
    "hidden memory absent": (HIDDEN, {"memory": None}, "hidden memory needs a Connection"),
    "hidden recurrent": (HIDDEN, {"recurrent": connection(3, 4)}, "hidden recurrent slices"),
    "hidden activation": (HIDDEN, {"activation": "tanh"}, "needs a PiecewiseLinear"),
    "hidden bias": (HIDDEN, {"bias": np.ones(4, int)}, "hidden bias has shape"),
    "layer of another memory": (
        LAYER,
        {"hidden": replace(HIDDEN, memory=connection(3, 5))},
        "hidden memory slices",
    ),
    "layer of another input": (
        LAYER,
        {"hidden": replace(HIDDEN, input=connection(3, 1))},
        "hidden input slices",
    ),
    "layer without hidden": (LAYER, {"hidden": None}, "memory hidden needs hidden units"),
    "layer of another hidden": (
        LAYER,
        {"memory": replace(MEMORY, hidden=connection(4, 2))},
        "memory hidden slices",
    ),
    "layer without memory": (LAYER, {"memory": None}, "needs a IntegerMemory"),
    "readout": (READOUT, {"connection": 3}, "readout needs a Connection"),
    "readout bias": (READOUT, {"bias": np.zeros(4, int)}, "readout bias has shape"),
    "no layers": (NETWORK, {"layers": ()}, "at least one layer"),
    "layers that do not fit": (NETWORK, {"layers": (LAYER, LAYER)}, "layer 0 sends 3 messages"),
    "readout that does not fit": (
        NETWORK,
        {"readout": replace(READOUT, connection=connection(5, 2))},
        "readout slices",
    ),
    "input format": (NETWORK, {"input": 12}, "network needs a Format"),
    "flag": (NETWORK, {"return_sequences": 1}, "give true or false"),
    "source": (NETWORK, {"source": NETWORK}, "source needs a LMUNetwork"),
    "profile": (NETWORK, {"profile": None}, "profile must be a string"),
    "provenance": (NETWORK, {"provenance": {"a": 1}}, "provenance a must be a string"),
}


@pytest.mark.parametrize(("part", "change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_field_is_rejected_by_name(part, change, message):
    with pytest.raises(InputError, match=message):
        replace(part, **change)
