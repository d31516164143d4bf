"""The authors' demonstration at toy size: its neurons, its decoded window, its files."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("brian2", reason="the demonstration runs on Brian2")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "paper" / "loihi_demo.py"


@pytest.fixture(scope="module")
def script():
    demo = runpy.run_path(str(SCRIPT))
    drawn = demo["noise"]
    # The functions of the script see its own names: calibrate on less noise than 160 s.
    demo["lowered"].__globals__["noise"] = lambda n, seconds, seed: drawn(
        min(n, 4), min(seconds, 3), seed
    )
    return demo


def ends_of_ranges(populations, membrane_ms, refractory_ms):
    strongest = populations.gains + populations.biases
    return 1e3 / (refractory_ms + membrane_ms * np.log(strongest / (strongest - 1.0)))


def test_neurons_of_both_chips_end_between_100_and_120_hertz(script):
    analog = script["lowered"]("brian2", script["delay_network"](), 40, (100.0, 120.0))
    rates = ends_of_ranges(analog.memories[0].populations, 20.0, 2.0)
    assert 99.9 < rates.min() < 102.0 and 118.0 < rates.max() < 120.1
    assert analog.device.mismatch == 0.0 and analog.tau_ms == 100.0

    loihi = script["lowered"]("lava-lif", script["delay_network"](), 40, (100.0, 120.0))
    neurons = loihi.memories[0].neurons
    # In units of the current that just reaches threshold, x = 1 being a message of 2^13.
    threshold = 64 * neurons.threshold * neurons.membrane_decay / 4096
    encoders = np.abs(neurons.encoders.astype(float)) * 64 * 2**13 / 2**neurons.encoder_exponent
    strongest = (encoders + neurons.biases) / threshold
    membrane_ms = -1.0 / np.log1p(-neurons.membrane_decay / 4096)
    rates = 1e3 / (membrane_ms * np.log(strongest / (strongest - 1.0)))
    assert rates.min() > 97.0 and rates.max() < 123.0  # rounded to 8 bits


def test_the_demonstration_writes_its_figures_and_plot(script, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    out = tmp_path / "demo"
    arguments = ["--targets", "spiking,brian2", "--seconds", "3", "--neurons", "20"]
    script["main"]([*arguments, "--max-rates", "80", "90", "--out", str(out)])
    figures = json.loads((out / "loihi-demo.json").read_text())
    assert figures["maximum_rates"] == [80.0, 90.0]
    assert [run["target"] for run in figures["runs"]] == ["spiking", "brian2"]
    for run in figures["runs"]:
        assert 0.0 < run["window_nrmse"] < 0.5
        assert 5.0 < run["spikes_per_neuron_per_second"] < 80.0
    assert 0.0 < figures["ideal_window_nrmse_of_past"] < 0.1
    assert "<svg" in (out / "loihi-demo.svg").read_text()
    assert "states equal at every step: True" in capsys.readouterr().out
