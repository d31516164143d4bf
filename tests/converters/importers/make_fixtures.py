"""Make the fixtures of the importers' tests with the real keras-lmu, in an environment of its own.

    python3 -m venv peers && peers/bin/pip install -r benchmarks/peers-requirements.txt
    peers/bin/python tests/converters/importers/make_fixtures.py keras3
    python3 -m venv peers-keras2
    peers-keras2/bin/pip install -r benchmarks/peers-keras2-requirements.txt
    peers-keras2/bin/python tests/converters/importers/make_fixtures.py keras2

Every network is drawn at random (seed 0) and small. The inputs and what Keras answers lie in one
.npz for each version of Keras. The tests read these files; they never run this script.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from keras_lmu import LMU, LMUCell, LMUFeedforward

FOLDER = Path(__file__).parent / "fixtures"
STEPS = 12
SAMPLES = 3


def networks() -> dict[str, keras.Model]:
    """One network for each thing that an importer must get right."""
    return {
        "feedback": keras.Sequential(
            [
                keras.Input((STEPS, 2)),
                LMU(
                    2,
                    4,
                    6.5,
                    layers.SimpleRNNCell(5),
                    hidden_to_memory=True,
                    memory_to_memory=True,
                    input_to_hidden=True,
                    use_bias=True,
                    dropout=0.1,
                    recurrent_dropout=0.1,
                ),
                layers.Dropout(0.3),
                layers.Dense(3),
            ]
        ),
        "example": _functional(
            (STEPS, 1),
            LMU(1, 6, STEPS, layers.SimpleRNNCell(4), input_to_hidden=True, dropout=0.2),
            layers.Dense(3, activation="softmax"),
        ),
        "theta-zoh": _functional(
            (None, 1),
            LMU(
                1,
                5,
                9.0,
                layers.Dense(4, activation="relu"),
                trainable_theta=True,
                hidden_to_memory=True,
                return_sequences=True,
            ),
            layers.Dense(2, use_bias=False),
        ),
        "theta-euler": _functional(
            (STEPS, 1),
            LMU(2, 3, 20.0, layers.SimpleRNNCell(3), trainable_theta=True, discretizer="euler"),
            layers.Dense(2),
        ),
        "cell": _functional(
            (STEPS, 2),
            layers.RNN(
                LMUCell(
                    2,
                    3,
                    7,
                    layers.SimpleRNNCell(4, activation="relu", use_bias=False),
                    memory_to_memory=True,
                    kernel_initializer=None,
                ),
                return_sequences=True,
            ),
            layers.TimeDistributed(layers.Dense(2)),
        ),
        "stack": _functional(
            (STEPS, 2),
            LMUFeedforward(
                3, 4, 8, None, input_to_hidden=True, use_bias=True, return_sequences=True
            ),
            layers.LSTM(3, return_sequences=True),
            LMU(1, 3, 16, layers.Dense(4, activation="tanh"), discretizer="euler"),
            layers.Dense(2),
        ),
        "bare": _functional((STEPS, 1), LMU(1, 4, 5, None, return_sequences=True)),
        "conv-and-gru": _functional(
            (STEPS, 2),
            layers.Conv1D(2, 3, padding="same"),
            LMU(1, 3, 6, layers.GRUCell(3), hidden_to_memory=True, return_sequences=True),
            layers.LayerNormalization(),
            LMU(1, 3, 6, layers.Dense(2, activation="swish")),
            layers.Dense(2),
        ),
    }


def _functional(shape: tuple[int | None, ...], *stack: layers.Layer) -> keras.Model:
    inputs = signal = keras.Input(shape)
    for layer in stack:
        signal = layer(signal)
    return keras.Model(inputs, signal)


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Draw weights of a size at which every term of the equations shows in the outputs."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        old = np.asarray(weight)
        if old.dtype.kind != "f":
            continue
        if old.ndim == 0:  # the only scalar is theta_inv: somewhat off its first value
            weight.assign(old * 0.9)
        else:
            weight.assign(rng.normal(0, 0.7 / np.sqrt(old.shape[0]), old.shape).astype("float32"))


def main(version: str) -> None:
    found = f"keras{keras.__version__.split('.')[0]}"
    if version != found:
        sys.exit(f"this environment has Keras {keras.__version__}; it makes {found}.")
    FOLDER.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    arrays = {}
    for name, model in networks().items():
        randomize(model)
        base = f"{version}-{name}"
        model.save(FOLDER / f"{base}.keras")
        if name in ("feedback", "stack"):
            model.save(FOLDER / f"{base}.h5")
            model.save_weights(FOLDER / f"{base}.weights.h5")
            (FOLDER / f"{base}.json").write_text(model.to_json())
            if version == "keras2":
                model.save_weights(FOLDER / f"{base}-weights.h5", save_format="h5")
        if name == "conv-and-gru":
            continue
        inputs = rng.normal(size=(SAMPLES, STEPS, model.input_shape[-1])).astype("float32")
        arrays[f"{name}-inputs"] = inputs
        arrays[f"{name}-outputs"] = np.asarray(model(inputs, training=False))
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    np.savez(FOLDER / f"{version}.npz", **arrays)
    print(versions)


if __name__ == "__main__":
    main(sys.argv[1])
