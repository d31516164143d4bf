import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.metrics import accuracy, nrmse


def test_accuracy_counts_correct_outputs():
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.4], [0.0, 1.0]])
    assert accuracy(outputs, np.array([1, 0, 0, 1])) == 0.75


def test_accuracy_skips_the_washout():
    outputs = np.zeros((2, 3, 2))
    outputs[:, :, 1] = 1.0
    targets = np.array([[0, 1, 1], [0, 1, 0]])
    assert accuracy(outputs, targets, washout=1) == 0.75
    assert accuracy(outputs, targets) == 0.5


def test_nrmse_of_known_errors():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(4, 50, 2))
    assert nrmse(targets, targets) == 0.0
    assert nrmse(np.zeros_like(targets), targets) == pytest.approx(1.0)
    assert nrmse(1.1 * targets, targets) == pytest.approx(0.1)


def test_nrmse_skips_the_washout():
    targets = np.ones((1, 10, 1))
    outputs = targets.copy()
    outputs[:, :5] = 7.0
    assert nrmse(outputs, targets, washout=5) == 0.0
    assert nrmse(outputs, targets) > 1.0


@pytest.mark.parametrize(
    ("judge", "outputs", "targets"),
    [
        (accuracy, np.zeros((3, 2)), np.zeros((4,), int)),
        (accuracy, np.zeros((3, 5, 2)), np.zeros((3,), int)),
        (accuracy, np.zeros((0, 2)), np.zeros((0,), int)),
        (nrmse, np.zeros((3, 5, 1)), np.ones((3, 5, 2))),
        (nrmse, np.zeros((3, 5, 1)), np.zeros((3, 5, 1))),
        (nrmse, np.zeros((3, 0, 1)), np.zeros((3, 0, 1))),
    ],
)
def test_what_cannot_be_judged_is_rejected(judge, outputs, targets):
    with pytest.raises(InputError):
        judge(outputs, targets)
