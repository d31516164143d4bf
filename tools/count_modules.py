"""Print and check the size of the three packages: modules, folders, lines, importers.

Run from anywhere: ``python tools/count_modules.py``. The exit code is 1 if a limit is exceeded;
``make lint`` runs it.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("lmu_deploy", "converters", "targets")
MOST_MODULES = 307
MOST_IN_A_FOLDER = 14
MOST_LINES = 500
LONGEST_REPR = 100
NETWORK = "examples/models/digits.safetensors"


def name_of(path: Path) -> str:
    """Return the dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path, modules: set[str]) -> set[str]:
    """Return the modules of the three packages that the module at `path` imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & modules


def main() -> int:
    """Print the counts and return 1 if one exceeds its limit, else 0."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    modules = [path for path in paths if path.name != "__init__.py"]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    folders = Counter(path.parent for path in paths)
    names = {name_of(path) for path in paths}
    importers = Counter(name for path in paths for name in imported_by(path, names))
    once = sum(importers[name_of(path)] == 1 for path in modules)
    longest = max(lines, key=lambda path: lines[path])
    fullest = max(folders, key=lambda folder: folders[folder])
    sizes = sorted(lines[path] for path in modules)
    sys.path.insert(0, str(ROOT))
    from lmu_deploy.core.loading import load

    characters = len(repr(load(ROOT / NETWORK)))
    checks = [
        ("modules in the three packages, without __init__.py", len(modules), MOST_MODULES),
        (f"modules in a folder ({fullest.relative_to(ROOT)})", folders[fullest], MOST_IN_A_FOLDER),
        (f"lines of a module ({longest.relative_to(ROOT)})", lines[longest], MOST_LINES),
        (f"characters of repr of {NETWORK}", characters, LONGEST_REPR),
    ]
    for what, value, limit in checks:
        print(f"{value:6d} {what}; at most {limit}{'' if value <= limit else '  <-- exceeded'}")
    print(f"{sizes[len(sizes) // 2]:6d} lines of the median module")
    print(f"{once:6d} modules imported by one other module only")
    return int(any(value > limit for _, value, limit in checks))


if __name__ == "__main__":
    raise SystemExit(main())
