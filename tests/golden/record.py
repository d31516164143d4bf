"""Record the golden file: hashes and summaries of what the project computes today.

    python tests/golden/record.py

writes ``golden.json`` beside this file;

    python tests/golden/record.py integer/mixed stream

records these cases alone: it replaces the entries that have changed in them, and lists these.

Everything is computed twice, with the kernels of BLAS and NumPy that every x86-64 processor with
AVX2 has, and once more with the plainest ones; what then differs by more than sums in another order
explain is marked as loose, because another machine may give yet another result.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GOLDEN = HERE / "golden.json"

Recorded = dict[str, Any]

THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
_AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
USUAL = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": _AVX512,
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
}
"""Kernels for processors with AVX2, which give the same on all of them."""
PLAIN = {
    "OPENBLAS_CORETYPE": "Prescott",
    "NPY_DISABLE_CPU_FEATURES": f"AVX F16C FMA3 AVX2 {_AVX512}",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
}
"""Kernels without AVX, which add in another order."""

LIBRARIES = ("torch", "onnxruntime", "brian2", "lava", "numba", "onnx", "sklearn", "lightning")
_PACKAGES = {"lava": "lava-nc", "sklearn": "scikit-learn"}


def compute(
    every: bool = False, kernels: Mapping[str, str] = USUAL, names: Sequence[str] = ()
) -> Recorded:
    """Compute cases in a process of their own, whose threads and kernels are settled.

    Parameters
    ----------
    every : bool
        The slow ones too.
    kernels : mapping of str to str
        Variables that choose kernels; ignored on processors without AVX2.
    names : sequence of str
        Of the cases, slow or not; all of them if there are none.

    Returns
    -------
    dict
        `environment`, `cases` (entries by case and name), `absent` (modules by case),
        `failed` (errors by case), `seconds` of processor time by case.
    """
    chosen = kernels if "avx2" in _cpu()["flags"] else {}
    root = str(HERE.parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        arguments = [str(HERE / "record.py"), "--compute", str(out), *(["--every"] * every), *names]
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            check=False,
            cwd=folder,
            env={**os.environ, **THREADS, **chosen, "PYTHONPATH": os.pathsep.join(paths)},
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


def same_environment(ours: Mapping[str, Any], theirs: Mapping[str, Any], needs: set[str]) -> bool:
    """Say whether sums in floats come out alike in two environments.

    Parameters
    ----------
    ours, theirs : mapping
        As `compute` gives them.
    needs : set of str
        The modules of a case: NumPy and SciPy are pinned to common kernels, but other libraries
        choose by the processor.
    """
    keys = ["numeric", *(["cpu"] if needs & {"torch", "onnxruntime", "brian2"} else [])]
    versions = ({n: e["libraries"].get(n) for n in needs} for e in (ours, theirs))
    return all(ours[key] == theirs[key] for key in keys) and next(versions) == next(versions)


def _cpu() -> dict[str, Any]:
    """Return vendor, family and model of the processor, and its flags."""
    found: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
        found = dict(
            (part.strip() for part in line.split(":", 1))
            for line in text.splitlines()
            if ":" in line
        )
    except OSError:
        pass
    names = [found.get(key, "") for key in ("vendor_id", "cpu family", "model")]
    return {"name": " ".join(filter(None, names)), "flags": found.get("flags", "").split()}


def _environment() -> dict[str, Any]:
    """Say what decides how sums in floats come out."""
    import numpy as np
    import scipy.linalg  # noqa: F401 (so that its BLAS is loaded too)

    blas: Any = []
    if importlib.util.find_spec("threadpoolctl"):
        from threadpoolctl import threadpool_info

        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        blas = sorted(f"{p['internal_api']} {p['version']} {p.get('architecture')}" for p in pools)
    config: Any = np.show_config(mode="dicts")
    baseline, found = (config["SIMD Extensions"].get(key, []) for key in ("baseline", "found"))
    return {
        "numeric": {
            "machine": platform.machine(),
            "system": platform.system(),
            "libc": " ".join(platform.libc_ver()),
            "numpy": np.__version__,
            "scipy": version("scipy"),
            "blas": blas,
            "simd": sorted([*baseline, *found]),
        },
        "cpu": _cpu()["name"],
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _version(module: str) -> str:
    try:
        return version(_PACKAGES.get(module, module))
    except PackageNotFoundError:
        return ""


def _compute_here(out: Path, every: bool, names: Sequence[str]) -> None:
    """Compute the cases in this process and write what was found."""
    environment = _environment()
    import adapter
    from cases import CASES
    from entries import describe

    found: dict[str, Any] = {}
    absent: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name, case in CASES.items():
        if name not in names if names else case.slow and not every:
            continue
        missing = [module for module in case.needs if importlib.util.find_spec(module) is None]
        if "psmnist" in name and name.startswith("task/") and "LMU_DEPLOY_DATA" not in os.environ:
            missing.append("LMU_DEPLOY_DATA")
        if missing:
            absent[name] = missing
            continue
        start = sum(os.times()[:4])
        try:
            with tempfile.TemporaryDirectory() as folder:
                results = case.compute(Path(folder))
                found[name] = {
                    key: describe(value, adapter.arrays_in) for key, value in results.items()
                }
        except Exception as error:  # one that fails must not hide the others
            failed[name] = f"{type(error).__name__}: {error}"
        seconds[name] = round(sum(os.times()[:4]) - start, 2)
    out.write_text(
        json.dumps(
            {
                "environment": environment,
                "cases": found,
                "needs": {name: list(case.needs) for name, case in CASES.items()},
                "slow": [name for name, case in CASES.items() if case.slow],
                "absent": absent,
                "failed": failed,
                "seconds": seconds,
            }
        ),
        encoding="utf-8",
    )


def _mark_loose(usual: Recorded, plain: Recorded) -> int:
    """Mark entries that other kernels change; give how many."""
    from entries import LOOSE, differences

    marked = 0
    for name, entries in usual["cases"].items():
        for key, entry in entries.items():
            other = plain["cases"][name][key]
            if differences({key: other}, {key: entry}, same_environment=False):
                entry[LOOSE] = True
                marked += 1
    return marked


def _record(names: Sequence[str]) -> None:
    runs = [compute(every=True, kernels=kernels, names=names) for kernels in (USUAL, USUAL, PLAIN)]
    for run in runs:
        for kind in ("failed", "absent"):
            if run[kind]:
                raise SystemExit(f"{kind}: {json.dumps(run[kind], indent=1)}")
    usual, again, plain = runs
    if usual["cases"] != again["cases"]:
        odd = [n for n, entries in usual["cases"].items() if entries != again["cases"][n]]
        raise SystemExit(f"not repeatable: {', '.join(odd)}")
    marked = _mark_loose(usual, plain)
    kept = {key: usual[key] for key in ("environment", "needs", "slow", "cases")}
    if names:
        kept["cases"] = _with_changes(usual, names)
    _write(kept)
    entries = sum(len(case) for case in usual["cases"].values())
    print(f"{GOLDEN}: {len(usual['cases'])} cases, {entries} entries, {marked} of them loose")


def _with_changes(found: Recorded, names: Sequence[str]) -> Recorded:
    """Return the recorded cases with the entries that differ in some of them; list these."""
    from entries import differences

    before = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if unknown := [name for name in names if name not in found["cases"]]:
        raise SystemExit(f"there is no case {unknown[0]}")
    if not same_environment(found["environment"], before["environment"], set(LIBRARIES)):
        raise SystemExit("the record was made elsewhere; record all cases")
    cases: Recorded = before["cases"]
    for name in names:
        old, new = cases.get(name, {}), found["cases"][name]
        same = {
            key
            for key in old
            if key in new and not differences({key: new[key]}, {key: old[key]}, True)
        }
        cases[name] = {key: old[key] if key in same else entry for key, entry in new.items()}
        for key in sorted({*old, *new} - same):
            print(f"{name}: {key}")
    return cases


def _write(recorded: Recorded) -> None:
    """Write the golden file with an entry to a line, so that changes of it can be read."""
    lines = ["{"]
    for key in ("environment", "needs", "slow"):
        lines.append(f" {json.dumps(key)}: {json.dumps(recorded[key])},")
    lines.append(' "cases": {')
    for number, (name, entries) in enumerate(recorded["cases"].items()):
        body = ",\n".join(f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items())
        comma = "," if number + 1 < len(recorded["cases"]) else ""
        lines.append(f"  {json.dumps(name)}: {{\n{body}\n  }}{comma}")
    lines += [" }", "}"]
    GOLDEN.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Record, or compute in this process, as `compute` asks."""
    parser = argparse.ArgumentParser(description="Record the golden file.")
    parser.add_argument("names", nargs="*", metavar="CASE", help="cases; all if none is given")
    parser.add_argument("--compute", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--every", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.compute is None:
        _record(given.names)
    else:
        _compute_here(given.compute, given.every, given.names)


if __name__ == "__main__":
    main()
