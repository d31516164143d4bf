"""Faults of analog chips and graphs of neurons, which the benchmark of planted faults shares."""

import importlib.util
import sys
from pathlib import Path

_FILE = Path(__file__).parents[2] / "benchmarks" / "planted_chips.py"
_SPEC = importlib.util.spec_from_file_location("planted_chips", _FILE)
assert _SPEC is not None and _SPEC.loader is not None
planted_chips = importlib.util.module_from_spec(_SPEC)
sys.modules["planted_chips"] = planted_chips  # where its dataclasses look for their types
_SPEC.loader.exec_module(planted_chips)
