"""Damage files in many ways and check that importers and loaders raise one clear error.

    python benchmarks/fuzz_importers.py --mutations 10000

A worker damages files and reads them. This process watches it, so that a crash or a hang of the
worker is a finding. Each file must be read, or be refused with one InputError of one sentence,
within the limits of time and memory. Importers read in a sandboxed subprocess; here it is forked
from the worker, because ten thousand new interpreters would take an hour (`--fresh` starts them).

Exit code 1 when there are findings; each is printed with the number that reproduces it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

sys.path.insert(0, str(Path(__file__).parent))

import results  # noqa: E402 (the libraries read the variables when they are loaded)

COLUMNS = [("file", "{}"), ("read", ">{:,d}"), ("refused", ">{:,d}"), ("anything else", ">{:,d}")]
SECONDS = 150
"""Longer than the time limit of an importer, so that the importer's own limit is tested."""
MEBIBYTES = 1024


def work(first: int, mutations: int, folder: Path, fresh: bool) -> None:
    """Damage and read files, one line of JSON on standard output for each."""
    from fuzz_files import collect, mutate, read, use_forks

    resource.setrlimit(resource.RLIMIT_DATA, (2 * MEBIBYTES * 2**20, -1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, -1))
    if not fresh:
        use_forks()
    samples = collect(folder)
    base = _peak()
    for number in range(first, mutations):
        sample, data, how = mutate(samples, number)
        start = time.monotonic()
        outcome = read(sample, data, folder / f"mutated{sample.suffix}")
        seconds = time.monotonic() - start
        print(
            json.dumps(
                {
                    "number": number,
                    "sample": sample.name,
                    "how": how,
                    "outcome": outcome,
                    "seconds": round(seconds, 3),
                    "mebibytes": _peak(),
                    "before": base,
                }
            ),
            flush=True,
        )


def _peak() -> int:
    """Return the peak memory of this process and its children."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in both) // 1024


def watch(mutations: int, fresh: bool, save: str | None = None) -> int:
    """Run workers until all mutations are done; print the findings; save the table."""
    done: list[dict[str, object]] = []
    findings: list[str] = []
    first = 0
    with tempfile.TemporaryDirectory() as folder:
        while first < mutations:
            lines, ending = _run_worker(first, mutations, Path(folder), fresh)
            done += lines
            first = first + len(lines)
            if first < mutations:
                findings.append(f"mutation {first}: the worker {ending}")
                first += 1
    findings += [
        f"mutation {r['number']} of {r['sample']} ({r['how']}): {r['outcome']}"
        for r in done
        if not str(r["outcome"]).startswith(("read", "refused"))
    ]
    peak = max((int(str(r["mebibytes"])) for r in done), default=0)
    if peak > MEBIBYTES:
        findings.append(f"{peak} MiB were used, more than {MEBIBYTES}")
    rows = _show(done, peak, findings)
    if save is not None:
        results.Table.measured(COLUMNS, rows).save(save)
    return 1 if findings else 0


def _run_worker(
    first: int, mutations: int, folder: Path, fresh: bool
) -> tuple[list[dict[str, object]], str]:
    command = [sys.executable, __file__, "--worker", str(first), "--mutations", str(mutations)]
    command += ["--folder", str(folder)] + (["--fresh"] if fresh else [])
    lines: list[dict[str, object]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        patience = 3 * SECONDS  # to import the libraries and make the samples
        while select.select([worker.stdout], [], [], patience)[0]:
            line = worker.stdout.readline()
            if not line:
                return lines, f"ended with exit code {worker.wait()}"
            lines.append(json.loads(line))
            if (first + len(lines)) % 500 == 0:
                print(f"{first + len(lines)} of {mutations}", file=sys.stderr, flush=True)
            patience = SECONDS
        worker.kill()
        return lines, f"gave no answer within {patience} s"


def _show(
    done: list[dict[str, object]], peak: int, findings: list[str]
) -> list[list[results.Cell]]:
    outcomes = Counter((str(r["sample"]), str(r["outcome"]).partition(":")[0]) for r in done)
    rows: list[list[results.Cell]] = []
    names = sorted({name for name, _ in outcomes})
    print(f"{'sample':<34}{'read':>8}{'refused':>9}{'other':>7}")
    for name in names:
        total = sum(count for (n, _), count in outcomes.items() if n == name)
        taken, refused = outcomes[name, "read"], outcomes[name, "refused"]
        print(f"{name:<34}{taken:>8}{refused:>9}{total - taken - refused:>7}")
        rows.append([name, taken, refused, total - taken - refused])
    slowest = max((float(str(r["seconds"])) for r in done), default=0.0)
    before = max((int(str(r["before"])) for r in done), default=0)
    print(
        f"{len(done)} files; slowest {slowest:.2f} s; most memory {peak} MiB, of which "
        f"{before} MiB before the first file; {len(findings)} findings"
    )
    for finding in findings[:50]:
        print(finding)
    return rows


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--fresh", action="store_true", help="start a new process for each reader")
    parser.add_argument("--save", metavar="NAME", help="write the table to docs/results/data")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker is None:
        return watch(chosen.mutations, chosen.fresh, chosen.save)
    work(chosen.worker, chosen.mutations, chosen.folder, chosen.fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
