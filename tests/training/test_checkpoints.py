import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.tasks.base import get_task

pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")

from lmu_deploy.training import fit as fitting
from lmu_deploy.training import train
from lmu_deploy.training.config import preset


class _InterruptedError(Exception):
    pass


def _interrupt_in_epoch(monkeypatch, epoch):
    step = fitting.TrainingModule.training_step

    def failing(self, batch, index):
        if self.current_epoch == epoch and index == 7:
            raise _InterruptedError
        return step(self, batch, index)

    monkeypatch.setattr(fitting.TrainingModule, "training_step", failing)


def _weights(result):
    (layer,) = as_layers(result.network, "test").layers
    hidden = layer.hidden
    arrays = (layer.input_encoders, hidden.memory_kernel, hidden.recurrent_kernel, hidden.bias)
    return np.concatenate([array.ravel() for array in arrays])


def test_resumed_training_equals_uninterrupted(tmp_path, monkeypatch):
    whole = train("digits", epochs=6, progress=False)
    with monkeypatch.context() as patch:
        _interrupt_in_epoch(patch, epoch=3)
        with pytest.raises(_InterruptedError):
            train("digits", epochs=6, progress=False, checkpoint=tmp_path / "state.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["state.ckpt"]
    seen = []
    step = fitting.TrainingModule.training_step

    def noting(self, batch, index):
        seen.append(self.current_epoch)
        return step(self, batch, index)

    monkeypatch.setattr(fitting.TrainingModule, "training_step", noting)
    resumed = train("digits", epochs=6, progress=False, checkpoint=tmp_path / "state.ckpt")
    assert set(seen) == {3, 4, 5}
    assert resumed.history == whole.history
    np.testing.assert_array_equal(_weights(resumed), _weights(whole))
    assert resumed.figures["test_accuracy"] == whole.figures["test_accuracy"]


def test_finished_training_is_not_repeated(tmp_path, monkeypatch):
    state = tmp_path / "state.ckpt"
    first = train("digits", epochs=2, progress=False, checkpoint=state)
    _interrupt_in_epoch(monkeypatch, epoch=2)
    again = train("digits", epochs=2, progress=False, checkpoint=state)
    np.testing.assert_array_equal(_weights(first), _weights(again))
    assert first.history == again.history


def test_early_stopped_training_is_not_resumed(tmp_path):
    settings = {"epochs": 50, "learning_rate": 0.3, "schedule": "constant", "patience": 2}
    config = preset(get_task("digits"), "lmu").changed(settings, "t")
    state = tmp_path / "state.ckpt"
    first = train("digits", config=config, progress=False, checkpoint=state)
    assert len(first.history) < 50
    again = train("digits", config=config, progress=False, checkpoint=state)
    assert first.history == again.history
    np.testing.assert_array_equal(_weights(first), _weights(again))


def test_epochs_can_be_added_at_constant_rate(tmp_path):
    settings = {"schedule": "constant", "learning_rate": 0.003}
    config = preset(get_task("digits"), "lmu").changed(settings, "t")
    state = tmp_path / "state.ckpt"
    train("digits", config=config, epochs=2, progress=False, checkpoint=state)
    longer = train("digits", config=config, epochs=4, progress=False, checkpoint=state)
    whole = train("digits", config=config, epochs=4, progress=False)
    assert longer.history == whole.history
    np.testing.assert_array_equal(_weights(longer), _weights(whole))


@pytest.mark.parametrize("change", [{"seed": 1}, {"model": "parallel"}, {"epochs": 3}])
def test_checkpoint_of_another_training_is_rejected(tmp_path, change):
    state = tmp_path / "state.ckpt"
    train("digits", epochs=1, progress=False, checkpoint=state)
    before = state.read_bytes()
    with pytest.raises(InputError, match="other data, seed or settings"):
        train("digits", **{"epochs": 1, **change}, progress=False, checkpoint=state)
    assert state.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 broken"])
def test_invalid_checkpoint_is_rejected(tmp_path, content):
    state = tmp_path / "state.ckpt"
    state.write_bytes(content)
    with pytest.raises(InputError, match="not a checkpoint"):
        train("digits", epochs=1, progress=False, checkpoint=state)


def test_checkpoint_with_code_is_rejected(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    state = tmp_path / "state.ckpt"
    state.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="not a checkpoint"):
        train("digits", epochs=1, progress=False, checkpoint=state)
    assert not (tmp_path / "harmed").exists()
