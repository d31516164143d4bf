"""A training that takes long tells of itself within an epoch, not only after it."""

import pytest

pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")

from lmu_deploy.training import fit, train


def _lines(capfd, seconds, monkeypatch):
    monkeypatch.setattr(fit, "_SECONDS_BETWEEN_LINES_WITHIN", seconds)
    train("digits", epochs=2, progress=True)
    return capfd.readouterr().err.strip().splitlines()


def test_long_epochs_are_told_of_before_they_end(capfd, monkeypatch):
    lines = _lines(capfd, 0.0, monkeypatch)
    # 1,258 digits are 20 batches of 64; the last one is told by the epoch's own line
    within = [line for line in lines if ", batch " in line]
    assert len(within) == 2 * 19
    assert within[0].startswith("training digits: epoch 1 of 2, batch 1 of 20, loss 2.")
    assert within[-1].startswith("training digits: epoch 2 of 2, batch 19 of 20, loss ")
    told = [float(line.split("loss ")[1].split(",")[0]) for line in within]
    assert told[-1] < told[0]
    assert "validation accuracy" in lines[-1]


def test_short_epochs_are_not(capfd, monkeypatch):
    assert not any(", batch " in line for line in _lines(capfd, 30.0, monkeypatch))
