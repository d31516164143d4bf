"""Save the memory matrices that keras-lmu holds, where Keras runs: see converters/keras_lmu.

    python save_keras_matrices.py psmnist.keras matrices.npz
    lmu-deploy import psmnist.keras --option matrices=matrices.npz --out psmnist.safetensors

It needs keras and keras-lmu, and nothing of lmu_deploy.
"""

from __future__ import annotations

import sys

import keras
import keras_lmu  # noqa: F401 (makes its layers known to Keras)
import numpy as np


def find_cell(layer):
    """Return the LMUCell inside an LMU, an LMUFeedforward or an RNN; None for other layers."""
    layer = getattr(layer, "layer", layer)
    layer = getattr(layer, "delay_layer", layer)
    cell = getattr(layer, "cell", None)
    return cell if hasattr(cell, "discretizer") else None


def matrices_of(cell):
    """Return A and B as the cell uses them, transposed as it holds them."""
    if not cell.trainable_theta:
        return cell.A, cell.B
    if cell.discretizer == "euler":
        return np.eye(cell.order) + cell.A * cell.theta_inv, cell.B * cell.theta_inv
    rate = cell.theta_inv
    return cell._cont2discrete_zoh(cell._base_A * rate, cell._base_B * rate)


def main(model_path, out):
    """Load a whole model and write the matrices of all its LMU layers."""
    arrays = {}
    for layer in keras.models.load_model(model_path, compile=False).layers:
        if (cell := find_cell(layer)) is not None:
            a, b = matrices_of(cell)
            arrays[f"{layer.name}/A"], arrays[f"{layer.name}/B"] = np.asarray(a), np.asarray(b)
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
