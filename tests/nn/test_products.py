"""Matrix products are correct whichever library computes them."""

import copy

import pytest
import torch

from lmu_deploy.nn import LMU, products
from lmu_deploy.nn.blocks import Blocks, OutputGradients, new_history, result_at, results
from lmu_deploy.nn.products import Product, matmul, summed_outer
from lmu_deploy.nn.weights import orbit, squares

SIZES = [(3, 5, 7), (100, 212, 212), (1700, 40, 50)]
"""Below and above the size for oneDNN, and more rows than are summed in one product."""


@pytest.fixture(params=["private operator", "public operators"], autouse=True)
def operators(request, monkeypatch):
    """Run every test with the private operator of torch, where it exists, and without it."""
    if request.param == "public operators":
        monkeypatch.setattr(products, "_private_operator", lambda dtype: None)
    return request.param


@pytest.mark.parametrize(("rows", "k", "n"), SIZES)
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "hard-tanh"])
def test_packed_product_equals_the_product(rows, k, n, activation):
    torch.manual_seed(0)
    x, w = torch.randn(rows, k), torch.randn(k, n) / k**0.5
    product = Product(x, rows * k * n, activation)
    apply = {"linear": lambda z: z, "relu": torch.relu, "tanh": torch.tanh}
    exact = x.double() @ w.double()
    expected = apply.get(activation, torch.nn.functional.hardtanh)(exact)
    for found in (product(x, w), product(x, product.pack(w))[:, :n]):
        assert (found - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(("rows", "k", "n"), SIZES)
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "hard-tanh"])
def test_product_of_bfloat16_is_rounded_once(monkeypatch, rows, k, n, activation):
    """Sums are of float32: only operands and the result have 8 bits."""
    monkeypatch.setattr(products, "has_bfloat16", lambda: True)
    torch.manual_seed(0)
    x, stack = torch.randn(rows, k).bfloat16(), torch.randn(2, k, n) / k**0.5
    product = Product(x, rows * k * n, activation)
    for w, packed in zip(stack, product.pack_all(stack), strict=True):
        exact = x.double() @ w.bfloat16().double()
        expected = products.ACTIVATIONS[activation].apply(exact)
        for found in (product(x, product.pack(w)), product(x, packed)):
            assert found.dtype == torch.bfloat16
            # without a fused activation z is rounded too
            torch.testing.assert_close(found[:, :n].double(), expected, rtol=2**-7, atol=2**-8)


@pytest.mark.parametrize(("rows", "k", "n"), SIZES)
def test_gradients_of_a_product(rows, k, n):
    torch.manual_seed(0)
    x, w = torch.randn(2, rows, k, requires_grad=True), torch.randn(k, n, requires_grad=True)
    probe = torch.randn(2, rows, n)
    (matmul(x, w) * probe).sum().backward()
    d_x, d_w = probe @ w.detach().t(), (x.detach().flatten(0, 1).t() @ probe.flatten(0, 1))
    torch.testing.assert_close(x.grad, d_x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(w.grad, d_w, rtol=1e-4, atol=1e-3)
    outer = summed_outer(x, x.numel() * n)(x.detach().flatten(0, 1), probe.flatten(0, 1))
    torch.testing.assert_close(outer, d_w, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 8])
def test_orbit_contains_every_power(steps):
    torch.manual_seed(0)
    start, matrix = torch.randn(2, 3).double(), torch.randn(3, 3).double()
    found = orbit(start, squares(matrix, steps), steps)
    assert found.shape == (steps, 2, 3)
    for t in range(steps):
        torch.testing.assert_close(found[t], start @ torch.linalg.matrix_power(matrix, t))


@pytest.mark.parametrize("steps", [1, 5, 6])
def test_history_returns_the_state_after_each_step(steps):
    """State t of sequence s is 10 s + t; the state before the first step is its number 0."""
    batch, length = 2, 3
    history = new_history(torch.zeros(batch, 1), steps, length, 1)
    state = 10.0 * torch.arange(batch).unsqueeze(1)
    for t in range(steps):
        history[t // length, :, t % length] = state + t
    last = state + steps
    expected = state + torch.arange(1, steps + 1)
    assert torch.equal(results(history, last, steps)[..., 0], expected)
    for end in range(1, steps + 1):
        ends = torch.tensor([end, steps])
        assert result_at(history, last, steps, ends)[:, 0].tolist() == [end, 10 + steps]
    gradient = torch.zeros(batch, 1)
    gradients = OutputGradients(torch.ones(batch, steps, 1), last, torch.tensor([1, steps]))
    for t in range(steps):
        gradients.add(gradient, t)
    assert torch.equal(gradient, last + steps)


@pytest.mark.parametrize("trained", [False, True])
def test_fixed_memory_caches_its_powers(trained):
    layer = LMU(1, 3, 4, 9.0, hidden_to_memory=True, memory_to_memory=True, train_memory=trained)
    found = [Blocks.of(layer.weights().bare_dynamics(), 5) for _ in range(2)]
    assert (found[0] is found[1]) is not trained
    assert found[0].carry.requires_grad is trained


def test_outputs_do_not_depend_on_previous_batches():
    """Two batches in blocks of one length, of which one is too small for oneDNN."""
    torch.manual_seed(0)
    layer = LMU(1, 90, 80, 40.0, hidden_to_memory=True, memory_to_memory=True)
    other = copy.deepcopy(layer)
    x = torch.randn(130, 6, 1)
    with torch.no_grad():
        other(x[:110])
        assert torch.equal(other(x)[0], layer(x)[0])


def test_public_operators_are_used_without_the_private_one(operators):
    product = products.Product(torch.zeros(1), 10**9)
    if operators == "public operators":
        assert not product.is_onednn
        assert not products.has_onednn(torch.zeros(1), 10**9)


@pytest.mark.parametrize("fault", ["absent", "another signature", "another result"])
def test_unsuitable_private_operator_is_rejected(monkeypatch, fault):
    class Packet:
        @staticmethod
        def default(x, w, bias, name, numbers, algorithm):
            if fault == "another signature":
                raise RuntimeError("expected at most 4 arguments")
            return x @ w.t() + 1.0

    class Operators:
        _linear_pointwise = None if fault == "absent" else Packet

    monkeypatch.undo()
    products._private_operator.cache_clear()
    monkeypatch.setattr(products.torch.ops, "mkldnn", Operators)
    try:
        assert products._private_operator(torch.float32) is None
        assert products._private_operator(torch.bfloat16) is None
    finally:
        products._private_operator.cache_clear()
