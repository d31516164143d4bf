"""Feed an integer network one step at a time, as data come from a sensor.

The answer after each row of a digit is the one that a whole sequence gives. Run:
python examples/stream_integer.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import lmu_deploy
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget, step

NETWORK = Path(__file__).parent / "models" / "digits.safetensors"


def main() -> None:
    """Print the class that is in the lead after each row of one digit."""
    network = lmu_deploy.quantize(NETWORK)
    test = get_task("digits").load().test
    digit = test.inputs[:1]
    stream = None
    for row in range(digit.shape[1]):
        y, stream = step(network, digit[:, row], stream)
        print(f"after row {row + 1}: {int(np.argmax(y))}, by {np.ptp(np.sort(y[0])[-2:])} units")
    whole = IntegerTarget().run(network, digit).outputs
    assert np.array_equal(y * network.y_scale, whole)
    print(f"it is a {test.targets[0]}")


if __name__ == "__main__":
    main()
