"""The site builds without a warning, shows what it should, and opens without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("docs site")
pytest.importorskip("mkdocs", reason="the site needs the extra [docs]")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site: path of a page to its HTML."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    pages = folder.rglob("*.html")
    return {str(page.relative_to(folder)): page.read_text(encoding="utf-8") for page in pages}


def test_every_page_is_in_the_site_and_in_its_navigation(site):
    docs = ROOT / "docs"
    for page in docs.rglob("*.md"):
        name = str(page.relative_to(docs).with_suffix(".html"))
        assert name in site
        assert f'href="{name}"' in site["404.html"].replace('href="/', 'href="'), name


def test_nothing_comes_from_another_host(site):
    for name, html in site.items():
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", html)
        fetched = [url for tag in tags for url in re.findall(r"(?:src|href)=\"?([^\s\">]+)", tag)]
        assert fetched, name
        assert [url for url in fetched if "//" in url] == [], name


def test_formulas_are_drawn_by_the_browser(site):
    assert site["reference/targets/brian2.html"].count("<math") >= 10
    for name, html in site.items():
        text = re.sub(r"<(code|pre)\b.*?</\1>", "", html, flags=re.DOTALL)
        assert "arithmatex" not in text, name
        assert "$$" not in text, name
        for formula in re.findall(r"<math.*?</math>", text, re.DOTALL):
            assert "\\" not in formula, f"{name}: a command that the converter does not know"


def test_docstrings_keep_no_words_of_sphinx(site):
    html = site["reference/python.html"]
    assert "lmu_deploy.core.legendre.discretize" in html
    assert not re.findall(r":(?:class|func|math|mod):|\.\. math::", html)


def test_the_commands_are_in_the_page_of_commands(site):
    html = site["reference/command-line.html"]
    assert "<!-- commands -->" not in html
    assert 'id="deploy"' in html
