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
LIST = "<!-- notebooks -->"


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


def on_page_markdown(markdown: str, *, config: MkDocsConfig, **_: object) -> str:
    """Insert the list of notebooks; MkDocs calls this with the text of each page."""
    if LIST not in markdown:
        return markdown
    links = [
        f"- [{_title(path)}]({Path(_page(path)).name}): a notebook." for path in _notebooks(config)
    ]
    return markdown.replace(LIST, "\n".join(links))


def markdown(path: Path) -> str:
    """Return a notebook as Markdown.

    Parameters
    ----------
    path : Path
        Of an .ipynb file, format 4.
    """
    source = f"The notebook is `examples/notebooks/{path.name}`."
    title, *rest = [_cell(cell) for cell in _cells(path)]
    return "\n\n".join([title, source, *rest]) + "\n"


def _cell(cell: dict[str, object]) -> str:
    """Return one cell as Markdown."""
    source = cell["source"]
    text = source if isinstance(source, str) else "".join(source)  # type: ignore[arg-type]
    if cell["cell_type"] != "code":
        return text
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    return "\n".join(["```python", *lines, "```"])


def _cells(path: Path) -> list[dict[str, object]]:
    cells: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def _title(path: Path) -> str:
    """Return the heading of a notebook."""
    return _cell(_cells(path)[0]).splitlines()[0].lstrip("# ")


def _notebooks(config: MkDocsConfig) -> list[Path]:
    root = Path(config.docs_dir).parent
    return sorted((root / "examples" / "notebooks").glob("*.ipynb"), reverse=True)


def _page(path: Path) -> str:
    return f"tutorials/{path.stem.replace('_', '-')}.md"
