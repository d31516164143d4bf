"""Pages of the tutorials from the notebooks in examples/notebooks.

Each notebook becomes ``tutorials/NAME.md`` with its Markdown cells unchanged and its code cells as
blocks of Python. The repository stores no outputs, so the pages show none.
"""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SECTION = "Tutorials"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add a page per notebook to the navigation; MkDocs calls this after it has read mkdocs.yml."""
    pages = [_page(path) for path in _notebooks(config)]
    for item in config.nav or []:
        if isinstance(item, dict) and SECTION in item:
            item[SECTION].extend(pages)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages themselves; MkDocs calls this after it has collected all files."""
    for path in _notebooks(config):
        files.append(File.generated(config, _page(path), content=markdown(path)))
    return files


def markdown(path: Path) -> str:
    """Return a notebook as Markdown.

    Parameters
    ----------
    path : Path
        Of an .ipynb file, format 4.
    """
    source = f"The notebook is `examples/notebooks/{path.name}`."
    title, *rest = [_cell(cell) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    return "\n\n".join([title, source, *rest]) + "\n"


def _cell(cell: dict[str, object]) -> str:
    """Return one cell as Markdown."""
    source = cell["source"]
    text = source if isinstance(source, str) else "".join(source)  # type: ignore[arg-type]
    return f"```python\n{text}\n```" if cell["cell_type"] == "code" else text


def _notebooks(config: MkDocsConfig) -> list[Path]:
    root = Path(config.docs_dir).parent
    return sorted((root / "examples" / "notebooks").glob("*.ipynb"), reverse=True)


def _page(path: Path) -> str:
    return f"tutorials/{path.stem.replace('_', '-')}.md"
