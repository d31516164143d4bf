"""Nothing that the project computes has changed since the golden file was recorded.

``record.py`` computes the cases in a process of its own and this test compares what it found with
``golden.json``, case by case. With ``LMU_DEPLOY_GOLDEN=all`` in the environment the slow cases run
too. After a change that is meant to give other numbers, ``python tests/golden/record.py`` records
them again; with names of cases, only what has changed in these.

The cases ``fidelity/*`` were recorded again when energies without a consistent source were left
out; all their other numbers are as they were.

When integer networks became graphs, two kinds of entries were recorded again, and no others. (a)
Networks with an LSTM, whose units moved from the host in float64 onto the chip in integers: all
entries of ``mackey-glass-hybrid``, ``mixed`` and ``host-readout`` in the cases ``integer/*``,
``engine/*``, ``stream``, ``onnxruntime/*``, ``lava/mixed, dense 2``, ``files``, ``fidelity/mixed``
and ``attribution/integer`` that differ. Of these networks, every state before the LSTM is as it
was. (b) Operators, tensors and graph of ``onnx-int``, ``onnx-int-step`` and ``onnx-qdq`` files in
the cases ``onnx/*``, which are written population by population now; networks with an LSTM have
such files for the first time. The outputs and states of ``onnx-int`` models, which the cases
``onnxruntime/*`` hold, are as they were.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))
EVERY = os.environ.get("LMU_DEPLOY_GOLDEN") == "all"

pytestmark = [pytest.mark.xdist_group("golden"), pytest.mark.timeout(1200)]


def module(name):
    """Import a file beside this one, which no package holds."""
    spec = importlib.util.spec_from_file_location(f"golden_{name}", HERE / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


record, entries = module("record"), module("entries")


@pytest.fixture(scope="session")
def found():
    """Everything that is computed, once."""
    return record.compute(every=EVERY)


def test_the_record_and_the_cases_are_the_same(found):
    done = {*found["cases"], *found["absent"], *found["failed"]}
    recorded = {name for name in GOLDEN["cases"] if EVERY or name not in GOLDEN["slow"]}
    assert done == recorded


def test_numbers_are_compared_bit_for_bit_here(found):
    ours, theirs = found["environment"], GOLDEN["environment"]
    if not record.same_environment(ours, theirs, set(record.LIBRARIES)):
        pytest.skip(f"hashes of floats are of another machine; this is {ours}, that was {theirs}")


@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_nothing_has_changed(found, name):
    if name in GOLDEN["slow"] and not EVERY:
        pytest.skip("slow; LMU_DEPLOY_GOLDEN=all runs it")
    if name in found["absent"]:
        pytest.skip(f"absent: {', '.join(found['absent'][name])}")
    assert name not in found["failed"], found["failed"][name]
    environments = found["environment"], GOLDEN["environment"]
    same = record.same_environment(*environments, set(GOLDEN["needs"][name]))
    changed = entries.differences(found["cases"][name], GOLDEN["cases"][name], same)
    assert not changed, "\n".join([f"{len(changed)} results differ:", *changed])
