"""Add every page of docs/results to the navigation."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

SECTION = "Results"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages; MkDocs calls this after it has read mkdocs.yml."""
    pages = sorted((Path(config.docs_dir) / "results").glob("*.md"))
    named = str(config.nav)
    found = [name for page in pages if (name := f"results/{page.name}") not in named]
    config.nav = [_with_pages(item, found) for item in config.nav or []]
    return config


def _with_pages(item: object, pages: list[str]) -> object:
    if isinstance(item, dict) and SECTION in item:
        return {SECTION: [*item[SECTION], *pages]}
    return item
