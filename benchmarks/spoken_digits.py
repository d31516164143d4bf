"""Spoken digits: accuracy by seed and by speaker, every target, a microcontroller.

    python benchmarks/spoken_digits.py accuracy FOLDER --save spoken-digits/accuracy
    python benchmarks/spoken_digits.py speakers FOLDER --save spoken-digits/speakers
    python benchmarks/spoken_digits.py targets FOLDER --save spoken-digits/targets
    python benchmarks/spoken_digits.py energy FOLDER --save spoken-digits/energy
    python benchmarks/spoken_digits.py stream FOLDER --save spoken-digits/stream
    python benchmarks/spoken_digits.py chip FOLDER --save spoken-digits/cortex-m4
    python benchmarks/spoken_digits.py resume FOLDER --save spoken-digits/resume

FOLDER keeps the trained networks; one that is there is not trained again. Needs the data
(LMU_DEPLOY_DATA). All figures are of the test part, on which nothing was chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import results

import lmu_deploy as ld
from converters.c.front_end import IntegerLogMel, front_end_files
from converters.c.generator import Source, generate
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import load_float
from lmu_deploy.tasks.base import get_task
from lmu_deploy.tasks.spoken_digits import (
    FRONT_END,
    SPEAKERS,
    TEST_TAKES,
    padded,
    read_recordings,
)
from lmu_deploy.training import train
from targets.base import get_target
from targets.integer import IntegerTarget

TASK = "spoken-digits"
SEEDS = (0, 1, 2)
SPEAKER_EPOCHS = 20  # a third of the settings, for six networks in the time of two
Rows = list[list[results.Cell]]
EXAMPLE = Path(__file__).parents[1] / "examples" / "spoken_digits_stream.py"


def trained(
    folder: Path,
    task: str = TASK,
    model: str = "stack",
    seed: int = 0,
    epochs: int | None = None,
) -> Network:
    """Return a network from the folder, trained if it is not there."""
    path = folder / f"{task}-{model}-{seed}.safetensors"
    if not path.is_file():
        state = path.with_suffix(".ckpt")
        train(task, model, seed=seed, epochs=epochs, out=path, checkpoint=state)
    return load_float(path, "the benchmark")


def percent(network: Network | IntegerNetwork, task: str = TASK) -> float:
    """Return the test accuracy of a network, in percent."""
    found, test = get_task(task), get_task(task).load().test
    if isinstance(network, IntegerNetwork):
        outputs = IntegerTarget().run(network, test.inputs).outputs
    else:
        outputs = run(network, test.inputs)
    return 100 * found.score(outputs, test.targets)


@cache
def test_samples() -> np.ndarray:
    """Return the samples of the test part in its order, shape (300, samples), int16."""
    recordings = read_recordings()
    keys = sorted((k for k in recordings if k[2] in TEST_TAKES), key=lambda k: (k[2], k[1], k[0]))
    return np.stack([padded(recordings[key]) for key in keys])


def from_samples(network: IntegerNetwork) -> float:
    """Return the accuracy, in percent, when the integer front end makes the frames."""
    front = IntegerLogMel.of_network(network)
    assert front is not None
    test = get_task(TASK).load().test
    messages = np.concatenate([front.apply(some) for some in np.array_split(test_samples(), 10)])
    outputs = IntegerTarget().run(network, messages * front.scale).outputs
    return 100 * get_task(TASK).score(outputs, test.targets)


ACCURACY = [
    ("seed", ">{}"),
    ("parameters", ">{:,d}"),
    ("float, %", ">{:.2f}"),
    ("integers, %", ">{:.2f}"),
    ("from samples, integers alone, %", ">{:.2f}"),
    ("one slice, %", ">{:.2f}"),
]


def accuracy(folder: Path, _: int) -> Rows:
    """Judge the networks of every seed, in float and in integers."""
    rows: Rows = []
    for seed in SEEDS:
        network = trained(folder, seed=seed)
        integer = ld.quantize(network, TASK)
        single = ld.quantize(network, TASK, slices=1)
        figures = percent(network), percent(integer), from_samples(integer), percent(single)
        rows.append([str(seed), network.n_parameters, *figures])
    return [*rows, ["mean", None, *_means(rows, 2)]]


def _means(rows: Rows, first: int) -> list[float]:
    columns = zip(*(row[first:] for row in rows), strict=True)
    return [float(np.mean([float(cell or 0) for cell in column])) for column in columns]


SPEAKER = [
    ("speaker left out", "{}"),
    ("test recordings", ">{:d}"),
    ("float, %", ">{:.2f}"),
    ("integers, %", ">{:.2f}"),
]


def speakers(folder: Path, limit: int) -> Rows:
    """Judge a network for each speaker, who is in no other part than the test part."""
    rows: Rows = []
    for speaker in SPEAKERS[:limit]:
        task = f"{TASK}-{speaker}"
        network = trained(folder, task, epochs=SPEAKER_EPOCHS)
        figures = percent(network, task), percent(ld.quantize(network, task), task)
        rows.append([speaker, len(get_task(task).load().test), *figures])
    return [*rows, ["mean", None, *_means(rows, 2)]]


TARGETS = [
    ("target", "{}"),
    ("samples", ">{:d}"),
    ("accuracy, %", ">{:.2f}"),
    ("states that differ from the specification", ">{:,d}"),
    ("states compared", ">{:,d}"),
]


def targets(folder: Path, limit: int) -> Rows:
    """Run the integers of seed 0 on every target, and compare every state of every step."""
    test = get_task(TASK).load().test
    integer = ld.quantize(trained(folder), TASK)
    rows: Rows = []
    for name, count in (("integer", 300), ("onnxruntime", 300), ("c", 300), ("lava", limit)):
        some = test.taken(slice(count))
        expected = IntegerTarget("numpy").run(integer, some.inputs, record=True)
        found = get_target(name).run(integer, some.inputs, record=True)
        assert expected.states is not None and found.states is not None
        differ = compared = 0
        for place, values in expected.states.parts.items():
            differ += int((found.states.parts[place] != values).sum())
            compared += values.size
        score = 100 * get_task(TASK).score(found.outputs, some.targets)
        rows.append([name, count, score, differ, compared])
    return rows


ENERGY = [
    ("costs of", "{}"),
    ("counted", "{}"),
    ("recordings", ">{:d}"),
    ("synaptic operations a recording", ">{:,.0f}"),
    ("messages a recording", ">{:,.0f}"),
    ("energy a recording, least, uJ", ">{:.1f}"),
    ("energy a recording, most, uJ", ">{:.1f}"),
]


def energy(folder: Path, limit: int) -> Rows:
    """Estimate the energy of the integers of seed 0, as a report does."""
    report = ld.validate(
        trained(folder), TASK, targets="integer", limit=limit, attribution_budget=0
    )
    costs = report["integer"].costs
    assert costs is not None
    rows: Rows = []
    for each in costs.energies.values():
        least, most = (1e6 * joules for joules in each.inference)
        counted = ", ".join(each.counted)
        rows.append([each.title, counted, limit, costs.synops, costs.messages, least, most])
    return rows


STREAM = [
    ("noise, units of 16 bits", ">{:g}"),
    ("words", ">{:d}"),
    ("found", ">{:d}"),
    ("named rightly", ">{:d}"),
    ("additional", ">{:d}"),
    ("median latency, ms", ">{:.0f}"),
    ("95 % below, ms", ">{:.0f}"),
]


def stream(folder: Path, limit: int) -> Rows:
    """Play continuous recordings to the example, at several levels of noise."""
    example = runpy.run_path(str(EXAMPLE))
    integer = ld.quantize(trained(folder), TASK)
    rows: Rows = []
    for noise in (0.0, 3.0, 10.0, 30.0):
        recording = example["continuous"](limit, noise)
        heard, _ = example["listen"](integer, recording)
        found = example["judge"](recording, heard)
        counts = [int(found[name]) for name in ("words", "found", "right", "additional")]
        late = [1000 * found[name] for name in ("latency_median", "latency_95")]
        rows.append([noise, *counts, *late])
    return rows


CHIP = [
    ("part", "{}"),
    ("flash, bytes", ">{:,d}"),
    ("RAM, bytes", ">{:,d}"),
    ("instructions a frame", ">{:,d}"),
    ("million instructions per second of sound", ">{:.2f}"),
]

_LISTEN_HEADER = """\
#include "network.h"
#define LISTEN_INPUTS {hop}
#define LISTEN_OUTPUTS NETWORK_OUTPUTS
typedef struct {{
    network_t network;
    network_sound_t sound;
}} listen_t;
"""
_LISTEN = """\
void listen_init(listen_t *s)
{{
    network_init(&s->network);
    network_sound_init(&s->sound);
}}
int listen_step(listen_t *s, const int32_t x[{hop}], int32_t y[{outputs}])
{{
    int16_t samples[{hop}];
    int32_t frame[{bands}], i;
    for (i = 0; i < {hop}; i++) {{
        samples[i] = (int16_t)x[i];
    }}
    if (!network_sound_push(&s->sound, samples, frame)) {{
        return 0;
    }}
    return {call};
}}
int listen_finish(listen_t *s, int32_t y[{outputs}])
{{
    return network_finish(&s->network, y);
}}
"""


def _listening(integer: IntegerNetwork, with_network: bool) -> Source:
    """Return one source whose step takes a hop of samples: the front end, and the network."""
    network, front = generate(integer, "network"), IntegerLogMel.of_network(integer)
    assert front is not None
    own = front.front_end
    files = front_end_files(front, "network")
    header = network.header + files["network_sound.h"]
    code = network.code + files["network_sound.c"]
    call = "network_step(&s->network, frame, y)" if with_network else "(int)(y[0] = frame[0])"
    glue = _LISTEN.format(hop=own.hop, bands=own.bands, outputs=integer.n_out, call=call)
    header += _LISTEN_HEADER.format(hop=own.hop).replace('#include "network.h"\n', "")
    text = "\n".join([header, code, glue])
    for file in ("network.h", "network_sound.h"):
        text = text.replace(f'#include "{file}"', "")
    return Source("listen", "", text, 0, 0)


def chip(folder: Path, _: int) -> Rows:
    """Compile front end and network for a Cortex-M4, and count instructions on QEMU."""
    from targets.c.toolchain import CortexM4

    integer, toolchain = ld.quantize(trained(folder), TASK), CortexM4()
    network, front = generate(integer, "network"), IntegerLogMel.of_network(integer)
    assert front is not None
    hop = FRONT_END.hop
    sound = test_samples()[0]
    messages = sound[: len(sound) // hop * hop].reshape(1, -1, hop).astype(np.int32)
    counts = []
    options = ("-O2", "-funroll-loops")
    for whole in (False, True):
        with tempfile.TemporaryDirectory() as scratch:
            found = toolchain.time(_listening(integer, whole), Path(scratch), messages, *options)
            counts.append(int(np.median(found[0, FRONT_END.window // hop :])))
    files = front_end_files(front, "network")
    code = files["network_sound.c"]
    window = FRONT_END.window
    own = Source("network_sound", files["network_sound.h"], code, 0, 10 * window + 4)
    with tempfile.TemporaryDirectory() as scratch:
        sizes = [toolchain.sizes(source, Path(scratch), *options) for source in (own, network)]
    frames = FRONT_END.rate / hop
    rows: Rows = []
    parts = ("front end", "network")
    spent = (counts[0], counts[1] - counts[0])
    for part, size, count in zip(parts, sizes, spent, strict=True):
        rows.append([part, size.flash, size.ram, count, count * frames / 1e6])
    total = [sum(int(row[i] or 0) for row in rows) for i in (1, 2, 3)]
    return [*rows, ["both", *total, total[2] * frames / 1e6]]


RESUME = [
    ("validation", "{}"),
    ("starts", ">{:d}"),
    ("wall clock, s", ">{:.0f}"),
    ("processor, s", ">{:.0f}"),
    ("parts kept at the last kill", ">{:d}"),
    ("difference of the reports", "{}"),
]
_VALIDATED = "integer,lava,c,brian2"
_TIMES = ("date", "wall_seconds", "seconds", "command")
_NETWORK = EXAMPLE.parent / "models" / "spoken-digits.safetensors"


def _validated(network: Path, out: Path, until: float | None = None) -> tuple[float, float]:
    """Run `lmu-deploy validate`, killed after a time if one is given; return its seconds."""
    program = [str(Path(sys.executable).with_name("lmu-deploy")), "validate", str(network)]
    start = time.monotonic()
    process = subprocess.Popen([*program, "--targets", _VALIDATED, "--out", str(out)])
    if until is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(until)
        process.kill()
    process.wait()
    if until is None and process.returncode:
        raise RuntimeError(f"validate failed with {process.returncode}")
    return time.monotonic() - start, _processor()


def _processor() -> float:
    """Return the processor time of all processes so far that have ended and were waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _untimed(value: Any) -> Any:
    """Return what fidelity.json holds, without times."""
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if key not in _TIMES}
    return [_untimed(item) for item in value] if isinstance(value, list) else value


def _difference(one: Any, other: Any) -> float:
    """Return the largest relative difference of numbers; infinity if anything else differs.

    Products of matrices on two threads may round their last bit another way in every run.
    """
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) / max(abs(one), abs(other), 1e-300)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((_difference(each, other[key]) for key, each in one.items()), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(_difference, one, other), default=0.0)
    return 0.0 if one == other else np.inf


def resume(_: Path, kills: int) -> Rows:
    """Validate the example network on four targets, without a stop and killed at random moments.

    The moments are uniform over the time of the validation that was not stopped.
    """
    network = _NETWORK
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        before = _processor()
        wall, spent = _validated(network, whole)
        rows: Rows = [["not stopped", 1, wall, spent - before, None, None]]
        moments = np.sort(np.random.default_rng(0).uniform(0.0, wall, kills))
        total = 0.0
        for seconds in np.diff(moments, prepend=0.0):
            total += _validated(network, killed, seconds)[0]
        kept = len(list(killed.glob("parts/*.safetensors")))
        last, after = _validated(network, killed)
        found = [_untimed(json.loads((f / "fidelity.json").read_bytes())) for f in (whole, killed)]
        names = [sorted(path.name for path in f.iterdir()) for f in (whole, killed)]
        off = _difference(*found) if names[0] == names[1] else np.inf
        said = f"{off:.0e} of a number at most" if off else "none"
    row: list[results.Cell] = [f"killed {kills} times", kills + 1, total + last, after - spent]
    return [*rows, [*row, kept, said if np.isfinite(off) else "other words or files"]]


STUDIES: dict[str, tuple[Callable[[Path, int], Rows], results.Columns, int]] = {
    "accuracy": (accuracy, ACCURACY, 300),
    "speakers": (speakers, SPEAKER, len(SPEAKERS)),
    "targets": (targets, TARGETS, 60),
    "energy": (energy, ENERGY, 300),
    "stream": (stream, STREAM, 300),
    "chip": (chip, CHIP, 1),
    "resume": (resume, RESUME, 10),
}


def main() -> None:
    """Measure one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--limit", type=int, help="samples of targets and energy, words, speakers, kills"
    )
    results.add_options(parser)
    options = parser.parse_args()
    study, columns, limit = STUDIES[options.study]
    results.publish(columns, study(options.folder, options.limit or limit), options, 0)


if __name__ == "__main__":
    main()
