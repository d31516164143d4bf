"""The example reports of the documentation, each made by the commands that it prints.

    python examples/reports/make_reports.py digits too-wide     # some of them
    python examples/reports/make_reports.py --list
    python examples/reports/make_reports.py --again             # redraw from stored figures

Networks and tables go to build/reports/NAME; the report and what it is drawn from go to
docs/reports/NAME. psmnist and the parts of digits with many chips take many minutes of a core.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK, DOCS = Path("build/reports"), Path("docs/reports")
MODELS, HERE = "examples/models", "examples/reports"
KEPT = ("report.html", "fidelity.json", "plots.npz", "robustness.json")

# For each report its commands, without `lmu-deploy`; {out} is the folder of its files. Where the
# work is lent a fixed number of samples or steps, the report says so beside every figure.
REPORTS: dict[str, list[str]] = {
    "psmnist": [
        f"validate {MODELS}/psmnist-lmu.safetensors --targets integer,lava:2 --out {{out}}",
    ],
    "psmnist-narrow": [
        f"quantize {MODELS}/psmnist-lmu.safetensors --slices 1 --message-bits 8 "
        "--out {out}/narrow.safetensors",
        f"validate {MODELS}/psmnist-lmu.safetensors --targets integer "
        "--use {out}/narrow.safetensors --out {out}",
    ],
    "digits": [
        f"spike {MODELS}/digits.safetensors --neurons-per-state 50 --mismatch 0.2 "
        "--weight-bits 6 --out {out}/calibrated.safetensors",
        f"spike {MODELS}/digits.safetensors --neurons-per-state 50 --mismatch 0.2 "
        "--weight-bits 6 --calibration none --out {out}/plain.safetensors",
        f"validate {MODELS}/digits.safetensors --targets brian2,integer "
        "--use {out}/calibrated.safetensors --use {out}/plain.safetensors --out {out}",
    ],
    "mackey-glass": [
        f"spike {MODELS}/mackey-glass-lmu.safetensors --neurons-per-state 50 "
        "--calibration-steps 500 "
        "--out {out}/lif.safetensors",
        f"validate {MODELS}/mackey-glass-lmu.safetensors --targets integer,lava:1,brian2:4 "
        "--use {out}/lif.safetensors --steps 500 --out {out}",
    ],
    "too-wide": [
        f"train digits --config {HERE}/too-wide.toml --out {{out}}/too-wide.safetensors",
        "quantize {out}/too-wide.safetensors --message-bits 8 --out {out}/narrow.safetensors",
        "validate {out}/too-wide.safetensors --targets integer "
        "--use {out}/narrow.safetensors --out {out}",
    ],
    # What the report of digits says of many chips and of other settings.
    "digits-robustness": [
        f"yield {MODELS}/digits.safetensors --neurons-per-state 50 --mismatch 0.2 "
        "--weight-bits 6 --chips 100 --out {out}/yield.json",
        "sweep examples/sweeps/digits-analog.toml --out {out}/analog",
        "sweep examples/sweeps/digits-widths.toml --out {out}/widths",
        f"report {WORK}/digits --yield {{out}}/yield.json --sweep {{out}}/analog "
        "--sweep {out}/widths",
    ],
}
REPORT_OF = {name: name.removesuffix("-robustness") for name in REPORTS}
"""Whose folder each entry ends in."""


def commands(name: str) -> Iterator[list[str]]:
    """Return the words of each command of a report."""
    for text in REPORTS[name]:
        yield ["lmu-deploy", *shlex.split(text.format(out=WORK / name))]


def make(name: str) -> None:
    """Run a report's commands one after the other, and keep what it is drawn from."""
    (ROOT / WORK / name).mkdir(parents=True, exist_ok=True)
    for words in commands(name):
        run(words)
    keep(REPORT_OF[name])


def run(words: Sequence[str]) -> None:
    """Run one command in the root of the repository; end with its exit code if it fails."""
    print(f"$ {shlex.join(words)}", flush=True)
    program = Path(sys.executable).with_name(words[0])
    ended = subprocess.run([str(program), *words[1:]], cwd=ROOT, check=False)
    if ended.returncode:
        raise SystemExit(ended.returncode)


def keep(name: str) -> None:
    """Copy a report, and what it is drawn from, into the documentation."""
    folder = ROOT / DOCS / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        if (found := ROOT / WORK / name / file).is_file():
            shutil.copyfile(found, folder / file)
    size = (folder / "report.html").stat().st_size
    print(f"{DOCS / name / 'report.html'}: {size / 1e6:.2f} MB")


def draw_again() -> None:
    """Redraw every report of the documentation from its stored figures."""
    for folder in sorted((ROOT / DOCS).iterdir()):
        if (folder / "fidelity.json").is_file():
            run(["lmu-deploy", "report", str(folder.relative_to(ROOT))])
            (folder / "report.md").unlink()  # a page of the site otherwise


def main() -> None:
    """Make the reports that were asked for."""
    parser = ArgumentParser(description="The example reports of the documentation.")
    parser.add_argument("reports", nargs="*", metavar="REPORT", help=f"{', '.join(REPORTS)}")
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    parser.add_argument(
        "--again", action="store_true", help="redraw all reports from their stored figures"
    )
    given = parser.parse_args()
    if unknown := sorted(set(given.reports) - set(REPORTS)):
        parser.error(f"there is no report {unknown[0]!r}; choose of {', '.join(REPORTS)}")
    for name in given.reports or (REPORTS if given.list else ()):
        if given.list:
            print(f"# {name}", *map(shlex.join, commands(name)), sep="\n")
        else:
            make(name)
    if given.again:
        draw_again()


if __name__ == "__main__":
    main()
