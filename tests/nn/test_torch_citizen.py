"""The layer in other people's programs: autocast, tracing, export, compilation, empty batches."""

import copy
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lmu_deploy.nn import LMU, products

KINDS = ("recurrent", "feedforward", "none")


def layer(hidden="recurrent", **more):
    torch.manual_seed(0)
    units = 0 if hidden == "none" else 6
    return LMU(2, units=units, order=4, theta=10.0, hidden=hidden, **more).eval()


class Between(torch.nn.Module):
    """A layer between two operations."""

    def __init__(self):
        super().__init__()
        self.layer = layer()

    def forward(self, x):
        return torch.relu(self.layer(2 * x)[0]) + 1


@pytest.fixture
def x():
    return torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hidden", KINDS)
def test_autocast_trains_in_the_precision_of_the_weights(hidden, dtype, x):
    plain, mixed = layer(hidden), layer(hidden)
    readout = torch.nn.Linear(plain.n_out, 2)
    expected, _ = plain(x)
    with torch.autocast("cpu", dtype=dtype):
        found, state = mixed(x)
        answers = readout(found)
    assert found.dtype == state.m.dtype == torch.float32
    assert answers.dtype == dtype
    torch.testing.assert_close(found, expected)
    answers.float().square().mean().backward()
    assert all(w.grad is not None and w.grad.isfinite().all() for w in mixed.parameters())


FEEDBACK = {"hidden_to_memory": True, "memory_to_memory": True}


@pytest.fixture(params=["private operators", "public operators"])
def with_bfloat16(request, monkeypatch):
    """Compute in bfloat16 on every processor, by either kind of operators of torch."""
    monkeypatch.setattr(products, "has_bfloat16", lambda: True)
    if request.param == "public operators":
        monkeypatch.setattr(products, "_private_operator", lambda dtype: None)


def passed(made, x, probe, mixed, **more):
    """Return outputs, the memory and gradients, by name, in double precision."""
    made.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        y, (m, h) = made(x, **more)
    assert y.dtype == m.dtype == h.dtype == x.dtype
    ((y * probe).sum() + m.sum() / len(m)).backward()
    found = {"y": y, "m": m, "x": x.grad} | {n: w.grad for n, w in made.named_parameters()}
    return {name: value.detach().double() for name, value in found.items()}


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("feedback", [{}, FEEDBACK])
def test_autocast_rounds_large_products_to_bfloat16(with_bfloat16, feedback, last_only):
    """Of values, 8 bits remain; of the memory without feedback from hidden units, all."""
    torch.manual_seed(0)
    made = LMU(2, 100, 60, 30.0, channels=2, **feedback)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name in ("memory_encoders", "hidden_encoders", "bias"):
                weight.normal_(0.0, 0.01)
    x, lengths = torch.randn(130, 40, 2), torch.randint(20, 41, (130,))
    probe = torch.randn(130, 100) if last_only else torch.randn(130, 40, 100)
    more = {"last_only": last_only, "lengths": lengths}
    plain, mixed = (passed(made, x, probe, kind, **more) for kind in (False, True))
    exact = passed(copy.deepcopy(made).double(), x.double(), probe.double(), False, **more)
    for name, expected in exact.items():
        error = (mixed[name] - expected).norm() / expected.norm()
        unrounded = name == "m" and not feedback
        assert error < (1e-5 if unrounded else 2**-6), name
        assert unrounded or error > 1e-4, name
        assert (plain[name] - expected).norm() < 1e-4 * expected.norm(), name
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        again = made(x, **more)[0].double()
    torch.testing.assert_close(again, mixed["y"], rtol=0.0, atol=2**-6)


def test_autocast_changes_nothing_without_instructions_for_it(monkeypatch):
    monkeypatch.setattr(products, "has_bfloat16", lambda: False)
    torch.manual_seed(0)
    made, x = LMU(1, 100, 120, 30.0, **FEEDBACK), torch.randn(130, 9, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = made(x)[0]
    assert torch.equal(found, made(x)[0])


def test_autocast_takes_halves_from_a_layer_before(x):
    stack = torch.nn.Sequential(torch.nn.Linear(2, 2), layer())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, state = stack(x)
        again, _ = stack[1](stack[0](x), state)
    assert found.shape == again.shape == (3, 5, 6)


@pytest.mark.parametrize("hidden", ["recurrent", "none"])
def test_tracing_export_and_compilation_give_the_same(hidden, x, tmp_path):
    made = layer(hidden)
    expected, (m, h) = made(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(made, x)
        exported = torch.export.export(
            made, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch", min=1, max=64)}}
        ).module()
    for found, (found_m, found_h) in (traced(x), exported(x)):
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(found_m, m)
        torch.testing.assert_close(found_h, h)
    five = torch.randn(5, 5, 2)
    torch.testing.assert_close(exported(five)[0], made(five)[0])
    torch.testing.assert_close(traced(five)[0], made(five)[0])


def test_compiled_layers_train_as_others_do(x):
    made = layer()
    compiled = torch.compile(copy.deepcopy(made), backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about the states between two graphs
        for each in (made, compiled):
            each(x)[0].square().sum().backward()
    pairs = zip(made.parameters(), compiled.parameters(), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(theirs.grad, mine.grad)


def test_a_compiler_leaves_the_layer_and_compiles_what_is_around_it(x):
    from torch._dynamo.testing import CompileCounter

    counted = CompileCounter()
    between = Between()
    compiled = torch.compile(between, backend=counted)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), between(x))
        compiled(x)
    assert (counted.frame_count, counted.op_count) == (2, 3)


def test_the_compiler_is_not_imported_with_the_layer():
    code = "import sys, lmu_deploy.nn.lmu; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_files_compute_the_same(dynamo, x, tmp_path):
    pytest.importorskip("onnx", reason="onnx files")
    runtime = pytest.importorskip("onnxruntime", reason="onnx files")
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch's exporter of programs")
    made, file = layer(), tmp_path / "layer.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(made, (x,), str(file), dynamo=dynamo)
    session = runtime.InferenceSession(str(file))
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), made(x)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hidden", KINDS)
@pytest.mark.parametrize("last_only", [False, True])
def test_empty_batches_give_empty_outputs(hidden, last_only, x):
    made = layer(hidden)
    found, state = made(x[:0], last_only=last_only)
    assert found.shape == ((0, made.n_out) if last_only else (0, 5, made.n_out))
    assert state.m.shape == (0, 4)
    assert state.h.shape == (0, made.units)


@pytest.mark.parametrize("hidden", KINDS)
def test_data_parallel_gives_the_same(hidden, x):
    """Without a GPU torch calls the module itself; with several, each takes a part of the batch."""
    made = layer(hidden)
    expected, state = made(x)
    found, (m, h) = torch.nn.DataParallel(made)(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close((m, h), tuple(state))
    copies = [copy.deepcopy(made) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:  # as DataParallel runs its copies
        parts = list(pool.map(lambda one, part: one(part)[0], copies, (x[:1], x[1:])))
    torch.testing.assert_close(torch.cat(parts), expected)
