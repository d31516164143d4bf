"""Measure the size of a report, and the time that a browser takes to open it.

    python benchmarks/report_opening.py docs/reports/psmnist/report.html

Each opening is in a fresh context of headless Chromium; times are from the navigation's start to
its load event, and to the first text on the screen. The sections and drawings found are printed
beside them, so that an empty page cannot win.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

MEASURED = """() => ({
  loaded: performance.getEntriesByType('navigation')[0].loadEventEnd,
  painted: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN,
  sections: [...document.querySelectorAll('section > h2')].map(e => e.textContent.trim()),
  drawings: [...document.querySelectorAll('figure svg')].filter(e => e.checkVisibility()).length,
})"""


def opened(browser: Browser, path: Path) -> dict[str, object]:
    """Open a report once; give milliseconds, sections and drawings."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(path.resolve().as_uri(), wait_until="load")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
    found: dict[str, object] = page.evaluate(MEASURED)
    context.close()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path, help="report.html files")
    parser.add_argument("--times", type=int, default=5, help="openings of each")
    given = parser.parse_args(arguments)
    flags = ["--no-sandbox", "--disable-background-networking"]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=flags) as browser,
    ):
        for path in given.reports:
            found = [opened(browser, path) for _ in range(given.times)]
            loaded, painted = (
                sorted(float(str(one[name])) for one in found) for name in ("loaded", "painted")
            )
            print(
                f"{path}: {path.stat().st_size / 1e6:.2f} MB, loaded in {median(loaded):.0f} ms "
                f"(at most {loaded[-1]:.0f}), first text after {median(painted):.0f} ms, "
                f"{found[0]['drawings']} drawings, sections: {found[0]['sections']}"
            )


if __name__ == "__main__":
    main()
