"""The command line as a fixture."""

import sys

import pytest

from lmu_deploy.cli import main


@pytest.fixture
def lmu(monkeypatch, capsys):
    """Run the command line in this process; return exit code, output and error output."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lmu-deploy", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call
