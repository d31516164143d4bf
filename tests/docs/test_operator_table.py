"""The table of operators is that of the code, and what it says of chains of layers is true."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the readers of PyTorch need it")
pytest.importorskip("onnx", reason="the extra [onnx] is not installed")

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import LayerNorm, Permute, Reshape, RMSNorm, Slice
from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, OPERATORS, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Delay, Mask, Pool, Reduce, Reverse, RunningMean
from lmu_deploy.core.graph.transforms import FITTING, as_layers
from lmu_deploy.core.network import Memory

TOOL = Path(__file__).resolve().parents[2] / "tools" / "operator_table.py"
MEMORY = Memory.legendre(4, 8.0)
AFTER = {
    Dense: Dense(np.ones((4, 4))),
    Affine: Affine(np.ones(4), np.ones(4)),
    Conv1d: Conv1d(np.ones((1, 4, 4))),
    Activation: Activation("linear"),
    LinearMemory: LinearMemory(MEMORY, np.ones((4, 1))),
    LMU: LMU(MEMORY, np.ones((4, 1))),
    LSTM: LSTM(np.ones((4, 16)), np.ones((4, 16))),
    GRU: GRU(np.ones((4, 12)), np.ones((4, 12))),
    SimpleRNN: SimpleRNN(np.ones((4, 4))),
    LayerNorm: LayerNorm(np.ones(4), np.ones(4)),
    RMSNorm: RMSNorm(np.ones(4)),
    Reduce: Reduce("last"),
    RunningMean: RunningMean(),
    Pool: Pool("max", 2, 2),
    Delay: Delay(1),
    Reverse: Reverse(),
    Mask: Mask(),
    Reshape: Reshape((4,), (2, 2)),
    Permute: Permute((0,)),
    Slice: Slice(0, 4),
    **{kind: kind() for kind in (Add, Multiply, Concat)},
}
"""An operator of each kind on four features; those of images and of tokens are left out."""


def tool():
    spec = importlib.util.spec_from_file_location("operator_table", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_table_of_the_code():
    found = tool()
    page = found.PAGE.read_text(encoding="utf-8")
    assert found.render(page) == page, "run python tools/operator_table.py"
    assert found.render(page.replace("`Conv1D`", "`Conv3D`")) == page


def test_every_operator_has_a_row_and_every_column_an_entry():
    rows = [tool().row(operator) for operator in OPERATORS]
    assert all(all(cell.count("|") == 0 for cell in row[2:]) for row in rows)
    assert all(any(row[column] for row in rows) for column in range(len(rows[0])))
    assert all(row[1] for row in rows)


@pytest.mark.parametrize("kind", AFTER, ids=lambda kind: kind.__name__)
def test_an_operator_fits_a_chain_if_the_table_says_so(kind):
    operator = AFTER[kind]
    inputs = ("memory",) * operator.fewest
    nodes = (
        Node("memory", LinearMemory(MEMORY, np.ones((2, 1))), (INPUT,)),
        Node("it", operator, inputs),
    )
    network = Network(nodes, (2,), "it")
    if kind in FITTING:
        assert as_layers(network, "quantize").n_in == 2
    else:
        with pytest.raises(InputError, match="quantize: 1 of 2 nodes has no integer form yet: it"):
            as_layers(network, "quantize")
