"""A browser for tests of pages; tests are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
"""Expression of JavaScript: by how much a page is wider than its window."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Open Chromium, which loads nothing by itself."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium on this machine; apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-background-networking"]
        with playwright.chromium.launch(executable_path=program, args=flags) as browser:
            yield browser
