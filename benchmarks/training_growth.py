"""Measure time and memory of a training step for growing orders and lengths of sequences.

    python benchmarks/training_growth.py [--threads 1]

One sequence, 212 hidden units, an answer at every step and a loss over all of them. Each figure is
taken in a process of its own, whose peak of resident memory is given above what it holds before
the layer is made. `parallel` has hidden units that do not feed back, `feedback` has encoders from
hidden units and memory. `stream` answers without training, 1,000 steps at a time, the state carried
on. Processor time, the least of three runs, or of one from 10,000 steps on.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import results

UNITS = 212
ORDERS, LENGTHS = (64, 128, 256, 512, 1024), (1_000, 10_000, 100_000)
CHUNK = 1_000
COLUMNS = [
    ("form", "{}"),
    ("order", "{:d}"),
    ("steps", "{:,d}"),
    ("processor, s", "{:.3g}"),
    ("us a step", "{:.3g}"),
    ("peak, MiB", "{:,.0f}"),
]


def peak() -> float:
    """Return the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(form: str, order: int, length: int, threads: int) -> dict[str, float]:
    """Time one point in this process."""
    import torch

    from lmu_deploy.nn import LMU

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = peak()
    options = {"hidden": "feedforward"} if form == "parallel" else {}
    if form != "parallel":
        options = {"hidden_to_memory": True, "memory_to_memory": True}
    layer = LMU(1, UNITS, order, float(length), init="memory", **options)
    x = torch.sin(torch.arange(length) / 50.0)[None, :, None]

    def train() -> None:
        layer.zero_grad()
        y, _ = layer(x)
        (y**2).mean().backward()

    def stream() -> None:
        state = None
        with torch.inference_mode():
            for chunk in x.split(CHUNK, 1):
                _, state = layer(chunk, state)

    times = []
    for _ in range(3 if length < 10_000 else 1):
        start = time.process_time()
        (stream if form == "stream" else train)()
        times.append(time.process_time() - start)
    return {"seconds": min(times), "mebibytes": peak() - before}


def point(form: str, order: int, length: int, threads: int) -> list[results.Cell]:
    """Measure in a fresh process; return a row of the table."""
    command = [sys.executable, __file__, "--point", form, str(order), str(length)]
    done = subprocess.run(
        [*command, "--threads", str(threads)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return [form, order, length, "failed", done.stderr.strip()[-60:], None]
    found = json.loads(done.stdout)
    seconds = found["seconds"]
    row = [form, order, length, seconds, 1e6 * seconds / length, found["mebibytes"]]
    print(row, file=sys.stderr, flush=True)
    return row


def main() -> None:
    """Print the table, or one point of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--point", nargs=3, metavar=("FORM", "ORDER", "LENGTH"))
    results.add_options(parser)
    options = parser.parse_args()
    if options.point:
        form, order, length = options.point
        print(json.dumps(measure(form, int(order), int(length), options.threads)))
        return
    wanted = [
        *(
            (form, order, length)
            for form in ("parallel", "feedback")
            for order, length in [
                *((order, LENGTHS[0]) for order in ORDERS),
                *((256, length) for length in LENGTHS[1:]),
            ]
        ),
        *(("stream", 256, length) for length in LENGTHS),
    ]
    rows = [point(*which, options.threads) for which in wanted]
    results.publish(COLUMNS, rows, options, seed=0)


if __name__ == "__main__":
    main()
