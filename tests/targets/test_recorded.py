"""Target `recorded`: recordings are judged like the targets they come from, and read safely."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from integer_graphs import graph_runs

import lmu_deploy as ld
from lmu_deploy.core.errors import InputError
from lmu_deploy.fidelity.specification import examine
from targets.base import get_target
from targets.integer import IntegerTarget
from targets.recorded import RecordedTarget, Recording

DIGITS = "examples/models/digits.safetensors"

pytestmark = pytest.mark.xdist_group("digits in integers")


@pytest.fixture(scope="module")
def network():
    return ld.quantize(DIGITS)


@pytest.fixture(scope="module")
def run(network):
    return ld.run(network, limit=6, record=True)


def validated(network, *recordings, **options):
    given = {"targets": [], "attribution": 0, "use": [network], **options}
    return ld.validate(DIGITS, recordings=recordings, **given)


@pytest.mark.parametrize("name", ["integer", "lava"])
def test_a_recording_reproduces_the_verdict_of_its_target(network, tmp_path, name):
    if name == "lava":
        pytest.importorskip("lava", reason="lava-nc is not installed")
    path = tmp_path / "board.npz"
    ld.run(network, limit=2, target=name, record=path)
    report = validated(network, path, targets={name: 2})
    ours, theirs = report["recorded/board"], report[name]
    assert report.verdicts["recorded/board"].words == report.verdicts[name].words
    assert ours.metric == theirs.metric and ours.reference == theirs.reference
    assert ours.specification == theirs.specification and ours.specification.equal
    assert ours.memory_error == theirs.memory_error


@pytest.mark.parametrize("given", [("m", "h", "y"), ("y", "h"), ("states",)])
def test_a_flipped_bit_in_one_state_of_one_step_is_found(network, run, given):
    place = "layer0/hidden"
    states = {name: getattr(run.states, name).copy() for name in ("m", "h", "y")}
    parts = {f"states/{place}": run.states.parts[place].copy()}
    states["h"][4, 3, 7] ^= 1 << 2
    parts[f"states/{place}"][4, 3, 7] ^= 1 << 2
    arrays = {n: v for n, v in states.items() if n in given}
    if given == ("states",):
        arrays = {"y": run.states.y, **parts}
    report = validated(network, Recording("board", arrays))
    found = report["recorded/board"].specification
    assert (found.first.sample, found.first.step, found.first.neuron) == (4, 3, 7)
    assert found.first.population == place
    assert found.faults[0] == (
        "Bit 2 of neuron 7 of layer0/hidden is flipped at step 3 of sample 4; the target went on "
        "with the right value."
    )
    verdict = report.verdicts["recorded/board"]
    assert verdict.tone == "worse" and verdict.words.startswith("differs from the specification")


def test_reals_with_scales_are_the_same_integers(network, run):
    reals = {"y": run.outputs, "m": run.states.m * run.states.m_scale}
    scaled = {"y": run.states.y.astype(float), "y_scale": np.array(run.states.y_scale)}
    units = {"h": run.states.h / 4.0, "h_scale": 4.0 * run.states.h_scale}
    for arrays in (reals, {**scaled, **units}):
        found = RecordedTarget(Recording("board", arrays)).run(network, run_inputs(), record=True)
        assert np.allclose(found.outputs, run.outputs, rtol=1e-12)
        about = examine(found, network, run_inputs())
        assert about.equal and about.values
    noisy = {"y": run.outputs, "m": reals["m"] + 0.3 * run.states.m_scale}
    found = RecordedTarget(Recording("board", noisy)).run(network, run_inputs(), record=True)
    assert examine(found, network, run_inputs()) is None
    assert "not replayed" in found.notes[0]


def run_inputs():
    return ld.load_task("digits").task.load().test.inputs[:6]


def test_events_and_outputs_alone_are_enough(network, run):
    events = {f"events/{name}": counts for name, counts in run.events.items()}
    recording = Recording("board", {"y": run.outputs, **events})
    found = RecordedTarget(recording).run(network, run_inputs(), record=True)
    assert {name: counts.sum() for name, counts in found.events.items()} == {
        name: counts.sum() for name, counts in run.events.items()
    }
    report = validated(network, recording)
    assert report["recorded/board"].metric.value == run.metric.value
    assert report["recorded/board"].samples == 6


def test_counted_messages_are_compared_in_a_validation(network, run):
    place = "layer0/hidden"
    counts = run.events[place].copy()
    counts[2, 3] += 5
    arrays = {"y": run.states.y, "m": run.states.m, "h": run.states.h, f"events/{place}": counts}
    report = validated(network, Recording("board", arrays))
    found = report["recorded/board"].specification
    have, need = counts.sum(), run.events[place].sum()
    assert found.different == have - need == 5
    words = f"The run reports {have:,} messages of {place}, and its integers make {need:,}."
    assert words in found.faults
    assert report.verdicts["recorded/board"].words.startswith("differs from the specification")


def test_outputs_in_single_precision_are_no_difference(network, run):
    arrays = {"y": run.outputs.astype(np.float32), "m": run.states.m, "h": run.states.h}
    found = RecordedTarget(Recording("board", arrays)).run(network, run_inputs(), record=True)
    assert np.allclose(found.outputs, run.outputs, rtol=1e-6)
    assert examine(found, network, run_inputs()).equal
    arrays["y"][1, 0] += np.float32(0.01)
    found = RecordedTarget(Recording("board", arrays)).run(network, run_inputs(), record=True)
    assert "sample 1, are not those" in examine(found, network, run_inputs()).faults[0]


@settings(deadline=None, max_examples=8)
@given(graph_runs())
def test_what_deploy_records_of_any_network_can_be_judged(run):
    network, inputs = run
    truth = ld.run(network, inputs, target="integer", record=True, reference=False)
    with tempfile.TemporaryDirectory() as folder:
        recording = Recording.load(truth.save_states(Path(folder) / "board.npz"))
    found = RecordedTarget(recording).run(network, inputs, record=True)
    assert np.array_equal(found.outputs, truth.outputs)
    for place, values in truth.states.parts.items():
        assert np.array_equal(found.states.parts[place], values)
    assert examine(found, network, inputs).equal


@settings(deadline=None, max_examples=8)
@given(graph_runs())
def test_recordings_of_any_network_are_those_of_the_simulator(run):
    network, inputs = run
    truth = IntegerTarget(engine="numpy").run(network, inputs, record=True)
    arrays = {"y": truth.states.y}
    arrays |= {f"states/{place}": values for place, values in truth.states.parts.items()}
    found = RecordedTarget(Recording("board", arrays)).run(network, inputs, record=True)
    assert np.array_equal(found.outputs, truth.outputs)
    for place, values in truth.states.parts.items():
        assert np.array_equal(found.states.parts[place], values)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"m": np.zeros((6, 8, 16))}, "no outputs y"),
        ({"y": np.zeros((6, 3))}, "shape"),
        ({"y": np.zeros((6, 10)), "m": np.zeros((6, 8, 15), int)}, "m has shape"),
        ({"y": np.full((6, 10), np.nan)}, "not finite"),
        ({"y": np.zeros((6, 10)), "states/elsewhere": np.zeros((6, 8, 2))}, "names no population"),
        ({"y": np.zeros((6, 10)), "y_scale": np.array(-1.0)}, "y_scale must be a positive"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(network, arrays, message):
    with pytest.raises(InputError, match=message):
        validated(network, Recording("board", arrays))


def test_files_that_are_no_recordings_are_refused(tmp_path):
    path = tmp_path / "board.npz"
    with pytest.raises(InputError, match="no such file"):
        Recording.load(path)
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match="no recording"):
        Recording.load(path)
    np.savez(path, y=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="numbers only"):
        Recording.load(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("y.npy", header.getvalue() + b"\0" * 8)
    with pytest.raises(InputError, match="states 8,000,000,000,000,000 bytes and has 8"):
        Recording.load(path)
    whole = io.BytesIO()
    np.save(whole, np.zeros(3))
    with zipfile.ZipFile(path, "w") as archive:  # a header that is no literal of Python
        archive.writestr("y.npy", whole.getvalue().replace(b"(3,), }", b"(3,    "))
    with pytest.raises(InputError, match="no recording"):
        Recording.load(path)


def test_recordings_need_names_of_their_own_and_an_order(network, run, tmp_path):
    recording = Recording("board", {"y": run.outputs})
    with pytest.raises(InputError, match="two targets are called recorded/board"):
        validated(network, recording, recording)
    with pytest.raises(InputError, match="unknown target"):
        get_target("recorded/board")
