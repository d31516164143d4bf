"""Engines run only what they represent exactly, and agree, also at the paper's size."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from threading import get_ident

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from layered import layered, relayered
from needs import needs

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.integer.graph import edges, sources
from lmu_deploy.core.integer.parts import Connection, Format
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from targets.base import check_supported
from targets.conformance.strategies import integer_networks, loud_and_quiet
from targets.integer import IntegerTarget, step
from targets.integer.engine import choose_engine, float64_objections, int32_objections, worst_sums
from targets.integer.machine import Machine
from targets.integer.run import cut

torch = pytest.importorskip("torch", reason="the torch engine needs torch")
torch_engine = pytest.importorskip("targets.integer.torch_engine")
FAST = ["torch", pytest.param("numba", marks=needs("numba"))]


def psmnist_like(rng, order=256, units=212, theta=784.0):
    """The network of Voelker et al. (2019) for psMNIST, with e_h and e_m, untrained."""
    hidden = Hidden(
        rng.normal(size=(order, units)) * 8.0 / np.sqrt(order),
        rng.normal(size=(1, units)) * 0.5,
        rng.normal(size=(units, units)) * 0.7 / np.sqrt(units),
        None,
        "tanh",
    )
    layer = LMULayer(
        np.ones((1, 1)),
        rng.normal(size=(units, 1)) * 0.01,
        rng.normal(size=(order, 1)) * 0.01,
        None,
        Memory.legendre(order, theta),
        hidden,
    )
    return LMUNetwork((layer,), Readout(rng.normal(size=(units, 10)) / np.sqrt(units), None))


def pixels(rng, samples, steps=784):
    """Mostly zero, else n / 255, as MNIST's are."""
    shape = (samples, steps, 1)
    return (rng.random(shape) < 0.2) * rng.integers(0, 256, shape) / 255.0


@pytest.fixture(scope="module")
def large():
    rng = np.random.default_rng(3)
    inputs = pixels(rng, 12)
    return quantize(psmnist_like(rng), inputs[:6]), inputs


def differences(one, two) -> list[str]:
    """Name all that two runs of one network differ in."""
    found = [
        name
        for name in "mhy"
        if not np.array_equal(getattr(one.states, name), getattr(two.states, name))
    ]
    for name in ("synops", "saturations", "carried"):
        found += [] if getattr(one, name) == getattr(two, name) else [name]
    for kind in ("events", "rasters"):
        for name, counts in getattr(one, kind).items():
            same = np.array_equal(counts, getattr(two, kind)[name])
            found += [] if same else [f"{kind} of {name}"]
    return found


@pytest.fixture(scope="module")
def run_by_numpy(large):
    return IntegerTarget("numpy").run(*large, record=True)


@pytest.mark.parametrize("engine", FAST)
def test_engines_agree_in_everything_at_the_size_of_psmnist(engine, large, run_by_numpy):
    run = IntegerTarget(engine).run(*large, record=True)
    assert run.settings["engine"] == engine
    assert run.synops > 1e9
    assert differences(run, run_by_numpy) == []


@pytest.fixture(params=["int8", "float32"])
def products(request, monkeypatch):
    """Choose the products of both engines, whichever this processor prefers."""
    monkeypatch.setattr(torch_engine, "int8_is_faster", lambda: request.param == "int8")


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(network=integer_networks(thresholds=True), seed=st.integers(0, 1000))
@pytest.mark.parametrize("engine", FAST)
def test_engines_agree_on_networks_of_every_width(engine, products, network, seed):
    """Messages of up to 30 bits among them, which take several digits."""
    assume(not float64_objections(network) and not int32_objections(network))
    inputs = loud_and_quiet(network, seed)
    one, two = (IntegerTarget(name).run(network, inputs, record=True) for name in ("numpy", engine))
    assert differences(one, two) == []


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("bits", [4, 8, 15])
def test_engines_agree_on_rows_longer_than_vectors(engine, products, bits):
    rng = np.random.default_rng(bits)
    inputs = pixels(rng, 5, 40)
    network = quantize(psmnist_like(rng, 45, 37, 60.0), inputs, message_bits=bits, slices=3)
    one, two = (IntegerTarget(name).run(network, inputs, record=True) for name in ("numpy", engine))
    assert differences(one, two) == []


def test_every_sum_lies_within_its_proven_bound(large):
    network, inputs = large
    machine = Machine(network, choose_engine(network, "numpy"))
    state = machine.start(len(inputs))
    limits = {place: source.message.limit for place, source in sources(network).items()}
    bounds = {w.place: worst_sums(w, limits[w.source]) for w in edges(network)}
    found = machine.feed(state, inputs[:, :40].swapaxes(0, 1))
    for edge in edges(network):
        values = np.concatenate([part.values for part in found[edge.source]])
        messages = values.reshape(-1, values.shape[2]).astype(np.int64)
        assert len(messages) == 40 * len(inputs)
        sums = np.einsum("koi,bi->bko", edge.connection.slices.astype(np.int64), messages)
        worst = np.abs(sums).max(axis=0)
        assert worst.any()
        assert np.all(worst <= bounds[edge.place])


def with_recurrent(network, **changes):
    layer = layered(network).layers[0]
    recurrent = dataclasses.replace(layer.memory.recurrent, **changes)
    memory = dataclasses.replace(layer.memory, recurrent=recurrent)
    return relayered(network, layers=(dataclasses.replace(layer, memory=memory),))


def test_networks_beyond_int32_run_on_numpy(large):
    network, inputs = large
    wide = with_recurrent(network, multiplier=np.full((2, 256), 9_999), shift=np.full((2, 256), 20))
    assert any("memory/recurrent" in text for text in int32_objections(wide))
    assert float64_objections(wide) == []
    assert choose_engine(wide, "auto", 10**9).name == "numpy"
    fastest = "torch" if find_spec("numba") is None else "numba"
    assert choose_engine(network, "auto", 10**9).name == fastest
    with pytest.raises(InputError, match="engine torch cannot run this network: sums of layer0"):
        IntegerTarget("torch").run(wide, inputs)


def test_values_that_add_up_beyond_int32_are_seen(large):
    network, _ = large
    state = dataclasses.replace(layered(network).layers[0].memory, state=Format(32, 1e-9))
    layer = dataclasses.replace(layered(network).layers[0], memory=state)
    wide = relayered(network, layers=(layer,))
    assert any(text.startswith("values of layer0/memory need") for text in int32_objections(wide))


def test_networks_beyond_float64_are_refused():
    rng = np.random.default_rng(0)
    network = quantize(psmnist_like(rng, 8, 4, 20.0), pixels(rng, 4, 30))
    memory = dataclasses.replace(
        layered(network).layers[0].memory,
        message=Format(32, 1.0),
        message_shift=0,
        recurrent=Connection(
            np.full((1, 8, 8), 127),
            np.full((1, 8), 32_767),
            np.full((1, 8), 31),
            accumulator_bits=32,
        ),
    )
    layer = dataclasses.replace(layered(network).layers[0], memory=memory)
    network = relayered(network, layers=(layer,))
    with pytest.raises(InputError, match="target integer cannot run this network: sums of layer0"):
        check_supported(IntegerTarget(), network)


def test_unknown_engine_and_foreign_stream_are_refused(large):
    network, inputs = large
    with pytest.raises(InputError, match="auto, numba, numpy, torch"):
        IntegerTarget("jax")
    _, stream = step(network, inputs[:, 0])
    other = dataclasses.replace(network, task="psmnist")
    with pytest.raises(InputError, match="another network"):
        step(other, inputs[:, 0], stream)
    with pytest.raises(InputError, match="expected"):
        step(network, inputs[:3, 0], stream)
    with pytest.raises(InputError, match="NaN"):
        IntegerTarget().run(network, np.full((1, 2, 1), np.nan))


def test_zero_input_sends_nothing_and_moves_nothing():
    rng = np.random.default_rng(0)
    network = quantize(psmnist_like(rng, 8, 4, 20.0), pixels(rng, 4, 30))
    run = IntegerTarget().run(network, np.zeros((2, 10, 1)), record=True)
    assert run.synops == 0
    assert not run.states.m.any()
    assert not any(counts.any() for counts in run.events.values())


def test_limit_cycles_of_a_memory_without_input_stay_small():
    """Rounding keeps a memory from coming to rest; what stays is small and does not grow."""
    rng = np.random.default_rng(1)
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(64, 200.0), None)
    network = LMUNetwork((layer,), Readout(rng.normal(size=(64, 2)), None))
    inputs = pixels(rng, 4, 400)
    longer = np.concatenate([inputs, np.zeros((4, 1400, 1))], axis=1)
    run = IntegerTarget("numpy").run(quantize(network, inputs), longer, record=True)
    driven, early, late = (
        np.sqrt(np.mean(run.states.m[:, part].astype(float) ** 2))
        for part in (slice(200, 400), slice(1000, 1200), slice(-200, None))
    )
    assert 0.0 < late < 0.01 * driven
    assert late < 1.1 * early


@pytest.mark.parametrize("engine", FAST)
def test_threads_change_nothing(engine, large, run_by_numpy, monkeypatch):
    network, inputs = large
    monkeypatch.setattr("targets.integer.torch_engine.Int32Engine.threads", 3)
    monkeypatch.setattr("targets.integer.run._BATCH", 2)
    reported, threads = [], torch.get_num_threads()
    run = IntegerTarget(engine).run(
        network, inputs, record=True, progress=lambda *done: reported.append((done, get_ident()))
    )
    assert differences(run, run_by_numpy) == []
    assert reported == [((done, 12), get_ident()) for done in (2, 4, 6, 8, 10, 12)]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("engine", FAST)
def test_what_fails_in_a_thread_ends_the_run_and_the_other_threads(engine, large, monkeypatch):
    network, inputs = large
    monkeypatch.setattr("targets.integer.torch_engine.Int32Engine.threads", 2)
    monkeypatch.setattr("targets.integer.machine._LONGEST_CHUNK", 1)
    steps = []

    def feed(machine, state, *chunk):
        steps.append(state)
        if len(steps) == 10:
            raise RunError("the tenth step.")
        return real(machine, state, *chunk)

    real = Machine.feed
    monkeypatch.setattr(Machine, "feed", feed)
    with pytest.raises(RunError, match="tenth"):
        IntegerTarget(engine).run(network, inputs)
    assert len(steps) < inputs.shape[1]


@pytest.mark.parametrize(
    ("samples", "largest", "threads", "sizes"),
    [(600, 256, 1, [200] * 3), (5, 256, 2, [2, 3]), (2, 256, 8, [1, 1]), (7, 2, 2, [1, 2, 2, 2])],
)
def test_tiles_cover_all_samples_evenly(samples, largest, threads, sizes):
    tiles = cut(samples, largest, threads)
    assert [tile.stop - tile.start for tile in tiles] == sizes
    assert np.concatenate([np.arange(samples)[tile] for tile in tiles]).tolist() == [
        *range(samples)
    ]


@pytest.mark.parametrize("engine", FAST)
def test_the_largest_messages_of_every_width_are_split_into_digits(engine, products, large):
    """A message of 15 bits takes three digits: 2^14 - 1 rounded to 128 times 128 leaves int8."""
    engine, one = choose_engine(large[0], engine), np.ones((1, 1), int)
    alone = Connection(one[None], one, 0 * one, accumulator_bits=32)
    for limit in (2 ** (bits - 1) - 1 for bits in range(2, 32)):
        messages = np.unique(np.clip(limit - np.arange(300), -limit, limit))
        messages = np.concatenate([messages, -messages])[:, None].astype(np.int32)
        total = engine.zeros(len(messages), 1)
        engine.fan({"place": alone}, limit).deliver(engine.array(messages))["place"].add_to(total)
        assert np.array_equal(engine.numpy(total), messages)


@pytest.mark.parametrize("bits", [2, 8, 12, 16, 24, 31])
@pytest.mark.parametrize(("n_in", "rows"), [(1, 70), (64, 5), (1000, 96), (5000, 5)])
def test_products_equal_those_of_int64(n_in, rows, bits, rng):
    """Rows of the largest weights and messages of the largest magnitude are among them."""
    weights = rng.integers(-128, 128, (rows, n_in)).astype(np.int8)
    weights[0] = -128
    limit = 2 ** (bits - 1) - 1
    messages = rng.integers(-limit, limit, (7, n_in), endpoint=True)
    messages[0], messages[1] = limit, -limit
    for made in (
        torch_engine.Int8Products(weights, limit),
        torch_engine.Float32Products(weights, limit),
    ):
        made.resize(len(messages))
        rest, b = messages, made.base_bits
        *lower, top = made.digits[..., :n_in]
        for digit in lower:
            upper = (rest + (1 << b >> 1)) >> b
            digit.copy_(torch.from_numpy(rest - (upper << b)))
            rest = upper
        top.copy_(torch.from_numpy(rest))
        made.multiply()
        products = made.products[..., :rows].numpy().astype(np.int64)
        sums = sum(part << b * p for p, part in enumerate(products))
        assert np.array_equal(sums, messages @ weights.T.astype(np.int64))


def test_rounded_products_of_float32_are_refused(large, monkeypatch):
    monkeypatch.setattr(torch_engine, "int8_is_faster", lambda: False)
    monkeypatch.setattr(torch_engine, "float32_is_exact", lambda precision: False)
    with pytest.raises(InputError, match="set_float32_matmul_precision"):
        IntegerTarget("torch").run(*large)


def test_rounding_of_operands_is_found(monkeypatch):
    """Operands of bfloat16 have 8 bits, those of TF32 have 11; sums are of float32 in both."""

    def rounds(a, b):
        return (a.bfloat16().float() @ b).float()

    torch_engine.float32_is_exact.cache_clear()
    monkeypatch.setattr(torch, "mm", rounds)
    assert not torch_engine.float32_is_exact("medium")
    torch_engine.float32_is_exact.cache_clear()


def test_more_weights_than_float32_adds_exactly_are_refused():
    with pytest.raises(InputError, match="use engine numpy"):
        torch_engine.Float32Products(np.full((1, 2**17), 127, np.int8), 3)
