"""Fixtures of several test files: a random generator, and a strategy of float networks.

Each process uses one thread per library, because pytest-xdist runs several processes.
"""

from __future__ import annotations

import os
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402 (the libraries read the variables when they are loaded)
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from lmu_deploy.core.network import (  # noqa: E402
    ACTIVATIONS,
    Hidden,
    LMULayer,
    LMUNetwork,
    LSTMLayer,
    Memory,
    Readout,
)

# In continuous integration every run uses the same examples; `--hypothesis-profile deep` runs
# many more.
usual = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", max_examples=25, derandomize="CI" in os.environ, **usual)
settings.register_profile("deep", max_examples=2000, **usual)
settings.load_profile("suite")


LONGEST = (
    "golden/test_golden.py",
    "docs/test_docs_site.py",
    "studies/test_chip_workers.py",
    "targets/conformance/test_conformance.py",
    "fidelity/test_attribution_spiking.py",
    "docs/test_docs_tutorial.py",
    "report/test_browser.py",
    "report/test_html.py",
    "examples/test_notebooks.py",
    "converters/sandbox/test_hostile_files.py",
    "api/test_validate_resumes.py",
)
"""Files that take half a minute and more, the longest first."""


def pytest_collection_modifyitems(items):
    """Begin with the longest files, so that no worker of pytest-xdist has one left at the end."""
    tests = Path(__file__).parent
    ranks = {tests / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture
def rng():
    """Return a random generator with a fixed seed."""
    return np.random.default_rng(20_190_812)


@pytest.fixture(scope="session")
def networks():
    """Return a strategy of float networks with every kind of layer and every option."""
    return _networks()


@st.composite
def _networks(draw):
    weights = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_in = width = draw(st.integers(1, 4))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        layers.append(draw(st.one_of(_lmu_layers(weights, width), _lstm_layers(weights, width))))
        width = layers[-1].n_out
    n_out = draw(st.integers(1, 3))
    bias = _array(weights, n_out) if draw(st.booleans()) else None
    assert layers[0].n_in == n_in
    return LMUNetwork(
        layers=tuple(layers),
        readout=Readout(_array(weights, width, n_out), bias),
        return_sequences=draw(st.booleans()),
        task=draw(st.sampled_from([None, "digits"])),
        provenance=draw(st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=2)),
    )


@st.composite
def _lmu_layers(draw, weights, n_in):
    def maybe(*shape):
        return _array(weights, *shape) if draw(st.booleans()) else None

    order, channels = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    theta = draw(st.floats(4.0, 40.0))
    memory = Memory.legendre(order, theta, channels, draw(st.sampled_from(["zoh", "bilinear"])))
    hidden, hidden_encoders = None, None
    if draw(st.booleans()):
        units = draw(st.integers(1, 6))
        hidden = Hidden(
            memory_kernel=_array(weights, memory.size, units),
            input_kernel=maybe(n_in, units),
            recurrent_kernel=maybe(units, units),
            bias=maybe(units),
            activation=draw(st.sampled_from(ACTIVATIONS)),
        )
        hidden_encoders = maybe(units, channels)
    memory_encoders = maybe(memory.size, channels)
    return LMULayer(
        input_encoders=_array(weights, n_in, channels),
        hidden_encoders=None if hidden_encoders is None else 0.2 * hidden_encoders,
        memory_encoders=None if memory_encoders is None else 0.2 * memory_encoders,
        memory_bias=maybe(channels),
        memory=memory,
        hidden=hidden,
    )


@st.composite
def _lstm_layers(draw, weights, n_in):
    units = draw(st.integers(1, 5))
    return LSTMLayer(
        kernel=_array(weights, n_in, 4 * units),
        recurrent_kernel=_array(weights, units, 4 * units),
        bias=_array(weights, 4 * units),
    )


def _array(weights, *shape):
    """Return float32 entries whose sums over the first axis are near one in size."""
    return (weights.normal(size=shape) / np.sqrt(2.0 * shape[0])).astype(np.float32)
