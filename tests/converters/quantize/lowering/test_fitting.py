"""Lines that stand for activations: within a unit of every function, over every drive."""

import numpy as np
import pytest

from converters.quantize.lowering.fitting import MOST_LINES, fit
from lmu_deploy.core.graph.pointwise import NAMES, Activation
from lmu_deploy.core.integer.functions import Segments
from lmu_deploy.core.integer.parts import Format

SINGLE = [name for name in NAMES if name != "softmax"]


def drives(form):
    """Return drives spread over all, and every one around zero."""
    wide = np.linspace(-form.limit, form.limit, 40_001)
    near = np.linspace(-20.0, 20.0, 40_001) / form.scale
    found = np.unique(np.rint(np.concatenate([wide, near])).astype(np.int64))
    return found[np.abs(found) <= form.limit]


@pytest.mark.parametrize("bits", [4, 8, 12])
@pytest.mark.parametrize("name", SINGLE)
def test_every_function_is_within_about_a_unit(name, bits):
    bounded = name in ("tanh", "sigmoid", "softsign", "hard-tanh", "hard-sigmoid", "step")
    message = Format(bits, (1.0 if bounded else 6.0) / (2 ** (bits - 1) - 1))
    drive = Format(24, message.scale / 64)
    activation = Activation(name, 0.3)
    found = fit(activation, drive, message)
    z = drives(drive)
    truth = activation.apply(z * drive.scale) / message.scale
    limit = message.limit
    error = np.abs(np.clip(found(z), -limit, limit) - np.clip(truth, -limit, limit))
    assert error.max() <= 1.2
    assert len(found.slope) <= MOST_LINES + 2


def test_fewer_bits_take_fewer_lines():
    lines = [
        len(fit(Activation("gelu"), Format(24, scale / 64), Format(bits, scale)).slope)
        for bits, scale in ((6, 6 / 31), (8, 6 / 127), (12, 6 / 2047))
    ]
    assert lines == sorted(lines)
    assert lines[0] < lines[-1]


@pytest.mark.parametrize("name", ["relu", "relu6", "hard-tanh", "hard-sigmoid", "leaky-relu"])
def test_functions_of_straight_lines_take_no_more(name):
    found = fit(Activation(name, 0.25), Format(24, 2.0**-16), Format(10, 2.0**-6))
    assert len(found.slope) <= 5


def test_segments_are_evaluated_as_the_specification_says():
    rng = np.random.default_rng(1)
    points = np.sort(rng.choice(np.arange(-500, 500), 6, replace=False))
    segments = Segments(points, rng.integers(-99, 99, 7), rng.integers(-99, 99, 7), 5)
    z = np.arange(-600, 600)
    expected = []
    for value in z.tolist():
        k = sum(point <= value for point in points.tolist())
        product = value * int(segments.slope[k]) + 16
        expected.append(product // 32 + int(segments.intercept[k]))
    assert segments(z).tolist() == expected
