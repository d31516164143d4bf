"""Time training and inference of an LMU, keras-lmu and a plain loop, side by side in one run.

    python benchmarks/training.py [--peers PYTHON] [--threads 2] [--rounds 5] [--form paper]

Every system is a process of its own (`training_systems.py`). In each round each of them, in an
order that changes from round to round, does one training step of 100 sequences of 784 steps and
answers one batch; the first round warms up and is dropped. What counts is the ratio within a
round, of which the median is given: what else the machine does then slows all alike. Processor
time is given too; with one thread it is what wall-clock time would be on an idle machine.

PYTHON is that of the environment of peers-requirements.txt; without it, only the loop is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import results

WORKER = Path(__file__).with_name("training_systems.py")
WORK = {"train": "training step", "infer": "inference"}
COLUMNS = [
    ("work", "{}"),
    ("system", "{}"),
    ("wall, s", "{:.4g}"),
    ("processor, s", "{:.4g}"),
    ("times ours, wall", "{:.2f}"),
    ("times ours, processor", "{:.2f}"),
]
Times = dict[str, dict[str, list[dict[str, float]]]]


class System:
    """A worker process that times itself."""

    def __init__(self, python: str, name: str, form: str, threads: int) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        self._process = subprocess.Popen(
            [python, str(WORKER), name, form, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def do(self, work: str, count: int) -> dict[str, float]:
        """Do so many batches; give the seconds of one of them, `wall` and `cpu`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(work, count, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"a system ended with {self._process.wait()}: {self._process.args}")
        return {clock: seconds / count for clock, seconds in json.loads(answer).items()}

    def end(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(systems: dict[str, System], rounds: int, counts: dict[str, int]) -> Times:
    """Time each kind of work in turns."""
    times: Times = {work: {name: [] for name in systems} for work in WORK}
    names = list(systems)
    for number in range(rounds + 1):
        turn = number % len(names)
        for work in WORK:
            for name in names[turn:] + names[:turn]:
                took = systems[name].do(work, counts.get(name, 1))
                if number:
                    times[work][name].append(took)
    return times


def table(times: Times) -> list[list[results.Cell]]:
    """Return rows of medians: seconds, and how many times ours each system takes."""
    rows: list[list[results.Cell]] = []
    for work, title in WORK.items():
        mine = times[work]["ours"]
        for name, taken in times[work].items():
            seconds, ratios = [], []
            for clock in ("wall", "cpu"):
                seconds.append(statistics.median(t[clock] for t in taken))
                each = [t[clock] / o[clock] for t, o in zip(taken, mine, strict=True)]
                ratios.append(statistics.median(each))
            rows.append([title, name, *seconds, *ratios])
    return rows


def main() -> None:
    """Start the systems, time them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="python of the environment that has keras-lmu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--form", default="paper", choices=["paper", "example", "parallel"])
    parser.add_argument("--without", nargs="*", default=[], help="systems to leave out")
    results.add_options(parser)
    options = parser.parse_args()
    pythons = {"ours": sys.executable, "ours-bf16": sys.executable, "loop": sys.executable}
    if options.peers:
        peers = "keras", "keras-xla", "keras-bf16"
        pythons |= dict.fromkeys(peers, options.peers)
    systems = {
        name: System(python, name, options.form, options.threads)
        for name, python in pythons.items()
        if name not in options.without
    }
    # a parallel step is so short that one alone would time the reading of the clock's question
    counts = {"ours": 20, "ours-bf16": 20} if options.form == "parallel" else {}
    times = measure(systems, options.rounds, counts)
    for system in systems.values():
        system.end()
    print(
        f"form {options.form}, batch 100, 784 steps, order 256, 212 units, "
        f"{options.threads} threads, median of {options.rounds} rounds\n"
    )
    results.publish(COLUMNS, table(times), options)


if __name__ == "__main__":
    main()
