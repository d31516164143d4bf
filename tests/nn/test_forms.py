"""All forms of evaluation of a layer have equal outputs, states and gradients."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lmu_options import lmu_options

from lmu_deploy.nn import LMU
from lmu_deploy.nn.parallel import run_parallel
from lmu_deploy.nn.recurrent import run_recurrent, run_stepwise
from lmu_deploy.nn.scans import run_coupled, run_driven


@st.composite
def layers(draw, dtype=torch.float64):
    torch.manual_seed(draw(st.integers(0, 1000)))
    layer = LMU(n_in=draw(st.integers(1, 4)), **draw(lmu_options()), dtype=dtype)
    disturb(layer)
    return layer


def disturb(layer, amount=0.2):
    """Move every weight, so that those that start at zero take part; the memory stays stable."""
    with torch.no_grad():
        for name, weight in layer.named_parameters(recurse=False):
            shape = weight.shape
            weight.add_(amount / max(shape) ** 0.5 * torch.randn(shape, dtype=weight.dtype))
            if name == "memory_encoders":
                weight.mul_(0.3)


def results(form, layer, x, m, h, lengths, last_only, probe, **options):
    """Run a form, pull `probe` back through it, and give all that came out by name."""
    layer.zero_grad()
    # a memory at rest without a gradient may be computed in another way
    x, m, h = (t.detach().clone().requires_grad_(t is not m or bool(m.any())) for t in (x, m, h))
    y, m_end, h_end = form(layer.weights(), x, m, h, lengths, last_only, **options)
    if lengths is not None and not last_only:
        inside = torch.arange(x.shape[1]) < lengths[:, None]
        y = torch.where(inside[..., None], y, 0.0)
    weigh = torch.cos(torch.arange(y.numel()).double() * probe).to(y.dtype).view_as(y)
    loss = (y * weigh).sum() + (m_end.sin() * 0.3).sum() + (h_end * 0.7).sum()
    loss.backward()
    found = {"y": y, "m": m_end, "h": h_end, "dx": x.grad, "dm": m.grad, "dh": h.grad}
    found |= {f"d {name}": p.grad for name, p in layer.named_parameters()}
    return {name: None if t is None else t.detach().clone() for name, t in found.items()}


def errors(found, expected):
    """Largest difference of each result, relative to the largest entry of its kind.

    The weights' gradients are of one kind: they are the one vector that an optimizer sees.
    """
    kind = {name: "weights" if name.startswith("d ") else name for name in expected}
    scale = dict.fromkeys(kind.values(), 1e-3)
    for name, want in expected.items():
        if want is not None and want.numel():
            scale[kind[name]] = max(scale[kind[name]], want.abs().max().item())
    relative = {}
    for name, want in expected.items():
        have = found[name]
        if want is None or have is None:  # a weight that does not reach the result
            assert (want is None or not want.any()) and (have is None or not have.any()), name
        elif want.numel():
            assert have.shape == want.shape, name
            relative[name] = (have - want).abs().max().item() / scale[kind[name]]
    return relative


def other_forms(layer, length):
    yield run_recurrent, {}
    if layer.hidden_encoders is not None:
        yield run_coupled, {"length": length}
    else:
        yield run_parallel, {"length": length}
        yield run_parallel, {}
        if layer.recurrent_kernel is not None and layer.n_in <= layer.channels:
            yield run_driven, {"length": length}


def arguments(layer, batch, steps, ends, last_only, from_rest):
    kind = {"dtype": layer.input_encoders.dtype}
    x = torch.randn(batch, steps, layer.n_in, **kind)
    m, h = layer.initial_state(batch)
    if not from_rest:
        m, h = torch.randn(m.shape, **kind), torch.randn(h.shape, **kind)
    return [x, m, h, torch.tensor(ends) if ends else None, last_only, 0.37]


@st.composite
def cases(draw):
    batch, steps = draw(st.integers(1, 4)), draw(st.integers(1, 13))
    ends = None
    if draw(st.booleans()):
        ends = draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
    return (batch, steps, ends, draw(st.booleans()), draw(st.booleans())), draw(
        st.integers(1, steps)
    )


@settings(max_examples=60, deadline=None)
@given(layer=layers(), case=cases())
def test_forms_agree_in_float64(layer, case):
    given_to_all = arguments(layer, *case[0])
    expected = results(run_stepwise, layer, *given_to_all)
    for form, options in other_forms(layer, case[1]):
        for name, error in errors(results(form, layer, *given_to_all, **options), expected).items():
            assert error <= 1e-10, f"{name} differs by {error:.3g}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(layer=layers(torch.float32), case=cases())
def test_forms_agree_in_float32(layer, case):
    """Within 1e-5 of the truth; where terms cancel, four times the plain loop's largest error.

    Feedback that nearly doubles the states at every step leaves small differences of large numbers.
    Which of the results they hit depends on the order of additions, and so on the processor.
    """
    given_to_all = arguments(layer, *case[0])
    exact = copy.deepcopy(layer).double()
    in_double = [t.double() for t in given_to_all[:3]]
    truth = results(run_stepwise, exact, *in_double, *given_to_all[3:])
    plain = errors(results(run_stepwise, layer, *given_to_all), truth)
    limit = max(1e-5, 4 * max(plain.values()))
    for form, options in other_forms(layer, case[1]):
        found = errors(results(form, layer, *given_to_all, **options), truth)
        for name, error in found.items():
            assert error <= limit, f"{name}: {error:.3g}"


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "hard-tanh"])
@pytest.mark.parametrize(
    ("kind", "forms"),
    [
        ("recurrent", (run_coupled, run_recurrent)),
        ("feedforward", (run_coupled, run_recurrent)),
        ("recurrent", (run_driven, run_parallel)),
    ],
)
def test_large_products_agree_in_float32(kind, forms, activation):
    """Sizes at which another library makes the products, where the machine has it.

    Of 322,560 values of z some lie so near a kink that rounding decides on which side; the
    gradients of those two activations are left to the drawn, smaller cases.
    """
    torch.manual_seed(0)
    feedback = run_coupled in forms
    layer = LMU(1, 120, 64, 90.0, hidden=kind, hidden_to_memory=feedback, activation=activation)
    with torch.no_grad():
        if feedback:
            layer.hidden_encoders.mul_(0.3)
        layer.memory_kernel.mul_(0.5)
        if layer.recurrent_kernel is not None:
            layer.recurrent_kernel.mul_(0.3)
    case = arguments(layer, 128, 21, None, False, False)
    truth = results(
        run_stepwise, copy.deepcopy(layer).double(), *(t.double() for t in case[:3]), *case[3:]
    )
    for form in forms:
        for name, error in errors(results(form, layer, *case), truth).items():
            if name in ("y", "m", "h") or activation in ("linear", "tanh"):
                assert error <= 1e-5, f"{form.__name__}, {name}: {error:.3g}"
