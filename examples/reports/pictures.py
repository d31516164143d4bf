"""Pictures of the example reports for the README, taken in headless Chromium.

    python examples/reports/pictures.py

It needs Playwright and a chromium on the path. Each picture has so few colors that it stays small.
"""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
REPORTS, PICTURES = ROOT / "docs" / "reports", ROOT / "docs" / "images"
COLORS = 64


@dataclass(frozen=True)
class Picture:
    """Part of a report in a picture: from a heading on, as wide and high as a screen."""

    name: str
    report: str
    heading: str = ""
    width: int = 1280
    height: int = 900
    scheme: str = "light"


SHOWN = (
    Picture("report-verdict", "digits"),
    Picture("report-losses", "digits", "losses", height=760),
    Picture("report-chips", "digits", "robustness", height=760, scheme="dark"),
    Picture("report-phone", "too-wide", width=390, height=844),
)


def take(browser: Browser, shown: Picture) -> str:
    """Take one picture and say how large it is; a report or section that is not there has none."""
    if not (REPORTS / shown.report / "report.html").is_file():
        return f"{shown.report} is not made"
    context = browser.new_context(
        viewport={"width": shown.width, "height": shown.height},
        color_scheme="dark" if shown.scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto((REPORTS / shown.report / "report.html").as_uri())
    if shown.heading:
        if not page.locator(f"#{shown.heading}").count():
            context.close()
            return f"{shown.report} has no section {shown.heading}"
        page.evaluate(f"document.querySelector('#{shown.heading}').scrollIntoView()")
        page.evaluate("window.scrollBy(0, -32)")
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    path = PICTURES / f"{shown.name}.png"
    image.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    return f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.0f} kB"


def main() -> None:
    """Take all pictures of reports that are there."""
    flags = ["--no-sandbox", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        with playwright.chromium.launch(executable_path=chromium, args=flags) as browser:
            for shown in SHOWN:
                print(take(browser, shown))


if __name__ == "__main__":
    main()
