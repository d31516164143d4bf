"""The site builds without a warning, needs no other host, and can be searched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browsers import OVERFLOW, chromium

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = {1300: 900, 390: 844}
pytestmark = pytest.mark.xdist_group("docs site")
pytest.importorskip("mkdocs", reason="the site needs the extra [docs]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the built site."""
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
    return folder


@pytest.fixture(scope="module")
def site(folder):
    """The pages of the site: path to HTML."""
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


def test_the_notebooks_are_pages(site):
    for notebook in (ROOT / "examples" / "notebooks").glob("*.ipynb"):
        html = site[f"tutorials/{notebook.stem.replace('_', '-')}.html"]
        assert f"examples/notebooks/{notebook.name}" in html


@pytest.fixture(scope="module")
def browser():
    """A Chromium that opens pages as files."""
    with chromium() as one:
        yield one


def test_the_search_finds_pages_without_a_server(browser, folder):
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.goto((folder / "reference" / "glossary.html").as_uri())
    page.wait_for_selector("html.js")
    page.keyboard.press("/")
    page.keyboard.type("mismatch")
    page.wait_for_selector(".md-search-result__item", timeout=60_000)
    assert "Analog chips" in page.locator(".md-search-result__list").inner_text()


@pytest.fixture(scope="module")
def overflows(browser, folder, site):
    """Return a function from a page of the site, and a script to run there, to pixels by width.

    A page is loaded once, in the wide window, and laid out again in the narrow one.
    """
    page = browser.new_page()

    def measure(name: str, script: str = "") -> dict[int, int]:
        found = {}
        for width, height in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": height})
            if not found:
                page.goto((folder / name).as_uri())
                page.evaluate(script)
            found[width] = page.evaluate(OVERFLOW)
        return found

    return measure


def test_no_page_is_wider_than_the_window(overflows, site):
    for name in site:
        if not name.startswith("reports/"):
            assert overflows(name) == dict.fromkeys(WIDTHS, 0), name


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_that_is_wider_than_the_window_is_found(overflows, width):
    box = f"<div style='width: {width + 50}px; height: 1px'></div>"
    script = f"document.querySelector('article').insertAdjacentHTML('afterbegin', `{box}`)"
    found = overflows("index.html", script)
    assert {each for each in WIDTHS if found[each] > 0} == {
        each for each in WIDTHS if each <= width
    }
