"""Reports in a browser: drawn, readable, without errors, within the width of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browsers import OVERFLOW, chromium
from validations import CASES

WIDTHS = {1280: 900, 390: 844}
ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = sorted((ROOT / "docs" / "reports").glob("*/report.html"))

# For every drawing that is shown: how much is drawn besides the frame, texts that leave it or meet.
DRAWINGS = """() => [...document.querySelectorAll('figure svg')].filter(s => s.checkVisibility())
.map(svg => {
  const frame = svg.getBoundingClientRect();
  const drawn = [...svg.querySelectorAll('text')];
  const texts = drawn.map(t => [t.textContent, t.getBoundingClientRect()]);
  const apart = 1;
  const clipped = texts.filter(([_, b]) => b.left < frame.left - apart
    || b.right > frame.right + apart || b.top < frame.top - apart
    || b.bottom > frame.bottom + apart).map(([text]) => text);
  const meeting = [];
  texts.forEach(([one, a], i) => texts.slice(i + 1).forEach(([other, b]) => {
    if (a.left + apart < b.right && b.left + apart < a.right
        && a.top + 3 < b.bottom && b.top + 3 < a.bottom) meeting.push(one + ' | ' + other);
  }));
  const marks = [...svg.querySelectorAll('path, use')].filter(mark => {
    const box = mark.getBoundingClientRect(), style = getComputedStyle(mark);
    const grid = /--grid/.test(mark.getAttribute('style'));
    return !mark.closest('defs') && mark.closest('[clip-path]') && !grid
      && box.width + box.height > 1 && (style.stroke !== 'none' || style.fill !== 'none');
  });
  const scale = svg.getScreenCTM().a;
  const size = Math.min(...drawn.map(t => scale * parseFloat(getComputedStyle(t).fontSize)));
  return {title: svg.querySelector('title').textContent, clipped, meeting, marks: marks.length,
          width: frame.width, height: frame.height, letters: size};
})"""

# Texts of the page that are cut off by their own box, tables apart (they scroll in theirs).
CUT = """() => [...document.querySelectorAll('h1, h2, h3, p, dt, dd, li, caption, summary')]
.filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
  && getComputedStyle(e).display !== 'inline').map(e => e.textContent.trim().slice(0, 60))"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture
def shown(browser):
    """Function that opens a file at a width; returns the page, and its messages and requests."""
    contexts = []

    def show(path, width, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme
        )
        contexts.append(context)
        page, messages = context.new_page(), []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: messages.append(request.url))
        page.goto(path.as_uri())
        messages.remove(path.as_uri())
        return page, [h for h in messages if not h.startswith("data:")]

    yield show
    for context in contexts:
        context.close()


@pytest.fixture
def opened(shown, reported):
    """Function that opens the report of a case."""
    return lambda case, *look: shown(reported(case), *look)


def check(page, messages):
    assert messages == []
    assert page.evaluate(OVERFLOW) <= 0
    assert page.evaluate(CUT) == []
    drawings = page.evaluate(DRAWINGS)
    assert drawings
    for drawing in drawings:
        assert drawing["clipped"] == [], drawing["title"]
        assert drawing["meeting"] == [], drawing["title"]
        assert drawing["marks"] >= 1, drawing["title"]
        assert drawing["width"] > 300
        assert drawing["letters"] >= 10.5


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", [case for case in CASES if case != "no targets"])
def test_reports_are_drawn(case, width, opened):
    check(*opened(case, width))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_reports_are_drawn(path, shown):
    """Every figure at both widths with all details open, and the page in both colors."""
    for width, schemes in zip(WIDTHS, (("light", "dark"), ("dark", "light")), strict=True):
        page, messages = shown(path, width, schemes[0])
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        check(page, messages)
        page.emulate_media(color_scheme=schemes[1])
        assert messages == []
        assert page.evaluate(OVERFLOW) <= 0


def test_there_are_published_reports():
    assert len(PUBLISHED) >= 5


def test_dark_pages_are_dark(opened):
    seen = {}
    for scheme in ("light", "dark"):
        page, _ = opened("digits", 1280, scheme)
        seen[scheme] = page.evaluate(
            """() => ['body', 'figure svg.wide text'].map(name => {
              const s = getComputedStyle(document.querySelector(name));
              const c = name === 'body' ? s.backgroundColor : s.fill;
              return c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0);
            })"""
        )
    assert seen["light"][0] > 700 > 350 > seen["light"][1]
    assert seen["dark"][0] < 100 < 400 < seen["dark"][1]


def test_keyboard_reaches_the_verdict_and_the_tables(opened):
    page, _ = opened("digits", 390)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    boxes = page.evaluate("[...document.querySelectorAll('.scroll')].map(e => e.tabIndex)")
    assert boxes
    assert set(boxes) == {0}


def test_it_prints_within_its_pages(opened):
    page, _ = opened("digits", 1280)
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 760, "height": 1000})
    assert page.evaluate(OVERFLOW) <= 0
    cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    assert page.evaluate(f"{cut}.map(e => e.getAttribute('aria-label'))") == []


SORTED = """title => { const table = [...document.querySelectorAll('table')].find(
  t => t.querySelector('.sort') && [...t.tHead.rows[0].cells].some(c => c.textContent == title));
  const column = [...table.tHead.rows[0].cells].findIndex(c => c.textContent == title);
  return [...table.tBodies[0].rows].map(row => row.cells[column].textContent.trim()); }"""


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_sort_by_a_column_and_stay_in_the_page(width, opened):
    page, messages = opened("three layers", width)
    title = page.evaluate(
        """() => [...document.querySelectorAll('.numeric .sort')].map(b => b.textContent)
        .find(text => text != '' && !/target/.test(text))"""
    )
    before = page.evaluate(SORTED, title)
    button = page.locator(".numeric .sort", has_text=title).first
    orders = []
    for direction in ("ascending", "descending"):
        button.focus()
        page.keyboard.press("Enter")
        assert page.locator("th[aria-sort]").first.get_attribute("aria-sort") == direction
        orders.append(page.evaluate(SORTED, title))
        assert sorted(orders[-1]) == sorted(before)
    assert orders[0] != orders[1] or len(set(before)) == 1
    assert messages == [] and page.evaluate(OVERFLOW) <= 0


@pytest.fixture(scope="module")
def number_of(browser, reported):
    """Function of the page that reads the number of a cell."""
    page = browser.new_page()
    page.goto(reported("digits").as_uri())
    return lambda text: page.evaluate("text => numberOf(text)", text)


@pytest.mark.parametrize("width", WIDTHS)
def test_plots_show_values_under_the_pointer(width, opened):
    """The value of a line at a step, and of a cell of an error map, as they are in the figures."""
    page, messages = opened("three layers", width)
    look = ["wide", "narrow"][width < 700]
    tip = page.locator(".tip")
    assert not tip.is_visible()
    for kind in ("[data-line]", "cells"):
        drawing, at = page.evaluate_handle(POINTED, [look, kind]), None
        drawing.as_element().scroll_into_view_if_needed()
        at = page.evaluate(PLACE, drawing)
        page.mouse.move(at["x"], at["y"])
        shown = tip.text_content()
        assert tip.is_visible() and tip.get_attribute("aria-hidden") == "true"
        if kind == "cells":
            assert float(shown.split("\n")[1]) == at["cell"]
        else:
            assert re.search(r"^\S+: \d", shown, re.MULTILINE)
        box = tip.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    page.mouse.move(1, 1)
    assert not tip.is_visible()
    assert messages == [] and page.evaluate(OVERFLOW) <= 0


POINTED = """([look, kind]) => [...document.querySelectorAll(`figure svg.${look}`)].find(svg =>
  svg.checkVisibility() && (kind == 'cells'
    ? JSON.parse(svg.parentElement.querySelector('svg.wide').dataset.axes).some(a => a.cells)
    : svg.querySelector(kind)))"""

# The middle of its first axes with cells or lines; of a map, the center of the cell there.
PLACE = """svg => { const wide = svg.parentElement.querySelector('svg.wide');
  const all = JSON.parse(svg.dataset.axes), cells = JSON.parse(wide.dataset.axes);
  const n = Math.max(0, cells.findIndex(a => a.cells)), [l, t, r, b] = all[n].box;
  let x = (l + r) / 2, y = (t + b) / 2, cell = null;
  if (cells[n].cells) {
    const {x: columns, rows} = cells[n].cells, column = Math.floor(columns.length / 2);
    const row = Math.floor(rows.length / 3), ends = all[n].x;
    x = l + (r - l) * (columns[column] - ends[0]) / (ends[1] - ends[0]);
    y = t + (b - t) * (row + 0.5) / rows.length;
    cell = rows[row][column];
  }
  const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
  return {x: at.x, y: at.y, cell}; }"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234", 1234.0),
        ("98.3\u202f%", 98.3),
        ("\u22120.25 points", -0.25),
        ("1.2\u00b710\u207b\u2076", 1.2e-6),
        ("3.4\u202fnJ", 3.4e-9),
        ("1.5 to 3\u202f\u00b5s", 1.5e-6),
        ("2.0\u202fmin", 120.0),
        ("1.23\u202fM", 1.23e6),
        ("<\u202f0.1\u202f%", 0.1),
        ("\u2013", None),
        ("loihi2", None),
    ],
)
def test_cells_sort_by_their_numbers(text, value, number_of):
    found = number_of(text)
    assert found == (None if value is None else pytest.approx(value))
