"""LMU layer: layouts of sequences, states, errors, initialization, memory use."""

import copy

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from lmu_deploy.core.errors import InputError
from lmu_deploy.nn import LMU
from lmu_deploy.nn.lmu import choose_form
from lmu_deploy.nn.parallel import run_parallel
from lmu_deploy.nn.products import fused_recurrence
from lmu_deploy.nn.recurrent import run_recurrent, run_stepwise, scan
from lmu_deploy.nn.scans import run_coupled, run_driven
from lmu_deploy.nn.sequences import lengths_of

KINDS = {
    "feedback": {"hidden_to_memory": True, "memory_to_memory": True},
    "recurrent": {},
    "feedforward": {"hidden": "feedforward"},
    "memory": {"hidden": "none"},
}


def make(kind="feedback", n_in=2, units=5, order=4, theta=7.0, dtype=torch.float64, **options):
    torch.manual_seed(3)
    units = 0 if kind == "memory" else units
    return LMU(n_in, units, order, theta, **{**KINDS[kind], **options}, dtype=dtype)


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_time_first_equals_batch_first_transposed(kind):
    layer = make(kind)
    x = double(3, 9, 2)
    y, state = layer(x)
    layer.batch_first = False
    turned, same = layer(x.transpose(0, 1))
    torch.testing.assert_close(turned.transpose(0, 1), y)
    torch.testing.assert_close(same, state)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_equal_single_sequences(kind):
    layer = make(kind)
    parts = [double(n, 2) for n in (4, 9, 1)]
    packed, state = layer(pack_sequence(parts, enforce_sorted=False))
    y, lengths = pad_packed_sequence(packed, batch_first=True)
    assert lengths.tolist() == [4, 9, 1]
    ends, again = layer(pack_sequence(parts, enforce_sorted=False), last_only=True)
    for i, part in enumerate(parts):
        alone, end = layer(part[None])
        torch.testing.assert_close(y[i, : len(part)], alone[0])
        torch.testing.assert_close(ends[i], alone[0, -1])
        for given in (state, again):
            torch.testing.assert_close(given.m[i], end.m[0])
            torch.testing.assert_close(given.h[i], end.h[0])


def test_masks_become_lengths_and_gaps_are_rejected():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    assert lengths_of(mask).tolist() == [2, 3, 1]
    for wrong in ([[1, 0, 1]], [[0, 0, 0]], [[0, 1, 1]]):
        with pytest.raises(InputError, match="one run of true steps"):
            lengths_of(torch.tensor(wrong, dtype=torch.bool))


@pytest.mark.parametrize("kind", KINDS)
def test_values_after_the_end_have_no_effect(kind):
    layer = make(kind)
    x = double(2, 8, 2)
    x[1, 3:] = float("nan")
    x.requires_grad_()
    y, state = layer(x, lengths=torch.tensor([8, 3], dtype=torch.int32))
    assert not y[1, 3:].any()
    (y.sum() + state.m.sum()).backward()
    assert not x.grad[1, 3:].any()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["auto", "recurrent", "step"])
def test_chunks_and_single_steps_equal_one_pass(kind, form):
    layer = make(kind, form=form)
    x = double(3, 23, 2)
    whole, end = layer(x)
    for size in (1, 5, 22):
        state, parts = None, []
        for chunk in x.split(size, 1):
            y, state = layer(chunk, state)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(state, end, rtol=1e-10, atol=1e-12)
    state = None
    for t in range(23):
        y, state = layer.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("order", [1, 16, 64, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_forms_agree_at_every_order(kind, order, dtype, tolerance):
    """At the sizes that deployments have; small ones are drawn in test_nn_forms."""
    steps = 150
    layer = make(kind, 1, 24, order, 3.0 * order, dtype)
    x = torch.randn(4, steps, 1, dtype=dtype)
    m, h = layer.initial_state(4)
    fast = [run_recurrent, run_coupled if kind == "feedback" else run_parallel]
    if kind == "recurrent":
        fast.append(run_driven)

    def pull(form):
        layer.zero_grad()
        y, m_end, h_end = form(layer.weights(), x, m, h, None, False)
        ((y[:, ::3] ** 2).mean() + (m_end**2).mean()).backward()
        gradients = [p.grad.flatten() for p in layer.parameters() if p.grad is not None]
        return y.detach(), m_end.detach(), h_end.detach(), torch.cat(gradients)

    expected = pull(run_stepwise)
    for form in fast:
        for have, want in zip(pull(form), expected, strict=True):
            if want.numel():
                assert (have - want).abs().max() <= tolerance * want.abs().max(), form.__name__


@pytest.mark.parametrize("last_only", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_inference_equals_training_mode_and_repeats(kind, last_only):
    """Bit for bit, at a size where blocks and the faster products are taken."""
    layer = make(kind, 1, 128, 64, 90.0, torch.float32)
    x = torch.randn(100, 37, 1)
    found = []
    for _ in range(2):
        layer.zero_grad()
        y, state = layer(x, last_only=last_only)
        (y**2).sum().backward()
        with torch.no_grad():
            alone, end = layer(x, last_only=last_only)
        assert torch.equal(y, alone)
        assert all(map(torch.equal, state, end))
        found.append([y, *(p.grad for p in layer.parameters() if p.grad is not None)])
    assert all(map(torch.equal, *found))


def test_inference_caches_follow_weight_changes():
    """What inference keeps between calls is computed again for other weights."""
    layer = make("feedback", 1, 96, 64, 90.0, torch.float32)
    x = torch.randn(100, 20, 1)
    with torch.inference_mode():
        first, _ = layer(x)
    twin = copy.deepcopy(layer)
    for name, weight in layer.named_parameters():
        weight.data[0] += 0.1
        with torch.no_grad():
            y, _ = layer(x)
        assert not torch.equal(y, first), name
        assert torch.equal(y, layer(x)[0]), name
        first = y
    with torch.inference_mode():
        assert not torch.equal(twin(x)[0], layer(x)[0])
    layer.load_state_dict(twin.state_dict())
    with torch.no_grad():
        assert torch.equal(twin(x)[0], layer(x)[0])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_fused_recurrence_equals_scan(activation):
    """The same call reaches torch's own CPU kernel here; whether it is taken needs a GPU."""
    torch.manual_seed(0)
    found = []
    for fused in (True, False):
        drive, start, weight = (
            torch.sin(torch.arange(n, dtype=torch.float64)).view(shape).requires_grad_()
            for n, shape in ((3 * 7 * 4, (3, 7, 4)), (12, (3, 4)), (16, (4, 4)))
        )
        if fused:
            y = fused_recurrence(drive, start, weight, activation)
        else:
            by_time = drive.transpose(0, 1).clone(memory_format=torch.contiguous_format)
            y = scan(by_time, start, weight, 4, activation).transpose(0, 1)
        (y * torch.cos(torch.arange(84.0)).view(3, 7, 4)).sum().backward()
        found.append([y.detach(), drive.grad, start.grad, weight.grad])
    for have, want in zip(*found, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-12, atol=1e-12)


def test_form_depends_on_feedback():
    def chosen(batch, **options):
        layer = make(**options)
        return choose_form(layer.form, layer.weights(), batch)

    for kind in ("recurrent", "feedforward", "memory"):
        assert chosen(8, kind=kind) is run_parallel
        assert chosen(8, kind=kind, memory_to_memory=True) is run_parallel
        assert chosen(8, kind=kind, form="recurrent") is run_recurrent
    assert chosen(8) is run_recurrent
    assert chosen(100, kind="recurrent", n_in=1, order=256, units=212) is run_driven
    assert chosen(100, kind="recurrent", n_in=2, order=256, units=212) is run_parallel
    assert chosen(100, kind="feedforward", n_in=1, order=256, units=212) is run_parallel
    assert chosen(100, order=256, units=212) is run_coupled
    assert chosen(8, form="step") is run_stepwise


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "give units = 0 exactly when hidden is 'none'"),
        ({"hidden": "none"}, "units is 5"),
        ({"kind": "memory", "hidden_to_memory": True}, "needs hidden units"),
        ({"form": "parallel"}, "'parallel' is impossible with hidden_to_memory"),
        ({"activation": "gelu"}, "activation is 'gelu'; choose one of hard-tanh, linear"),
        ({"theta": 0.5}, "theta is 0.5"),
        ({"order": 0}, "order is 0"),
        ({"discretizer": "euler", "theta": 2.0}, "euler diverges.*must exceed"),
        ({"init": "zero"}, "init is 'zero'"),
    ],
)
def test_invalid_settings_are_rejected(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("x", "lengths", "message"),
    [
        ((3, 9, 1), None, r"shape \(3, 9, 1\); give \(batch, steps, 2\)"),
        ((3, 0, 2), None, "at least one step"),
        ((9, 2), None, "give"),
        ((3, 9, 2), [1, 2], "3 integers from 1 to 9"),
        ((3, 9, 2), [1, 2, 0], "from 1 to 9"),
        ((3, 9, 2), [1, 2, 10], "from 1 to 9"),
        ((3, 9, 2), [1.0, 2.0, 3.0], "integers"),
    ],
)
def test_invalid_sequences_are_rejected(x, lengths, message):
    lengths = None if lengths is None else torch.tensor(lengths)
    with pytest.raises(InputError, match=message):
        make()(torch.zeros(x, dtype=torch.float64), lengths=lengths)


def test_initialization_follows_the_paper():
    torch.manual_seed(0)
    layer = LMU(64, 400, 100, 100.0, 2, hidden_to_memory=True, memory_to_memory=True)
    assert layer.input_encoders.abs().max() <= (3 / 64) ** 0.5
    assert layer.input_encoders.std().item() == pytest.approx((1 / 64) ** 0.5, rel=0.15)
    assert layer.hidden_encoders.std().item() == pytest.approx((1 / 400) ** 0.5, rel=0.1)
    assert not layer.memory_encoders.any()
    assert not layer.bias.any()
    assert layer.recurrent_kernel.std().item() == pytest.approx((2 / 800) ** 0.5, rel=0.05)
    assert layer.memory_kernel.std().item() == pytest.approx((2 / 600) ** 0.5, rel=0.05)
    layer = LMU(1, 8, 4, 9.0, hidden_to_memory=True, memory_to_memory=True, init="memory")
    assert layer.memory_kernel.all()
    assert (layer.input_encoders == 1).all()
    for zero in ("hidden_encoders", "memory_encoders", "input_kernel", "recurrent_kernel"):
        assert not getattr(layer, zero).any()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_use_grows_linearly_in_time(kind):
    layer = make(kind, 1, 32, 32, 100.0, torch.float32)

    def saved_bytes(steps):
        seen = {}

        def keep(tensor):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y, _ = layer(torch.randn(1, steps, 1))
        assert y.shape[1] == steps
        return sum(seen.values())

    assert saved_bytes(8000) <= 2.2 * saved_bytes(4000)


def test_training_on_a_hundred_thousand_steps():
    torch.manual_seed(0)
    layer = LMU(1, 0, 16, 50_000.0, hidden="none", init="memory")
    readout = torch.nn.Linear(16, 1)
    x = torch.sin(torch.arange(100_000) / 4000.0)[None, :, None]
    target = torch.cos(torch.arange(100_000) / 4000.0)[None, :, None]
    optimizer = torch.optim.Adam([*layer.parameters(), *readout.parameters()], lr=0.05)
    losses = []
    for _ in range(8):
        loss = ((readout(layer(x)[0]) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


class KnownNoise:
    """Noise that a test knows, and the states that it was asked for."""

    def __init__(self, noise):
        self.noise, self.asked = noise, None

    def draw(self, states, lengths=None):
        self.asked = states
        return self.noise


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("n_in", [2, 4])
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (kind, form)
        for kind in KINDS
        for form in ("step", "recurrent", "parallel", "auto")
        if (kind, form) != ("feedback", "parallel")  # has no parallel form
    ],
)
def test_readers_of_a_memory_get_its_noise_and_the_memory_does_not(kind, n_in, form, last_only):
    """Every form against the equations, written out step by step."""
    layer = make(kind, n_in, channels=3, form=form)
    x, noise = double(2, 6, n_in), double(2, 6, 12)
    layer.noise = KnownNoise(noise)
    found, state = layer(x, last_only=last_only)
    w, m = layer.weights(), torch.zeros(2, 12, dtype=torch.float64)
    h, outputs, states = torch.zeros(2, w.units, dtype=torch.float64), [], []
    for t in range(6):
        u = x[:, t] @ w.input_encoders
        if kind == "feedback":
            u = u + h @ w.hidden_encoders + m @ w.memory_encoders
        m = (m.view(2, 3, 4) @ w.a_bar.t() + u[:, :, None] * w.b_bar).flatten(1)
        read = m + noise[:, t]
        if kind != "memory":
            z = read @ w.memory_kernel + x[:, t] @ w.input_kernel + w.bias
            h = torch.tanh(z if kind == "feedforward" else z + h @ w.recurrent_kernel)
        outputs.append(read if kind == "memory" else h)
        states.append(m)
    wanted = torch.stack(outputs, 1)
    torch.testing.assert_close(found, wanted[:, -1] if last_only else wanted)
    torch.testing.assert_close(state.m, m)
    if kind != "feedback":  # with feedback, noise changes what the memory receives
        torch.testing.assert_close(layer.noise.asked, torch.stack(states, 1))
    assert not layer.noise.asked.requires_grad
    layer.noise = None
    quiet = layer(x, last_only=last_only)[0]
    assert (quiet - found).abs().max() > 0.1
