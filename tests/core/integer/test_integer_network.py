"""integer_network.py: what is no integer network is refused by name when it is built."""

from dataclasses import replace

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save, to_tree
from lmu_deploy.core.integer.functions import PiecewiseLinear, Segments
from lmu_deploy.core.integer.memories import Integrators
from lmu_deploy.core.integer.network import INTEGER_CLASSES, IntegerNetwork, Reading
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place, largest
from lmu_deploy.core.integer.populations import Input, Output, Pointwise


def connection(n_out, n_in, slices=1):
    rows = (slices, n_out)
    return Connection(
        np.ones((slices, n_out, n_in), np.int8), np.ones(rows, np.int32), np.zeros(rows, np.int32)
    )


STATE, MESSAGE = Format(24, 2.0**-20), Format(12, 2.0**-8)
LINES = PiecewiseLinear(np.array([64, 32]), np.array([0, 10]), 6, "odd")
ENTRY, AT, UNITS, END = Place("input"), Place("lmu", "memory"), Place("lmu", "hidden"), Place("out")
MEMORY = Integrators(AT, 4, STATE, MESSAGE, 12, np.array([1, -1, 0, 5]))
HIDDEN = Pointwise(UNITS, 3, Format(24, 2.0**-12), Format(8, 2.0**-7), LINES)
OUTPUT = Output(END, 5, Format(24, 2.0**-10), np.zeros(5, np.int64))
RECURRENT = Edge(AT, AT, "recurrent", connection(4, 4, slices=2), (-1,))
READ = Edge(UNITS, END, "", connection(5, 3))
NETWORK = IntegerNetwork(
    (Input(ENTRY, 2, Format(12, 2.0**-10)), MEMORY, HIDDEN, OUTPUT),
    (
        RECURRENT,
        Edge(ENTRY, AT, "input", connection(4, 2)),
        Edge(UNITS, AT, "hidden", connection(4, 3), (-1,)),
        Edge(AT, UNITS, "memory", connection(3, 4)),
        Edge(ENTRY, UNITS, "input", connection(3, 2)),
        Edge(UNITS, UNITS, "recurrent", connection(3, 3), (-1,)),
        READ,
    ),
    (),
    END,
)


def test_sizes_follow_from_the_populations():
    assert (NETWORK.n_in, NETWORK.n_out) == (2, 5)
    assert [str(p.place) for p in NETWORK.populations] == [
        "input",
        "lmu/memory",
        "lmu/hidden",
        "out",
    ]
    assert NETWORK.memories == (MEMORY,)
    assert NETWORK.units == (HIDDEN,)
    assert NETWORK[AT] is MEMORY


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
SEGMENTS = Segments(np.array([-5, 5]), np.array([0, 1, 0]), np.array([-5, 0, 5]), 0)
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
    "place": (MEMORY, {"place": "lmu/memory"}, "population needs a Place"),
    "size": (MEMORY, {"size": 0}, "lmu/memory size is 0"),
    "message shift": (MEMORY, {"message_shift": 32}, "message_shift is 32"),
    "realization": (MEMORY, {"realization": "diagonal"}, "dense-incremental"),
    "bias of floats": (MEMORY, {"bias": np.ones(4)}, "lmu/memory bias has type"),
    "bias beyond 24 bits": (MEMORY, {"bias": np.full(4, 2**23)}, "memory bias has entries"),
    "bias shape": (MEMORY, {"bias": np.ones(3, int)}, "memory bias has shape"),
    "state format": (MEMORY, {"state": 24}, "lmu/memory needs a Format"),
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
    "function": (HIDDEN, {"function": "tanh"}, "lmu/hidden needs a function, not str"),
    "hidden bias": (HIDDEN, {"bias": np.ones(4, int)}, "lmu/hidden bias has shape"),
    "hidden initial": (HIDDEN, {"initial": np.ones(2, int)}, "lmu/hidden initial has shape"),
    "breakpoints": (SEGMENTS, {"breakpoints": np.array([3, 3])}, "breakpoints of a function must"),
    "pieces": (SEGMENTS, {"intercept": np.zeros(2, int)}, "segments intercept has shape"),
    "output bias": (OUTPUT, {"bias": np.zeros(4, int)}, "out bias has shape"),
    "edge without a connection": (READ, {"connection": 3}, "edge out needs a Connection"),
    "offsets": (READ, {"offsets": (0, 1)}, "3 columns for 2 offsets"),
    "no offsets": (READ, {"offsets": ()}, "0 offsets"),
    "stride": (READ, {"stride": 0}, "stride is 0"),
    "no populations": (NETWORK, {"populations": ()}, "first population of an integer network"),
    "two inputs": (
        NETWORK,
        {"populations": (*NETWORK.populations, Input(Place("more"), 1, MESSAGE))},
        "has one input",
    ),
    "two of one place": (
        NETWORK,
        {"populations": (*NETWORK.populations, MEMORY)},
        "two populations have the place lmu/memory",
    ),
    "two edges of one place": (NETWORK, {"edges": (READ, READ)}, "two edges have the place out"),
    "an edge of nothing": (
        NETWORK,
        {"edges": (replace(READ, source=Place("x")),)},
        "edge out joins x, which is no population",
    ),
    "messages that do not fit": (
        NETWORK,
        {"edges": (replace(READ, connection=connection(5, 2)),)},
        "takes 2 messages and lmu/hidden sends 3",
    ),
    "sums that do not fit": (
        NETWORK,
        {"edges": (replace(READ, row=1),)},
        "drives 6 sums and out has 5",
    ),
    "back without a delay": (
        NETWORK,
        {"edges": (replace(RECURRENT, offsets=(0,)),)},
        "leads back to lmu/memory; it must read the frame before",
    ),
    "from the output": (
        NETWORK,
        {"edges": (Edge(END, END, "own", connection(5, 5), (-1,)),)},
        "leaves out, which sends no messages",
    ),
    "a reading of nothing": (NETWORK, {"readings": (Reading(AT, Place("x")),)}, "joins x"),
    "a reading of the chip": (NETWORK, {"readings": (Reading(AT, UNITS),)}, "lead to the host"),
    "no output": (NETWORK, {"output": Place("x")}, "output x is no population"),
    "flag": (NETWORK, {"return_sequences": 1}, "give true or false"),
    "source": (NETWORK, {"source": NETWORK}, "source of an integer network is a float"),
    "profile": (NETWORK, {"profile": None}, "profile must be a string"),
    "provenance": (NETWORK, {"provenance": {"a": 1}}, "provenance a must be a string"),
}


@pytest.mark.parametrize(("part", "change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_field_is_rejected_by_name(part, change, message):
    with pytest.raises(InputError, match=message):
        replace(part, **change)
