"""The README's figures stand in results files, and a wrong one is found."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "readme_figures.py"
    spec = importlib.util.spec_from_file_location("readme_figures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_of_the_readme_stands_in_a_results_file(tool):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = tool.figures(readme)
    assert len(found) >= 7
    assert all(tool.stands(number, unit, page) for _, number, unit, page in found)


def test_the_row_of_analog_chips_is_of_all_training_seeds(tool):
    """It is the mean of the row `all`, with its interval and its worst chip beside it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = (line for line in readme.splitlines() if line.startswith("| digits on analog chips"))
    table = tool.results.load("analog/yield-digits-seeds")
    *seeds, whole = table.rows
    assert [one[0] for one in seeds] == list("01234")
    for figure in (whole[1], whole[2], whole[3]):
        assert f"{figure:.2f} %" in row
    assert whole[6] in row
    assert whole[2] == pytest.approx(sum(one[2] for one in seeds) / 5)


@pytest.mark.parametrize(
    ("number", "unit", "page", "there"),
    [
        ("98.65", "%", "paper.md", True),
        ("98.66", "%", "paper.md", False),
        ("97.96", "%", "analog.md", True),
        ("97.77", "%", "analog.md", True),  # 0.9777 in a table
        ("12.34", "%", "analog.md", False),
        ("80", "million", "digital.md", True),
        ("79", "million", "digital.md", False),
    ],
)
def test_a_wrong_figure_is_found(tool, number, unit, page, there):
    assert tool.stands(number, unit, ROOT / "docs" / "results" / page) == there


def test_a_figure_without_a_page_is_refused(tool):
    readme = "## Measurements\n\n| a | b | here | c |\n|---|---|---|---|\n| speed | | 3 | |\n"
    with pytest.raises(SystemExit, match="'speed' links to no page"):
        tool.figures(readme)
