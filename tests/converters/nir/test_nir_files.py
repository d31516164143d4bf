"""NIR files: there and back to the last bit, changed by others, damaged, hostile."""

import json
from pathlib import Path

import numpy as np
import pytest
from equal_runs import assert_same
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from converters.sandbox import FileContents
from converters.spiking import spike
from lmu_deploy.api.exchange import export
from lmu_deploy.cli import app
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout

nir = pytest.importorskip("nir", reason="the extra [nir] is not installed")
h5py = pytest.importorskip("h5py", reason="the extra [nir] is not installed")

from converters.importers import import_file  # noqa: E402
from converters.nir import from_nir, read_nir, to_nir, write_nir  # noqa: E402
from converters.sandbox.hdf5 import read_nir_tree  # noqa: E402


def small_network(dtype=np.float64):
    memory = Memory.legendre(3, 6.0)
    memory = Memory(3, 1, 6.0, "zoh", memory.a_bar.astype(dtype), memory.b_bar.astype(dtype))
    layer = LMULayer(np.ones((1, 1), dtype), None, None, None, memory, None)
    return LMUNetwork((layer,), Readout(np.ones((3, 1), dtype), None), task="digits")


def small_spiking():
    inputs = np.random.default_rng(0).normal(size=(5, 10, 1))
    return spike(small_network(), inputs, neurons_per_state=4, dt_ms=2.0)


def read_here(path):
    """Read like read_nir, without a process for each of hundreds of files."""

    def read(name, path):
        try:
            return FileContents(*read_nir_tree(path))
        except InputError:
            raise
        except Exception as error:  # as the process that reads does
            raise InputError(f"damaged: {type(error).__name__}") from error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("converters.nir.file.read_in_sandbox", read)
        return read_nir(path)


@settings(max_examples=100)
@given(data=st.data())
def test_graphs_are_restored_bit_identically(networks, data):
    network = data.draw(networks)
    assume(any(isinstance(layer, LMULayer) for layer in network.layers))
    options = data.draw(
        st.fixed_dictionaries(
            {"integrator": st.sampled_from(["euler", "exponential"])},
            optional={"dt": st.floats(1e-5, 1e-2), "tau": st.floats(1e-2, 10.0)},
        )
    )
    assume("tau" in options or "dt" not in options or options["dt"] * 8 <= 10.0)
    assert_same(network, from_nir(to_nir(network, **options)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("tau", [None, 0.1])
def test_files_are_restored_bit_identically(dtype, tau, tmp_path):
    write_nir(to_nir(small_network(dtype), tau=tau), tmp_path / "a.nir")
    assert_same(small_network(dtype), read_nir(tmp_path / "a.nir"))


@settings(max_examples=20)
@given(data=st.data())
def test_any_network_is_saved_and_loaded(networks, data, tmp_path_factory):
    network = data.draw(networks)
    assume(any(isinstance(layer, LMULayer) for layer in network.layers))
    path = tmp_path_factory.getbasetemp() / "any.nir"
    write_nir(to_nir(network), path)
    assert_same(network, read_here(path))


def test_the_library_of_nir_reads_the_same_graph(tmp_path):
    graph = to_nir(small_network())
    write_nir(graph, tmp_path / "a.nir")
    again = nir.read(tmp_path / "a.nir")
    assert sorted(again.edges) == sorted(graph.edges)
    assert_same(small_network(), from_nir(again))
    nir.write(tmp_path / "b.nir", again)
    assert_same(small_network(), read_nir(tmp_path / "b.nir"))


@pytest.mark.parametrize("integrator", ["euler", "exponential"])
def test_spiking_networks_are_saved_and_loaded(integrator, tmp_path):
    spiking = small_spiking()
    write_nir(to_nir(spiking, integrator=integrator), tmp_path / "a.nir")
    assert_same(spiking, read_nir(tmp_path / "a.nir"))


def test_changed_weights_are_read():
    for kind in (np.float32, np.float64):
        graph = to_nir(small_network(kind), tau=0.1)  # needs its exact matrices in the metadata
        assert "a_bar" in graph.nodes["layer0_memory"].metadata
        graph.nodes["readout"].weight[0, 1] = 7.0
        graph.nodes["layer0_memory_recurrent"].weight[0, 1] *= 0.5
        network = from_nir(graph)
        assert network.readout.kernel[1, 0] == 7.0
        expected = np.array(small_network(kind).layers[0].memory.a_bar)
        expected[0, 1] *= 0.5
        tolerance = 1e-5 if kind == np.float32 else 1e-12
        np.testing.assert_allclose(network.layers[0].memory.a_bar, expected, atol=tolerance)


def with_changed_edges(graph):
    graph.edges[0] = ("input", "readout")


def leaking(graph):
    graph.nodes["layer0_memory"].v_leak[1] = 0.5


def slower(graph):
    graph.nodes["layer0_memory"].tau[1] *= 2.0


def with_nan(graph):
    graph.nodes["layer0_memory"].tau[1] = np.nan


def with_a_new_node(graph):
    graph.nodes["more"] = nir.Linear(np.ones((1, 1)))


def without_a_node(graph):
    del graph.nodes["layer0_memory_recurrent"]


def with_another_kind(graph):
    graph.nodes["readout"] = nir.Affine(np.ones((1, 3)), np.ones(1))


def header(**changes):
    def change(graph):
        text = json.loads(graph.metadata["lmu_deploy"])
        graph.metadata["lmu_deploy"] = json.dumps({**text, **changes})

    return change


def foreign(graph):
    del graph.metadata["lmu_deploy"]


def metadata(key, value):
    return lambda graph: graph.metadata.update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_changed_edges, "edges of this NIR graph were changed"),
        (leaking, "nodes layer0_memory of"),
        (slower, "nodes layer0_memory of"),
        (with_nan, "nodes layer0_memory of"),
        (with_a_new_node, "nodes more of"),
        (without_a_node, "damaged"),
        (with_another_kind, "nodes readout of"),
        (foreign, "not made by lmu_deploy"),
        (metadata("lmu_deploy", "{"), "damaged"),
        (metadata("lmu_deploy", "[" * 100_000), "damaged"),
        (metadata("lmu_deploy", "7"), "format that this version"),
        (metadata("lmu_deploy", 7), "not made by lmu_deploy"),
        (metadata("lmu_deploy_arrays", {"readout.kernel": "x"}), "arrays .* are damaged"),
        (header(format=2), "format that this version"),
        (header(structure={}), "damaged"),
        (header(dt="x"), "dt is 'x'"),
        (header(tau=1e-9), "shorter than the step"),
        (header(integrator="rk4"), "choose one of"),
        (header(dtypes={"readout.kernel": "object"}), "types of this NIR graph"),
        (header(dtypes={}), "is missing"),
        (header(kind="spiking"), "is missing"),
    ],
)
def test_changed_or_foreign_graphs_are_refused(change, message, tmp_path):
    graph = to_nir(small_network())
    change(graph)
    with pytest.raises(InputError, match=message):
        from_nir(graph)


def test_a_fault_of_the_program_is_not_reported_as_damage(monkeypatch):
    def faulty(*arguments):
        raise NameError("an undefined name")

    monkeypatch.setattr("converters.nir.file.from_tree", faulty)
    with pytest.raises(NameError):
        from_nir(to_nir(small_network()))


def test_a_spiking_graph_may_not_be_changed():
    graph = to_nir(small_spiking())
    graph.nodes["layer0_decoders"].weight[0, 0] += 1e-9
    with pytest.raises(InputError, match="nodes layer0_decoders of this NIR graph were changed"):
        from_nir(graph)


def test_missing_and_other_files_are_refused(tmp_path):
    for path in (tmp_path / "none.nir", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_nir(path)
    (tmp_path / "a.nir").write_text("NIRGraph")
    with pytest.raises(InputError, match=r"a.nir: it is not an HDF5 file, or it is damaged"):
        read_nir(tmp_path / "a.nir")
    with h5py.File(tmp_path / "b.nir", "w") as file:
        file["version"] = "1"
    with pytest.raises(InputError, match="has no NIR graph"):
        read_nir(tmp_path / "b.nir")
    with pytest.raises(InputError, match="cannot write"):
        write_nir(to_nir(small_network()), tmp_path / "none" / "a.nir")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nir", "b.nir"]


def soft_link(file):
    file["node/nodes/more"] = h5py.SoftLink("/node/nodes/readout")


def outer_link(file):
    file["node/nodes/more"] = h5py.ExternalLink("/etc/passwd", "/")


def loop(file):
    file["node/nodes/readout/again"] = file["node/nodes"]


def outer_array(file):
    del file["node/nodes/readout/weight"]
    file["node/nodes/readout"].create_dataset(
        "weight", (1, 3), "f8", external=[("/etc/passwd", 0, 24)]
    )


def virtual_array(file):
    del file["node/nodes/readout/weight"]
    layout = h5py.VirtualLayout((1, 3), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (1, 3))
    file["node/nodes/readout"].create_virtual_dataset("weight", layout)


def huge_array(file):
    """A bomb: some bytes in the file, and a terabyte of zeros when it is read."""
    del file["node/nodes/readout/weight"]
    file["node/nodes/readout"].create_dataset(
        "weight", (2**20, 2**17), "f8", chunks=(1024, 1024), compression="gzip"
    )


def huge_chunk(file):
    del file["node/nodes/readout/weight"]
    file["node/nodes/readout"].create_dataset(
        "weight", (1, 3), "f8", maxshape=(None, None), chunks=(2**13, 2**13), compression="gzip"
    )


def references(file):
    file["node/nodes/readout/more"] = file["node"].ref


def a_graph_in_it(file):
    file.copy("node", "node/nodes/more")


def no_type(file):
    del file["node/nodes/readout/type"]


def another_type(file):
    del file["node/nodes/readout/type"]
    file["node/nodes/readout/type"] = "Conv2d"


def no_edges(file):
    del file["node/edges"]


def many(file):
    del file["node/edges"]
    file["node/edges"] = [["input", "output"]] * 5_001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (soft_link, "SoftLink, which may lead out"),
        (outer_link, "ExternalLink, which may lead out"),
        (loop, "deep"),
        (outer_array, "lies in another file"),
        (virtual_array, "lies in another file"),
        (huge_array, "more than .* bytes"),
        (huge_chunk, "more than .* bytes"),
        (references, "NIR has numbers and texts"),
        (a_graph_in_it, "has a nested graph"),
        (no_type, "damaged"),
        (another_type, "damaged"),
        (no_edges, "damaged"),
        (many, "objects"),
    ],
)
def test_hostile_files_are_refused_in_one_sentence(change, message, tmp_path):
    path = tmp_path / "a.nir"
    write_nir(to_nir(small_network()), path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=message) as caught:
        read_nir(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", ["gzip", None])
@pytest.mark.parametrize("seed", range(6))
def test_damage_is_harmless_or_raises_one_input_error(seed, compression, tmp_path):
    """Each in a process of its own: damaged HDF5 can hold its library, or ask for gigabytes."""
    path = tmp_path / "a.nir"
    nir.write(path, to_nir(small_network()), compression=compression)
    damaged, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    if seed % 3 == 0:
        damaged = damaged[: random.integers(0, len(damaged))]
    for place in random.integers(0, len(damaged), 4 ** (seed % 4)):
        damaged[place] = random.integers(0, 256)
    path.write_bytes(bytes(damaged))
    try:
        assert isinstance(read_nir(path), LMUNetwork)
    except InputError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)


def test_the_commands_export_and_import_networks(tmp_path, capsys):
    save(small_network(), tmp_path / "a.safetensors")
    assert export(tmp_path / "a.safetensors", to="nir", out=tmp_path / "a.nir").is_file()
    assert capsys.readouterr().err == ""
    assert_same(small_network(), as_layers(import_file(tmp_path / "a.nir"), "test"))
    export(small_spiking(), to="nir", out=tmp_path / "s.nir")
    with pytest.raises(InputError, match="has a SpikingNetwork"):
        import_file(tmp_path / "s.nir")
    with pytest.raises(InputError, match="onnx needs a float network"):
        export(small_spiking(), to="onnx", out=tmp_path / "s.onnx")
    with pytest.raises(InputError, match="leave out --architecture"):
        import_file(tmp_path / "a.nir", options={"theta": "4"})


def test_export_has_options_of_nir(tmp_path):
    models = Path(__file__).resolve().parents[3] / "examples" / "models"
    digits = models / "digits.safetensors"
    out = tmp_path / "a.nir"
    arguments = ["export", str(digits), "--to", "nir", "--out", str(out)]
    options = ["--dt", "0.002", "--tau", "0.02", "--integrator", "exponential"]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    made = to_nir(load(digits), dt=0.002, tau=0.02, integrator="exponential")
    write_nir(made, tmp_path / "b.nir")
    assert out.read_bytes() == (tmp_path / "b.nir").read_bytes()
    with pytest.raises(InputError, match="dt, integrator of an export is for nir alone, not onnx"):
        export(digits, to="onnx", out=tmp_path / "a.onnx", dt=0.1, integrator="euler")
    with pytest.raises(InputError, match="its own dt and tau"):
        export(small_spiking(), to="nir", out=out, tau=0.1)
