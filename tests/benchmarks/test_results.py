"""Results files and the tables of the documentation: a figure is never typed by hand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs/results").glob("*.md"))
DATA = ROOT / "docs/results/data"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@pytest.fixture(scope="module")
def results(load_benchmark):
    return load_benchmark("results")


def test_a_saved_table_is_loaded_unchanged(results, tmp_path):
    columns = [("memory", "{}"), ("error", ">{:.2f} %"), ("steps", ">{:,d}")]
    rows = [["order 6", 1.5, 1000], ["order 12", None, "not measured"]]
    table = results.Table.measured(columns, rows, seed=3)
    assert table.versions["python"] and table.machine and re.fullmatch(r"[\d-]{10}", table.date)
    path = table.save("page/name", tmp_path)
    assert path == tmp_path / "page/name.json"
    assert results.load("page/name", tmp_path) == table
    assert table.markdown() == (
        "| memory | error | steps |\n"
        "|---|--:|--:|\n"
        "| order 6 | 1.50 % | 1,000 |\n"
        "| order 12 | | not measured |"
    )


def test_the_line_below_a_table_says_where_its_figures_are_from(results, tmp_path):
    table = results.Table.measured([("n", "{:d}")], [[1]], seed=3, chosen_on="validation data")
    assert re.fullmatch(r"[0-9a-f]{10}\+?", table.commit)
    assert results.load("x", table.save("x", tmp_path).parent) == table
    line = table.origin()
    assert f"on {table.date}, at commit {table.commit}, seed 3" in line
    assert "settings chosen on validation data" in line and "load average" not in line
    old = results.Table([("n", "{:d}")], [[1]], "x", "2026-11-29", "2 cores; idle")
    assert old.origin() == (
        "<small>Measured on 2026-11-29, before commits were recorded; 2 cores.</small>"
    )


def test_a_row_with_a_missing_cell_is_refused(results):
    table = results.Table.measured([("a", "{}"), ("b", "{}")], [["one"]])
    with pytest.raises(ValueError, match="zip"):
        table.markdown()


def test_rows_are_appended_to_a_saved_table(results, tmp_path):
    columns = [("n", "{:d}")]
    results.Table.measured(columns, [[1]]).save("page/name", tmp_path)
    table = results.Table.measured(columns, [[2]]).after(results.load("page/name", tmp_path))
    assert table.rows == [[1], [2]]
    assert table.command.count(" && ") == 1
    with pytest.raises(ValueError, match="columns"):
        results.Table.measured([("m", "{:d}")], [[3]]).after(table)


def test_only_marked_regions_of_a_page_change(results, tmp_path):
    results.Table.measured([("n", "{:d}")], [[1]]).save("page/name", tmp_path)
    page = (
        "before\n\n<!-- results: page/name -->\n\nold\n\n<!-- end of results -->\n\nafter | 2 |\n"
    )
    changed = results.render(page, tmp_path)
    table = results.load("page/name", tmp_path)
    assert changed == page.replace("old", f"| n |\n|---|\n| 1 |\n\n{table.origin()}")
    assert results.render(changed, tmp_path) == changed


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_pages_show_what_is_in_their_files(results, page):
    text = page.read_text(encoding="utf-8")
    assert results.render(text) == text, "run `python benchmarks/results.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_table_of_a_results_page_is_rendered(results, page):
    rest = results.REGION.sub("", page.read_text(encoding="utf-8"))
    tables = [line for line in rest.splitlines() if line.startswith("|")]
    assert tables == [], f"put this table into {DATA.relative_to(ROOT)} (see benchmarks/results.py)"


def test_every_results_file_is_shown_on_one_page(results):
    shown = [match[1] for page in PAGES for match in results.REGION.finditer(page.read_text())]
    stored = [str(path.relative_to(DATA).with_suffix("")) for path in DATA.rglob("*.json")]
    assert sorted(shown) == sorted(stored)


def figures(results, name):
    """Return every number of the tables of a page as it is shown, and percentages of shares."""
    found = set()
    for path in (DATA / name).glob("*.json"):
        table = results.load(f"{name}/{path.stem}")
        found |= set(NUMBER.findall(table.markdown()))
        for row in table.rows:
            found |= {f"{100 * cell:.2f}" for cell in row if isinstance(cell, float) and cell < 1}
        for column, cells in zip(table.columns, zip(*table.rows, strict=True), strict=True):
            if column[0] == "integers compared":
                found.add(str(round(sum(cells) / 1e6)))  # as readme_figures.py rounds it
    return found


def test_every_figure_of_the_readme_is_in_a_results_file(results):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\(docs/results/\S+\).*\|$", readme, re.MULTILINE)
    assert len(rows) >= 5
    for row in rows:
        page = re.search(r"\(docs/results/([\w-]+)\.md[^)]*\)", row)[1]
        known = figures(results, page)
        _, reference, here, *_ = row.strip("| ").split("|")
        for number in NUMBER.findall(reference + re.sub(r"\(\S+\)", "", here)):
            assert number in known | {"0"}, f"{number} is in no file of {page}: {row}"
