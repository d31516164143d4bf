"""Training with the noise of a chip: what is measured, and that it acts in training alone."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("brian2", reason="chips are simulated by Brian2")

import torch

import lmu_deploy as ld
from converters.spiking import spike
from lmu_deploy.cli import main
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.reference import run_reference
from lmu_deploy.fidelity.measures import chip_noise
from lmu_deploy.fidelity.measures.chip_noise import measure_noise, relative_noise, respond
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import get_task
from lmu_deploy.training.config import preset, read_settings
from lmu_deploy.training.module import ChipNoise

TASK = get_task("digits")
CHIP = {"neurons_per_state": 5, "presentation_ms": 5.0, "tau_ms": 10.0, "calibration_samples": 20}
QUICK = {"epochs": 1, "config": {"samples": 200}}


@pytest.fixture(scope="module")
def network():
    return ld.load("examples/models/digits.safetensors")


def test_planted_noise_is_measured():
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(3000, 20, 2)) * [0.1, 5.0]
    white = rng.normal(size=wanted.shape) @ (factor := np.array([[0.3, 0.0], [0.2, 0.1]])).T
    delta = [white[:, 0]]
    for row in np.moveaxis(white[:, 1:], 1, 0):
        delta.append(0.7 * delta[-1] + np.sqrt(1.0 - 0.7**2) * row)
    found = wanted + np.stack(delta, axis=1) * [0.1, 5.0]
    halves = [(found[:1500], wanted[:1500]), (found[1500:], wanted[1500:])]
    covariance, rho = relative_noise(halves)
    np.testing.assert_allclose(covariance, factor @ factor.T, atol=0.005)
    assert rho == pytest.approx(0.7, abs=0.01)
    still, none = relative_noise([(np.zeros((2, 3, 1)), np.zeros((2, 3, 1)))])
    assert (still, none) == (np.zeros((1, 1)), 0.0)


def test_responses_of_a_memory_are_those_of_the_reference(network):
    layers = as_layers(network, "test")
    x = TASK.load().train.inputs[:3].astype(np.float64)
    u = x @ layers.layers[0].input_encoders
    trace = run_reference(layers, x, record=True)
    np.testing.assert_allclose(respond(layers.layers[0].memory, u), trace.m, atol=1e-12)


def test_deviations_are_those_of_the_chip_alone(network):
    """A second layer's memory is compared with what it received, not with the float network."""
    layers = as_layers(network, "test")
    x = TASK.load().train.inputs[:4]
    made = spike(network, TASK.load().train.inputs[:60], mismatch=0.2, **CHIP)
    trace = run_reference(layers, x, record=True)
    off = np.zeros_like(trace.m)
    off[..., 3] = 0.25
    run = SimpleNamespace(states=SimpleNamespace(m=trace.m + off, h=trace.h, y=trace.y))
    ((found, wanted),) = chip_noise._deviations(made, run, x)
    np.testing.assert_allclose(found - wanted, off, atol=1e-12)


def test_noise_of_units_is_what_explains_the_readout(network):
    readout = as_layers(network, "test").readout
    rng = np.random.default_rng(0)
    h = rng.uniform(-1, 1, (300, 8, len(readout.kernel)))
    own = 0.2 * np.sqrt(np.mean(h**2)) * rng.normal(size=h.shape)
    y = (h + own) @ readout.kernel + (0.0 if readout.bias is None else readout.bias)
    run = SimpleNamespace(states=SimpleNamespace(h=h, y=y))
    chip = SimpleNamespace(units=object(), host=SimpleNamespace(readout=readout))
    assert np.sqrt(chip_noise._of_units(chip, run)) == pytest.approx(0.2, rel=0.05)
    chip.units = None
    assert chip_noise._of_units(chip, run) == 0.0


def test_few_neurons_have_more_noise_than_many(network):
    data = TASK.load()
    few, many = (
        measure_noise(network, {**CHIP, "chips": 2, "units": "host", "neurons_per_state": n}, data)
        for n in (5, 40)
    )
    ((few,), (many,)) = few.memories, many.memories
    assert few.factor.square().sum() > 3 * many.factor.square().sum()


@pytest.mark.parametrize(
    ("chip", "message"),
    [
        ({"profile": "dynapse7"}, "dynapse7"),
        ({"neurons": 3}, "neurons"),
        ({"chip_seed": 3}, "training sets it itself"),
        ({"chips": 0}, "chips is 0"),
        ({"weight_bits": 99}, "weight"),
    ],
)
def test_wrong_chips_are_refused(network, chip, message):
    with pytest.raises(InputError, match=message):
        measure_noise(network, {**CHIP, **chip}, TASK.load())
    with pytest.raises(InputError, match=message):
        ld.train("digits", chip={**CHIP, **chip}, **QUICK)


def test_a_stack_and_a_network_without_memory_are_refused():
    with pytest.raises(InputError, match="measured for layers, not for a stack"):
        read_settings({"stack": {}, "chip": {"profile": "generic-analog"}}, "here")
    with pytest.raises(InputError, match="has no memory"):
        ld.train("digits", "lstm", chip="generic-analog", **QUICK)


def test_noise_acts_while_it_is_attached():
    torch.manual_seed(0)
    model = SequenceModel(preset(TASK, "lmu").network_for(TASK)).eval()
    x = torch.from_numpy(TASK.load().train.inputs[:5])
    quiet = model(x)
    states = model.layers[0].weights().states
    memory = chip_noise.relative_noise([(np.ones((2, 3, states)), np.full((2, 3, states), 2.0))])
    from lmu_deploy.nn.memory import StateNoise

    for noise in (ChipNoise((StateNoise(*memory),)), ChipNoise((None,), units=0.5)):
        with pytest.raises(KeyError), noise.attached(model):
            assert (model(x) - quiet).abs().max() > 0.01
            raise KeyError
        torch.testing.assert_close(model(x), quiet)


def test_training_with_noise_repeats_and_says_how(tmp_path):
    asked = {"seed": 4, "chip": {"profile": "generic-analog", "chips": 1, **CHIP}, **QUICK}
    one, plain = ld.train("digits", **asked), ld.train("digits", seed=4, **QUICK)
    kernel, again, without = (
        as_layers(of.network, "test").layers[0].hidden.memory_kernel
        for of in (one, ld.train("digits", **asked), plain)
    )
    assert (kernel == again).all() and (kernel != without).any()
    assert json.loads(one.network.provenance["settings"])["chip"]["neurons_per_state"] == 5
    assert "--chip generic-analog --chips 1 --neurons-per-state 5" in one.network.provenance[
        "command"
    ]  # fmt: skip
    assert "chip" not in json.loads(plain.network.provenance["settings"])


def test_a_checkpoint_of_another_chip_is_refused(tmp_path):
    file = tmp_path / "state.ckpt"
    ld.train("digits", checkpoint=file, chip={"chips": 1, **CHIP}, **QUICK)
    with pytest.raises(InputError, match="another"):
        ld.train("digits", checkpoint=file, **QUICK)


def test_the_command_takes_the_options_of_a_chip(tmp_path, monkeypatch, capsys):
    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["lmu-deploy", "train", "digits", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0

    settings, out = tmp_path / "s.toml", tmp_path / "n.safetensors"
    settings.write_text("samples = 200\n")
    call = ["--epochs", 1, "--config", settings, "--out", out]
    chip = ["--neurons-per-state", 5, "--presentation-ms", 5, "--tau-ms", 10]
    assert called(*call, *chip) == 2
    assert "describes a chip; add --chip PROFILE" in capsys.readouterr().err
    assert called(*call, "--chip", "generic-analog", *chip) == 0
    recorded = json.loads(ld.load(out).provenance["settings"])["chip"]
    assert recorded == {
        "profile": "generic-analog", "neurons_per_state": 5, "presentation_ms": 5.0, "tau_ms": 10.0,
    }  # fmt: skip
