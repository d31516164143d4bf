"""`validate` and the FidelityReport that it returns."""

import subprocess
import sys

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import lmu_deploy as ld
from lmu_deploy.api.validate import parse_targets
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.representation import REPR_LENGTH

DIGITS = "examples/models/digits.safetensors"


# Tests that share an expensive fixture run in one worker.
pytestmark = pytest.mark.xdist_group("fidelity report")


@pytest.fixture(scope="module")
def report():
    network, data = ld.load(DIGITS), ld.load_task("digits")
    targets = ["reference", {"integer": 20}, "spiking"]
    return ld.validate(network, data, targets=targets, limit=24, attribution=2)


def test_a_target_is_found_by_its_name(report):
    assert report["integer"].samples == 20
    assert 0.9 <= report["integer"].metric.value <= 1.0
    assert list(report) == ["reference", "integer", "spiking"]
    assert len(report) == 3
    with pytest.raises(InputError, match="no target 'lava'"):
        report["lava"]


def test_every_target_has_a_verdict(report):
    verdict = report.verdicts["integer"]
    assert verdict.tone == "unknown"  # 20 samples cannot show an accuracy within one point
    assert verdict.words == (
        "equals the specification; undecided within 1 point: needs 268 samples or more; "
        "fits its chip"
    )
    assert str(verdict) == verdict.words
    assert verdict.sentence


def test_the_networks_that_ran_are_there(report):
    assert set(report.networks) == {"float", "integer", "loihi"}
    source = report.networks["integer"].source
    assert source.fingerprint() == report.networks["float"].fingerprint()


def test_nothing_is_written_unless_asked_for(report, tmp_path):
    assert report.folder is None
    assert report.path is None
    page = report.to_html(tmp_path / "page.html")
    assert "<!doctype html>" in page.read_text().lower()
    assert report.to_markdown(tmp_path / "page.md") == (tmp_path / "page.md").read_text()
    assert report.to_json(tmp_path / "f.json") == (tmp_path / "f.json").read_text()


def test_a_saved_report_is_loaded_again(report, tmp_path):
    page = report.save(tmp_path / "folder")
    again = ld.FidelityReport.load(tmp_path / "folder")
    assert again.path == page
    assert again.fidelity == report.fidelity
    assert again.to_markdown() == report.to_markdown()
    assert page.read_text() == again.to_html(tmp_path / "again.html").read_text()


def test_the_plots_are_figures_in_colors_of_a_light_page(report):
    for figure in (
        report.plot_metric(),
        report.plot_memory_error(),
        report.plot_memory_error("layer0"),
        report.plot_events(),
        report.plot_events("spiking"),
        report.plot_error_sources("integer"),
    ):
        assert isinstance(figure, Figure)
        drawn = {
            to_hex(value)
            for artist in figure.findobj()
            for getter in ("get_color", "get_facecolor", "get_edgecolor")
            if isinstance(value := getattr(artist, getter, lambda: None)(), tuple)
        }
        assert not {color for color in drawn if color.startswith(("#0a000", "#01010", "#03030"))}


@pytest.mark.parametrize(
    ("plot", "name"),
    [
        ("plot_memory_error", "layer7"),
        ("plot_events", "reference"),
        ("plot_error_sources", "spiking"),
    ],
)
def test_an_absent_plot_is_refused_with_those_that_exist(report, plot, name):
    with pytest.raises(InputError, match="known: "):
        getattr(report, plot)(name)


def test_a_report_shows_itself(report):
    assert repr(report).startswith("FidelityReport(digits, accuracy: float ")
    assert len(repr(report)) <= REPR_LENGTH
    assert str(report) == report.to_markdown()
    html = report._repr_html_()
    assert html.count("<img") == 2
    assert "integer" in html


def test_a_folder_is_written_when_one_is_given(tmp_path):
    report = ld.validate(DIGITS, "digits", targets="integer", limit=4, attribution=0, out=tmp_path)
    assert report.path == tmp_path / "report.html"
    assert report.path.is_file()
    assert (tmp_path / "integer.safetensors").is_file()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("integer, lava:8", [("integer", None), ("lava", 8)]),
        (["integer", {"lava": 8}], [("integer", None), ("lava", 8)]),
        (["integer", "lava:8"], [("integer", None), ("lava", 8)]),
        ({"integer": None, "lava": 8}, [("integer", None), ("lava", 8)]),
        (("onnxruntime/integer:4",), [("onnxruntime/integer", 4)]),
    ],
)
def test_targets_are_named_in_several_ways(given, found):
    assert parse_targets(given) == found


@pytest.mark.parametrize("given", ["lava:x", ["lava", "lava"], [{"lava": "8"}], "", ["lava/"]])
def test_targets_that_mean_nothing_are_refused(given):
    with pytest.raises(InputError, match="targets"):
        parse_targets(given)


def test_an_absent_library_is_one_sentence_with_the_extra(tmp_path):
    """In a process of its own, because modules that are imported stay; matplotlib comes first."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import lmu_deploy as ld\n"
        f"r = ld.validate({DIGITS!r}, targets='integer', limit=4, attribution=0)\n"
        "for absent in ('matplotlib', 'jinja2'):\n"
        "    sys.modules[absent] = None\n"
        "    for call in (lambda: r.to_html(sys.argv[1]), r.plot_metric, r.to_markdown):\n"
        "        try: call()\n"
        "        except ld.MissingDependencyError as error: print(absent, error)\n"
        "    del sys.modules[absent]\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    # Plots need no jinja2.
    assert [line.split()[0] for line in lines] == ["matplotlib"] * 3 + ["jinja2"]
    assert all(line.endswith("run: pip install 'lmu-deploy[report]'") for line in lines)
