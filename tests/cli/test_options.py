"""Options have one definition: signatures, the command line and sweeps agree with it."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import get_type_hints

import pytest
import typer

import converters.loihi
import converters.quantize
import converters.spiking
import lmu_deploy
from converters.options import (
    PopulationOptions,
    QuantizeOptions,
    SpikeOptions,
    TaskQuantizeOptions,
)
from lmu_deploy.cli import app
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.loading import load
from lmu_deploy.core.options import options_of
from lmu_deploy.studies.chip_yield import check_study
from lmu_deploy.studies.spec import grid_trials, read_spec

DIGITS = Path(__file__).parents[2] / "examples" / "models" / "digits.safetensors"
CLASSES = (QuantizeOptions, TaskQuantizeOptions, PopulationOptions, SpikeOptions)
FIXED_BY_YIELD = {"calibration", "chip_seed"}
COMMANDS = {
    "quantize": (TaskQuantizeOptions, set()),
    "spike": (SpikeOptions, set()),
    "yield": (SpikeOptions, FIXED_BY_YIELD),
}


@pytest.mark.parametrize(
    ("function", "options", "left_out"),
    [
        (converters.quantize.quantize, QuantizeOptions, set()),
        (converters.spiking.spike, SpikeOptions, set()),
        (converters.loihi.loihi_spike, PopulationOptions, set()),
        (lmu_deploy.quantize, TaskQuantizeOptions, set()),
        (lmu_deploy.spike, SpikeOptions, set()),
        (lmu_deploy.chip_yield, SpikeOptions, FIXED_BY_YIELD),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_signatures_have_the_options_with_their_defaults(function, options, left_out):
    parameters = inspect.signature(function).parameters
    hints = get_type_hints(function)
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, option in options_of(options).items():
        if name in left_out:
            assert name not in parameters
            continue
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == option.default, name
        if option.type is not Path:
            assert hints[name] == option.annotation, name


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_the_options_with_their_defaults_and_help(command):
    options, left_out = COMMANDS[command]
    found = {p.name: p for p in typer.main.get_command(app).commands[command].params}
    for name, option in options_of(options).items():
        assert (name in found) == (name not in left_out), name
        if name in found:
            assert found[name].default == option.default
            assert found[name].help == option.description
    assert "options" not in found


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_field_is_an_option_with_a_sentence_of_help(cls):
    assert [f.name for f in dataclasses.fields(cls)] == list(options_of(cls))
    for name, option in options_of(cls).items():
        assert option.description.endswith("."), name
        assert option.checked(option.default) == option.default
        assert option.default is not None or option.by_default or option.type is Path, name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_values_are_checked_against_choices_and_ranges(cls):
    for name, option in options_of(cls).items():
        if option.choices:
            with pytest.raises(InputError, match=rf"{name} is 'nonsense'; choose one of"):
                cls(**{name: "nonsense"})
        elif option.high is not None:
            with pytest.raises(InputError, match=f"{name} is .*outside"):
                cls(**{name: option.type(option.high) * 2 + 1})
            assert getattr(cls(**{name: option.type(option.high)}), name) == option.high


def test_options_are_built_from_current_and_earlier_names():
    assert SpikeOptions.build({"hold_ms": 20.0, "max_rates": [100.0, 200.0]}) == SpikeOptions(
        presentation_ms=20.0, maximum_rates=(100.0, 200.0)
    )
    assert SpikeOptions(mismatch=0.1).changed() == {"mismatch": 0.1}
    with pytest.raises(InputError, match="mismach is not an option; known are"):
        SpikeOptions.build({"mismach": 0.1})


def test_earlier_spellings_of_commands_and_options_are_accepted_and_hidden(lmu, tmp_path):
    made = {}
    for command, option in (("quantize", "realization"), ("quantise", "realisation")):
        out = tmp_path / f"{command}.safetensors"
        code, _, err = lmu(command, DIGITS, "--out", out, f"--{option}", "schur")
        assert code == 0, err
        made[command] = load(out).memories[0].realization
    assert made == {"quantize": "schur", "quantise": "schur"}
    for command in ("quantize", "--help"):
        text = lmu(*(("quantize", "--help") if command == "quantize" else ("--help",)))[1]
        assert "quantise" not in text
        assert "realisation" not in text


@pytest.mark.parametrize("command", ["spike", "yield"])
def test_earlier_names_of_spiking_options_are_accepted(command):
    found = typer.main.get_command(app).commands[command]
    out = ["--out", "o"] if command == "spike" else []
    context = found.make_context(
        command, ["n.safetensors", *out, "--hold-ms=20", "--max-rates", "100", "200"]
    )
    assert context.params["presentation_ms"] == 20.0
    assert context.params["maximum_rates"] == (100.0, 200.0)


def test_import_accepts_the_earlier_spelling_of_an_option_value():
    found = typer.main.get_command(app).commands["import"]
    context = found.make_context(
        "import", ["n.keras", "--out", "o", "--option", "discretiser=euler"]
    )
    assert context.params["option"] == ["discretizer=euler"]


def test_sweeps_accept_the_earlier_names_of_tables_and_options():
    spec = read_spec(
        {
            "network": "n.safetensors",
            "quantise": {"realisation": "schur"},
            "quantize": {"slices": 1},
            "spike": {"hold_ms": 20.0},
            "grid": {"quantise.message_bits": [6, 8]},
        }
    )
    first, second = grid_trials(spec)
    assert first.settings.quantize == {"realization": "schur", "slices": 1, "message_bits": 6}
    assert second.settings.quantize["message_bits"] == 8
    assert first.settings.spike == {"presentation_ms": 20.0}
    assert list(first.varied) == ["quantize.message_bits"]


def test_options_of_analog_chips_are_refused_for_loihi(lmu, tmp_path):
    out = tmp_path / "o.safetensors"
    code, _, err = lmu("spike", DIGITS, "--out", out, "--profile", "loihi1", "--mismatch", "0.1")
    assert code == 2
    assert "mismatch has no meaning" in err
    assert not out.exists()


def test_a_yield_record_with_earlier_names_is_of_the_same_study():
    study = {"settings": {"presentation_ms": 20.0, "neurons_per_state": 20, "seed": 1}}

    class Earlier:
        study = {"settings": {"hold_ms": 20.0, "neurons_per_state": 20, "seed": 1}}  # noqa: RUF012

    check_study(Earlier, study, "old.json")
    with pytest.raises(InputError, match=r"old\.json were run with settings"):
        check_study(Earlier, {"settings": {"presentation_ms": 30.0, "seed": 1}}, "old.json")
