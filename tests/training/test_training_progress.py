"""Progress messages of training, within and after epochs."""

import logging

import pytest

pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")

from lmu_deploy.training import fit, train


def _lines(caplog, seconds, monkeypatch):
    caplog.set_level(logging.INFO, "lmu_deploy")
    monkeypatch.setattr(fit, "_SECONDS_BETWEEN_LINES_WITHIN", seconds)
    train("digits", epochs=2, progress=True)
    return [record.getMessage() for record in caplog.records]


def test_long_epochs_are_reported_before_they_end(caplog, monkeypatch):
    lines = _lines(caplog, 0.0, monkeypatch)
    # 1,258 digits are 20 batches of 64; the last one is reported with the epoch
    within = [line for line in lines if ", batch " in line]
    assert len(within) == 2 * 19
    assert within[0].startswith("training digits: epoch 1 of 2, batch 1 of 20, loss 2.")
    assert within[-1].startswith("training digits: epoch 2 of 2, batch 19 of 20, loss ")
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in within]
    assert losses[-1] < losses[0]
    assert "validation accuracy" in lines[-1]


def test_short_epochs_are_reported_once(caplog, monkeypatch):
    assert not any(", batch " in line for line in _lines(caplog, 30.0, monkeypatch))
