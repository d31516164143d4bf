"""Use data of your own: write an .npz file, and give it wherever a task's name can stand.

The data here are noisy sines of two frequencies, to be classified from 40 steps. Training takes a
few seconds. Run: python examples/own_data.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import lmu_deploy

SETTINGS = """
epochs = 12
batch_size = 20
learning_rate = 0.02
schedule = "one-cycle"
layers = [{ kind = "lmu", units = 16, order = 8, theta = 40 }]
"""


def sines(samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make inputs of shape (samples, 40, 1), and classes 0 (slow) and 1 (fast)."""
    classes = np.arange(samples) % 2
    periods = np.where(classes == 1, 3.0, 1.0)[:, None]
    time = np.linspace(0.0, 1.0, 40)
    waves = np.sin(2 * np.pi * (periods * time + rng.random((samples, 1))))
    noisy = waves + 0.2 * rng.standard_normal(waves.shape)
    return noisy[:, :, None].astype(np.float32), classes


def main() -> None:
    """Write the data, train on them, and deploy the network as integers."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x_train, y_train = sines(400, rng)
        x_test, y_test = sines(200, rng)
        data = folder / "sines.npz"
        np.savez(data, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
        settings = folder / "settings.toml"
        settings.write_text(SETTINGS)

        network = lmu_deploy.train(str(data), config=settings).network
        integers = lmu_deploy.quantize(network, data=str(data))
        found = lmu_deploy.run(integers, target="integer", data=str(data)).summary()
    against = found["reference"]
    print(f"float {against['value']:.4f}, integers {found['metric']['value']:.4f}")


if __name__ == "__main__":
    main()
