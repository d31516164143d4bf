"""Use data of your own: a Dataset made of arrays, wherever the name of a task can stand.

The data here are noisy sines of two frequencies, to be classified from 40 steps. Training takes a
few seconds. Run: python examples/own_data.py
"""

from __future__ import annotations

import numpy as np

import lmu_deploy as ld

SETTINGS = {
    "epochs": 12,
    "batch_size": 20,
    "learning_rate": 0.02,
    "schedule": "one-cycle",
    "layers": [{"kind": "lmu", "units": 16, "order": 8, "theta": 40}],
}


def sines(samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make inputs of shape (samples, 40, 1), and classes 0 (slow) and 1 (fast)."""
    classes = np.arange(samples) % 2
    periods = np.where(classes == 1, 3.0, 1.0)[:, None]
    time = np.linspace(0.0, 1.0, 40)
    waves = np.sin(2 * np.pi * (periods * time + rng.random((samples, 1))))
    noisy = waves + 0.2 * rng.standard_normal(waves.shape)
    return noisy[:, :, None].astype(np.float32), classes


def main() -> None:
    """Train on the data, and run the network as integers."""
    rng = np.random.default_rng(0)
    data = ld.Dataset(*sines(400, rng), *sines(200, rng), name="sines")
    network = ld.train(data, config=SETTINGS).network
    found = ld.run(ld.quantize(network, data), data)
    assert found.metric is not None
    assert found.against_reference is not None
    print(f"float {found.against_reference.value:.4f}, integers {found.metric.value:.4f}")


if __name__ == "__main__":
    main()
