"""Wrong requests of a spiking memory, on the command line: exit code 2, one sentence, no file."""

import dataclasses
import sys
from pathlib import Path

import pytest

from converters.spiking.recipe import keep_calibration
from lmu_deploy.api.spike import spike
from lmu_deploy.cli import main
from lmu_deploy.core.files import save
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Readout
from targets.base import target_names

DIGITS = Path(__file__).parents[3] / "examples" / "models" / "digits.safetensors"
STATIC = {"neurons_per_state": 2, "calibration": "static", "chip_seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A calibration of chip 3, a network of other weights, and one on chip 3 with DPI synapses."""
    folder = tmp_path_factory.mktemp("requests")
    made = spike(DIGITS, out=folder / "dpi.safetensors", synapse="dpi", **STATIC)
    save(keep_calibration(made), folder / "chip3.safetensors")
    readout = Readout(2.0 * made.host.readout.kernel, made.host.readout.bias)
    save(dataclasses.replace(made.host, readout=readout), folder / "other.safetensors")
    return folder


@pytest.fixture
def refused(folder, monkeypatch, capsys):
    """Call the command line in `folder`, which must refuse; gives its sentence."""

    def call(command):
        before = set(folder.rglob("*"))
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["lmu-deploy", *command.format(digits=DIGITS).split()])
        with pytest.raises(SystemExit) as ended:
            main()
        err = capsys.readouterr().err
        said = [line for line in err.splitlines() if line.startswith("lmu-deploy: ")]
        assert ended.value.code == 2, err
        assert len(said) == 1 and "Traceback" not in err, err
        assert said[0].endswith(".")
        assert set(folder.rglob("*")) == before
        return said[0]

    return call


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--tau-ms 100.3",
            "tau_ms is 100.3 ms, not a whole multiple of the simulation step of 1 ms",
        ),
        ("--presentation-ms 10.5", "presentation_ms is 10.5 ms, not a whole multiple"),
        ("--dt-ms 0.3", "of the simulation step of 0.3 ms"),
        ("--dt-ms 4 --tau-ms 100 --presentation-ms 20", "refractory_ms is 2 ms"),
        ("--presentation-ms 5", "lasts 40 ms, and for order"),
        ("--neurons-per-state 5000", "neurons and profile generic-analog has 65536; use at most"),
        ("--profile dynapse2", "neurons and profile dynapse2 has 1024; use at most 64"),
        ("--max-rates 120 100", "highest maximum rate is 100"),
        ("--profile loihi1 --tau-ms 10.5", "not a whole multiple"),
        ("--profile loihi1 --presentation-ms 5", "present each input for at least"),
        ("--profile loihi1 --neurons-per-state 60000", "profile loihi1 has 131072; use at most"),
        ("--profile loihi1 --synapse dpi", "for which synapse has no meaning"),
        ("--profile loihi2", "choose one of loihi1"),
    ],
)
def test_spike_reports_what_is_impossible(refused, options, message):
    assert message in refused(f"spike {{digits}} --out o.safetensors {options}")


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("{digits}", "--chip-seed 4", "is for chip seed 3, and 4 is requested"),
        ("{digits}", "--chip-seed 3 --mismatch 0.3", "is for mismatch 0.1, and 0.3 is requested"),
        ("{digits}", "--chip-seed 3 --profile braindrop", "is for profile generic-analog, and"),
        ("{digits}", "--chip-seed 3 --tau-ms 50", "is for tau_ms 100.0, and 50.0"),
        ("other.safetensors", "--chip-seed 3", "is for network "),
    ],
)
def test_a_calibration_of_something_else_is_refused(refused, network, options, message):
    made_with = "--neurons-per-state 2 --calibration static --load-calibration chip3.safetensors"
    assert message in refused(f"spike {network} --out o.safetensors {made_with} {options}")


def test_a_network_is_no_calibration(refused):
    message = refused("spike {digits} --out o.safetensors --load-calibration dpi.safetensors")
    assert "contains a SpikingNetwork, not a calibration" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--tau-ms 100.3", "not a whole multiple"),
        ("--presentation-ms 5", "needs"),
        ("--profile brainscales2", "brainscales2 has 512; use at most 32"),
        ("--profile loihi1", "choose a profile that is analog"),
        ("--chips 0", "chips is 0"),
        ("--add chip3.safetensors", "no record of a yield study"),
        ("--out absent/yield.json", "cannot write absent/yield.json"),
    ],
)
def test_yield_reports_what_is_impossible_before_it_starts(refused, options, message):
    assert message in refused(f"yield {{digits}} {options} --limit 2")


@pytest.mark.parametrize("target", sorted(set(target_names()) - {"brian2", "brian2-cpp"}))
def test_dpi_synapses_run_on_brian2_alone(folder, refused, target):
    assert load(folder / "dpi.safetensors").synapse is not None
    message = refused(f"deploy dpi.safetensors --target {target} --limit 1")
    assert f"target {target} runs " in message and "the file contains SpikingNetwork" in message


def test_nir_refuses_dpi_synapses(refused):
    pytest.importorskip("nir", reason="an export to NIR needs nir")
    message = refused("export dpi.safetensors --to nir --out o.nir")
    assert "NIR has no node for pairs of DPI synapses" in message
