"""What NIR graphs compute: run by an interpreter written from the docstrings of NIR's nodes."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from converters.spiking import spike
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference

nir = pytest.importorskip("nir", reason="the extra [nir] is not installed")
pytest.importorskip("h5py", reason="the extra [nir] is not installed")

from converters.nir import left_to_host, to_nir  # noqa: E402


class Interpreter:
    """NIR's equations at a fixed step, every node once a step, from the inputs onwards: a node sees
    what has been computed in this step, and over an edge that closes a loop what was in the step
    before. It knows nothing of our metadata."""

    def __init__(self, graph, dt, integrator="euler"):
        self.graph, self.dt, self.integrator = graph, dt, integrator
        self.values = {
            name: np.zeros(next(iter(node.output_type.values())))
            for name, node in graph.nodes.items()
        }
        self.v = {
            name: np.zeros(node.r.shape)
            for name, node in graph.nodes.items()
            if isinstance(node, nir.LI | nir.LIF)
        }
        self.order = []
        for name in graph.inputs:
            self.visit(name, set())
        self.order.reverse()

    def visit(self, name, seen):
        """Depth first, a node after all that it leads to: reversed, only loops lead back."""
        if name in seen or name in self.order:
            return
        seen.add(name)
        for source, target in self.graph.edges:
            if source == name:
                self.visit(target, seen)
        self.order.append(name)

    def step(self, inputs):
        """Advance by one step; give every node's output."""
        for name in self.order:
            node = self.graph.nodes[name]
            if isinstance(node, nir.Input):
                self.values[name] = inputs[name]
                continue
            sources = [source for source, target in self.graph.edges if target == name]
            self.values[name] = self.advance(name, node, sum(self.values[s] for s in sources))
        return self.values

    def advance(self, name, node, current):
        if isinstance(node, nir.Linear):
            return node.weight @ current
        if isinstance(node, nir.Affine):
            return node.weight @ current + node.bias
        if isinstance(node, nir.Output):
            return current
        v = self.v[name]
        if self.integrator == "euler":
            v = v + self.dt / node.tau * ((node.v_leak - v) + node.r * current)
        else:
            rest = node.v_leak + node.r * current
            v = rest + np.exp(-self.dt / node.tau) * (v - rest)
        self.v[name] = v
        if isinstance(node, nir.LI):
            return v
        spikes = v > node.v_threshold
        self.v[name] = np.where(spikes, node.v_reset, v)
        return spikes.astype(float)


def memory_layer(rng, n_in=2, channels=2, order=5, theta=12.0, **options):
    memory = Memory.legendre(order, theta, channels, options.pop("discretizer", "zoh"))
    fields = dict.fromkeys(("hidden_encoders", "memory_encoders", "memory_bias", "hidden"))
    return LMULayer(rng.normal(size=(n_in, channels)), memory=memory, **{**fields, **options})


def readout(rng, network_width, n_out=2):
    return Readout(rng.normal(size=(network_width, n_out)), rng.normal(size=n_out))


def hidden(rng, layer_inputs, states, units=3, activation="tanh", **options):
    fields = dict.fromkeys(("input_kernel", "recurrent_kernel", "bias"))
    return Hidden(
        rng.normal(size=(states, units)) / states, activation=activation, **{**fields, **options}
    )


@pytest.mark.parametrize("integrator", ["euler", "exponential"])
@pytest.mark.parametrize(("dt", "tau"), [(None, None), (0.001, 0.1), (0.02, 0.021)])
@pytest.mark.parametrize("discretizer", ["zoh", "bilinear"])
def test_the_states_of_a_run_equal_those_of_the_reference(rng, integrator, dt, tau, discretizer):
    layer = memory_layer(
        rng,
        memory_encoders=0.05 * rng.normal(size=(10, 2)),
        memory_bias=rng.normal(size=2),
        discretizer=discretizer,
    )
    network = LMUNetwork((layer,), readout(rng, 10), return_sequences=True)
    assert left_to_host(network) == []
    graph = to_nir(network, dt=dt, tau=tau, integrator=integrator)
    inputs = rng.normal(size=(1, 40, 2))
    expected = run_reference(network, inputs).outputs[0]
    run = Interpreter(graph, 1e-3 if dt is None else dt, integrator)
    found = np.array([run.step({"input": x})["output"] for x in inputs[0]])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_another_integration_rule_has_other_states(rng):
    network = LMUNetwork((memory_layer(rng),), readout(rng, 10), return_sequences=True)
    inputs = rng.normal(size=(1, 40, 2))
    run = Interpreter(to_nir(network, integrator="exponential"), 1e-3, "euler")
    found = np.array([run.step({"input": x})["output"] for x in inputs[0]])
    expected = run_reference(network, inputs).outputs[0]
    assert np.abs(found - expected).max() > 0.01 * np.abs(expected).max()


def test_linear_hidden_units_and_several_layers_are_in_the_graph(rng):
    linear = hidden(
        rng, 2, 10, activation="linear", input_kernel=rng.normal(size=(2, 3)), bias=np.ones(3)
    )
    layers = (memory_layer(rng, hidden=linear), memory_layer(rng, n_in=3, theta=7.0))
    network = LMUNetwork(layers, readout(rng, 10), return_sequences=True)
    assert left_to_host(network) == []
    inputs = rng.normal(size=(1, 30, 2))
    run = Interpreter(to_nir(network), 1e-3)
    found = np.array([run.step({"input": x})["output"] for x in inputs[0]])
    np.testing.assert_allclose(found, run_reference(network, inputs).outputs[0], atol=1e-9)


def test_parts_without_a_nir_node_stay_on_the_host(rng):
    tanh = hidden(
        rng, 2, 10, input_kernel=rng.normal(size=(2, 3)), recurrent_kernel=rng.normal(size=(3, 3))
    )
    layer = memory_layer(rng, hidden=tanh, hidden_encoders=rng.normal(size=(3, 2)))
    network = LMUNetwork((layer,), readout(rng, 3), return_sequences=True)
    assert left_to_host(network) == ["layer0: 3 hidden units (tanh)", "readout"]
    graph = to_nir(network)
    assert set(graph.outputs) == {"layer0_output"}
    inputs = rng.normal(size=(1, 30, 2))
    trace = run_reference(network, inputs, record=True)
    run, h = Interpreter(graph, 1e-3), np.zeros(3)
    for x, m, h_next in zip(inputs[0], trace.m[0], trace.h[0], strict=True):
        found = run.step({"input": np.concatenate([x, h])})["layer0_output"]
        np.testing.assert_allclose(found, m, atol=1e-9)
        h = h_next


def test_every_memory_is_in_a_segment(rng):
    lstm = LSTMLayer(np.ones((10, 16)), np.ones((4, 16)), np.ones(16))
    relu = hidden(rng, 4, 10, activation="relu")
    layers = (memory_layer(rng), lstm, memory_layer(rng, n_in=4, hidden=relu))
    network = LMUNetwork(layers, readout(rng, 3))
    graph = to_nir(network)
    assert set(graph.inputs) == {"input", "layer2_input"}
    assert set(graph.outputs) == {"layer0_output", "layer2_output"}
    assert left_to_host(network) == [
        "layer1: LSTM of 4 units",
        "layer2: 3 hidden units (relu)",
        "readout",
    ]


@settings(max_examples=25)
@given(data=st.data())
def test_memories_of_random_networks_equal_the_reference(networks, data):
    network = data.draw(networks)
    assume(any(isinstance(layer, LMULayer) for layer in network.layers))
    first = next(i for i, layer in enumerate(network.layers) if isinstance(layer, LMULayer))
    assume(first == 0)
    graph = to_nir(network)
    inputs = np.random.default_rng(0).normal(size=(1, 6, network.n_in))
    trace = run_reference(network, inputs, record=True)
    run = Interpreter(graph, 1e-3)
    layer, size = network.layers[0], network.layers[0].memory.size
    h = np.zeros(0 if layer.hidden_encoders is None else len(layer.hidden_encoders))
    others = {name: np.zeros(node.output_type["output"]) for name, node in graph.inputs.items()}
    for t, x in enumerate(inputs[0]):
        run.step({**others, "input": np.concatenate([x, h])})
        if len(h):
            h = trace.h[0, t, : len(h)]
        scale = max(1.0, np.abs(trace.m[0, t]).max())
        np.testing.assert_allclose(run.v["layer0_memory"], trace.m[0, t, :size], atol=1e-5 * scale)


def test_wrong_types_and_sizes_are_refused(rng):
    lstm = LSTMLayer(np.ones((2, 16)), np.ones((4, 16)), np.ones(16))
    with pytest.raises(InputError, match="only LSTM layers"):
        to_nir(LMUNetwork((lstm,), readout(rng, 4)))
    network = LMUNetwork((memory_layer(rng),), readout(rng, 10))
    for options, message in (
        ({"integrator": "rk4"}, "choose one of euler, exponential"),
        ({"dt": 0.0}, "dt is 0"),
        ({"dt": 0.01, "tau": 0.001}, "shorter than the step"),
    ):
        with pytest.raises(InputError, match=message):
            to_nir(network, **options)
    big = memory_layer(rng, n_in=1, channels=1000, order=5)
    with pytest.raises(InputError, match="dense matrix of 5000 x 5000"):
        to_nir(LMUNetwork((big,), readout(rng, 5000)))
    with pytest.raises(InputError, match="a spiking network, not LMULayer"):
        to_nir(big)


def test_a_graph_that_is_too_large_to_import_is_refused(rng, monkeypatch):
    monkeypatch.setattr("converters.nir.file.ARRAY_BYTES", 1000)
    with pytest.raises(InputError, match="bytes of arrays, more than the 1000"):
        to_nir(LMUNetwork((memory_layer(rng),), readout(rng, 10)))


@pytest.fixture(scope="module")
def spiking():
    rng = np.random.default_rng(3)
    network = LMUNetwork(
        (memory_layer(rng, n_in=1, channels=1, order=3, theta=10.0),), readout(rng, 3)
    )
    noise = np.cumsum(rng.normal(size=(20, 60, 1)), axis=1)
    return spike(network, 0.3 * noise, dt_ms=2.0, neurons_per_state=60, seed=1)


def simulated(spiking, u):
    """Our own neurons and synapses, from membranes at rest; states m at the end of each hold."""
    from converters.spiking.neurons import LeakyIntegrateAndFire

    memory = spiking.memories[0]
    neurons = LeakyIntegrateAndFire(
        memory.populations,
        spiking.neuron,
        spiking.device,
        spiking.dt_ms,
        1,
        np.random.default_rng(0),
        np.float64,
    )
    neurons.v[:] = 0.0
    x, a, states = np.zeros(memory.order), spiking.decay, []
    for value in u:
        for _ in range(spiking.steps_per_presentation):
            spikes = neurons.step(x[None]).reshape(-1)
            drive = memory.weights[0] @ spikes / (spiking.dt_ms * 1e-3)
            x = a * x + (1.0 - a) * (drive + memory.scaled_input[0] * value)
        states.append(x * memory.scales[0])
    return np.array(states)


@pytest.mark.parametrize("integrator", ["euler", "exponential"])
def test_a_spiking_graph_has_the_states_of_the_simulator(spiking, integrator):
    graph = to_nir(spiking, integrator=integrator)
    u = 0.3 * np.cumsum(np.random.default_rng(5).normal(size=12))
    run, found, spikes = Interpreter(graph, spiking.dt_ms * 1e-3, integrator), [], 0
    run.step({"layer0_input": np.zeros(1)})  # the neurons' first step, which ours take before u
    for value in u:
        for _ in range(spiking.steps_per_presentation):
            outputs = run.step({"layer0_input": np.array([value])})
            spikes += outputs["layer0_neurons"].sum()
        found.append(outputs["layer0_output"])
    assert spikes > 100
    np.testing.assert_allclose(found, simulated(spiking, u), atol=1e-9)


def test_all_unsupported_neuron_properties_are_reported(rng):
    network = LMUNetwork(
        (memory_layer(rng, n_in=1, channels=1, order=2, theta=10.0),), readout(rng, 2)
    )
    inputs = 0.3 * rng.normal(size=(5, 10, 1))
    noisy = spike(network, inputs, neurons_per_state=5, membrane_noise=0.1)
    with pytest.raises(InputError, match=r"refractory time of 2 ms.* and the membrane noise"):
        to_nir(noisy)
    poisson = spike(network, inputs, neurons_per_state=5, neuron="poisson")
    with pytest.raises(InputError, match="neuron model poisson"):
        to_nir(poisson)
    lif = spike(network, inputs, neurons_per_state=5, dt_ms=2.0)
    with pytest.raises(InputError, match="its own dt and tau"):
        to_nir(lif, dt=0.002)
